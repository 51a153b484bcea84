"""Settings of a project: the table ``[tool.rehearsal]`` of its ``pyproject.toml``."""

import functools
import os
import re
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rehearsal.patches import RehearsalError

KEYS = {"region", "account", "code", "images", "training"}
#: The environment variable that holds the project's folder in the server's process.
PROJECT = "REHEARSAL_PROJECT"


@dataclass(frozen=True)
class Image:
    """The command that serves a container image's model, and its environment.

    ``{port}`` and ``{model}`` in either stand for the port to listen on and the folder of the unpacked model.
    """

    command: tuple[str, ...]
    environment: dict[str, str]

    def filled(self, port: int, model: Path) -> tuple[list[str], dict[str, str]]:
        """Return the command and the environment for a port and a model folder."""

        def fill(text: str) -> str:
            return text.replace("{port}", str(port)).replace("{model}", str(model))

        return [fill(part) for part in self.command], {name: fill(value) for name, value in self.environment.items()}


#: The stand-in for SageMaker's built-in image classification. By its path: a project may have no such package.
ALGORITHM_PROGRAM = (sys.executable, "-P", str(Path(__file__).with_name("image_classification.py")))
ALGORITHM = Image((*ALGORITHM_PROGRAM, "serve", "{model}", "{port}"), {})


def is_algorithm(image: str) -> bool:
    """Return whether an image is that of the algorithm, which is in an account of AWS: never in the project's own."""
    found = re.fullmatch(r"(\d{12})\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com/image-classification(:1)?", image)
    return found is not None and found[1] != of_this_process().account


@dataclass(frozen=True)
class Settings:
    """A project's Region, account, folder of code (on ``PYTHONPATH``) and images, by their repository in ECR.

    ``training`` has the folder of programs that stands for each image of training jobs, such as ``.venv/bin``.
    """

    region: str
    account: str
    code: Path
    images: dict[str, Image]
    training: dict[str, Path]


def read_settings(project: Path) -> Settings:
    """Read the settings of the project in a folder.

    Raises
    ------
    RehearsalError
        If there is no such table, or something in it is missing, unknown or malformed.
    """
    path = project.resolve() / "pyproject.toml"
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8")).get("tool", {}).get("rehearsal")
    except FileNotFoundError:
        table = None
    except tomllib.TOMLDecodeError as error:
        raise RehearsalError(f"{path}: {error}") from error
    if table is None:
        raise RehearsalError(f"{path} has no [tool.rehearsal] table; run this in the project's folder")

    def check(valid: bool, what: str) -> None:
        if not valid:
            raise RehearsalError(f"{path}: [tool.rehearsal] {what}")

    check(isinstance(table, dict), "must be a table")
    check(not (unknown := sorted(set(table) - KEYS)), f"has unknown keys: {', '.join(unknown)}")
    region, account = table.get("region"), table.get("account")
    check(isinstance(region, str) and bool(re.fullmatch(r"[a-z]+(-[a-z]+)+-\d", region)), "needs a region")
    check(isinstance(account, str) and bool(re.fullmatch(r"\d{12}", account)), "needs an account of 12 digits")
    code = path.parent / str(table.get("code", "."))
    check(code.is_dir(), f"code: folder not found: {code}")
    images = table.get("images", {})
    check(isinstance(images, dict), "images must be a table")
    folders = table.get("training", {})
    check(
        isinstance(folders, dict) and all(isinstance(folder, str) for folder in folders.values()),
        "training must be a table of folders",
    )
    return Settings(
        region,
        account,
        code,
        {name: _image(item, f"images.{name}", check) for name, item in images.items()},
        {name: path.parent / folder for name, folder in folders.items()},
    )


@functools.cache
def of_this_process() -> Settings:
    """Return the settings of the project for which this process is the server."""
    return read_settings(Path(os.environ[PROJECT]))


def _image(item: Any, name: str, check: Any) -> Image:
    check(isinstance(item, dict) and set(item) <= {"command", "environment"}, f"{name} takes command and environment")
    command, environment = item.get("command"), item.get("environment", {})
    check(
        isinstance(command, list) and bool(command) and all(isinstance(part, str) for part in command),
        f"{name}.command must be a list of texts",
    )
    check(
        isinstance(environment, dict) and all(isinstance(value, str) for value in environment.values()),
        f"{name}.environment must be a table of texts",
    )
    return Image(tuple(command), environment)
