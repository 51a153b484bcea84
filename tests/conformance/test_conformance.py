"""The rehearsal answers as AWS did, or differs as its entry says."""

from pathlib import Path

import pytest

from tests.conformance import table
from tests.conformance.behaviours import BEHAVIOURS, Behaviour, World

#: Entries that say what AWS does, and that the rehearsal is being taught: remove each with the change that mends it.
PENDING = {
    "a multipart upload is one event": "moto sends one when it begins, and one when it is complete",
    "a parameter's constraints are enforced": "moto ignores them",
    "a stopped execution keeps the error and the cause that it was stopped with": "StopExecution drops both",
    "a stopped execution's history": "StopExecution makes empty texts of both",
}


def _id(entry: Behaviour) -> str:
    return f"{entry.area}: {entry.name}"[:90]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(entry, id=_id(entry), marks=pytest.mark.xfail(strict=True, reason=PENDING[entry.name]))
        if entry.name in PENDING
        else pytest.param(entry, id=_id(entry))
        for entry in BEHAVIOURS
    ],
)
def test_behaviour(entry: Behaviour, world: World) -> None:
    observed = entry.observe(world)
    if entry.differs:
        assert observed != entry.expected, f"does as AWS by now: it no longer differs ({entry.differs})"
    else:
        assert observed == entry.expected, f"AWS: {entry.source}"


def test_every_entry_is_the_only_one_of_its_name() -> None:
    names = [(entry.area, entry.name) for entry in BEHAVIOURS]
    assert len(names) == len(set(names)) and PENDING.keys() <= {name for _, name in names}


def test_the_table_is_up_to_date() -> None:
    written = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
    assert written == table.document(), "write it again: python -m tests.conformance.table"
