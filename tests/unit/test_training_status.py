"""The table of what runs."""

import datetime
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber

from training.registry import status as module

MOMENT = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)


def endpoint(**more: Any) -> dict[str, Any]:
    described = {"EndpointName": "e", "EndpointStatus": "InService", "EndpointConfigName": "c-1"}
    return {**described, "LastModifiedTime": MOMENT, **more}


@pytest.mark.parametrize(
    ("more", "outcome"),
    [
        ({}, "went back: c-2 is newer and not in service"),
        ({"EndpointConfigName": "c-2"}, "succeeded"),
        ({"FailureReason": "an alarm went off"}, "failed and was rolled back"),
        ({"EndpointStatus": "Failed", "FailureReason": "no capacity"}, "Failed"),
        ({"EndpointStatus": "Updating", "PendingDeploymentSummary": {"EndpointConfigName": "c-2"}}, "Updating to c-2"),
    ],
)
def test_how_the_last_update_ended(more: dict[str, Any], outcome: str) -> None:
    assert module._last_update(endpoint(**more), "c-2")["outcome"] == outcome


@pytest.mark.parametrize(
    ("current", "shadows", "newest"), [("2", [], "2"), ("1", [], "2"), ("1", [{"VariantName": "Shadow-0"}], "1")]
)
def test_the_end_of_a_shadow_is_no_rollback(current: str, shadows: list[dict[str, str]], newest: str) -> None:
    sagemaker = boto3.client("sagemaker")
    arn = "arn:aws:sagemaker:eu-west-1:123456789012:endpoint-config/c"

    def config(digit: str) -> dict[str, Any]:
        return {"EndpointConfigName": f"e-{digit * 12}", "EndpointConfigArn": arn, "CreationTime": MOMENT}

    with Stubber(sagemaker) as stub:
        other = {**config("2"), "EndpointConfigName": "e-of-another"}
        stub.add_response("list_endpoint_configs", {"EndpointConfigs": [other, config("2"), config("1")]})
        described = {**config("2"), "ProductionVariants": [{"VariantName": "v"}]}
        if shadows:
            described["ShadowProductionVariants"] = shadows
        stub.add_response("describe_endpoint_config", described, {"EndpointConfigName": "e-222222222222"})
        assert module._newest_config(sagemaker, "e", f"e-{current * 12}") == f"e-{newest * 12}"


@pytest.mark.parametrize(
    ("now", "missing"),
    [({"PendingDeploymentSummary": {"EndpointConfigName": "c"}}, {"gone": "does not exist"}), ({}, {})],
)
def test_missing_alarms_are_shown_while_an_update_needs_them(
    now: dict[str, Any], missing: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cloudwatch = boto3.client("cloudwatch")
    metric = {"Namespace": "AWS/SageMaker", "MetricName": "m", "Dimensions": [{"Name": "EndpointName", "Value": "e"}]}
    query = {"Id": "a", "MetricStat": {"Metric": metric, "Period": 60, "Stat": "Sum"}}
    alarm = {"AlarmName": "by-query", "StateValue": "ALARM", "Metrics": [query]}
    config = {"AutoRollbackConfiguration": {"Alarms": [{"AlarmName": "gone"}]}}
    with Stubber(cloudwatch) as stub:
        stub.add_response("describe_alarms", {"MetricAlarms": [alarm]}, {"AlarmTypes": ["MetricAlarm"]})
        monkeypatch.setattr(boto3, "client", lambda name: cloudwatch)
        found = module._alarms("e", endpoint(LastDeploymentConfig=config, **now))
    assert found == {**missing, "by-query": "ALARM"}


def test_a_missing_right_hides_only_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    client = boto3.client("application-autoscaling")
    with Stubber(client) as stub:
        stub.add_client_error("describe_scalable_targets", "AccessDeniedException", http_status_code=400)
        monkeypatch.setattr(boto3, "client", lambda name: client)
        assert module._permitted(lambda: module._limits("e", "v")) == "not permitted"


def test_an_endpoint_that_may_only_be_listed_is_shown_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = boto3.client("sagemaker")
    arn = "arn:aws:sagemaker:us-east-1:123456789012:endpoint/other"
    other = {"EndpointName": "other", "EndpointArn": arn, "CreationTime": MOMENT}
    listed = [
        {**other, "LastModifiedTime": MOMENT, "EndpointStatus": "InService", "EndpointName": name} for name in "ab"
    ]
    denied = {"service_error_code": "AccessDeniedException", "http_status_code": 400}
    monkeypatch.setattr(boto3, "client", lambda name: client)
    with Stubber(client) as stub:
        stub.add_response("list_endpoints", {"Endpoints": listed})
        stub.add_client_error("describe_endpoint", **denied)  # type: ignore[arg-type]
        stub.add_client_error("describe_endpoint", "ValidationException", "Could not find endpoint")
        (found,) = module.get_status()
        assert (found["endpoint"], found["status"], found["package"]) == ("a", "InService", "not permitted")
        module.print_table([found])
        assert capsys.readouterr().out.count("not permitted") >= 6
        # One that was asked for by its name is an error.
        stub.add_client_error("describe_endpoint", **denied)  # type: ignore[arg-type]
        with pytest.raises(ClientError, match="AccessDenied"):
            module.get_status("a")
