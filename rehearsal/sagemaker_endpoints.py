"""SageMaker: an endpoint is a process that runs the command of its image, with the model that it was given."""

import functools
import hashlib
import http.client
import io
import json
import logging
import os
import re
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.exceptions import ClientError
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ecr.models import ecr_backends
from moto.sagemaker.models import FakeEndpoint, SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from rehearsal.lifecycle import MARK, free_port
from rehearsal.patches import Difference, add, patch
from rehearsal.sagemaker_capture import Capture
from rehearsal.settings import Image, Settings, of_this_process

log = logging.getLogger("rehearsal")

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html#API_runtime_InvokeEndpoint_RequestBody
MAX_BODY_BYTES = 6 * 1024 * 1024
RESPONSE_SECONDS = 60
#: For a server that hangs; one that ends is noticed at once.
START_SECONDS = 600


class InvokeError(JsonRESTError):
    """An error of InvokeEndpoint, with the code and the status that AWS gives it."""

    def __init__(self, status: int, error: str, message: str, **details: Any) -> None:
        super().__init__(error, message)
        self.code = status
        self.description = json.dumps({"__type": error, "Message": message, "message": message, **details})


def resolve_image(image: str, images: dict[str, Image]) -> str:
    """Return an image in ECR by its digest, as SageMaker does.

    Raises
    ------
    InvokeError
        If ECR does not have it, SageMaker does not take its kind of manifest, or ``images`` has no command for it.
    """
    uri = re.fullmatch(
        r"((\d{12})\.dkr\.ecr\.([a-z0-9-]+)\.amazonaws\.com/([^:@]+))(?::([\w.-]+))?(?:@(sha256:[0-9a-f]{64}))?", image
    )
    if uri is None:
        raise InvokeError(400, "ValidationException", f"The rehearsal takes images in ECR, not {image}")
    name, account, region, repository, tag, digest = uri.groups()
    try:
        (found,) = boto3.client("ecr", region_name=region).describe_images(
            registryId=account,
            repositoryName=repository,
            imageIds=[{"imageDigest": digest} if digest else {"imageTag": tag or "latest"}],
        )["imageDetails"]
    except ClientError as error:
        raise InvokeError(400, "ValidationException", f"Requested image {image} not found.") from error
    if found["imageManifestMediaType"] != MANIFEST:
        raise InvokeError(
            400,
            "ValidationException",
            f"Unsupported manifest media type {found['imageManifestMediaType']} for image {image}. "
            "Ensure that valid manifest media type is used for specified image.",
        )
    if repository not in images:
        raise InvokeError(
            400,
            "ValidationException",
            f"The rehearsal runs only the images in [tool.rehearsal.images] ({', '.join(images)}), not {repository}",
        )
    return f"{name}@{found['imageDigest']}"


class ModelServer:
    """One process of a container image's command, with one model."""

    def __init__(
        self, folder: Path, image: Image, code: Path, model_data: str | None, environment: dict[str, str]
    ) -> None:
        folder.mkdir(parents=True)
        if model_data:
            location = urlsplit(model_data)
            stored = boto3.client("s3").get_object(Bucket=location.netloc, Key=location.path.lstrip("/"))
            with tarfile.open(fileobj=io.BytesIO(stored["Body"].read())) as archive:
                archive.extractall(folder, filter="data")
        self.port = free_port()
        command, own = image.filled(self.port, folder)
        self._output = folder.with_suffix(".log")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable if command[0] in ("python", "python3") else command[0], *command[1:]],
                env={**os.environ, **environment, "PYTHONPATH": str(code), **own},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait_until_healthy(self) -> str | None:
        """Return None once the server answers pings, otherwise the reason why it does not."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/ping", b"", {})[0] == 200:
                    return None
            except OSError:
                time.sleep(0.05)
        lines = self._output.read_text(errors="replace").strip().splitlines()
        return "The primary container did not pass the ping health check. " + " ".join(lines[-3:])[:800]

    def request(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        """Send a request; return its status, headers and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=RESPONSE_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def close(self) -> None:
        """End the process."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Endpoints:
    """All model servers, by endpoint."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._servers: dict[str, ModelServer] = {}
        self.capture = Capture()

    def start(self, backend: SageMakerModelBackend, endpoint: FakeEndpoint, config: dict[str, Any]) -> None:
        """Start a server for a configuration without waiting; the endpoint's status shows the result."""
        model = backend.describe_model(config["ProductionVariants"][0]["ModelName"]).response_object
        container = model.get("PrimaryContainer") or model["Containers"][0]
        resolved = resolve_image(container["Image"], self._settings.images)
        image = self._settings.images[resolved.partition("@")[0].split("/", 1)[1]]
        name = endpoint.endpoint_name
        server = ModelServer(
            self._folder / uuid.uuid4().hex,
            image,
            self._settings.code,
            container.get("ModelDataUrl"),
            container.get("Environment") or {},
        )

        variants = [{"VariantName": variant["VariantName"]} for variant in config["ProductionVariants"]]
        pending = {"EndpointConfigName": config["EndpointConfigName"], "ProductionVariants": variants}
        endpoint.pending = {**pending, "StartTime": utcnow()}  # type: ignore[attr-defined]
        endpoint.last_modified_time = utcnow()
        if endpoint.endpoint_status == "InService":
            endpoint.endpoint_status = "Updating"

        def finish() -> None:
            reason = server.wait_until_healthy()
            if backend.endpoints.get(name) is not endpoint:  # deleted in the meantime
                server.close()
                return
            old = self._servers.get(name)
            endpoint.failure_reason = reason  # type: ignore[assignment]
            if reason is None:
                self._servers[name] = server
                endpoint.endpoint_config_name = config["EndpointConfigName"]
                endpoint.data_capture_config = config.get("DataCaptureConfig") or {}
                endpoint.production_variants = endpoint._process_production_variants(config["ProductionVariants"])
                images = {"SpecifiedImage": container["Image"], "ResolvedImage": resolved}
                endpoint.production_variants[0]["DeployedImages"] = [{**images, "ResolutionTime": utcnow()}]
                if old:
                    old.close()
            else:
                server.close()
            # A failed update leaves the old fleet in service, as a blue/green deployment does.
            endpoint.pending = None  # type: ignore[attr-defined]
            endpoint.last_modified_time = utcnow()
            endpoint.endpoint_status = "InService" if reason is None or old else "Failed"

        threading.Thread(target=finish, daemon=True).start()

    def stop(self, name: str) -> None:
        """End an endpoint's server."""
        server = self._servers.pop(name, None)
        if server:
            server.close()

    def server(self, name: str) -> ModelServer | None:
        """Return an endpoint's server; None while the endpoint is created, and where that has failed."""
        return self._servers.get(name)


@functools.cache
def endpoints() -> Endpoints:
    """Return the endpoints of this process, with their models in the rehearsal's folder."""
    return Endpoints(Path(os.environ[MARK]) / "endpoints", of_this_process())


def put_images(settings: Settings) -> None:
    """Put the project's images into ECR."""
    registry = ecr_backends[settings.account][settings.region]
    for repository in settings.images:
        registry.create_repository(repository, None, {}, None, "MUTABLE", [])
        layer = {"digest": f"sha256:{hashlib.sha256(repository.encode()).hexdigest()}"}
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": layer, "layers": [layer]}
        registry.put_image(repository, json.dumps(manifest), "latest")


SERVED = Difference("endpoints_have_a_server", "endpoints are in service at once, with nothing behind them")
INVOKED = Difference(
    "invocations_reach_the_server",
    "InvokeEndpoint answers with fixed text, even for an endpoint that does not exist, and accepts no binary body",
)


def _refuse_if_busy(endpoint: FakeEndpoint) -> None:
    if endpoint.endpoint_status in ("Creating", "Updating"):
        raise InvokeError(400, "ValidationException", f'Cannot update in-progress endpoint "{endpoint.arn}".')


@patch(SageMakerModelBackend, "create_endpoint", SERVED)
def _create_endpoint(original: Any, self: SageMakerModelBackend, endpoint_name: str, **rest: Any) -> FakeEndpoint:
    if endpoint_name in self.endpoints:
        arn = self.endpoints[endpoint_name].arn
        raise InvokeError(400, "ValidationException", f'Cannot create already existing endpoint "{arn}".')
    endpoint: FakeEndpoint = original(self, endpoint_name=endpoint_name, **rest)
    endpoint.endpoint_status = "Creating"
    try:
        endpoints().start(self, endpoint, self.describe_endpoint_config(endpoint.endpoint_config_name))
    except Exception:
        del self.endpoints[endpoint_name]
        raise
    return endpoint


@patch(SageMakerModelBackend, "delete_endpoint", SERVED)
def _delete_endpoint(original: Any, self: SageMakerModelBackend, endpoint_name: str) -> None:
    if endpoint := self.endpoints.get(endpoint_name):
        _refuse_if_busy(endpoint)
    original(self, endpoint_name)
    endpoints().stop(endpoint_name)
    endpoints().capture.flush()  # nothing is written later, so the bucket can be emptied


@patch(
    SageMakerModelBackend,
    "describe_endpoint",
    Difference(
        "endpoints_describe_their_capture",
        "DescribeEndpoint returns data capture's configuration instead of its summary, and an empty one if none is set",
        bug=True,
    ),
)
def _describe_endpoint(original: Any, self: SageMakerModelBackend, endpoint_name: str) -> dict[str, Any]:
    described: dict[str, Any] = original(self, endpoint_name)
    config = described.pop("DataCaptureConfig", None)
    if config:
        described["DataCaptureConfig"] = {
            "EnableCapture": config.get("EnableCapture", False),
            "CaptureStatus": "Started" if config.get("EnableCapture") else "Stopped",
            "CurrentSamplingPercentage": config["InitialSamplingPercentage"],
            "DestinationS3Uri": config["DestinationS3Uri"],
        }
    if pending := getattr(self.endpoints[endpoint_name], "pending", None):
        described["PendingDeploymentSummary"] = pending
    return described


@add(
    SageMakerResponse,
    "update_endpoint",
    Difference("endpoints_can_be_updated", "UpdateEndpoint is not implemented"),
)
def _update_endpoint(self: SageMakerResponse) -> ActionResult:
    backend = self.sagemaker_backend
    name, config_name = self._get_param("EndpointName"), self._get_param("EndpointConfigName")
    backend.describe_endpoint(name)
    endpoint = backend.endpoints[name]
    _refuse_if_busy(endpoint)
    endpoints().start(backend, endpoint, backend.describe_endpoint_config(config_name))
    return ActionResult({"EndpointArn": endpoint.arn})


@patch(SageMakerRuntimeResponse, "invoke_endpoint", INVOKED)
def _invoke_endpoint(original: Any, self: SageMakerRuntimeResponse) -> tuple[int, dict[str, str], bytes]:
    name = self.path.split("/")[2]
    endpoint = sagemaker_backends[self.current_account][self.region].endpoints.get(name)
    server = endpoints().server(name)
    if endpoint is None or server is None:  # this API knows only endpoints in service
        raise InvokeError(400, "ValidationError", f"Endpoint {name} of account {self.current_account} not found.")
    body = self.body if isinstance(self.body, bytes) else (self.body or "").encode()
    if len(body) > MAX_BODY_BYTES:
        raise InvokeError(413, "ValidationError", f"Request {len(body)} bytes is too large")
    sent = self.headers
    content_type = sent.get("Content-Type", "application/octet-stream")
    forward = {"Content-Type": content_type, "Accept": sent.get("Accept", "*/*")}
    for header in ("X-Amzn-SageMaker-Custom-Attributes", "X-Amzn-SageMaker-Inference-Id"):
        if header in sent:
            forward[header] = sent[header]
    try:
        status, headers, answer = server.request("POST", "/invocations", body, forward)
    except TimeoutError as error:
        raise InvokeError(424, "ModelError", "Model timed out", OriginalStatusCode=504) from error
    except OSError as error:
        raise InvokeError(503, "ServiceUnavailable", "The request has failed.") from error
    if status >= 400:
        text, kind = answer.decode("utf-8", "replace")[:4096], "server" if status >= 500 else "client"
        message = f'Received {kind} error ({status}) from primary with message "{text}".'
        raise InvokeError(424, "ModelError", message, OriginalStatusCode=status, OriginalMessage=text)
    variant = endpoint.production_variants[0]["VariantName"]
    answer_type = headers.get("Content-Type", "application/octet-stream")
    endpoints().capture.record(
        name,
        variant,
        endpoint.data_capture_config or {},
        (content_type, body),
        (answer_type, answer),
        sent.get("X-Amzn-SageMaker-Inference-Id"),
    )
    result = {"Content-Type": answer_type, "x-Amzn-Invoked-Production-Variant": variant}
    if "X-Amzn-SageMaker-Custom-Attributes" in headers:
        result["X-Amzn-SageMaker-Custom-Attributes"] = headers["X-Amzn-SageMaker-Custom-Attributes"]
    return 200, result, answer


@patch(SageMakerRuntimeResponse, "setup_class", INVOKED)
def _keep_raw_body(
    original: Any, self: Any, request: Any, full_url: str, headers: Any, use_raw_body: bool = False
) -> None:
    original(self, request, full_url, headers, use_raw_body=True)
