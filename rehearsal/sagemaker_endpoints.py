"""SageMaker: an endpoint is a fleet of processes that run the command of their image, with the model they were given.

An update starts a new fleet beside the old one, and moves the traffic without losing a request.
"""

import contextlib
import functools
import hashlib
import json
import logging
import os
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from moto.applicationautoscaling.models import applicationautoscaling_backends
from moto.cloudwatch.models import cloudwatch_backends
from moto.core.exceptions import JsonRESTError
from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.ecr.models import ecr_backends
from moto.sagemaker.models import FakeEndpoint, SageMakerModelBackend, sagemaker_backends
from moto.sagemaker.responses import SageMakerResponse
from moto.sagemakerruntime.responses import SageMakerRuntimeResponse

from rehearsal.cloudwatch_metrics import measure_invocation
from rehearsal.lifecycle import MARK
from rehearsal.patches import Difference, add, patch
from rehearsal.sagemaker_capture import Capture
from rehearsal.sagemaker_deployments import Plan, read_plan
from rehearsal.sagemaker_fleets import Fleet, ModelServer, Traffic
from rehearsal.settings import ALGORITHM, Image, Settings, is_algorithm, of_this_process

log = logging.getLogger("rehearsal")

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
#: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_runtime_InvokeEndpoint.html#API_runtime_InvokeEndpoint_RequestBody
MAX_BODY_BYTES = 6 * 1024 * 1024
SCALED = "sagemaker:variant:DesiredInstanceCount"


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


class Endpoints:
    """The traffic of all endpoints, by name."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        self._folder, self._settings = folder, settings
        self._traffic: dict[str, Traffic] = {}
        self.capture = Capture()
        self.shadowing = ThreadPoolExecutor(max_workers=4, thread_name_prefix="shadow")

    def start(
        self,
        backend: SageMakerModelBackend,
        endpoint: FakeEndpoint,
        config: dict[str, Any],
        plan: Plan | None = None,
        retained: dict[str, Any] | None = None,
    ) -> None:
        """Start the fleets of a configuration without waiting; the endpoint's status shows the result.

        ``retained`` are properties of the variant that take the place of the configuration's.
        """
        fleets: list[Fleet] = []
        before = endpoint.endpoint_status
        # First: a scaling activity must not begin while the fleets start.
        if before == "InService":
            endpoint.endpoint_status = "Updating"
        try:
            for variant in (*config["ProductionVariants"], *config.get("ShadowProductionVariants", [])):
                kept = retained or {} if not fleets else {}
                fleets.append(self._fleet(backend, config, {**variant, **kept.get("variant", {})}))
        except Exception:
            for fleet in fleets:
                fleet.close()
            endpoint.endpoint_status = before
            raise
        if retained and "capture" in retained:
            fleets[0].capture = retained["capture"]
        creating = {"VariantStatus": [{"Status": "Creating", "StartTime": utcnow()}]}
        pending, *shadows = [{**_summary(fleet), **creating} for fleet in fleets]
        endpoint.pending = {  # type: ignore[attr-defined]
            "EndpointConfigName": config["EndpointConfigName"],
            "ProductionVariants": [pending],
            **({"ShadowProductionVariants": shadows} if shadows else {}),
            "StartTime": utcnow(),
        }
        endpoint.last_modified_time = utcnow()
        threading.Thread(target=self._finish, args=(backend, endpoint, fleets, plan or Plan()), daemon=True).start()

    def _fleet(self, backend: SageMakerModelBackend, config: dict[str, Any], variant: dict[str, Any]) -> Fleet:
        model = backend.describe_model(variant["ModelName"]).response_object
        container = model.get("PrimaryContainer") or model["Containers"][0]
        if is_algorithm(container["Image"]):
            digest = hashlib.sha256(container["Image"].encode()).hexdigest()
            image, resolved = ALGORITHM, f"{container['Image'].removesuffix(':1')}@sha256:{digest}"
        else:
            resolved = resolve_image(container["Image"], self._settings.images)
            image = self._settings.images[resolved.partition("@")[0].split("/", 1)[1]]

        def start() -> ModelServer:
            return ModelServer(
                self._folder / uuid.uuid4().hex,
                image,
                self._settings.code,
                container.get("ModelDataUrl"),
                container.get("Environment") or {},
            )

        images = {"SpecifiedImage": container["Image"], "ResolvedImage": resolved, "ResolutionTime": utcnow()}
        capture = config.get("DataCaptureConfig") or {}
        count = variant.get("InitialInstanceCount") or 1
        return Fleet(config["EndpointConfigName"], variant, capture, images, start, count)

    def _finish(self, backend: SageMakerModelBackend, endpoint: FakeEndpoint, fleets: list[Fleet], plan: Plan) -> None:
        """Put fleets in service once they are healthy, in the steps of a plan; or keep those that are in service."""
        began, name = time.monotonic(), endpoint.endpoint_name
        reason = next((reason for fleet in fleets if (reason := fleet.wait_until_healthy())), None)
        traffic = self._traffic.get(name)
        unused = fleets
        if backend.endpoints.get(name) is not endpoint:  # deleted in the meantime
            reason = "deleted"
        elif reason is None and traffic is None:
            self._traffic[name] = Traffic(fleets[0], fleets[1] if len(fleets) > 1 else None)
            unused = []
        elif reason is None and traffic is not None:
            reason = self._shift(backend, endpoint, traffic, fleets[0], plan, began)
            if reason is None:
                unused = traffic.replace(fleets[0], fleets[1] if len(fleets) > 1 else None)
            else:
                traffic.shift(None, 0.0)
        if reason is None:
            endpoint.endpoint_config_name = fleets[0].config
            endpoint.data_capture_config = fleets[0].capture
            endpoint.production_variants = [_summary(fleets[0])]
            shadows = [_summary(fleet) for fleet in fleets[1:]]
            endpoint.shadow_production_variants = shadows or None  # type: ignore[attr-defined]
        for fleet in unused:
            fleet.close()
        # A failed update leaves the old fleet in service.
        endpoint.failure_reason = reason  # type: ignore[assignment]
        endpoint.pending = None  # type: ignore[attr-defined]
        endpoint.last_modified_time = utcnow()
        endpoint.endpoint_status = "InService" if reason is None or traffic else "Failed"

    def _shift(
        self,
        backend: SageMakerModelBackend,
        endpoint: FakeEndpoint,
        traffic: Traffic,
        fleet: Fleet,
        plan: Plan,
        began: float,
    ) -> str | None:
        """Move the traffic to a fleet step by step; return the reason if it has to go back."""
        (pending,) = endpoint.pending["ProductionVariants"]  # type: ignore[attr-defined]
        for number, share in enumerate(plan.shares, start=1):
            traffic.shift(fleet, share)
            pending["VariantStatus"] = [{"Status": "Baking", "StartTime": utcnow()}]
            seconds = plan.wait + (plan.termination_wait if number == len(plan.shares) else 0)
            if reason := plan.watch(seconds, began, backend.account_id, backend.region_name):
                return reason
        return None

    def resize(self, endpoint: FakeEndpoint, count: int) -> None:
        """Change the number of instances in service without waiting; the endpoint's status shows the result."""
        traffic = self._traffic.get(endpoint.endpoint_name)
        if traffic is None:
            raise InvokeError(400, "ValidationException", f"Endpoint {endpoint.endpoint_name} is not in service.")
        endpoint.endpoint_status = "Updating"
        endpoint.production_variants[0]["DesiredInstanceCount"] = count

        def finish() -> None:
            try:
                reason = traffic.fleet.resize(count)
            except Exception as error:
                reason = str(error)
            endpoint.production_variants = [_summary(traffic.fleet)]
            endpoint.failure_reason = reason  # type: ignore[assignment]
            endpoint.last_modified_time = utcnow()
            endpoint.endpoint_status = "InService"

        threading.Thread(target=finish, daemon=True).start()

    def stop(self, name: str) -> None:
        """End an endpoint's servers."""
        traffic = self._traffic.pop(name, None)
        for fleet in (traffic.fleet, traffic.shadow) if traffic else ():
            if fleet:
                fleet.close()

    def traffic(self, name: str) -> Traffic | None:
        """Return an endpoint's traffic; None while the endpoint is created, and where that has failed."""
        return self._traffic.get(name)


def _summary(fleet: Fleet) -> dict[str, Any]:
    """Return a variant as DescribeEndpoint shows it."""
    weight = fleet.variant.get("InitialVariantWeight", 1.0)
    return {
        "VariantName": fleet.name,
        "DeployedImages": [fleet.images],
        "CurrentWeight": weight,
        "DesiredWeight": weight,
        "CurrentInstanceCount": fleet.count,
        "DesiredInstanceCount": fleet.count,
    }


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
    described.pop("Pending", None)
    if pending := getattr(self.endpoints[endpoint_name], "pending", None):
        described["PendingDeploymentSummary"] = pending
    return described


UPDATED = Difference(
    "endpoints_can_be_updated",
    "UpdateEndpoint is not implemented, and UpdateEndpointWeightsAndCapacities changes only what is described",
)


@add(SageMakerResponse, "update_endpoint", UPDATED)
def _update_endpoint(self: SageMakerResponse) -> ActionResult:
    backend = self.sagemaker_backend
    name, config_name = self._get_param("EndpointName"), self._get_param("EndpointConfigName")
    backend.describe_endpoint(name)
    endpoint = backend.endpoints[name]
    _refuse_if_busy(endpoint)
    config = backend.describe_endpoint_config(config_name)
    _refuse_scaled(backend, endpoint, config)
    retained = _retained(endpoint, self._get_param) if self._get_bool_param("RetainAllVariantProperties") else {}
    variant = {**config["ProductionVariants"][0], **retained.get("variant", {})}
    given = self._get_param("DeploymentConfig")
    if self._get_bool_param("RetainDeploymentConfig"):
        given = getattr(endpoint, "last_deployment_config", None)
    alarms = cloudwatch_backends[backend.account_id][backend.region_name].alarms
    plan = read_plan(given, variant.get("InitialInstanceCount") or 1, alarms.__contains__)
    endpoints().start(backend, endpoint, config, plan, retained)
    endpoint.last_deployment_config = given  # type: ignore[attr-defined]
    return ActionResult({"EndpointArn": endpoint.arn})


def _retained(endpoint: FakeEndpoint, parameter: Any) -> dict[str, Any]:
    """Return what RetainAllVariantProperties keeps, for a variant of the same name."""
    excluded = {each["VariantPropertyType"] for each in parameter("ExcludeRetainedVariantProperties") or []}
    now, names = endpoint.production_variants[0], {}
    for kind, name in (("DesiredInstanceCount", "InitialInstanceCount"), ("DesiredWeight", "InitialVariantWeight")):
        if kind not in excluded:
            names[name] = now[kind]
    kept: dict[str, Any] = {"variant": names}
    if "DataCaptureConfig" not in excluded:
        kept["capture"] = endpoint.data_capture_config
    return kept


def _refuse_scaled(backend: SageMakerModelBackend, endpoint: FakeEndpoint, config: dict[str, Any]) -> None:
    """Refuse to change the instance type of a variant that is scaled, or to remove it."""
    scaling = applicationautoscaling_backends[backend.account_id][backend.region_name]
    before = backend.describe_endpoint_config(endpoint.endpoint_config_name)["ProductionVariants"]
    after = {variant["VariantName"]: variant.get("InstanceType") for variant in config["ProductionVariants"]}
    for variant in before:
        name, kind = variant["VariantName"], variant.get("InstanceType")
        scaled = f"endpoint/{endpoint.endpoint_name}/variant/{name}" in scaling.targets.get(SCALED, {})
        if scaled and after.get(name) != kind:
            message = f"The variant {name} is a scalable target; deregister it before its instance type changes"
            raise InvokeError(400, "ValidationException", message)


@patch(SageMakerModelBackend, "update_endpoint_weights_and_capacities", UPDATED)
def _update_weights_and_capacities(
    original: Any, self: SageMakerModelBackend, endpoint_name: str, desired_weights_and_capacities: list[dict[str, Any]]
) -> str:
    self.describe_endpoint(endpoint_name)
    endpoint = self.endpoints[endpoint_name]
    _refuse_if_busy(endpoint)
    (wanted,) = desired_weights_and_capacities
    if wanted["VariantName"] != endpoint.production_variants[0]["VariantName"]:
        raise InvokeError(400, "ValidationException", f"The endpoint has no variant {wanted['VariantName']}")
    endpoints().resize(endpoint, wanted["DesiredInstanceCount"])
    return endpoint.arn


@patch(
    SageMakerResponse,
    "create_endpoint_config",
    Difference("shadow_variants_are_kept", "CreateEndpointConfig drops ShadowProductionVariants"),
)
def _create_endpoint_config(original: Any, self: SageMakerResponse) -> ActionResult:
    variants, shadows = self._get_param("ProductionVariants"), self._get_param("ShadowProductionVariants") or []
    # One of each is also what AWS allows with a shadow.
    if len(variants) > 1 or len(shadows) > 1:
        raise InvokeError(400, "ValidationException", "The rehearsal runs one production and one shadow variant")
    self.sagemaker_backend.validate_production_variants(shadows)
    answer: ActionResult = original(self)
    if shadows:
        config: Any = self.sagemaker_backend.endpoint_configs[self._get_param("EndpointConfigName")]
        config.shadow_production_variants = shadows
    return answer


@patch(
    SageMakerResponse,
    "create_model",
    Difference("models_keep_their_isolation", "DescribeModel returns EnableNetworkIsolation false, whatever was asked"),
)
def _create_model(original: Any, self: SageMakerResponse) -> ActionResult:
    answer: ActionResult = original(self)
    model = self.sagemaker_backend._models[self._get_param("ModelName")]
    model.enable_network_isolation = self._get_bool_param("EnableNetworkIsolation", False)
    return answer


@patch(
    SageMakerModelBackend,
    "add_tags",
    Difference("tags_overwrite", "a tag that is added again is listed twice, with both values", bug=True),
)
def _add_tags(original: Any, self: SageMakerModelBackend, arn: str, tags: list[dict[str, str]]) -> Any:
    self.delete_tags(arn, [tag["Key"] for tag in tags])
    return original(self, arn, tags)


@patch(SageMakerRuntimeResponse, "invoke_endpoint", INVOKED)
def _invoke_endpoint(original: Any, self: SageMakerRuntimeResponse) -> tuple[int, dict[str, str], bytes]:
    name = self.path.split("/")[2]
    endpoint = sagemaker_backends[self.current_account][self.region].endpoints.get(name)
    traffic = endpoints().traffic(name)
    if endpoint is None or traffic is None:  # this API knows only endpoints in service
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
    invocation = (self.current_account, self.region, name, body, forward)
    try:
        fleet, server = traffic.take()
    except ConnectionError as error:
        raise InvokeError(503, "ServiceUnavailable", "The request has failed.") from error
    if shadow := traffic.take_shadow():
        endpoints().shadowing.submit(_ask_shadow, *shadow, *invocation)
    status, headers, answer = _ask(fleet, server, *invocation)
    if status >= 400:
        text, kind = answer.decode("utf-8", "replace")[:4096], "server" if status >= 500 else "client"
        message = f'Received {kind} error ({status}) from primary with message "{text}".'
        raise InvokeError(424, "ModelError", message, OriginalStatusCode=status, OriginalMessage=text)
    answer_type = headers.get("Content-Type", "application/octet-stream")
    result = {"Content-Type": answer_type, "x-Amzn-Invoked-Production-Variant": fleet.name}
    if "X-Amzn-SageMaker-Custom-Attributes" in headers:
        result["X-Amzn-SageMaker-Custom-Attributes"] = headers["X-Amzn-SageMaker-Custom-Attributes"]
    return 200, result, answer


def _ask(
    fleet: Fleet, server: ModelServer, account: str, region: str, name: str, body: bytes, headers: dict[str, str]
) -> tuple[int, Any, bytes]:
    """Send a request to a server that was taken from its fleet; measure and capture it."""
    began, status = time.monotonic(), 500
    try:
        status, answered, answer = server.request("POST", "/invocations", body, headers)
    except TimeoutError as error:
        raise InvokeError(424, "ModelError", "Model timed out", OriginalStatusCode=504) from error
    except OSError as error:
        raise InvokeError(503, "ServiceUnavailable", "The request has failed.") from error
    finally:
        fleet.put_back(server)
        microseconds = (time.monotonic() - began) * 1e6
        dimensions = {"EndpointName": name, "VariantName": fleet.name, "EndpointConfigName": fleet.config}
        measure_invocation(account, region, dimensions, status, microseconds, fleet.count)
    if status < 400:
        endpoints().capture.record(
            name,
            fleet.name,
            fleet.capture,
            (headers["Content-Type"], body),
            (answered.get("Content-Type", "application/octet-stream"), answer),
            headers.get("X-Amzn-SageMaker-Inference-Id"),
        )
    return status, answered, answer


def _ask_shadow(*arguments: Any) -> None:
    """Send a copy of a request; its failure is visible in the metrics only."""
    with contextlib.suppress(InvokeError):
        _ask(*arguments)


@patch(SageMakerRuntimeResponse, "setup_class", INVOKED)
def _keep_raw_body(
    original: Any, self: Any, request: Any, full_url: str, headers: Any, use_raw_body: bool = False
) -> None:
    original(self, request, full_url, headers, use_raw_body=True)
