"""What `sam build` puts into the functions' packages, for both architectures."""

import importlib.util
import os
import re
import struct
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.support.stack import REPOSITORY

#: Largest zip of each function in MB, the SDK included.
LIMITS = {"Serialize": 10, "Classify": 3.5, "Filter": 3}
#: Services whose client a function creates.
CLIENTS = {"Serialize": {"s3"}, "Classify": {"sagemaker-runtime"}, "Filter": set()}
#: Numbers of the processors in ELF headers.
MACHINES = {"x86_64": 62, "arm64": 183}
#: A bundled library, as the files that need it name it.
BUNDLED = re.compile(rb"lib[\w+-]+-[0-9a-f]{8}\.so[.\d]*")


@pytest.fixture(scope="module", params=MACHINES)
def build(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Build the packages for one architecture."""
    folder = tmp_path_factory.mktemp(request.param)
    command = ["sam", "build", "--build-dir", str(folder / "build"), "--cache-dir", str(folder / "cache")]
    command += ["--parameter-overrides", f"Architecture={request.param}"]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return request.param, folder / "build"


def test_packages_are_small_complete_and_compiled(build: tuple[str, Path], tmp_path: Path) -> None:
    architecture, folder = build
    for function, limit in LIMITS.items():
        package = folder / function
        files = [path for path in package.rglob("*") if path.is_file()]
        with zipfile.ZipFile(tmp_path / f"{function}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for path in files:
                archive.write(path, path.relative_to(package))
        size = (tmp_path / f"{function}.zip").stat().st_size
        assert size <= limit * 1e6, f"{function}: {size / 1e6:.1f} MB"

        # What is locked is what ships.
        locked = re.findall(r"^([\w.-]+)==([^\s;]+)", (package / "requirements.txt").read_text(), re.MULTILINE)
        shipped = {path.name.removesuffix(".dist-info") for path in package.glob("*.dist-info")}
        assert shipped == {f"{name.replace('-', '_')}-{version}" for name, version in locked}
        ours = REPOSITORY / "src" / function.lower()
        assert {path.name for path in ours.glob("*.py")} == {path.name for path in package.glob("*.py")} - {
            "six.py",
            "typing_extensions.py",
        }
        models = package / "botocore" / "data"
        assert {path.name for path in models.iterdir() if path.is_dir()} == CLIENTS[function]

        # Python neither compiles a module nor compares it with its source (PEP 552).
        sources = [path for path in files if path.suffix == ".py"]
        assert package / "app.py" in sources and package / "botocore" / "session.py" in sources
        for source in sources:
            header = Path(importlib.util.cache_from_source(str(source))).read_bytes()[:8]
            assert header == importlib.util.MAGIC_NUMBER + struct.pack("<I", 0b01), source

        # Native code is for Lambda's processor, with all libraries that it needs and no others.
        native = [path for path in files if ".so" in path.suffixes]
        named = set()
        for path in native:
            content = path.read_bytes()
            assert content[:4] == b"\x7fELF" and struct.unpack_from("<H", content, 18)[0] == MACHINES[architecture], (
                path
            )
            named |= {name.decode() for name in BUNDLED.findall(content)} - {path.name}
        assert named == {path.name for path in native if path.parent.suffix == ".libs"}
        assert bool(named) == (function == "Serialize")
