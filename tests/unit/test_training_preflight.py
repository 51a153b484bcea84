"""What an account lacks: moto where it answers, stubs where it does not."""

import io
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import ANY, Stubber
from moto import mock_aws

from tests.unit.test_training_deploy import IMAGE, ROLE, push
from training.registry import preflight as module
from training.registry.preflight import Check, Wanted, preflight

WANTED = Wanted("models", ROLE, IMAGE, "ml.m5.xlarge", 2, "image-classifier")
QUOTA = {"ServiceCode": "sagemaker", "QuotaCode": "L-1", "QuotaName": "ml.m5.xlarge for endpoint usage"}


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """Return clients by service, which a test may stub before they are used."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        made: dict[str, Any] = {}
        real: Any = boto3.client
        monkeypatch.setattr(boto3, "client", lambda name: made.setdefault(name, real(name)))
        yield made


def stub(clients: dict[str, Any], service: str) -> Stubber:
    make: Any = boto3.client
    stubber = Stubber(make(service))
    stubber.activate()
    return stubber


def test_without_credentials_nothing_else_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (region, *rest) = preflight(WANTED)
    assert region.passed is False and not rest and "log in" in region.remedy
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    assert list(preflight(WANTED)) == [Check(False, "Region: none is set", "set AWS_DEFAULT_REGION")]


@pytest.mark.parametrize(("default", "own", "passed"), [(0, None, False), (0, 4, True), (8, 3, False), (8, None, True)])
def test_a_quota_of_this_account_replaces_the_default(
    clients: dict[str, Any], default: float, own: float | None, passed: bool
) -> None:
    """Two instances are updated beside two others, which takes four."""
    stubber = stub(clients, "service-quotas")
    first = {"Quotas": [{**QUOTA, "Value": default}], "NextToken": "more"}
    check_job = {**QUOTA, "QuotaCode": "L-2", "QuotaName": "ml.t3.medium for processing job usage", "Value": 1.0}
    stubber.add_response("list_aws_default_service_quotas", first, {"ServiceCode": "sagemaker"})
    stubber.add_response(
        "list_aws_default_service_quotas", {"Quotas": [check_job]}, {"ServiceCode": "sagemaker", "NextToken": "more"}
    )
    quotas = [{**QUOTA, "Value": own}] if own is not None else []
    stubber.add_response("list_service_quotas", {"Quotas": quotas}, {"ServiceCode": "sagemaker"})
    endpoint, job = module._sagemaker_quotas(WANTED)
    assert (endpoint.passed, job.passed) == (passed, True)
    assert "needed 4" in endpoint.what and "--quota-code L-1 --desired-value 4" in endpoint.remedy


def test_state_transitions_are_found_by_their_name(clients: dict[str, Any]) -> None:
    stubber = stub(clients, "service-quotas")
    names = ("StateTransition throttle token refill rate", "Registered state machines")
    quotas = [{"QuotaName": name, "QuotaCode": name[:3], "Value": 0.0} for name in names]
    stubber.add_response("list_aws_default_service_quotas", {"Quotas": quotas})
    stubber.add_response("list_service_quotas", {"Quotas": []})
    (found,) = module._transitions()
    assert found.passed is False and "StateTransition throttle" in found.what


def test_denied_actions_are_named(clients: dict[str, Any]) -> None:
    stubber = stub(clients, "iam")
    results = [
        {"EvalActionName": "s3:PutObject", "EvalDecision": "implicitDeny"},
        {"EvalActionName": "s3:GetObject", "EvalDecision": "allowed"},
    ]
    expected = {
        "PolicySourceArn": ROLE,
        "ActionNames": ["s3:PutObject", "s3:GetObject"],
        "ResourceArns": ["arn:aws:s3:::models/*"],
        "ContextEntries": ANY,
    }
    stubber.add_response("simulate_principal_policy", {"EvaluationResults": results, "IsTruncated": False}, expected)
    (found,) = module._rights(ROLE, {"arn:aws:s3:::models/*": ["s3:PutObject", "s3:GetObject"]}, "do this")
    assert found == Check(
        False, "rights of serving: s3:PutObject on arn:aws:s3:::models/* is denied", "allow it; do this"
    )


@pytest.mark.parametrize(
    ("caller", "principal"),
    [
        ("arn:aws:iam::123456789012:user/me", "arn:aws:iam::123456789012:user/me"),
        ("arn:aws:iam::123456789012:root", None),
        ("arn:aws:sts::123456789012:assumed-role/release/me", "arn:aws:iam::123456789012:role/with/path/release"),
    ],
)
def test_a_session_has_the_rights_of_its_role(clients: dict[str, Any], caller: str, principal: str | None) -> None:
    boto3.client("iam").create_role(RoleName="release", Path="/with/path/", AssumeRolePolicyDocument="{}")
    assert module._principal(caller) == principal


@pytest.mark.parametrize(
    ("service", "passed"),
    [("sagemaker.amazonaws.com", True), (["a", "sagemaker.amazonaws.com"], True), ("ec2.amazonaws.com", False)],
)
def test_the_role_must_trust_sagemaker(clients: dict[str, Any], service: Any, passed: bool) -> None:
    statement = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    boto3.client("iam").create_role(RoleName="serving", AssumeRolePolicyDocument=policy)
    (found,) = module._trust(ROLE)
    assert found.passed is passed
    (absent,) = module._trust(ROLE + "-2")
    assert absent.passed is False and "roles.yaml" in absent.remedy


@pytest.mark.parametrize(("instance", "passed"), [("ml.m5.xlarge", True), ("ml.c7g.large", False)])
def test_the_image_must_fit_the_instance(
    clients: dict[str, Any], instance: str, passed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("ecr").create_repository(repositoryName="classifier")
    digest = push("a")
    monkeypatch.setattr(
        boto3.client("ecr"),
        "get_download_url_for_layer",
        lambda **asked: {"downloadUrl": "https://" + asked["layerDigest"]},
    )
    opened: list[str] = []

    def urlopen(url: str, timeout: float) -> Any:
        opened.append(url)
        return io.BytesIO(b'{"architecture": "amd64"}')

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    wanted = Wanted("models", ROLE, IMAGE, instance, 1, "image-classifier")
    manifest, architecture = module._image(wanted)
    assert manifest.passed and digest in manifest.what
    assert architecture.passed is passed and opened == [f"https://sha256:{'a' * 64}"]


def test_an_encrypted_bucket_needs_rights_on_its_key(clients: dict[str, Any]) -> None:
    key = "arn:aws:kms:eu-west-1:123456789012:key/k"
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="models", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    rule: Any = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}}
    s3.put_bucket_encryption(Bucket="models", ServerSideEncryptionConfiguration={"Rules": [rule]})
    results = [{"EvalActionName": "kms:Decrypt", "EvalDecision": "implicitDeny"}]
    stub(clients, "iam").add_response("simulate_principal_policy", {"EvaluationResults": results, "IsTruncated": False})
    found = list(module._bucket(WANTED, "eu-west-1"))
    assert [check.passed for check in found] == [True, True, False]
    assert f"KmsKeyArn={key}" in found[-1].remedy
    assert next(module._bucket(WANTED, "us-east-1")).passed is False


def test_events_come_only_from_a_bucket_of_this_account_and_region(clients: dict[str, Any]) -> None:
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="photos", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    (off,) = module._events("photos", "eu-west-1")
    # A name that begins with the one asked for is not it.
    (foreign,) = module._events("photo", "eu-west-1")
    assert (off.passed, foreign.passed) == (False, False)
    assert "turn them on" in off.remedy and "own account and Region" in foreign.remedy
    stubber = stub(clients, "s3")
    there = {"Buckets": [{"Name": "photos", "BucketRegion": "us-east-2"}]}
    stubber.add_response("list_buckets", there, {"Prefix": "photos"})
    (elsewhere,) = module._events("photos", "eu-west-1")
    assert elsewhere.passed is False and "is in us-east-2" in elsewhere.what
    stubber.assert_no_pending_responses()


def test_a_check_that_cannot_be_made_hides_no_other(clients: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Iterator[Check]:
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "Any")

    for name in ("_rights", "_all_quotas"):
        monkeypatch.setattr(module, name, refuse)
    found = list(preflight(WANTED))
    unknown = [check.what.partition(":")[0] for check in found if check.passed is None]
    assert unknown[:2] == ["rights of the role", "rights of these credentials"] and unknown[-1] == "data capture"
    missing = [check.what for check in found if check.passed is False]
    assert any(line.startswith("image: ECR has no image") for line in missing)
    assert "bucket models: does not exist" in missing
