"""What the documents say is true: their commands exist or run, their files are there, their outputs come out."""

import contextlib
import functools
import importlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from samcli.cli.main import cli as sam

from rehearsal.lifecycle import down, find, processes
from tests.support.stack import REPOSITORY

DOCUMENTS = [
    REPOSITORY / "README.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
    REPOSITORY / "training" / "README.md",
]
#: How a line of a block begins, or a cell of a table, if it is a command of the project's.
OWN = r"(make|sam|python|\.venv\S*|OMP_NUM_THREADS=1)\b"
#: How other lines begin that people copy into their shell.
OTHERS = r"(aws|cd|curl|docker|eval|export|git|pip|\w+=|\. )"


def blocks(document: Path) -> list[str]:
    """Return the blocks of commands and output: those that name no language."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)
    return [text for language, text in found if not language]


def lines(document: Path) -> list[str]:
    """Return the lines of the blocks, those that are continued as one, and the commands that begin a table's row."""
    found = re.findall(rf"^\| `({OWN}[^`]*)` \|", document.read_text(), re.MULTILINE)
    rows = [command for command, *_ in found]
    return rows + [
        line.removeprefix("$ ").strip()
        for block in blocks(document)
        for line in block.replace("\\\n", " ").splitlines()
    ]


def commands() -> list[str]:
    """Return every command of the project's in the documents."""
    found = {line for document in DOCUMENTS for line in lines(document) if re.match(OWN, line)}
    return sorted({part.strip() for line in found for part in line.split("&&")})


def assert_zsh_runs_it_too(line: str) -> None:
    """Fail if an interactive zsh would not do with a line what bash does, or would refuse it."""
    bare = re.sub(r"'[^']*'", "''", line)
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', bare)
    assert not re.search(r"(^|\s)#", bare), f"zsh takes a comment as arguments: {line}"
    bare = re.sub(r"\$\{[^}]*\}", "", bare)
    assert not re.search(r"[?*\[\]^~!]|(^|\s)=", bare), f"zsh expands what is not quoted, or fails: {line}"


def test_every_command_works_in_zsh() -> None:
    for document in DOCUMENTS:
        for line in lines(document):
            if re.match(OWN, line) or re.match(OTHERS, line):
                assert_zsh_runs_it_too(line)
        assert not re.findall(r"^(?:\S.*)?\s#\s.*$", "".join(f"{each}\n" for each in blocks(document)), re.MULTILINE)


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
    elif rest and rest[0] == "-c":
        compile(rest[1], command, "exec")
    elif rest and rest[0].endswith(".py"):
        assert (REPOSITORY / rest[0]).exists()
    else:
        assert program.endswith(("/pip", "/activate")) or (REPOSITORY / rest[-1]).exists(), command


def test_every_linked_or_named_file_exists() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"(?:\]\(|(?:src|srcset|href)=\")([^)#\"]+)[)\"]", document.read_text()):
            assert target.startswith("http") or (document.parent / target).exists(), f"{document.name}: {target}"
        for name in re.findall(r"`((?:src|tests|training|events|docs|statemachine)/[\w./-]+)`", document.read_text()):
            base = document.parent if (document.parent / name).exists() else REPOSITORY
            assert (base / name.rstrip("/")).exists(), f"{document.name}: {name}"


def test_screenshots_are_small() -> None:
    assert all(path.stat().st_size < 150_000 for path in (REPOSITORY / "docs" / "images").iterdir())


def test_the_cost_is_what_its_command_prints() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cost"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert (REPOSITORY / "docs" / "cost.md").read_text() == done.stdout, "python -m benchmarks.cost > docs/cost.md"
    readme = " ".join((REPOSITORY / "README.md").read_text().split())
    single, states = re.findall(r"^\| Standard \| ([\d.]+) \| ([\d.]+) ", done.stdout, re.MULTILINE)[0]
    (batch,) = re.findall(r"^\| batch \| ([\d.]+) .* \| 1/[\d.]+ \|$", done.stdout, re.MULTILINE)
    assert f"${float(single):.0f} per million images (of which ${float(states):.0f}" in readme
    assert f"${float(batch):.0f} in batches" in readme
    assert re.findall(r"costs (\$[\d.]+) an hour", done.stdout)[0] in readme
    watching = re.findall(r"^\| (?:monitoring|hourly).* \| (\d+) \|$", done.stdout, re.MULTILINE)
    assert f"and ${sum(map(int, watching))} a month for monitoring" in readme


def test_a_batch_costs_a_twentieth_of_single_executions() -> None:
    for review in ("0", "0.5", "1"):
        for architecture in ("x86_64", "arm64"):
            command = [sys.executable, "-m", "benchmarks.cost", "--unsure", review, "--architecture", architecture]
            printed = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
            ratios = re.findall(r"^\| batch.* \| 1/([\d.]+) \|$", printed, re.MULTILINE)
            assert len(ratios) == 2 and all(float(ratio) >= 20 for ratio in ratios), printed


#: Labels the first image that waits, as the review page does.
REVIEWER = """
import json, re, subprocess, sys, time, urllib.request
command = [sys.executable, "-m", "operations", "review", "--stack-name", "image-classifier-rehearsal", "--no-browser"]
with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
    address = re.search(r"http://\\S+", server.stdout.readline())[0]
    while not (state := json.load(urllib.request.urlopen(address + "state")))["item"]:
        time.sleep(0.1)
    for path, body in (("save", {"id": state["item"]["id"], "label": "cat"}), ("end", {})):
        headers = {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(address + path, json.dumps(body).encode(), headers)).read()
    said = server.stdout.read()
print("labels:", *state["labels"], end=", ")
print(re.search("saved .*?[)]", said)[0])
"""


def rows(text: str) -> list[list[str]]:
    """Return image, outcome, and label or error of each row of the demonstration's table."""
    found = []
    for line in text.splitlines():
        row = re.match(
            r"(\S+\.(?:png|jpg))\s{2,}\S.*?\s{2,}(accepted|unsure|neither|failed)"
            r"(?:\s{2,}([A-Za-z]\w+))?(?:\s+[\d.]+)+ s$",
            line.strip(),
        )
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


def test_the_page_of_new_labels_runs_from_top_to_bottom(clone: Path) -> None:
    script = blocks(clone / "docs" / "new-labels.md")[0]
    random = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog", "other"):
            (clone / "pets" / split / name).mkdir(parents=True)
            for number in range(1, count + 1):
                pixels = random.integers(0, 256, (40, 40, 3), np.uint8)
                Image.fromarray(pixels).save(clone / "pets" / split / name / f"{number}.png")
    # Training takes minutes, and torch, which is not installed here: a file that knows nothing stands for its result.
    training = clone / ".venv-training" / "bin" / "python"
    training.parent.mkdir(parents=True)
    written = "import sys; from pathlib import Path; from tests.support.onnx_model import write_model; "
    written += "out = Path(sys.argv[-1]); out.parent.mkdir(parents=True); write_model(out, labels=('cat', 'dog'))"
    training.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{written}" "$@"\n')
    training.chmod(0o755)
    # A person labels the image: here it is done through the page's own requests.
    (clone / "label.py").write_text(REVIEWER)
    review = "python -m operations review --stack-name image-classifier-rehearsal"
    assert script.count(review) == 1
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f". .venv/bin/activate\n{script.replace(review, 'python label.py')}"],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    subprocess.run([sys.executable, "-m", "rehearsal", "down"], cwd=clone, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning: few train images: 3 cat, 3 dog" in done.stderr
    assert "labels: cat dog, saved 1 label (1 cat)" in done.stdout
    assert "0 of 1 reviewed images joined; 1 are test images" in done.stdout


def test_a_photo_is_tried_in_a_demo_that_stays_until_make_clean(clone: Path) -> None:
    python, folder = ".venv/bin/python", clone / "build" / "demo" / "rehearsal"
    # Five commands from nothing to a photo's timeline. The first two give what the fixture is.
    _, enter, setup, attempt, story = blocks(REPOSITORY / "README.md")[0].splitlines()
    assert enter == "cd image-classifier" and setup == "make setup"
    own = str(Path(sys.executable).parent)
    # A shell in which the virtual environment is not activated.
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != own)

    def shell(script: str, check: bool = True) -> str:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=clone,
            env=os.environ | {"PATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{script}\n{done.stdout}"
        return done.stdout

    try:
        assert "file not found: bike.jpg" in shell(f"{python} -m demo try bike.jpg", check=False)
        assert not folder.exists(), "nothing was deployed for a photo that does not exist"
        said = shell(f"{setup} --assume-old=.venv/.installed --assume-old=requirements.txt")
        said = shell(attempt.replace("PHOTO", "events/images/bicycle.png"))
        assert re.search(r"^bicycle.png: accepted: bicycle, confidence 0\.\d{3}$", said, re.MULTILINE), said
        assert "It is still running." in said
        picture = re.search(r"^    heat map of bicycle: (\S+\.png) \(model ", said, re.MULTILINE)
        assert picture
        with Image.open(clone / picture[1]) as shown:
            assert shown.width > 0
        printed = [line.strip() for line in said.splitlines() if line.startswith("    ") and "heat map" not in line]
        for command in printed:
            assert_zsh_runs_it_too(command)
        timeline, *kept, stop = [command for command in printed if "review" not in command and "PHOTO" not in command]
        assert all("accepted: bicycle" in shell(command) for command in (timeline, story))
        environment = next(command for command in kept if command.startswith("eval "))
        rest = [command for command in kept if command != environment]
        assert len(rest) == 3
        for command in rest:
            assert "bicycle" in shell(f"{environment}\n{command}"), command
        # The second time nothing is deployed.
        again = shell(f"{python} -m demo try events/images/blurred.png events/images/not-an-image.png", check=False)
        assert "ThresholdNotMet" in again and "UnsupportedImage" in again and "sam build" not in again
        refused = shell(f"{python} -m demo", check=False)
        assert "the demo that was kept is still running" in refused and stop in refused and find(folder) is not None
        stack = "--stack-name image-classifier-rehearsal"
        shell(f"{environment}\n{python} -m training remove --endpoint-name image-classifier")
        full = shell(f"{environment}\n.venv/bin/sam delete --no-prompts --config-env rehearsal {stack}", check=False)
        assert "DELETE_FAILED" in full, full
        shell(f"{environment}\n{python} -m operations empty --yes {stack}")
        shell(f"{environment}\n.venv/bin/sam delete --no-prompts --config-env rehearsal {stack}")
        shell("make clean PYTHON=.venv/bin/python")
        assert not (clone / "build").exists() and not processes(folder)
    finally:
        down(folder)


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
