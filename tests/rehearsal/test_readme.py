"""What the documents say is true: their commands exist or run, their files are there, their outputs come out."""

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from samcli.cli.main import cli as sam

from tests.support.stack import REPOSITORY

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "training" / "README.md",
]
OUTSIDE = {"aws", "docker", "curl", "export", "eval", "MODEL_DIR"}


def blocks(document: Path) -> list[str]:
    """Return the blocks of commands and output: those that name no language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if not language]


def commands() -> list[str]:
    """Return every command line in the documents, without comments and continuations."""
    found = []
    for document in DOCUMENTS:
        for block in blocks(document):
            joined = block.replace("\\\n", " ")
            for line in joined.splitlines():
                line = re.sub(r"\s#.*", "", line).removeprefix("$ ").strip()
                if re.match(r"(make|sam|python|\.venv\S*|OMP_NUM_THREADS=1)\b", line):
                    found += [part.strip() for part in line.split("&&")]
    return sorted(set(found))


@functools.cache
def help_of_sam(*command: str) -> str:
    done = CliRunner().invoke(sam, [*command, "--help"])
    assert done.exit_code == 0, done.output
    return done.output


@functools.cache
def help_of_module(module: str, *command: str) -> str:
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(said), pytest.raises(SystemExit) as exited:
        patch.setattr(sys, "argv", [module, *command, "--help"])
        importlib.import_module(f"{module}.__main__").main()
    assert exited.value.code == 0
    return said.getvalue()


@pytest.mark.parametrize("command", commands())
def test_every_command_and_every_option_exists(command: str) -> None:
    # Behind a bare "--" stands another program's command.
    own = shlex.split(command.split(" -- ")[0])
    words = [word for word in own if "=" not in word.split("/")[0] or word.startswith("-")]
    program, *rest = words
    options = [word for word in rest if re.match(r"--?[a-z]", word) and word != "-m"]
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    elif program == "sam":
        names = [word for word in rest if re.fullmatch(r"[a-z]+", word)]
        depth = 2 if names[0] in ("local", "remote", "list") else 1
        text = help_of_sam(*names[:depth])
        assert all(re.search(rf"(^|[\s,]){re.escape(option)}\b", text) for option in options), options
    elif rest[0] == "-m":
        known = {
            "training",
            "serving.serve",
            "monitoring",
            "operations",
            "demo",
            "events.prepare",
            "benchmarks.cost",
            "benchmarks.drift",
            "benchmarks.workflow",
            "rehearsal",
            "tests.docker.make_image",
            "venv",
            "pip",
        }
        assert rest[1] in known
        if rest[1] in ("training", "monitoring", "operations", "rehearsal", "demo"):
            depth = 2 if rest[1:3] == ["operations", "batch"] else 1
            text = help_of_module(*rest[1 : 2 if rest[2].startswith("-") else 2 + depth])
            assert all(option in text for option in options), options
    elif rest and rest[0].endswith(".py"):
        assert (REPOSITORY / rest[0]).exists()
    else:
        assert program.endswith(("/pip", "/activate")) or (REPOSITORY / rest[-1]).exists(), command


def test_every_linked_or_named_file_exists() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#]+)\)", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"
        for name in re.findall(r"`((?:src|tests|training|events|docs|statemachine)/[\w./-]+)`", document.read_text()):
            base = document.parent if (document.parent / name).exists() else REPOSITORY
            assert (base / name.rstrip("/")).exists(), f"{document.name}: {name}"


def test_screenshots_are_small() -> None:
    assert all(path.stat().st_size < 150_000 for path in (REPOSITORY / "docs" / "images").iterdir())


def test_the_cost_is_what_its_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/cost.py"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    total, states = re.findall(r"accepted: \$(\d+) per million images: \$(\d+)", done.stdout)[0]
    readme = (REPOSITORY / "README.md").read_text()
    assert f"${total} per million images (of which ${states}" in readme
    assert re.findall(r"endpoint: (\$[\d.]+) an hour", done.stdout)[0] in readme
    watching = re.findall(r"watching: (\$\d+) a month", done.stdout)[0]
    assert f"and {watching} a\nmonth for monitoring" in readme


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository without what was made in it, with this environment as its .venv."""
    folder = tmp_path_factory.mktemp("clone") / "repository"
    ignored = [line.rstrip("/") for line in (REPOSITORY / ".gitignore").read_text().splitlines()]
    shutil.copytree(REPOSITORY, folder, ignore=shutil.ignore_patterns(".git", *ignored))
    (folder / ".venv").symlink_to(Path(sys.prefix))
    return folder


def rows(text: str) -> list[list[str]]:
    """Return image, outcome and label of each row of the demonstration's table."""
    found = []
    for line in text.splitlines():
        row = re.match(r"(\S+\.(?:png|jpg))\s{2,}.*?\s{2,}(\w+)(?:\s{2,}(\w+)\s+[\d.]+)?\s+[\d.]+ s$", line.strip())
        if row:
            found.append([part or "" for part in row.groups()])
    return found


def test_make_demo_prints_the_documented_output(clone: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "IMAGE_DATA_DIR"}
    # The environment is linked in; what make would install is what runs here already.
    done = subprocess.run(
        ["make", "demo", "--assume-old=.venv/.installed", "--assume-old=requirements.txt"],
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (REPOSITORY / "docs" / "demo.md").read_text()
    shown = page.split("<!-- output of: make demo -->")[1].split("<!-- end -->")[0]
    assert rows(done.stdout) == rows(shown) and len(rows(shown)) == 14
    summary = next(line for line in shown.splitlines() if "accepted and published" in line)
    assert summary in done.stdout
    watched = re.findall(r"^(as before|out of focus) +(OK|ALARM) ", done.stdout, re.MULTILINE)
    assert watched == [("as before", "OK"), ("out of focus", "ALARM")]
    for name in ("contact-sheet.png", "drift.html"):
        assert (clone / "build" / "demo" / name).stat().st_size > 10_000
    assert not (clone / ".rehearsal").exists(), "the demonstration takes everything down"


def test_the_rehearsal_page_runs_from_top_to_bottom(clone: Path) -> None:
    script = blocks(clone / "docs" / "rehearsal.md")[0]
    assert script.count("\n") > 10
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f". .venv/bin/activate\n{script}"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run([sys.executable, "-m", "rehearsal", "down"], cwd=clone, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"label":"bicycle"' in done.stdout.replace(" ", "")
    assert "ThresholdNotMet" in done.stdout + done.stderr and "The rehearsal is down." in done.stdout
