"""Every list of requirements has the same versions, and the tests run on those that the functions ship."""

import re
import tomllib
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
#: What the functions and the endpoint are built from.
SHIPPED = [*sorted(REPOSITORY.glob("src/*/requirements.txt")), REPOSITORY / "serving" / "requirements.txt"]
LISTS = {
    REPOSITORY / "requirements.txt": ["dev", "mutation"],
    REPOSITORY / "benchmarks" / "requirements.txt": ["bench"],
    REPOSITORY / "training" / "requirements.txt": ["training"],
    **{file: [file.parent.name] for file in SHIPPED},
}


def pins(file: Path) -> dict[str, str]:
    """Return the version of each package in a list."""
    found = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", file.read_text(), re.MULTILINE)
    assert found, file
    return {canonicalize_name(name): number for name, number in found}


def test_a_package_has_one_version_in_all_lists() -> None:
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in LISTS:
        for name, number in pins(file).items():
            versions[name][number].append(str(file.relative_to(REPOSITORY)))
    assert {"boto3", "botocore", "numpy", "pillow"} <= versions.keys()
    assert {name: dict(found) for name, found in versions.items() if len(found) > 1} == {}


def direct(group: str) -> set[Requirement]:
    """Return the direct dependencies in a group of pyproject.toml."""
    groups = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["dependency-groups"]
    found: set[Requirement] = set()
    for entry in groups[group]:
        found |= direct(entry["include-group"]) if isinstance(entry, dict) else {Requirement(entry)}
    return found


@pytest.mark.parametrize("file", LISTS, ids=lambda file: str(file.parent.relative_to(REPOSITORY)))
def test_a_list_is_up_to_date(file: Path) -> None:
    pinned = pins(file)
    for requirement in [found for group in LISTS[file] for found in direct(group)]:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), f"{requirement}: make lock"
    assert "://" not in file.read_text(), "a list works with any package index"


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.parent.name)
def test_what_ships_has_hashes(file: Path) -> None:
    entries = re.split(r"^(?=\w)", re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE), flags=re.MULTILINE)[1:]
    assert len(entries) == len(pins(file))
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []


def test_these_tests_run_on_what_the_functions_ship() -> None:
    shipped = {
        name: number
        for file in SHIPPED
        for name, number in pins(file).items()
        if name != "colorama"  # for Windows
    }
    assert {"boto3", "botocore", "onnxruntime"} <= shipped.keys()
    assert {name: version(name) for name in shipped} == shipped
