"""Lambda: each built function runs under the Runtime Interface Emulator that ships with SAM CLI."""

import base64
import io
import json
import logging
import re
import threading
import zipfile
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from moto.awslambda.models import LambdaBackend, LambdaFunction
from moto.awslambda.responses import LambdaResponse
from moto.core.exceptions import JsonRESTError

from rehearsal.lambda_sandboxes import Outcome, Pool, Settings, emulator, link_runtime
from rehearsal.patches import gap, replace

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
        pool = self._pool(function)
        return pool.invoke(
            payload, None if function.reserved_concurrency is None else int(function.reserved_concurrency)
        )

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
        """End the sandboxes of a deleted function."""
        with self._lock:
            pool = self._pools.pop(function_arn, None)
        if pool:
            pool.close()

    def _unpack(self, function: LambdaFunction) -> Path:
        task = self._folder / "tasks" / re.sub(r"\W", "_", function.code_sha_256)
        if not task.exists():
            with zipfile.ZipFile(io.BytesIO(function.code_bytes)) as archive:
                archive.extractall(task)
        return task


_functions: Functions


def start(folder: Path) -> None:
    """Make this process able to run functions, with their code in ``folder``."""
    global _functions
    emulator()
    _functions = Functions(folder)


@gap("moto runs functions in Docker containers; without Docker they answer 'Simple Lambda happy path OK'")
def functions_run_under_the_emulator() -> None:
    """Send every invocation by another service (SQS, SNS, S3) to a sandbox; end sandboxes with their function."""

    def invoke_lambda(function: LambdaFunction, event: Any = None) -> tuple[str, bool, str]:
        outcome = _functions.invoke(function, json.dumps(event).encode())
        return outcome.payload.decode(), outcome.failed, outcome.log

    def deleting(original: Any) -> Any:
        def delete_function(backend: LambdaBackend, function_name: str, qualifier: str | None = None) -> None:
            arn = backend.get_function(function_name).function_arn
            original(backend, function_name, qualifier)
            _functions.forget(arn)

        return delete_function

    replace(LambdaFunction, "_invoke_lambda", lambda original: invoke_lambda)
    replace(LambdaBackend, "delete_function", deleting)


def _invoke_later(function: LambdaFunction, payload: bytes) -> None:
    outcome = _functions.invoke(function, payload)
    if outcome.failed:
        log.error("%s failed, and is not tried again here: %r", function.function_name, outcome.payload)


@gap("moto reports errors as Handled, has no request limit, throttles nobody, and cuts answers below Lambda's limit")
def invoke_answers_as_lambda() -> None:
    """Answer the Invoke API: payload limits, invocation types, function errors, log tail, throttles."""

    def invoke(response: LambdaResponse) -> tuple[int, dict[str, str], str | bytes]:
        name = unquote(response.path.rsplit("/", 2)[-2])
        function = response.backend.get_function(name, response._get_param("Qualifier"))
        body = response.body.encode() if isinstance(response.body, str) else response.body
        if len(body) > MAX_REQUEST_BYTES:
            raise RequestTooLarge(len(body))
        payload = body or b"{}"
        kind = response.headers.get("X-Amz-Invocation-Type", "RequestResponse")
        if kind == "DryRun":
            return 204, {}, b""
        if kind == "Event":
            threading.Thread(target=_invoke_later, args=(function, payload), daemon=True).start()
            return 202, {}, b""
        outcome = _functions.invoke(function, payload)
        headers = {"content-type": "application/json", "X-Amz-Executed-Version": str(function.version)}
        if outcome.failed:
            headers["X-Amz-Function-Error"] = "Unhandled"
        if response.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(outcome.log.encode()).decode()
        return 200, headers, outcome.payload

    replace(LambdaResponse, "invoke", lambda original: invoke)


@gap("CloudFormation's Architectures, TracingConfig, LoggingConfig and Tags of a function are dropped")
def function_properties_are_kept() -> None:
    """Keep them, on creation and on update, and show them in the function's configuration."""

    def keep(function: LambdaFunction, properties: dict[str, Any]) -> LambdaFunction:
        function.architectures = properties.get("Architectures", ["x86_64"])
        function.tracing_config = properties.get("TracingConfig", {"Mode": "PassThrough"})
        function.logging_config = properties.get("LoggingConfig", {})  # type: ignore[attr-defined]
        function.tags = {tag["Key"]: tag["Value"] for tag in properties.get("Tags", [])}
        return function

    def create(original: Any) -> Any:
        return lambda name, json_, *a, **k: keep(original(name, json_, *a, **k), json_["Properties"])

    def update(original: Any) -> Any:
        def update_function(**arguments: Any) -> LambdaFunction:
            return keep(original(**arguments), arguments["cloudformation_json"]["Properties"])

        return update_function

    def show(original: Any) -> Any:
        def get_configuration(function: LambdaFunction, on_create: bool = False) -> dict[str, Any]:
            defaults = {"LogFormat": "Text", "LogGroup": function.logs_group_name}
            kept = getattr(function, "logging_config", {})
            return {**original(function, on_create), "LoggingConfig": {**defaults, **kept}}

        return get_configuration

    replace(LambdaFunction, "create_from_cloudformation_json", create)
    replace(LambdaFunction, "update_from_cloudformation_json", update)
    replace(LambdaFunction, "get_configuration", show)
