"""SageMaker Model Monitor, for accounts that have it: a schedule that checks the model's predictions.

Model Monitor accepts no new customers, and its analyser reads tables only: it sees predictions, but no images. The
stack's own check sees both.
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

#: Converts a captured record to a row, inside Model Monitor's container.
PREPROCESSOR = Path(__file__).with_name("model_monitor_preprocessor.py")
#: The features of a baseline that this row contains.
COLUMNS = ("confidence", "answer", "outcome")
#: Error codes with which Model Monitor may reject an account that it does not serve, or a wrong request.
DENIALS = ("AccessDenied", "AccessDeniedException", "ValidationException")
#: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-schedule-expression.html: every hour at most
HOURLY = "cron(0 * ? * * *)"


def create_schedule(endpoint: str, role_arn: str, baseline: str, output: str, analyzer: str | None) -> str:
    """Create an hourly data quality schedule that compares the model's predictions with a baseline.

    Parameters
    ----------
    endpoint : str
        The endpoint's name; the schedule is named after it.
    role_arn : str
        Role of the jobs: reads captures and ``output``, and writes there.
    baseline : str
        A folder or ``s3://`` prefix that holds a baseline.
    output : str
        ``s3://BUCKET/PREFIX`` for the preprocessor, the baseline of the predictions, and reports.
    analyzer : str or None
        Address of Model Monitor's image in the region; None looks it up with ``sagemaker-core``.

    Returns
    -------
    str
        The schedule's ARN.

    Raises
    ------
    CommandError
        If Model Monitor denies the request; or, before anything is written, if there is no baseline, ``output`` is not
        in S3, or the image's address is not known.
    botocore.exceptions.ClientError
        If the request fails otherwise.
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
        reason = error.response["Error"]
        if reason["Code"] not in DENIALS:
            raise
        raise CommandError(
            f"Model Monitor rejected the schedule ({reason['Code']}: {reason.get('Message', '')}). It accepts no new "
            "customers; the stack's own check (MonitorSchedule) works in every account"
        ) from error
    return created["MonitoringScheduleArn"]


def _analyzer(region: str) -> str:
    try:
        from sagemaker.core import image_uris
    except ModuleNotFoundError as error:
        raise CommandError(
            "the address of Model Monitor's image in this region is not known: give it with --analyzer-image, or look "
            "it up with: pip install sagemaker-core"
        ) from error
    return str(image_uris.retrieve("model-monitor", region))
