"""Pages are built from templates, which escape every value."""

import ast
import re
from pathlib import Path

import pytest
from markupsafe import Markup

from common.page import render_template

REPOSITORY = Path(__file__).parents[2]
ELEMENT = re.compile(r"</?(a|body|code|div|dl|figure|html|img|li|meta|p|script|section|small|span|t[dhr]|table|ul)[ >]")


@pytest.mark.parametrize("package", ["common", "serving", "training", "monitoring", "operations"])
def test_python_holds_no_html(package: str) -> None:
    for path in (REPOSITORY / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not ELEMENT.search(node.value), f"{path.relative_to(REPOSITORY)}:{node.lineno}"


def test_values_are_escaped_unless_they_are_markup() -> None:
    page = render_template("operations/redirect.html", address='"><script>alert(1)</script>')
    assert "<script>" not in page and "&#34;&gt;&lt;script&gt;" in page
    assert 'url=<b>"' in render_template("operations/redirect.html", address=Markup("<b>"))


def test_no_stylesheet_has_a_rule_twice() -> None:
    packages = (REPOSITORY / name for name in ("common", "monitoring", "operations"))
    sheets = [path for package in packages for path in package.glob("*.css")]
    assert len(sheets) == 4
    for sheet in sheets:
        rules = [line for line in sheet.read_text().splitlines() if line.startswith((".", "#")) and "{" in line]
        assert len(rules) == len(set(rules)), sheet
