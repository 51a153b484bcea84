"""Every list of requirements has the same versions, and the tests run on those that the functions ship."""

import re
from collections import defaultdict
from importlib.metadata import version
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
LISTS = [
    *sorted(REPOSITORY.glob("requirements/*.txt")),
    *sorted(REPOSITORY.glob("src/*/requirements.txt")),
    REPOSITORY / "training" / "requirements.txt",
    REPOSITORY / "serving" / "requirements.txt",
]


def pins(file: Path) -> dict[str, str]:
    """Return the version of each package in a list."""
    found = re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;]+)", file.read_text(), re.MULTILINE)
    assert found, file
    return {re.sub(r"[-_.]+", "-", name).lower(): number for name, number in found}


def test_a_package_has_one_version_in_all_lists() -> None:
    versions: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in LISTS:
        for name, number in pins(file).items():
            versions[name][number].append(str(file.relative_to(REPOSITORY)))
    assert {"boto3", "botocore", "numpy", "pillow"} <= versions.keys()
    assert {name: dict(found) for name, found in versions.items() if len(found) > 1} == {}


def test_these_tests_run_on_what_the_functions_ship() -> None:
    shipped = {
        name: number for file in REPOSITORY.glob("src/*/requirements.txt") for name, number in pins(file).items()
    }
    assert {"boto3", "botocore"} <= shipped.keys()
    assert {name: version(name) for name in shipped} == shipped
