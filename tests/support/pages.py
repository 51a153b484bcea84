"""A finished HTML page, taken apart."""

import re
from html.parser import HTMLParser

_VOID = ("meta", "link", "br", "img", "input")


class Page(HTMLParser):
    """The elements of a page by name, with their attributes, and its text. Wrong nesting fails."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside: list[str] = []
        self.feed(html)
        assert not self._inside
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element."""
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Leave an element."""
        assert self._inside.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep an element that has no content."""
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        """Keep what a person reads."""
        if self._inside and self._inside[-1] not in ("style", "script"):
            self.text += data

    def of(self, tag: str, **attributes: str) -> list[dict[str, str | None]]:
        """Return the attributes of all elements of a name that have these among them."""
        wanted = {name.replace("_", "-"): value for name, value in attributes.items()}
        return [found for name, found in self.elements if name == tag and wanted.items() <= found.items()]


def assert_self_contained(html: str) -> None:
    """Fail unless a page loads nothing from elsewhere, and its policy forbids that it ever does."""
    page = Page(html)
    (policy,) = page.of("meta", http_equiv="Content-Security-Policy")
    rules = [rule.split() for rule in str(policy["content"]).split(";")]
    assert rules[0] == ["default-src", "'none'"]
    (scripts,) = [rule[1:] for rule in rules if rule[0] == "script-src"] or [[]]
    assert len(scripts) == len(page.of("script")) and all(each.startswith("'sha256-") for each in scripts)
    assert [rule for rule in rules if rule[0] == "base-uri"] == [["base-uri", "'none'"]]
    ids = [found["id"] for _, found in page.elements if "id" in found]
    assert len(ids) == len(set(ids))
    names = ("src", "href", "xlink:href")
    references = [str(found[name]) for _, found in page.elements for name in names if found.get(name)]
    assert references
    for reference in references:
        assert reference.startswith("data:") or (reference.startswith("#") and reference[1:] in ids), reference
    assert "url(http" not in html and "@import" not in html
