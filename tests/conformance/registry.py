"""SageMaker's model registry and training jobs, and IAM's simulation of policies."""

import json
from functools import partial
from typing import Any

from tests.conformance.behaviours import DOCS, World, behaviour, error_of
from tests.support.stack import ROLE

API = f"{DOCS}sagemaker/latest/APIReference/"


@behaviour(
    "Model registry",
    "an update changes only what it is given",
    f"{API}API_UpdateModelPackage.html",
    ("Rejected", "too low", {"accuracy": "0.9"}),
)
def _(world: World) -> Any:
    sagemaker = world.client("sagemaker")
    world.once("group updated", lambda: sagemaker.create_model_package_group(ModelPackageGroupName="updated"))
    arn = sagemaker.create_model_package(
        ModelPackageGroupName="updated",
        ModelApprovalStatus="Rejected",
        CustomerMetadataProperties={"accuracy": "0.9"},
    )["ModelPackageArn"]
    sagemaker.update_model_package(ModelPackageArn=arn, ApprovalDescription="too low")
    found = sagemaker.describe_model_package(ModelPackageName=arn)
    return found["ModelApprovalStatus"], found["ApprovalDescription"], found["CustomerMetadataProperties"]


def _train(world: World, name: str, **more: Any) -> Any:
    image = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10-cpu-py313"
    return world.client("sagemaker").create_training_job(
        TrainingJobName=name,
        RoleArn=ROLE,
        AlgorithmSpecification={
            "TrainingImage": image,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["true"],
        },
        OutputDataConfig={"S3OutputPath": "s3://bucket/output"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        **more,
    )


@behaviour(
    "Training jobs",
    "spot capacity needs a limit of its wait, not below that of the training: the codes",
    f"{API}API_StoppingCondition.html",
    ["ValidationException"] * 2,
)
def _(world: World) -> Any:
    conditions: list[Any] = [{"MaxRuntimeInSeconds": 60}, {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 30}]
    spot = partial(_train, world, "spot", EnableManagedSpotTraining=True)
    return [error_of(partial(spot, StoppingCondition=condition))[0] for condition in conditions]


@behaviour(
    "IAM",
    "what policies decide about actions: Deny before Allow, nothing is not allowed",
    f"{DOCS}IAM/latest/APIReference/API_EvaluationResult.html",
    ["allowed", "explicitDeny", "implicitDeny"],
)
def _(world: World) -> Any:
    iam = world.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    made = world.once("role", lambda: iam.create_role(RoleName="simulated", AssumeRolePolicyDocument=document))
    statements = [
        {"Effect": "Allow", "Action": ["s3:GetObject", "s3:PutObject"], "Resource": "arn:aws:s3:::bucket/*"},
        {"Effect": "Deny", "Action": "s3:PutObject", "Resource": "arn:aws:s3:::bucket/*"},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_role_policy(RoleName="simulated", PolicyName="p", PolicyDocument=policy)
    found = iam.simulate_principal_policy(
        PolicySourceArn=made["Role"]["Arn"],
        ActionNames=["s3:GetObject", "s3:PutObject", "s3:DeleteObject"],
        ResourceArns=["arn:aws:s3:::bucket/a"],
    )
    return [result["EvalDecision"] for result in found["EvaluationResults"]]
