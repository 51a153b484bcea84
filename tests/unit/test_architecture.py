"""Packages import only what docs/architecture.md lets them import."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FUNCTIONS = {"src.serialize", "src.classify", "src.filter"}
#: What each package may import of this repository, beside itself.
ALLOWED: dict[str, set[str]] = {
    "src.serialize": set(),
    "src.classify": set(),
    "src.filter": set(),
    "common": {"src.serialize.decoder", "src.serialize.encoder"},
    "serving": {"common", "src.serialize.decoder"},
    "training": {"common", "serving", "src.serialize.decoder"},
    "monitoring": {"common", "serving", "src.serialize.decoder"},
    "operations": {"common", "serving", "src.serialize.decoder"},
    "rehearsal": set(),
}
OURS = {"src", "common", "serving", "training", "monitoring", "operations", "rehearsal", "demo", "benchmarks", "tests"}


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted names of what a file imports of this repository."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = [*package[: len(package) - node.level + 1]] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            names = [f"{module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in OURS)


@pytest.mark.parametrize("package", ALLOWED)
def test_imports_go_one_way(package: str) -> None:
    files = sorted((ROOT / package.replace(".", "/")).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            allowed = [package, *ALLOWED[package]]
            assert any(f"{name}.".startswith(f"{each}.") for each in allowed), f"{path.relative_to(ROOT)}: {name}"


def test_the_documented_rules_are_these() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| (`.*`) \| .* \| (.*) \|$", page.split("## Packages")[1].split("##")[0], re.MULTILINE)
    documented = {
        name.rstrip("/").replace("/", "."): set(re.findall("`(.+?)`", rule))
        for names, rule in rows
        for name in re.findall("`(.+?)`", names)
        if rule != "anything"
    }
    assert documented == ALLOWED


def test_no_modules_import_each_other_in_a_circle() -> None:
    files = [path for name in OURS for path in (ROOT / name).rglob("*.py")]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in files}
    reaches = {}
    for module, path in modules.items():
        # A name is a module, or something in one.
        names = {name for each in imported(path) for name in (each, each.rpartition(".")[0])}
        reaches[module] = names & modules.keys()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail, module])
        for other in reaches.pop(module, set()):
            visit(other, (*trail, module))

    for module in list(reaches):
        visit(module, ())


def test_nothing_changes_the_search_path_of_modules() -> None:
    searched = [path for name in OURS for path in (ROOT / name).rglob("*.py") if path != Path(__file__)]
    assert not [str(path) for path in searched if "sys.path" in path.read_text()]
