"""Build the package of one function: ``package.py ARCHITECTURE ARTIFACTS_DIR``, in a copy of its folder.

`sam build` runs it through the Makefiles beside it. It installs the locked dependencies, removes what the function
cannot use, and compiles the rest: Lambda's disk is read-only, so that Python would compile every module again at each
cold start.
"""

import compileall
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from py_compile import PycInvalidationMode

#: Python and glibc (Amazon Linux 2023) of Lambda's runtime.
PYTHON = (3, 13)
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_17", "manylinux2014")
MACHINES = {"x86_64": "x86_64", "arm64": "aarch64"}
#: Parts of the dependencies that no function imports.
UNUSED = (
    "bin",
    "*-stubs",
    "*.dist-info/sboms",
    "*.dist-info/RECORD",  # it lists the removed files
    "aws_lambda_powertools/event_handler",
    "boto3/data",
    "boto3/examples",
    "dateutil/zoneinfo",
    "wrapt/*.c",
    "PIL/_avif*",
    "PIL/_imagingcms*",
    "PIL/_imagingft*",
    "PIL/_imagingtk*",
    "**/*.pyi",
    "**/py.typed",
)
#: The only utilities of Powertools that its logger, metrics and tracer import.
UTILITIES = ("jmespath_utils", "typing")
#: The only files in botocore's folder of a service that a client reads.
MODEL_FILES = ("service-*", "endpoint-rule-set-*")


def main() -> None:
    """Build the package."""
    architecture, artifacts = sys.argv[1], Path(sys.argv[2])
    if sys.version_info[:2] != PYTHON:
        sys.exit(f"Python 3.13, as in Lambda's runtime, is needed to build; got {sys.version.split()[0]}")
    install(Path("requirements.txt"), artifacts, MACHINES[architecture])
    remove_unused(artifacts, clients=find_clients(Path().glob("*.py")))
    shutil.copytree(Path(), artifacts, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    compile_modules(artifacts)


def install(requirements: Path, target: Path, machine: str) -> None:
    """Install locked requirements for Lambda's machine, whatever this one is."""
    command = [sys.executable, "-I", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += [
        "--require-hashes",
        "--only-binary",
        ":all:",
        "--target",
        str(target),
        "--requirement",
        str(requirements),
    ]
    for platform in PLATFORMS:
        command += ["--platform", f"{platform}_{machine}"]
    if subprocess.run(command).returncode:
        sys.exit(f"pip could not install {requirements}")


def find_clients(sources: Iterable[Path]) -> set[str]:
    """Return the names of the services that a function has clients for."""
    return {name for file in sources for name in re.findall(r'boto3\.client\(\s*"([\w-]+)"', file.read_text())}


def remove_unused(package: Path, clients: set[str]) -> None:
    """Remove what a function with these clients cannot use."""
    models = package / "botocore" / "data"
    unused = [path for pattern in UNUSED for path in package.glob(pattern)]
    unused += [path for path in models.iterdir() if path.is_dir() and path.name not in clients]
    utilities = package / "aws_lambda_powertools" / "utilities"
    unused += [path for path in utilities.iterdir() if path.is_dir() and path.name not in UTILITIES]
    kept = {path for pattern in MODEL_FILES for path in models.glob(f"*/*/{pattern}")}
    unused += [path for path in models.glob("*/*/*") if path not in kept]
    for path in unused:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    remove_unneeded_libraries(package)


def remove_unneeded_libraries(package: Path) -> None:
    """Remove the bundled libraries that no extension module loads, directly or through another library."""
    libraries = {path.name.encode(): path for path in package.glob("*.libs/*")}
    waiting = [path for path in package.rglob("*.so*") if path not in libraries.values()]
    while waiting:
        content = waiting.pop().read_bytes()
        # A library is named in the files that need it; its name holds a hash.
        waiting += [libraries.pop(name) for name in list(libraries) if name in content]
    for path in libraries.values():
        path.unlink()


def compile_modules(package: Path) -> None:
    """Compile all modules for Lambda's Python.

    Unchecked: `sam deploy` sets the time of every file in a zip to 1980, so that bytecode with a time would be stale.
    The folder in the bytecode is Lambda's, so that every build of the same code gives the same bytes.
    """
    mode = PycInvalidationMode.UNCHECKED_HASH
    if not compileall.compile_dir(package, quiet=1, invalidation_mode=mode, ddir="/var/task"):
        sys.exit("A module could not be compiled")


if __name__ == "__main__":
    main()
