"""Make a stand-in for Lambda's Python image, for machines that cannot pull it.

    .venv/bin/python -m tests.docker.make_image

``sam local invoke`` pulls ``public.ecr.aws/lambda/python:3.13`` by itself, and that image is the better one: use
this where the registry is out of reach. The stand-in has what SAM CLI and the functions touch (a shell, glibc,
this machine's Python 3.13, awslambdaric and boto3) and takes the real one's name; a later ``docker pull`` of that
name replaces it.
"""

import io
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import docker

from rehearsal.lambda_sandboxes import link_runtime

REPOSITORY = "public.ecr.aws/lambda/python"
ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
#: SAM CLI adds Lambda's emulator to the image with these, in a RUN instruction.
PROGRAMS = ("sh", "mv", "chmod")
#: Wheels may link to any part of glibc, also to those that newer versions keep for compatibility only.
GLIBC = ("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1", "libresolv.so.2")
#: What awslambdaric and compiled wheels may expect beside it.
COMPILER = ("libgcc_s.so.1", "libstdc++.so.6")
NOT_NEEDED = {"test", "idlelib", "tkinter", "turtledemo", "ensurepip", "site-packages", "dist-packages"}
BOOTSTRAP = b'#!/bin/sh\nexec /var/lang/bin/python3.13 -m awslambdaric "$_HANDLER"\n'
SETTINGS = [
    "ENV PATH=/var/lang/bin:/bin",
    "ENV LD_LIBRARY_PATH=/lib64",
    "ENV PYTHONPATH=/var/runtime",
    "ENV LANG=en_US.UTF-8",
    "ENV TZ=:UTC",
    "ENV LAMBDA_TASK_ROOT=/var/task",
    "ENV LAMBDA_RUNTIME_DIR=/var/runtime",
    "WORKDIR /var/task",
]


def libraries(binary: Path) -> dict[str, Path]:
    """Return the shared libraries that a program or a library loads, by the path that they get in the image."""
    said = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, check=False).stdout
    found = {f"/lib64/{Path(path).name}": Path(path) for path in re.findall(r"=> (/\S+)", said)}
    # The loader is no dependency by name: programs hold its whole path.
    found.update({path: Path(path) for path in re.findall(r"^\s+(/\S+) \(", said, re.MULTILINE)})
    return found


def pack(archive: tarfile.TarFile, folder: Path) -> None:
    """Write the image's file system."""
    base = Path(sys.base_prefix)
    link_runtime(folder / "runtime")
    programs = {f"/bin/{name}": Path(str(shutil.which(name))) for name in PROGRAMS}
    programs["/var/lang/bin/python3.13"] = base / "bin" / "python3.13"
    compiled = [*(base / "lib" / "python3.13" / "lib-dynload").glob("*.so"), *folder.glob("runtime/*.so")]
    files = dict(programs)
    for binary in [*programs.values(), *compiled]:
        files.update(libraries(binary))
    system = files["/lib64/libc.so.6"].parent
    files.update({f"/lib64/{name}": system / name for name in GLIBC + COMPILER if (system / name).exists()})
    for target, source in files.items():
        archive.add(source, target)

    def needed(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
        parts = Path(member.name).parts
        return None if NOT_NEEDED & set(parts) or any(part.startswith("config-3.13") for part in parts) else member

    archive.add(base / "lib" / "python3.13", "/var/lang/lib/python3.13", filter=needed)
    archive.add(folder / "runtime", "/var/runtime")
    for name, mode, content in (
        ("/var/runtime/bootstrap", 0o755, BOOTSTRAP),
        ("/etc/passwd", 0o644, b"root:x:0:0::/:/bin/sh\n"),
        ("/etc/nsswitch.conf", 0o644, b"hosts: files dns\n"),
    ):
        member = tarfile.TarInfo(name)
        member.mode, member.size = mode, len(content)
        archive.addfile(member, io.BytesIO(content))
    for name, mode in (("/tmp", 0o1777), ("/var/task", 0o755)):
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, mode
        archive.addfile(member)


def main() -> int:
    """Make the image and give it the names that SAM CLI asks for."""
    if sys.platform != "linux" or sys.version_info[:2] != (3, 13):
        print("make_image: it is made from a Linux machine's own files, with Python 3.13", file=sys.stderr)
        return 1
    client = docker.from_env()
    with tempfile.TemporaryDirectory() as name:
        image = Path(name) / "image.tar"
        with tarfile.open(image, "w", dereference=True) as archive:
            pack(archive, Path(name))
        client.api.import_image(str(image), repository=REPOSITORY, tag="3.13", changes=SETTINGS)
    made = client.images.get(f"{REPOSITORY}:3.13")
    made.tag(REPOSITORY, f"3.13-{ARCHITECTURE}")
    # SAM CLI keeps what it made of an older image for as long as it finds it.
    rapid = f"{REPOSITORY}:3.13-rapid-{ARCHITECTURE}"
    if client.images.list(rapid):
        client.images.remove(rapid)
    print(f"{REPOSITORY}:3.13-{ARCHITECTURE}  {made.attrs['Size'] / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
