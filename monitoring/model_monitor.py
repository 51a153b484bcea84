"""SageMaker's own Model Monitor, for accounts that have it: the model's answers on a schedule of its own.

Model Monitor takes no new customers, and its analyser reads tables only, so that it sees what the model says and
never what it is shown. The stack's own check sees both.
"""

import json
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError

from common import storage
from common.errors import CommandError
from common.storage import parse_s3
from monitoring.baseline import CONSTRAINTS, STATISTICS, load_baseline

#: Makes a row of a captured record, inside Model Monitor's container.
PREPROCESSOR = Path(__file__).with_name("model_monitor_preprocessor.py")
#: What that row holds, of the features of a baseline.
COLUMNS = ("confidence", "answer", "outcome")
#: With which Model Monitor may turn away an account that it does not serve, beside one that asks for something wrong.
DENIALS = ("AccessDenied", "AccessDeniedException", "ValidationException")
#: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-schedule-expression.html: every hour at most
HOURLY = "cron(0 * ? * * *)"


def create_schedule(endpoint: str, role_arn: str, baseline: str, output: str, analyzer: str | None) -> str:
    """Create an hourly data quality schedule that compares the model's answers with a baseline.

    Parameters
    ----------
    endpoint : str
        Its name, which the schedule is named after.
    role_arn : str
        Role of the jobs: reads captures and ``output``, and writes there.
    baseline : str
        A folder or S3 address that ``python -m monitoring baseline`` wrote.
    output : str
        ``s3://BUCKET/PREFIX`` for the preprocessor, the part of the baseline that concerns answers, and reports.
    analyzer : str or None
        Address of Model Monitor's image in the region; None asks ``sagemaker-core``.

    Returns
    -------
    str
        The schedule's ARN.

    Raises
    ------
    CommandError
        If Model Monitor denies it, with what it said; if there is no baseline, ``output`` is not in S3, or the
        image's address is not known, before anything is written.
    botocore.exceptions.ClientError
        If another thing went wrong.
    """
    parse_s3(output)
    model = load_baseline(baseline).model
    client = boto3.client("sagemaker")
    image = analyzer or _analyzer(client.meta.region_name)
    for name in (STATISTICS, CONSTRAINTS):
        content = json.loads(storage.read(storage.join(baseline, name)))
        content["features"] = [each for each in content["features"] if each["name"] in COLUMNS]
        storage.write(storage.join(output, f"baseline/{name}"), json.dumps(content).encode(), "application/json")
    storage.write(storage.join(output, f"code/{PREPROCESSOR.name}"), PREPROCESSOR.read_bytes(), "text/x-python")
    definition: Any = {
        "BaselineConfig": {
            "StatisticsResource": {"S3Uri": storage.join(output, f"baseline/{STATISTICS}")},
            "ConstraintsResource": {"S3Uri": storage.join(output, f"baseline/{CONSTRAINTS}")},
        },
        "MonitoringInputs": [
            {"EndpointInput": {"EndpointName": endpoint, "LocalPath": "/opt/ml/processing/input/endpoint"}}
        ],
        "MonitoringOutputConfig": {
            "MonitoringOutputs": [
                {
                    "S3Output": {
                        "S3Uri": storage.join(output, "reports"),
                        "LocalPath": "/opt/ml/processing/output",
                        "S3UploadMode": "EndOfJob",
                    }
                }
            ]
        },
        "MonitoringResources": {
            "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.xlarge", "VolumeSizeInGB": 20}
        },
        "MonitoringAppSpecification": {
            "ImageUri": image,
            "RecordPreprocessorSourceUri": storage.join(output, f"code/{PREPROCESSOR.name}"),
        },
        "Environment": {
            "LABELS": ",".join(model.labels),
            "THRESHOLD": str(model.threshold),
            "publish_cloudwatch_metrics": "Enabled",
        },
        "StoppingCondition": {"MaxRuntimeInSeconds": 1800},
        "RoleArn": role_arn,
    }
    try:
        created = client.create_monitoring_schedule(
            MonitoringScheduleName=f"{endpoint}-answers",
            MonitoringScheduleConfig={
                "ScheduleConfig": {"ScheduleExpression": HOURLY},
                "MonitoringJobDefinition": definition,
                "MonitoringType": "DataQuality",
            },
        )
    except ClientError as error:
        said = error.response["Error"]
        if said["Code"] not in DENIALS:
            raise
        raise CommandError(
            f"Model Monitor refused the schedule ({said['Code']}: {said.get('Message', '')}). If the request "
            "is right: it takes no new customers, so that an account that never used it cannot begin now; the stack's "
            "own check (MonitorSchedule) does without it"
        ) from error
    return created["MonitoringScheduleArn"]


def _analyzer(region: str) -> str:
    try:
        from sagemaker.core import image_uris
    except ModuleNotFoundError as error:
        raise CommandError(
            "the address of Model Monitor's image in this region is needed: give it with --analyzer-image, or "
            "pip install sagemaker-core, which knows it"
        ) from error
    return str(image_uris.retrieve("model-monitor", region))
