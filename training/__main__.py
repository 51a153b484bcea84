"""``python -m training``: stage images, train a model, evaluate it, deploy it, remove it."""

import argparse
import json
import os
import signal
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from common.command import add_examples, checked, fraction, non_negative_int, positive_float, positive_int, run
from common.errors import CommandError
from common.folders import class_counts, skipped_lines
from training.dataset.sources import DEFAULT_SOURCE, open_source
from training.evaluation.metrics import THRESHOLD
from training.fit.networks import network_names

MODEL = Path("training/model/model.onnx")
STAGED = Path("build/staged")
NETWORK = "efficientnet-lite0"
LABELS = "bicycle,motorcycle"
IMPROVED = Path("build/improved")
EVALUATION = Path("build/evaluation")
COMPARISON = Path("build/comparison")
GATE = Path("training/gate.toml")

_folds = checked(int, lambda value: value >= 2, "a whole number of at least 2")
_target_accuracy = checked(float, lambda value: 0.5 <= value < 1, "a number of at least 0.5 and below 1")
_confidence_level = checked(float, lambda value: 0 < value < 1, "a number between 0 and 1")


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return its exit code: 0 success, 1 failure, 2 wrong arguments (argparse)."""
    return run(_parser(), arguments, "interrupted; run the same command again to continue where possible")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m training",
        description="Stage images, train a classifier, and run it behind a SageMaker endpoint.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    stage = commands.add_parser(
        "stage",
        help="turn images of any source into a folder for training",
        description="Write images as OUT/{train,test}/{LABEL or neither}/NAME.png, with a manifest. "
        "Images of all other classes become 'neither'. Prints these classes and the skipped files: hidden and "
        "system files, other file types, images under two labels. A second run verifies and changes nothing.",
    )
    stage.add_argument(
        "--source",
        action="append",
        metavar="SOURCE",
        help="a CIFAR-100 binary archive, or a folder or tar file of class folders; subfolders belong to their class. "
        "Images below a folder named test, which may be SOURCE itself, are test data; all others are training data. "
        "SOURCE@test or SOURCE@train overrides this. A URL needs its checksum: URL#sha256=HEX. May be repeated. "
        "Default: the CIFAR-100 binary archive from its home page",
    )
    stage.add_argument(
        "--labels",
        action="append",
        metavar="LABELS",
        help=f"classes to learn (default: {LABELS}); or a folder or s3://BUCKET/PREFIX of reviewed images, which "
        "become training data under the label that a reviewer gave them. May be repeated",
    )
    stage.add_argument("--out", type=Path, default=STAGED, help="folder to write (default: %(default)s)")
    stage.add_argument(
        "--neither-limit",
        type=non_negative_int,
        metavar="N",
        help="keep at most N 'neither' images per split (default: all)",
    )
    stage.add_argument("--s3", metavar="s3://BUCKET/PREFIX", help="also copy new and changed files there")
    stage.add_argument(
        "--cache",
        type=Path,
        default=Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "image-classifier",
        help="folder for downloads (default: %(default)s)",
    )
    stage.set_defaults(run=_stage)

    train = commands.add_parser(
        "train",
        help="train on a staged folder and export ONNX (needs training/requirements.txt)",
        description="Train a network on all training images, and one without each of several folds. The predictions on "
        "the held-out folds give the calibration and the metrics. Export one ONNX file; write the metrics, the "
        "risk-coverage curve and a recommended threshold to metrics.json beside it. OMP_NUM_THREADS networks are "
        "trained at a time (default: the number of cores).",
    )
    train.add_argument("--data", type=Path, default=STAGED, help="a staged folder (default: %(default)s)")
    train.add_argument("--out", type=Path, default=MODEL, help="the ONNX file (default: %(default)s)")
    _add_recipe(train)
    train.add_argument("--seed", type=non_negative_int, default=0, help="default: %(default)s")
    _add_target(train)
    train.add_argument(
        "--checkpoints",
        type=Path,
        metavar="DIR",
        help="keep each finished network there; the same command continues after an interruption",
    )
    train.add_argument(
        "--calibrate-on",
        type=Path,
        metavar="DIR",
        help="class folders with images like those that the endpoint will get, some without a label. How strict the "
        "model is about 'neither' is fitted on them (default: the recipe's value)",
    )
    _add_job(train)
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate",
        help="measure a model on image files: table, evaluation.json, report.html",
        description="Run the endpoint's code on images in class folders. Print accuracy, calibration and coverage; "
        "write OUT/evaluation.json and OUT/report.html.",
    )
    evaluate.add_argument(
        "--model",
        type=Path,
        action="append",
        help=f"the ONNX file (default: {MODEL}); given twice, the second model is compared with the first on the same "
        "images: OUT/comparison.json and comparison.html",
    )
    evaluate.add_argument(
        "--data",
        action="append",
        metavar="[NAME=]DIR[,DIR...]",
        help="folders of class folders, which make one set of images. Subfolders belong to their class; folders that "
        "are not named after a label are background. If a folder is staged or contains a folder 'test', only its test "
        "images are used. Several folders need a NAME. May be repeated; each set is reported separately "
        f"(default: {STAGED})",
    )
    evaluate.add_argument("--out", type=Path, default=EVALUATION, help="folder to write (default: %(default)s)")
    evaluate.add_argument(
        "--threshold", type=fraction, default=THRESHOLD, help="lowest confidence that passes (default: %(default)s)"
    )
    _add_target(evaluate)
    evaluate.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    evaluate.set_defaults(run=_evaluate)

    deploy = commands.add_parser(
        "deploy",
        help="create or update the endpoint",
        description="Look up the image in ECR, upload the model, create the endpoint or update it, and wait. An update "
        "starts a new fleet, on a canary first where there are two instances or more. Alarms on errors, latency, "
        "missing traffic and wrong answers watch it; if one goes off, SageMaker returns to the old fleet, and the exit "
        "code is 3. A second run of the same command does nothing; after an interruption it continues to wait.",
    )
    deploy.add_argument("--endpoint-name", required=True, help="remains the same for all updates")
    deploy.add_argument(
        "--bucket", required=True, help="for the model and the captured data (under capture/); the stack's ModelBucket"
    )
    deploy.add_argument("--role-arn", required=True, help="role of the container")
    content = deploy.add_mutually_exclusive_group(required=True)
    content.add_argument("--image-uri", help="the container's image in ECR, pushed by make image")
    content.add_argument("--package", metavar="GROUP/VERSION", help="an approved model package: its model and image")
    content.add_argument(
        "--training-job",
        metavar="NAME",
        help="a job of train --algorithm built-in: its model and the algorithm's image",
    )
    deploy.add_argument("--model", type=Path, default=MODEL, help="with --image-uri (default: %(default)s)")
    deploy.add_argument("--instance-type", default="ml.m5.xlarge", help="default: %(default)s")
    deploy.add_argument("--instance-count", type=positive_int, help="default: as now; --min, or 1, for a new endpoint")
    deploy.add_argument(
        "--shadow",
        action="store_true",
        help="keep the model in service, and send a copy of its requests to this one, without alarms, on as many "
        "instances (or --instance-count). See: compare. Without --shadow the same command puts the model in service; "
        "rollback ends the shadow",
    )
    deploy.add_argument(
        "--capture-percentage",
        type=non_negative_int,
        default=100,
        help="percentage of requests to capture (default: %(default)s)",
    )
    _add_guard(deploy)
    deploy.set_defaults(run=_deploy)

    rollback = commands.add_parser(
        "rollback",
        help="return the endpoint to its previous configuration",
        description="Return the endpoint to the configuration that its present one replaced, and wait. If a shadow is "
        "running, this ends it; the model in service stays. After an interruption, run it again.",
    )
    rollback.add_argument("--endpoint-name", required=True)
    rollback.set_defaults(run=_rollback)

    remove = commands.add_parser(
        "remove",
        help="delete the endpoint, its autoscaling, configurations and models",
        description="Delete the endpoint, its autoscaling, its configurations and its models, without confirmation. If "
        "the endpoint is being created or updated, wait for that first. Files in S3 stay.",
    )
    remove.add_argument("--endpoint-name", required=True)
    remove.set_defaults(run=_remove)
    _add_registry_commands(commands)
    add_examples(
        commands,
        {
            "stage": "--source ~/photos --labels cat,dog",
            "train": "--out build/model.onnx",
            "evaluate": "--data ~/photos",
            "deploy": "--endpoint-name image-classifier --bucket MODELS --role-arn arn:aws:iam::123456789012:role/NAME "
            "--image-uri 123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier:1",
            "rollback": "--endpoint-name image-classifier",
            "remove": "--endpoint-name image-classifier",
            "register": "--endpoint-name image-classifier --bucket MODELS "
            "--image-uri 123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier:1",
            "approve": "image-classifier/3",
            "reject": "image-classifier/3 --reason 'wrong on night photos'",
            "status": "--endpoint-name image-classifier",
            "compare": "--endpoint-name image-classifier --labels s3://MODELS/labels",
            "improve": "--stack-name image-classifier",
            "preflight": "--bucket MODELS --role-arn arn:aws:iam::123456789012:role/NAME "
            "--image-uri 123456789012.dkr.ecr.us-east-1.amazonaws.com/image-classifier:1",
        },
    )
    return parser


def _add_registry_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    register = commands.add_parser(
        "register",
        help="judge a model and register it as a model package",
        description="Evaluate a model, compare it with the one in service (or the last approved one) on the same "
        "images, and create a model package in the group named after the endpoint. A model that does not reach the "
        "limits of --gate, or that is worse by more than chance, is registered as Rejected, and the exit code is 1. "
        "Otherwise it waits for: python -m training approve",
    )
    register.add_argument("--endpoint-name", required=True, help="name of the endpoint and of the model package group")
    register.add_argument("--bucket", required=True, help="for the model and its evaluation; the stack's ModelBucket")
    register.add_argument("--image-uri", required=True, help="the container's image in ECR, pushed by make image")
    register.add_argument("--model", type=Path, default=MODEL, help="the ONNX file (default: %(default)s)")
    register.add_argument(
        "--data",
        default=str(STAGED),
        metavar="[NAME=]DIR[,DIR...]",
        help="the images to judge by, as evaluate takes them (default: the test images of %(default)s)",
    )
    register.add_argument("--gate", type=Path, default=GATE, help="file of limits (default: %(default)s)")
    register.add_argument(
        "--threshold", type=fraction, default=THRESHOLD, help="lowest confidence that passes (default: %(default)s)"
    )
    _add_target(register)
    register.set_defaults(run=_register)

    for name, summary in (("approve", "allow a model package to be deployed"), ("reject", "reject a model package")):
        decision = commands.add_parser(name, help=summary, description=f"{summary.capitalize()}.")
        decision.add_argument("package", metavar="GROUP/VERSION", help="such as image-classifier/3, or the ARN")
        decision.add_argument(
            "--reason", help="recorded as the approval description; needed to approve a rejected package"
        )
        decision.set_defaults(run=_decide, approved=name == "approve")

    status = commands.add_parser(
        "status",
        help="show what runs: instances, model package, capture, alarms, last update, cost",
        description="Print one table with a column for each variant of the endpoints in this region.",
    )
    status.add_argument("--endpoint-name", help="only this endpoint")
    status.add_argument("--json", action="store_true", help="print a JSON list instead of a table")
    status.set_defaults(run=_status)

    compare = commands.add_parser(
        "compare",
        help="compare the answers of a shadow and of the model in service",
        description="Read what both variants captured since the shadow began, pair the answers by image, and print how "
        "often they agree, how sure they are, how many pass, which answers change, and who is right on images that "
        "people reviewed. Write OUT/comparison.json and OUT/comparison.html, with the pictures that changed.",
    )
    compare.add_argument("--endpoint-name", required=True)
    compare.add_argument("--hours", type=positive_float, help="only captures of the last hours")
    compare.add_argument("--labels", metavar="LABELS", help="folder or s3://BUCKET/PREFIX of reviewed images")
    compare.add_argument(
        "--threshold", type=fraction, default=THRESHOLD, help="lowest confidence that passes (default: %(default)s)"
    )
    compare.add_argument("--out", type=Path, default=COMPARISON, help="folder to write (default: %(default)s)")
    compare.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    compare.set_defaults(run=_compare)

    preflight = commands.add_parser(
        "preflight",
        help="find what the account lacks, before anything is created",
        description="Check credentials, roles, rights, image, bucket and quotas; print one line each with a remedy. "
        "Makes read-only calls. The exit code is 1 if something is missing; a check that cannot be made (?) does not "
        "count.",
    )
    preflight.add_argument("--endpoint-name", default="image-classifier", help="default: %(default)s")
    preflight.add_argument("--bucket", required=True, help="for models and captured data")
    preflight.add_argument("--role-arn", required=True, help="role of the container")
    preflight.add_argument("--image-uri", required=True, help="the container's image in ECR")
    preflight.add_argument("--instance-type", default="ml.m5.xlarge", help="of the endpoint (default: %(default)s)")
    preflight.add_argument("--instance-count", type=positive_int, default=1, help="default: %(default)s")
    preflight.add_argument("--image-bucket", help="the bucket for uploads, if it exists: are its events on?")
    preflight.add_argument("--training-instance-type", help="of training jobs: is there a quota?")
    preflight.set_defaults(run=_preflight)

    improve = commands.add_parser(
        "improve",
        help="from reviewed images to a better model in service, one step after the other",
        description="Stage new labels beside the staged images, train on all, register the model with the gate, and "
        "once it is approved deploy it with the settings of the endpoint. Stops where a person must decide, with the "
        "next command; run it again to continue with the open step. Exit code 1: the gate rejected the model; 3: the "
        "update was rolled back.",
    )
    improve.add_argument("--stack-name", required=True, help="its endpoint, bucket, labels and threshold are used")
    improve.add_argument(
        "--data", type=Path, default=STAGED, help="a staged folder; its test images judge (default: %(default)s)"
    )
    improve.add_argument("--out", type=Path, default=IMPROVED, help="folder to work in (default: %(default)s)")
    _add_recipe(improve)
    improve.add_argument("--gate", type=Path, default=GATE, help="file of limits (default: %(default)s)")
    _add_watch(improve)
    improve.set_defaults(run=_improve)


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=network_names(), default=NETWORK, help="default: %(default)s")
    parser.add_argument("--epochs", type=positive_int, help="default: as in the recipe of the network")
    parser.add_argument("--folds", type=_folds, help="of cross-validation (default: as in the recipe of the network)")


def _add_job(train: argparse.ArgumentParser) -> None:
    job = train.add_argument_group("training job (--on sagemaker; needs training/requirements-sagemaker.txt)")
    job.add_argument("--on", choices=("here", "sagemaker"), default="here", help="default: %(default)s")
    job.add_argument("--bucket", help="for data, code, checkpoints and the model, below training/; required")
    job.add_argument("--role-arn", help="role of the job (training/roles.yaml: TrainingRoleArn); required")
    job.add_argument("--job-prefix", default="image-classifier", help="beginning of its name (default: %(default)s)")
    job.add_argument(
        "--algorithm",
        choices=("ours", "built-in"),
        default="ours",
        help="built-in: SageMaker's own image classification on the same data, for comparison; of the options above it "
        "takes --data and --epochs, and its model is for deploy --training-job (default: %(default)s)",
    )
    job.add_argument("--instance-type", help="default: ml.m5.2xlarge; for --algorithm built-in ml.g4dn.xlarge")
    job.add_argument("--spot", action="store_true", help="use spare capacity; continues after interruptions")
    job.add_argument("--max-hours", type=positive_float, default=6.0, help="longest training (default: %(default)g)")
    job.add_argument("--training-image", help="default: AWS's image for this Region, of PyTorch or of the algorithm")
    job.add_argument("--job", metavar="NAME", help="follow this job, instead of starting one, and fetch its model")


def _add_target(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target-accuracy",
        type=_target_accuracy,
        default=0.95,
        help="recommend the lowest threshold at which predictions that pass reach this accuracy (default: %(default)s)",
    )
    parser.add_argument(
        "--confidence-level",
        type=_confidence_level,
        default=0.95,
        help="of that recommendation (default: %(default)s)",
    )


def _stage(options: argparse.Namespace) -> None:
    from common.labels import NEITHER, parse_labels
    from training.dataset.reviewed import ReviewedSource
    from training.dataset.staging import stage, warn_of_counts

    # A list of labels contains a comma and no slash.
    places = [text for text in options.labels or [] if "/" in text or ("," not in text and Path(text).is_dir())]
    lists = [text for text in options.labels or [] if text not in places] or [LABELS]
    if len(lists) > 1:
        raise CommandError(f"the classes to learn are given twice: {' and '.join(lists)}; give one list")
    labels = parse_labels(lists[0])
    if options.s3:
        from common.storage import parse_s3
        from training.dataset.upload import upload

        bucket, prefix = parse_s3(options.s3)
    sources = [open_source(text, options.cache) for text in options.source or [DEFAULT_SOURCE]]
    reviewed = [ReviewedSource(place) for place in places]
    manifest = stage(sources, labels, options.out, options.neither_limit, reviewed)
    for split, counts in manifest.counts.items():
        print(f"{split}: " + ", ".join(f"{count} {label}" for label, count in counts.items()))
    for warning in warn_of_counts(manifest.counts, labels):
        print(f"warning: {warning}", file=sys.stderr)
    if reviewed and manifest.reviewed:
        why = {
            "test": "are test images",
            "duplicates": "are duplicates of another reviewed image",
            "unusable": "are unusable (named below)",
        }
        left_out = [f"{manifest.reviewed[name]} {text}" for name, text in why.items() if manifest.reviewed[name]]
        joined = f"{manifest.reviewed['joined']} of {sum(manifest.reviewed.values())} reviewed images joined"
        print("; ".join([joined, *left_out]))
    if manifest.neither_classes:
        print(f"{NEITHER} comes from {class_counts(manifest.neither_classes, labels)}")
    if manifest.duplicates:
        print(f"skipped {manifest.duplicates} duplicate image{'s' * (manifest.duplicates > 1)}")
    for pair in manifest.conflicts:
        print(f"warning: skipped an image under two labels: {pair}", file=sys.stderr)
    for reason in manifest.unreadable:
        print(f"skipped {reason}", file=sys.stderr)
    for line in skipped_lines(manifest.skipped or []):
        print(line, file=sys.stderr)
    print(f"staged in {options.out}")
    if options.s3:
        copied = upload(options.out, bucket, prefix)
        print(f"copied {copied.sent} objects to {options.s3}; {copied.unchanged} were unchanged")


def _train_on_sagemaker(options: argparse.Namespace) -> None:
    from training.jobs import built_in
    from training.jobs.follow import fetch, follow
    from training.jobs.start import Job, start

    _interrupt_on_sigterm()
    ours = options.algorithm == "ours"
    name = options.job
    if not name:
        if not (options.bucket and options.role_arn):
            raise CommandError("train --on sagemaker needs --bucket and --role-arn, or --job to follow one")
        names = ("network", "epochs", "folds", "seed", "target_accuracy", "confidence_level")
        given = {key.replace("_", "-"): str(value) for key in names if (value := getattr(options, key)) is not None}
        job = Job(
            options.job_prefix,
            options.bucket,
            options.role_arn,
            options.data,
            given,
            options.instance_type or ("ml.m5.2xlarge" if ours else "ml.g4dn.xlarge"),
            options.spot,
            options.max_hours,
            options.training_image,
        )
        name = start(job) if ours else built_in.start(job, options.epochs)
    described = follow(name)
    if built_in.is_built_in(described):
        print(built_in.describe_result(described))
        return
    fetch(described, options.out)
    print(f"wrote {options.out} ({options.out.stat().st_size:,} bytes) and {options.out.parent / 'metrics.json'}")


def _train(options: argparse.Namespace) -> None:
    if options.on == "sagemaker":
        if options.calibrate_on:
            raise CommandError("--calibrate-on can only be used without --on sagemaker")
        _train_on_sagemaker(options)
        return
    remote = ("job", "bucket", "role_arn", "instance_type", "spot", "training_image")
    if options.algorithm != "ours":
        raise CommandError("--algorithm built-in can only be used with --on sagemaker")
    if given := [f"--{name.replace('_', '-')}" for name in remote if getattr(options, name)]:
        raise CommandError(f"{', '.join(given)} can only be used with --on sagemaker")
    try:
        from training.evaluation.threshold import sentence
        from training.fit.network import load_recipe
        from training.fit.train import train
    except ModuleNotFoundError as error:
        raise CommandError(
            f"train needs {error.name}; use an environment with: pip install -r training/requirements.txt"
        ) from error
    chosen = {name: value for name in ("epochs", "folds") if (value := getattr(options, name))}
    recipe = replace(load_recipe(options.network), **chosen)
    report = train(
        options.data,
        options.out,
        recipe,
        options.seed,
        options.target_accuracy,
        options.confidence_level,
        options.checkpoints,
        options.calibrate_on,
    )
    for name in ("validation", "test"):
        print(f"{name}: " + ", ".join(f"{key} {value}" for key, value in report[name].items()))
    print(sentence(report["advice"], options.target_accuracy))
    print(f"wrote {options.out} ({options.out.stat().st_size:,} bytes) and {options.out.parent / 'metrics.json'}")


def _evaluate(options: argparse.Namespace) -> None:
    try:
        from training.evaluation.comparison import compare, print_comparison
        from training.evaluation.evaluate import evaluate, print_tables, short
    except ModuleNotFoundError as error:
        raise CommandError(
            f"evaluate needs {error.name}; use an environment with: pip install -r training/requirements.txt"
        ) from error
    models = options.model or [MODEL]
    if len(models) > 2:
        raise CommandError("give --model once, or twice to compare two models")
    if len(models) == 2:
        comparison = compare(models[0], models[1], options.data or [str(STAGED)], options.out, options.threshold)
        if options.json:
            print(json.dumps(comparison, allow_nan=False))
        else:
            print_comparison(comparison)
            print(f"wrote {options.out / 'comparison.json'} and {options.out / 'comparison.html'}")
        return
    evaluation = evaluate(
        models[0],
        options.data or [str(STAGED)],
        options.out,
        options.threshold,
        options.target_accuracy,
        options.confidence_level,
    )
    if options.json:
        print(json.dumps(short(evaluation), allow_nan=False))
    else:
        print_tables(evaluation)
        print(f"wrote {options.out / 'evaluation.json'} and {options.out / 'report.html'}")


def _add_watch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--known-images",
        type=Path,
        metavar="DIR",
        help="class folders of at most 50 images that any acceptable model recognises: they are sent to the new fleet, "
        "and a wrong answer rolls the update back",
    )
    parser.add_argument(
        "--baking-seconds",
        type=non_negative_int,
        default=300,
        help="how long the alarms watch each step of an update; on AWS at least 180 make sense (default: %(default)s)",
    )
    parser.add_argument(
        "--max-latency-ms",
        type=positive_int,
        default=1000,
        help="average latency of the model that rolls an update back (default: %(default)s)",
    )


def _add_guard(parser: argparse.ArgumentParser) -> None:
    _add_watch(parser)
    parser.add_argument("--min", type=positive_int, dest="min_instances", metavar="N", help="with --max (default: 1)")
    parser.add_argument(
        "--max",
        type=positive_int,
        dest="max_instances",
        metavar="N",
        help="most instances: turns autoscaling on, or changes it. Without it, autoscaling stays as it is",
    )
    parser.add_argument(
        "--target",
        type=positive_int,
        dest="target_invocations",
        metavar="N",
        help="invocations of one instance in a minute above which instances are added (default: 12000)",
    )
    parser.add_argument("--network-isolation", action="store_true", help="the container gets no network access")
    parser.add_argument("--kms-key", metavar="KEY", help="KMS key that encrypts the volumes of the instances")


def _deploy(options: argparse.Namespace) -> int:
    from serving.model import Model
    from training.deployment.deploy import deploy
    from training.deployment.rollout import EXIT_ROLLED_BACK, RolledBackError
    from training.deployment.settings import Deployment

    _interrupt_on_sigterm()
    fields = {name: value for name, value in vars(options).items() if name not in ("run", "package", "training_job")}
    with tempfile.TemporaryDirectory() as folder:
        if options.package:
            from training.registry.packages import unpack_approved

            fields["model"], fields["image_uri"] = unpack_approved(options.package, Path(folder))
        if options.training_job:
            from training.jobs import built_in

            fields["model"], fields["image_uri"] = built_in.fetch(options.training_job, Path(folder))
        deployment = Deployment(**fields)
        if deployment.is_built_in and not options.training_job:
            raise CommandError(f"--model {deployment.model} is an archive; give an ONNX file, or --training-job NAME")
        if not deployment.is_built_in:
            Model(deployment.model)  # raises an error for a file that the endpoint could not serve
        try:
            deploy(deployment)
        except RolledBackError as error:
            print(f"error: {error}", file=sys.stderr)
            return EXIT_ROLLED_BACK
    return 0


def _rollback(options: argparse.Namespace) -> None:
    from training.deployment.rollout import rollback

    _interrupt_on_sigterm()
    rollback(options.endpoint_name)


def _remove(options: argparse.Namespace) -> None:
    from training.deployment.deploy import remove

    _interrupt_on_sigterm()
    remove(options.endpoint_name)


def _register(options: argparse.Namespace) -> int:
    from training.registry.packages import short_name
    from training.registry.register import Registration, register

    registered = register(Registration(**{name: value for name, value in vars(options).items() if name != "run"}))
    name = short_name(registered.arn)
    for reason in registered.reasons:
        print(f"rejected: {reason}", file=sys.stderr)
    if not registered.reasons:
        print(f"approve it with: python -m training approve {name}")
    return 1 if registered.reasons else 0


def _decide(options: argparse.Namespace) -> None:
    from training.registry.packages import decide

    decide(options.package, options.approved, options.reason)


def _status(options: argparse.Namespace) -> None:
    from training.registry.status import get_status, print_table

    found = get_status(options.endpoint_name)
    if options.json:
        print(json.dumps(found, allow_nan=False))
    else:
        print_table(found)


def _compare(options: argparse.Namespace) -> None:
    from training.registry.captured import compare_captured, print_captured

    comparison = compare_captured(options.endpoint_name, options.hours, options.labels, options.threshold, options.out)
    if options.json:
        print(json.dumps(comparison, allow_nan=False))
    else:
        print_captured(comparison)
        print(f"wrote {options.out / 'comparison.json'} and {options.out / 'comparison.html'}")


def _preflight(options: argparse.Namespace) -> int:
    from training.registry.preflight import Wanted, preflight

    missing = unknown = 0
    for check in preflight(Wanted(**{name: value for name, value in vars(options).items() if name != "run"})):
        mark = "?" if check.passed is None else "ok" if check.passed else "missing"
        print(f"{mark:<8}{check.what}" + (f"; {check.remedy}" if check.remedy and not check.passed else ""), flush=True)
        missing += check.passed is False
        unknown += check.passed is None
    print(f"{missing} missing, {unknown} could not be checked")
    return 1 if missing else 0


def _improve(options: argparse.Namespace) -> int:
    from training.deployment.rollout import EXIT_ROLLED_BACK, RolledBackError
    from training.improve import Improvement, improve

    _interrupt_on_sigterm()
    try:
        return improve(Improvement(**{name: value for name, value in vars(options).items() if name != "run"}))
    except RolledBackError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_ROLLED_BACK


def _interrupt_on_sigterm() -> None:
    """Handle SIGTERM like Ctrl-C, which prints what continues on AWS."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)


if __name__ == "__main__":
    sys.exit(main())
