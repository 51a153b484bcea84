"""The server: moto with its patches, functions and endpoints.

Started by the supervisor (:mod:`rehearsal.lifecycle`) as ``python -m rehearsal.server FOLDER PORT PROJECT``.
"""

import gc
import logging
import os
import sys
import threading
import time
import warnings
from pathlib import Path

from rehearsal.environment import credentials
from rehearsal.lifecycle import READY_FILE, STATE_FILE, end
from rehearsal.settings import PROJECT, of_this_process

PARENT_POLL_SECONDS = 0.5


def main() -> None:
    """Serve until the supervisor ends this process or dies, or the folder is removed."""
    folder, port, os.environ[PROJECT] = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    settings = of_this_process()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("rehearsal").setLevel(logging.INFO)
    # Requests, metrics, whole syntax trees, and connections beyond a pool that all tasks share.
    for name in ("werkzeug", "samtranslator", "moto.stepfunctions", "urllib3.connectionpool"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", message="Exception.Refusal.")  # its codes are no part of a service's model
    supervisor = os.getppid()
    os.environ.update(
        credentials(port, settings.region),
        MOTO_ACCOUNT_ID=settings.account,
        MOTO_PORT=str(port),
        VALIDATE_LAMBDA_S3="true",
    )

    # After the environment is set: moto reads parts of it when it is imported.
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    from rehearsal import cloudwatch_alarms, lambda_, sagemaker_endpoints, sagemaker_scaling, scheduler
    from rehearsal.patches import apply
    from rehearsal.refusals import Application

    apply()
    lambda_.functions()
    sagemaker_endpoints.endpoints()
    sagemaker_endpoints.put_images(settings)
    scheduler.start()
    cloudwatch_alarms.start()
    sagemaker_scaling.start()
    # Containers (sam local invoke) reach this machine by another address than the loopback one.
    application = Application(create_backend_app)
    for host in {"127.0.0.1", os.environ.get("REHEARSAL_HOST", "127.0.0.1")}:
        server = make_server(host, port, application, threaded=True, request_handler=MotoRequestHandler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    # Most objects stay: modules and the descriptions of AWS's services. The default searches all of them often.
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 50, 50)
    (folder / READY_FILE).touch()
    while os.getppid() == supervisor and (folder / STATE_FILE).exists():
        time.sleep(PARENT_POLL_SECONDS)
    end(folder)


if __name__ == "__main__":
    main()
