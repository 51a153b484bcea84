"""Which environment variables reach what runs here, whatever the calling shell has set."""

import os
import shlex
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

#: Where the state of a rehearsal lives, unless its commands name another folder.
FOLDER = Path(".rehearsal")
#: What the rehearsal's own processes take from the shell. All else stays out: settings of SDKs, moto, Python, proxies
#: and languages. ``LD_LIBRARY_PATH`` may be what this Python needs to start.
INHERITED = (
    *("PATH", "LD_LIBRARY_PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "XDG_CACHE_HOME"),
    *("OMP_NUM_THREADS", "REHEARSAL_HOST"),
)
#: Prefixes and names of variables that change how a project's tools work, or what they print.
TOOL_SETTINGS = (
    *("AWS_", "SAM_", "MOTO_", "POWERTOOLS_", "LAMBDA_", "_X_AMZN_", "PYTHON", "PIP_", "UV_"),
    *("MAKEFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "MFLAGS"),
    *("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CLICOLOR", "TTY_"),
)
#: Where packages come from must hold for ``sam build`` too.
PACKAGE_SOURCES = (
    *("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_TRUSTED_HOST", "PIP_CONFIG_FILE"),
    *("PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY", "PIP_CACHE_DIR", "PIP_DEFAULT_TIMEOUT", "PIP_RETRIES"),
    *("UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INSECURE_HOST"),
    *("UV_NATIVE_TLS", "UV_CACHE_DIR", "UV_CONFIG_FILE", "UV_HTTP_TIMEOUT"),
)
#: AWS settings that ``env`` unsets even where it does not see them, as its output may be used in another shell.
WELL_KNOWN = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "AWS_ENDPOINT_URL_S3")


def credentials(port: int, region: str) -> dict[str, str]:
    """Return the settings that send SAM CLI and the AWS SDKs to the rehearsal on a port, and nowhere else."""
    return {
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": "rehearsal",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_SESSION_TOKEN": "rehearsal",
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        # A configuration file could name another endpoint or account.
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        # Some operations would go to hosts such as sync-localhost, which do not exist.
        "AWS_DISABLE_HOST_PREFIX_INJECTION": "true",
        "SAM_CLI_TELEMETRY": "0",
    }


def redirected(environment: Mapping[str, str], port: int, region: str) -> dict[str, str]:
    """Return an environment in which a user's commands go to the rehearsal on a port, and are otherwise unchanged."""
    others = {name: value for name, value in environment.items() if not name.startswith("AWS_")}
    return {**others, **credentials(port, region), **without_proxy(environment)}


def without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the settings by which this machine is reached directly, added to those that an environment has."""
    given = f"{environment.get('NO_PROXY', '')},{environment.get('no_proxy', '')}"
    hosts = dict.fromkeys(host for part in given.split(",") if (host := part.strip()))
    value = "*" if "*" in hosts else ",".join(dict.fromkeys([*hosts, "localhost", "127.0.0.1"]))
    return {"NO_PROXY": value, "no_proxy": value}


def undisturbed(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which a project's tools do not depend on the user's settings, for tests.

    The programs that are installed beside this Python come first on its ``PATH``.
    """
    kept = {
        name: value
        for name, value in environment.items()
        if name in PACKAGE_SOURCES or not name.startswith(TOOL_SETTINGS)
    }
    return with_own_programs({**kept, **without_proxy(environment), "PYTHONUTF8": "1", "SAM_CLI_TELEMETRY": "0"})


def with_own_programs(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which the programs that are installed beside this Python come first."""
    own, path = str(Path(sys.executable).parent), environment.get("PATH", os.defpath)
    return {**environment, "PATH": path if path.split(os.pathsep)[0] == own else os.pathsep.join([own, path])}


def _this_python() -> str:
    if shutil.which("python") == sys.executable:
        return "python"
    executable, folder = Path(sys.executable), Path.cwd()
    return shlex.quote(str(executable.relative_to(folder) if executable.is_relative_to(folder) else executable))


#: The words that start this Python from the shell that started this process, before anything changes its environment.
THIS_PYTHON = _this_python()


def own_command(folder: Path) -> str:
    """Return the beginning of a command for the rehearsal in a folder, which works as it is in the current folder."""
    named = "" if folder == FOLDER else f" --folder {shlex.quote(str(folder))}"
    return f"{THIS_PYTHON} -m rehearsal{named}"


def inherited(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what the rehearsal's own processes, and what they start, take from an environment."""
    kept = {name: environment[name] for name in INHERITED if name in environment}
    return {"PATH": os.defpath, **kept, "PYTHONUTF8": "1"}
