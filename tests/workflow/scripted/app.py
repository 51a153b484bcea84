"""Stands for any of the three functions, and plays a script: which errors to raise before it succeeds."""

import os
import time
from pathlib import Path
from typing import Any


def lambda_handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """Raise the errors that the event's script lists for this function, one an attempt, then return the event.

    The word ``sleep`` in their place makes an attempt last longer than any test. ``message`` is what the errors say.
    """
    script = event.get("script", {})
    errors = script.get(os.environ["ROLE"], [])
    counter = Path(os.environ["ATTEMPTS"]) / f"{event['execution_id'].rsplit(':', 1)[-1]}-{os.environ['ROLE']}"
    attempt = len(counter.read_bytes()) if counter.exists() else 0
    with counter.open("ab") as file:
        file.write(b".")
    if attempt < len(errors) and errors[attempt] == "sleep":
        time.sleep(3600)
    elif attempt < len(errors):
        raise type(errors[attempt], (Exception,), {})(script.get("message", f"attempt {attempt}"))
    return event
