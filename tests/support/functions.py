"""What the three functions find around them in Lambda."""

from dataclasses import dataclass

#: The functions' settings, as the stack gives them by default.
SETTINGS = {"MAX_EDGE": "224", "ENDPOINT_NAME": "image-classifier", "LABELS": "bicycle,motorcycle", "THRESHOLD": "0.70"}


@dataclass
class FakeLambdaContext:
    """What Powertools reads of a Lambda context."""

    function_name: str = "test"
    memory_limit_in_mb: int = 256
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:test"
    aws_request_id: str = "00000000-0000-0000-0000-000000000000"

    def get_remaining_time_in_millis(self) -> int:
        """Return the time left."""
        return 1000
