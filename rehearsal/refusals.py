"""Refuse requests that the rehearsal does not support, in the form of the service's own errors."""

import contextlib
import logging
import re
import uuid
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from moto.core.exceptions import ServiceException
from moto.core.model import OperationModel, ServiceModel
from moto.core.request import Request, determine_request_protocol
from moto.core.routing import get_service_router
from moto.core.serialize import SERIALIZERS, get_serializer_class
from moto.core.utils import get_service_model
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from werkzeug.exceptions import NotFound

from rehearsal import injection
from rehearsal.patches import RehearsalError

log = logging.getLogger("rehearsal")

#: Error codes of services for unknown operations, by protocol.
CODES = {"query": "InvalidAction", "ec2": "InvalidAction", "rest-xml": "NotImplemented"}
OTHER_CODE = "UnknownOperationException"
#: Services whose errors have the form of a protocol, for services that botocore does not know.
EXAMPLES = {"json": "logs", "query": "sns", "rest-json": "lambda"}
#: Services that sign their requests by another name than botocore's.
SIGNED_AS = {"states": "stepfunctions", "monitoring": "cloudwatch", "awslambda": "lambda"}
#: Operations of S3 that moto mistakes for others, such as reading an object.
S3_UNKNOWN = {"abac", "analytics", "annotation", "intelligent-tiering", "metrics", "renameObject", "requestPayment"}
S3_UNKNOWN |= {"session", "torrent", "metadataConfiguration", "metadataTable", "metadataAnnotationTable"}
S3_UNKNOWN |= {"metadataInventoryTable", "metadataJournalTable"}


class Refusal(ServiceException):
    """An error of any service; moto looks up errors of its own modules in the service's model."""


class NoSuchService(Exception):
    """Moto has nothing for this host."""


class Application(DomainDispatcherApplication):
    """moto's application, whose pages in HTML and stack traces are turned into a service's errors."""

    def get_backend_for_host(self, host: str | None) -> Any:
        """Return the backend of a host.

        Raises
        ------
        NoSuchService
            If nothing does.
        """
        found = super().get_backend_for_host(host)
        if host and not found:
            raise NoSuchService(host)
        return found

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"] == injection.PATH:
            return injection.answer(environ, start_response)
        if (fault := injection.meet(environ)) and fault.code:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))  # unread, it would reset the connection
            model = get_service_model(fault.service)
            message = "The rehearsal injected this fault"
            return _write(environ, start_response, fault.service, model, message, fault.code, fault.status)
        began: list[Any] = []
        try:
            parts = S3_UNKNOWN & parse_qs(environ["QUERY_STRING"], keep_blank_values=True).keys()
            if parts and self._service(environ)[0] == "s3":
                raise NotImplementedError
            body: Any = super().__call__(environ, lambda *answer: began.extend(answer))
            if int(began[0].split()[0]) >= 400:
                body = [b"".join(body)]
        except (NoSuchService, NotImplementedError) as error:
            return self._refuse(environ, start_response, str(error))
        except Exception as error:
            if not isinstance(error, RehearsalError):
                log.exception("%s %s", environ["REQUEST_METHOD"], environ["PATH_INFO"])
            message = f"{error}" if isinstance(error, RehearsalError) else f"The rehearsal failed: {error!r}"
            return _write(environ, start_response, *self._service(environ), message, "InternalFailure", 500)
        if isinstance(body, list) and body[0].lower().startswith(b"<!doctype html>"):
            return self._refuse(environ, start_response, "")
        start_response(*began)
        return body

    def _service(self, environ: dict[str, Any]) -> tuple[str, ServiceModel | None]:
        """Return the name by which a request's service is signed, and its model if botocore has one."""
        host = self.infer_service_region_host(environ, environ["PATH_INFO"]) or "s3"
        name = re.sub(r"^(api|runtime|metrics|data|ingest)\.", "", host).split(".")[0]
        try:
            return name, get_service_model(SIGNED_AS.get(name, name))
        except UnknownServiceError:
            return name, None

    def _refuse(self, environ: dict[str, Any], start_response: Callable[..., Any], reason: str) -> Iterable[bytes]:
        service, model = self._service(environ)
        operation = _operation(environ, model, reason)
        name = model.service_name if model else service
        message = f"The rehearsal does not know the operation {operation} of {name}"
        return _write(environ, start_response, service, model, message)


def _operation(environ: dict[str, Any], model: ServiceModel | None, reason: str) -> str:
    if found := re.fullmatch(r"The (\w+) action has not been implemented", reason):
        names = model.operation_names if model else []
        return next((name for name in names if xform_name(name) == found[1]), found[1])
    if target := environ.get("HTTP_X_AMZ_TARGET"):
        return str(target).rsplit(".")[-1]
    if _is_form(environ):
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        if action := parse_qs(body).get("Action"):
            return action[0]
    try:
        assert model is not None
        return str(get_service_router(model.service_name).match(Request(environ))[0].name)
    except (AssertionError, NotFound, NotImplementedError):
        return f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}"


def _is_form(environ: dict[str, Any]) -> bool:
    return str(environ.get("CONTENT_TYPE", "")).startswith("application/x-www-form-urlencoded")


def _protocol(environ: dict[str, Any], model: ServiceModel | None) -> str:
    if model is None:
        return "json" if "HTTP_X_AMZ_TARGET" in environ else "query" if _is_form(environ) else "rest-json"
    with contextlib.suppress(NotImplementedError):
        found = determine_request_protocol(model, environ.get("CONTENT_TYPE", ""))
        if found in SERIALIZERS:
            return found
    return "json"


def _write(
    environ: dict[str, Any],
    start_response: Callable[..., Any],
    service: str,
    model: ServiceModel | None,
    message: str,
    code: str = "",
    status: int = 501,
) -> Iterable[bytes]:
    protocol = _protocol(environ, model)
    model = model or get_service_model(EXAMPLES[protocol])
    code = code or CODES.get(protocol, OTHER_CODE)
    serializer = get_serializer_class(model.service_name, protocol)(operation_model=OperationModel({}, model))
    answer = serializer.serialize(Refusal(code, message))
    body = answer["body"] if isinstance(answer["body"], bytes) else answer["body"].encode()
    headers = [(name, str(value)) for name, value in answer["headers"].items() if name.lower() != "content-length"]
    headers += [("Content-Length", str(len(body))), ("x-amzn-RequestId", request := str(uuid.uuid4()))]
    start_response(f"{status} {HTTPStatus(status).phrase}", [*headers, ("x-amz-request-id", request)])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
