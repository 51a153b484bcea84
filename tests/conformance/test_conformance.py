"""The rehearsal answers as AWS did, or differs as its entry says."""

from pathlib import Path

import pytest

from tests.conformance import table
from tests.conformance.behaviours import BEHAVIOURS, Behaviour, World


def _id(entry: Behaviour) -> str:
    return f"{entry.area}: {entry.name}"[:90]


@pytest.mark.parametrize("entry", [pytest.param(entry, id=_id(entry)) for entry in BEHAVIOURS])
def test_behaviour(entry: Behaviour, world: World) -> None:
    observed = entry.observe(world)
    if entry.differs:
        assert observed != entry.expected, f"does as AWS by now: it no longer differs ({entry.differs})"
    else:
        assert observed == entry.expected, f"AWS: {entry.source}"


def test_every_entry_is_the_only_one_of_its_name() -> None:
    names = [(entry.area, entry.name) for entry in BEHAVIOURS]
    assert len(names) == len(set(names))


def test_the_table_is_up_to_date() -> None:
    written = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
    assert written == table.document(), "write it again: python -m tests.conformance.table"
