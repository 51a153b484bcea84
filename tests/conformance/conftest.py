"""The rehearsal in which all behaviours are looked at."""

import pytest

from tests.conformance.behaviours import World
from tests.support.stack import Rehearsal


@pytest.fixture(scope="session")
def world(rehearsal: Rehearsal) -> World:
    """Return the rehearsal, with what the behaviours share."""
    return World(rehearsal)
