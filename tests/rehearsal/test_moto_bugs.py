"""Each bug of moto that the rehearsal patches has a script that shows it, as long as the pinned moto has it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rehearsal.environment import undisturbed
from rehearsal.patches import MODULES, PATCHES, load
from tests.support.stack import HANG_SECONDS, REPOSITORY

SCRIPTS = sorted((REPOSITORY / "tests/rehearsal/moto_bugs").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_moto_still_has_the_bug(script: Path, tmp_path: Path) -> None:
    environment = undisturbed(os.environ)
    command = [sys.executable, str(script)]
    ended = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=HANG_SECONDS
    )
    # A script that crashes exits with 1 as well, but has not printed both answers.
    assert [line[:6] for line in ended.stdout.splitlines()] == ["moto: ", "AWS:  "], ended.stderr
    assert ended.returncode == 1, f"moto has closed it: delete the patch {script.stem} and its script"


def test_each_bug_has_one_script() -> None:
    load()
    assert {difference.name for difference, _ in PATCHES if difference.bug} == {script.stem for script in SCRIPTS}


def test_every_module_with_patches_is_loaded() -> None:
    sources = {path.stem: path.read_text() for path in (REPOSITORY / "rehearsal").glob("*.py")}
    patching = {
        name for name, text in sources.items() if "\n@patch(" in text or "\n@add(" in text or "\n@configure(" in text
    }
    assert patching == set(MODULES)
