"""Convert a captured record to a row of numbers and strings; runs alone, inside Model Monitor's container.

Contract: https://docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-pre-and-post-processing.html
"""

import json
import os


def preprocess_handler(inference_record):  # type: ignore[no-untyped-def]  # its type is in that container only
    """Return the model's prediction as columns, defined as in `monitoring.features`."""
    labels = os.environ["LABELS"].split(",")
    probabilities = json.loads(inference_record.endpoint_output.data)
    confidence = max(probabilities)
    neither = 1 - sum(probabilities)
    return {
        "confidence": confidence,
        "answer": labels[probabilities.index(confidence)] if confidence >= neither else "neither",
        "outcome": "passes" if confidence >= float(os.environ["THRESHOLD"]) else "unsure",
    }
