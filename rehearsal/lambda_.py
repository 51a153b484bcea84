"""Lambda: each built function runs under the Runtime Interface Emulator that ships with SAM CLI."""

import base64
import functools
import io
import json
import logging
import os
import re
import threading
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from moto.awslambda.models import LambdaBackend, LambdaFunction, lambda_backends
from moto.awslambda.responses import LambdaResponse
from moto.core.exceptions import JsonRESTError

from rehearsal.lambda_sandboxes import Outcome, Pool, Settings, emulator, link_runtime
from rehearsal.lifecycle import MARK
from rehearsal.patches import Difference, patch

log = logging.getLogger("rehearsal")

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MAX_REQUEST_BYTES = 6 * 1024 * 1024


class RequestTooLarge(JsonRESTError):
    """Lambda's answer to a payload over its limit."""

    code = 413

    def __init__(self, size: int) -> None:
        limit = f"Request must be smaller than {MAX_REQUEST_BYTES} bytes for the InvokeFunction operation"
        super().__init__("RequestTooLargeException", f"{limit}, got {size}")


class Functions:
    """All pools, and the folder in which code is unpacked."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runtime = folder / "runtime"
        self._pools: dict[str, Pool] = {}
        self._lock = threading.Lock()
        link_runtime(self._runtime)

    def invoke(self, function: LambdaFunction, payload: bytes) -> Outcome:
        """Run a deployed function.

        Raises
        ------
        Throttled
            If the function's reserved concurrency is used up.
        """
        # Concurrency is reserved for the function, not for one of its versions.
        backend = lambda_backends[function.account_id][function.region]
        reserved = backend.get_function(function.function_name).reserved_concurrency
        return self._pool(function).invoke(payload, None if reserved is None else int(reserved))

    def _pool(self, function: LambdaFunction) -> Pool:
        logging_config = getattr(function, "logging_config", {})
        settings = Settings(
            arn=function.function_arn,
            name=function.function_name,
            handler=str(function.handler),
            code_sha256=function.code_sha_256,
            timeout=int(function.timeout),
            memory=int(function.memory_size),
            log_group=logging_config.get("LogGroup", function.logs_group_name),
            log_format=logging_config.get("LogFormat", "Text").upper(),
            environment=tuple(sorted((name, str(value)) for name, value in function.environment_vars.items())),
        )
        with self._lock:
            pool = self._pools.get(function.function_arn)
            if pool is None or pool.settings != settings:
                if pool is not None:
                    pool.close()
                pool = Pool(settings, self._unpack(function), self._runtime)
                self._pools[function.function_arn] = pool
            return pool

    def forget(self, function_arn: str) -> None:
        """End the sandboxes of a function and of all its versions, or of one version."""
        with self._lock:
            pools = [self._pools.pop(arn) for arn in [*self._pools] if f"{arn}:".startswith(f"{function_arn}:")]
        for pool in pools:
            pool.close()

    def _unpack(self, function: LambdaFunction) -> Path:
        task = self._folder / "tasks" / re.sub(r"\W", "_", function.code_sha_256)
        if not task.exists():
            with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as archive:
                archive.extractall(task)
        return task


@functools.cache
def functions() -> Functions:
    """Return the functions of this process, with their code in the rehearsal's folder."""
    emulator()
    return Functions(Path(os.environ[MARK]) / "functions")


EMULATOR = Difference(
    "functions_run_under_the_emulator",
    "moto runs functions in Docker containers; without Docker they answer 'Simple Lambda happy path OK'",
)


@patch(LambdaFunction, "_invoke_lambda", EMULATOR)
def _invoke_for_service(original: Any, function: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
    """Answer an invocation by SQS, SNS or S3."""
    outcome = functions().invoke(function, json.dumps(event).encode())
    return outcome.payload.decode(), outcome.failed, outcome.log


@patch(LambdaBackend, "delete_function", EMULATOR)
def _delete_function(original: Any, self: LambdaBackend, function_name: str, qualifier: str | None = None) -> None:
    arn = self.get_function(function_name).function_arn
    original(self, function_name, qualifier)
    functions().forget(arn)


@patch(
    LambdaResponse,
    "invoke",
    Difference(
        "invoke_answers_as_lambda",
        "moto calls function errors Handled, has no request limit, never throttles, and cuts responses below the limit",
    ),
)
def _invoke(original: Any, self: LambdaResponse) -> tuple[int, dict[str, str], str | bytes]:
    name = unquote(self.path.rsplit("/", 2)[-2])
    function = self.backend.get_function(name, self._get_param("Qualifier"))
    body = self.body.encode() if isinstance(self.body, str) else self.body
    if len(body) > MAX_REQUEST_BYTES:
        raise RequestTooLarge(len(body))
    payload = body or b"{}"
    kind = self.headers.get("X-Amz-Invocation-Type", "RequestResponse")
    if kind == "DryRun":
        return 204, {}, b""
    if kind == "Event":
        threading.Thread(target=_invoke_later, args=(function, payload), daemon=True).start()
        return 202, {}, b""
    outcome = functions().invoke(function, payload)
    headers = {"content-type": "application/json", "X-Amz-Executed-Version": str(function.version)}
    if outcome.failed:
        headers["X-Amz-Function-Error"] = "Unhandled"
    if self.headers.get("X-Amz-Log-Type") == "Tail":
        headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log.encode()).decode()
    return 200, headers, outcome.payload


def _invoke_later(function: LambdaFunction, payload: bytes) -> None:
    outcome = functions().invoke(function, payload)
    if outcome.failed:
        log.error("%s failed; the rehearsal does not retry: %r", function.function_name, outcome.payload)


PROPERTIES = Difference(
    "function_properties_are_kept",
    "CloudFormation's Architectures, TracingConfig, LoggingConfig and Tags of a function are dropped",
)


def _keep(function: LambdaFunction, properties: dict[str, Any]) -> LambdaFunction:
    function.architectures = properties.get("Architectures", ["x86_64"])
    function.tracing_config = properties.get("TracingConfig", {"Mode": "PassThrough"})
    function.logging_config = properties.get("LoggingConfig", {})  # type: ignore[attr-defined]
    function.tags = {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}
    return function


@patch(LambdaFunction, "create_from_cloudformation_json", PROPERTIES)
def _create(original: Any, name: str, body: dict[str, Any], *rest: Any, **more: Any) -> LambdaFunction:
    return _keep(original(name, body, *rest, **more), body["Properties"])


@patch(LambdaFunction, "update_from_cloudformation_json", PROPERTIES)
def _update(original: Any, **arguments: Any) -> LambdaFunction:
    return _keep(original(**arguments), arguments["cloudformation_json"]["Properties"])


@patch(LambdaFunction, "get_configuration", PROPERTIES)
def _get_configuration(original: Any, self: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
    defaults = {"LogFormat": "Text", "LogGroup": self.logs_group_name}
    return {**original(self, on_create), "LoggingConfig": {**defaults, **getattr(self, "logging_config", {})}}
