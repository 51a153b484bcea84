"""ETL: from archives and folders to a staged folder with a manifest."""

import gzip
import hashlib
import io
import json
import pickle
import tarfile
from pathlib import Path

import boto3
import numpy as np
import pytest
from moto import mock_aws
from PIL import Image

from common.errors import CommandError
from common.labels import parse_labels
from common.manifest import Manifest, read_manifest
from demo.drawing import encoded, noise
from tests.support.reviews import write_folder, write_review
from training.__main__ import main
from training.dataset.reviewed import ReviewedSource
from training.dataset.sources import open_source
from training.dataset.staged import StagedSource
from training.dataset.staging import stage, warn_of_counts

CLASSES = ["apple", "bicycle", "motorcycle", "pickup_truck"]


def record(fine: int, seed: int) -> bytes:
    """A CIFAR-100 binary record: coarse label, fine label, planes of red, green, blue."""
    return bytes([0, fine]) + np.random.default_rng(seed).integers(0, 256, 3072, np.uint8).tobytes()


def write_tar(path: Path, files: dict[str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def write_cifar(path: Path, extra: bytes = b"") -> Path:
    """Four classes, three images each to train on and one each to test on."""
    return write_tar(
        path,
        {
            "cifar-100-binary/train.bin": b"".join(record(i % 4, i) for i in range(12)) + extra,
            "cifar-100-binary/test.bin": b"".join(record(i, 100 + i) for i in range(4)),
            "cifar-100-binary/fine_label_names.txt": "\n".join(CLASSES).encode() + b"\n",
        },
    )


def png(seed: int, size: tuple[int, int] = (32, 32)) -> bytes:
    return encoded(noise(*size, seed))


def run(
    out: Path,
    *sources: str | Path,
    labels: str = "bicycle,motorcycle",
    limit: int | None = None,
    reviews: str | Path | None = None,
) -> Manifest:
    opened = [open_source(str(source), out / "no-cache") for source in sources]
    reviewed = [ReviewedSource(str(reviews))] if reviews else []
    return stage(opened, parse_labels(labels), out, limit, reviewed)


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {str(p): (p.read_bytes(), p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file()}


def test_cifar_records_become_the_right_pixels(tmp_path: Path) -> None:
    manifest = run(tmp_path / "out", write_cifar(tmp_path / "c.tar.gz"))
    assert manifest.counts == {
        "train": {"bicycle": 3, "motorcycle": 3, "neither": 6},
        "test": {"bicycle": 1, "motorcycle": 1, "neither": 2},
    }
    with Image.open(tmp_path / "out/train/bicycle/train_00001.png") as image:
        pixels = np.array(image)
    planes = np.frombuffer(record(1, 1)[2:], np.uint8).reshape(3, 32, 32)
    assert np.array_equal(pixels, np.stack(list(planes), axis=2))


def test_the_manifest_names_every_file_with_its_hash(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, write_cifar(tmp_path / "c.tar.gz"))
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["labels"] == ["bicycle", "motorcycle"]
    assert {image["path"] for image in manifest["images"]} == {
        p.relative_to(out).as_posix() for p in out.rglob("*.png")
    }
    for image in manifest["images"]:
        assert hashlib.sha256((out / image["path"]).read_bytes()).hexdigest() == image["sha256"]
        assert image["path"].startswith(f"{image['split']}/{image['label']}/")
    assert manifest["images"][0]["source"] == "c.tar.gz/test.bin#1"


def test_a_second_run_changes_nothing_and_two_folders_are_equal(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz")
    run(tmp_path / "a", archive)
    before = snapshot(tmp_path / "a")
    run(tmp_path / "a", archive)
    assert snapshot(tmp_path / "a") == before
    run(tmp_path / "b", archive)
    assert (tmp_path / "b/manifest.json").read_bytes() == (tmp_path / "a/manifest.json").read_bytes()


def test_a_damaged_or_missing_image_is_mended(tmp_path: Path) -> None:
    archive, out = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "out"
    run(out, archive)
    whole = {p: content for p, (content, _) in snapshot(out).items()}
    (out / "train/bicycle/train_00001.png").write_bytes(b"damaged")
    (out / "test/motorcycle/test_00002.png").unlink()
    run(out, archive)
    assert {p: content for p, (content, _) in snapshot(out).items()} == whole


def test_other_labels_replace_what_was_staged(tmp_path: Path) -> None:
    archive, out = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "out"
    run(out, archive)
    manifest = run(out, archive, labels="apple,pickup_truck,bicycle")
    assert manifest.counts["train"] == {"apple": 3, "pickup_truck": 3, "bicycle": 3, "neither": 3}
    assert len(list(out.rglob("*.png"))) == len(manifest.images) == 16
    assert not list((out / "train/motorcycle").iterdir())


def test_folders_choose_their_split(tmp_path: Path) -> None:
    split = write_folder(
        tmp_path / "split",
        {
            "train/bicycle/a.png": png(1),
            "test/bicycle/a.png": png(2),
            "train/motorcycle/b.png": png(3),
            "train/dog/c.jpg": png(4),
            "notes.txt": b"not an image",
        },
    )
    plain = write_folder(tmp_path / "plain", {"cat/c.png": png(5)})
    manifest = run(tmp_path / "out", split, plain, f"{plain}@test")
    # The same image cannot be in both splits: it is kept for testing.
    assert manifest.counts == {
        "train": {"bicycle": 1, "motorcycle": 1, "neither": 1},
        "test": {"bicycle": 1, "motorcycle": 0, "neither": 1},
    }
    assert manifest.duplicates == 1
    assert (tmp_path / "out/test/neither/cat_c.png").is_file()


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_of_class_folders(tmp_path: Path, mode: str) -> None:
    files = {f"set/{name}/0.png": png(i) for i, name in enumerate(["bicycle", "motorcycle", "dog", "cat"])}
    manifest = run(tmp_path / "out", write_tar(tmp_path / "set.tar", files, mode))
    assert sorted(entry.path for entry in manifest.images) == [
        "train/bicycle/0.png",
        "train/motorcycle/0.png",
        "train/neither/cat_0.png",
        "train/neither/dog_0.png",
    ]


def test_a_hostile_tar_writes_nothing_outside(tmp_path: Path) -> None:
    files = {
        "bicycle/ok.png": png(1),
        "motorcycle/ok.png": png(2),
        "../../outside/evil.png": png(3),
        "/absolute/bicycle/../../../evil.png": png(4),
        "dog/..png": png(5),
        "dog/a b\n$(x).png": png(6),
    }
    out = tmp_path / "deep" / "out"
    archive = write_tar(tmp_path / "evil.tar.gz", files)
    manifest = run(out, archive)
    assert {p for p in tmp_path.rglob("*") if p.is_file()} - set(out.rglob("*")) == {archive}
    read_manifest(out)
    # "..png" is a hidden file, and "evil.png" is left without a class folder.
    assert {entry.source for entry in manifest.images} == {
        "evil.tar.gz/bicycle/ok.png",
        "evil.tar.gz/motorcycle/ok.png",
        "evil.tar.gz/../../outside/evil.png",
        r"evil.tar.gz/dog/a b\n$(x).png",
    }


def test_pickles_are_never_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"bicycle/a.png": png(1), "motorcycle/a.png": png(2), "python/train": pickle.dumps({"a": 1})}
    monkeypatch.setattr(pickle, "load", lambda *_: pytest.fail("unpickled"))
    monkeypatch.setattr(pickle, "loads", lambda *_: pytest.fail("unpickled"))
    assert len(run(tmp_path / "out", write_tar(tmp_path / "p.tar.gz", files)).images) == 2


def test_large_images_are_shrunk_in_proportion(tmp_path: Path) -> None:
    files = {"bicycle/a.png": png(1, (800, 400)), "motorcycle/b.png": png(2)}
    run(tmp_path / "out", write_folder(tmp_path / "in", files))
    with Image.open(tmp_path / "out/train/bicycle/a.png") as image:
        assert image.size == (256, 128)


def test_unreadable_images_are_left_out_and_named(tmp_path: Path) -> None:
    files = {"bicycle/a.png": png(1), "motorcycle/b.png": png(2), "motorcycle/broken.png": png(3)[:60]}
    manifest = run(tmp_path / "out", write_folder(tmp_path / "in", files))
    assert manifest.counts["train"]["motorcycle"] == 1
    assert [reason.split(":")[0] for reason in manifest.unreadable] == ["in/motorcycle/broken.png"]


def test_neither_limit_is_per_split_and_stable(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz")
    first = run(tmp_path / "a", archive, limit=2)
    assert first.counts["train"]["neither"] == 2
    assert first.counts["test"]["neither"] == 2
    assert run(tmp_path / "b", archive, limit=2).images == first.images
    assert len(list((tmp_path / "a/train/neither").iterdir())) == 2
    assert run(tmp_path / "c", archive, limit=0).counts["train"]["neither"] == 0


def test_equal_names_from_different_sources_are_both_kept(tmp_path: Path) -> None:
    one = write_folder(tmp_path / "one", {"bicycle/a.png": png(1), "motorcycle/a.png": png(2)})
    two = write_folder(tmp_path / "two", {"bicycle/a.png": png(3)})
    assert run(tmp_path / "out", one, two).counts["train"]["bicycle"] == 2


def test_an_unknown_label_shows_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=r"'bicycel'; did you mean 'bicycle'\? .*apple, bicycle, motorcycle"):
        run(tmp_path / "out", write_cifar(tmp_path / "c.tar.gz"), labels="bicycel,motorcycle")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("bicycle", "at least two"),
        ("bicycle,bicycle", "at least two"),
        ("bicycle,neither", "cannot be a label"),
        ("bicycle,../x", "letters, digits"),
        ("bicycle,", "letters, digits"),
    ],
)
def test_labels_that_cannot_work(labels: str, reason: str) -> None:
    with pytest.raises(CommandError, match=reason):
        parse_labels(labels)


def test_cut_or_inconsistent_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="not a multiple of the 3074 bytes"):
        run(tmp_path / "out", write_cifar(tmp_path / "cut.tar.gz", b"\x00" * 100))
    with pytest.raises(CommandError, match="fine label 9, but"):
        run(tmp_path / "out", write_cifar(tmp_path / "label.tar.gz", record(9, 0)))
    (tmp_path / "text.tar.gz").write_bytes(gzip.compress(b"text"))
    whole = write_cifar(tmp_path / "whole.tar.gz").read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    for name in ("text", "half"):
        with pytest.raises(CommandError, match="tar file"):
            run(tmp_path / "out", tmp_path / f"{name}.tar.gz")
    assert not (tmp_path / "out/manifest.json").exists()


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(out, write_cifar(tmp_path / "c.tar.gz"))
    manifest = json.loads((out / "manifest.json").read_text())
    for path in ("../secret.png", "/etc/passwd", "train/bicycle/../../x.png", "train/bicycle/x.png\n"):
        manifest["images"][0]["path"] = path
        (out / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(CommandError, match="not a staged image's path"):
            read_manifest(out)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (None, "holds no manifest.json; create it"),
        ("{", "not a manifest"),
        ("{}", "not a manifest"),
        ("[]", "not a manifest"),
    ],
)
def test_invalid_manifests_are_rejected(tmp_path: Path, text: str | None, reason: str) -> None:
    if text:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(CommandError, match=reason):
        read_manifest(tmp_path)


def test_the_command_prints_counts_and_one_line_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    archive = write_cifar(tmp_path / "c.tar.gz")
    assert main(["stage", "--source", str(archive), "--out", str(tmp_path / "out")]) == 0
    assert "train: 3 bicycle, 3 motorcycle, 6 neither" in capsys.readouterr().out
    for arguments, reason in (
        (["--source", str(tmp_path / "nothing")], "does not exist"),
        (["--source", "https://example.com/x.tar.gz"], "needs its checksum"),
        (["--source", str(archive), "--s3", "bucket/x"], "s3://bucket/prefix"),
    ):
        assert main(["stage", *arguments, "--out", str(tmp_path / "other")]) == 1
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert reason in error
        assert error.count("\n") == 1


def test_reviewed_images_become_training_data_under_their_label(tmp_path: Path) -> None:
    archive, reviews = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels"
    bicycle = write_review(reviews, "bicycle", png(50))
    neither = write_review(reviews, "neither", png(51))
    write_folder(reviews, {"dismissed/x.json": b"{}", "notes.txt": b"not a review"})
    manifest = run(tmp_path / "out", archive, limit=0, reviews=reviews)
    assert manifest.counts["train"] == {"bicycle": 4, "motorcycle": 3, "neither": 1}
    staged = {entry.path: entry.source for entry in manifest.images}
    assert staged[f"train/bicycle/reviewed-{bicycle}.png"] == f"labels/{bicycle}.png"
    assert staged[f"train/neither/reviewed-{neither}.png"] == f"labels/{neither}.png"
    assert manifest.sources[0]["name"] == "labels" and manifest.unreadable == []


def test_staging_reviews_again_changes_nothing_until_there_is_a_new_one(tmp_path: Path) -> None:
    archive, reviews, out = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels", tmp_path / "out"
    write_review(reviews, "bicycle", png(50))
    run(out, archive, reviews=reviews)
    before, of_reviews = snapshot(out), snapshot(reviews)
    run(out, archive, reviews=reviews)
    assert snapshot(out) == before and snapshot(reviews) == of_reviews
    name = write_review(reviews, "motorcycle", png(50))
    assert f"train/motorcycle/reviewed-{name}.png" in {
        entry.path for entry in run(out, archive, reviews=reviews).images
    }


def test_a_staged_folder_as_a_source_keeps_names_and_origins(tmp_path: Path) -> None:
    jpegs = [encoded(noise(32, 32, seed), "JPEG") for seed in (60, 62)]
    folder = write_folder(tmp_path / "mine", {"bicycle/a.jpg": jpegs[0], "pickup_truck/b_1.jpg": jpegs[1]})
    before = run(tmp_path / "out", write_cifar(tmp_path / "c.tar.gz"), folder)
    labels = ["bicycle", "motorcycle"]
    again = stage([StagedSource(tmp_path / "out")], labels, tmp_path / "again")
    assert (again.images, again.counts, again.duplicates) == (before.images, before.counts, 0)
    assert any(entry.source == "mine/bicycle/a.jpg" for entry in again.images), "training looks at its ending"

    other = Path(before.images[0].path)
    (tmp_path / "out" / other).write_bytes(png(61))
    with pytest.raises(CommandError, match=f"{other} is missing or has changed since it was staged"):
        stage([StagedSource(tmp_path / "out")], labels, tmp_path / "third")


def test_a_review_wins_over_the_source_but_never_over_the_test_split(tmp_path: Path) -> None:
    files = {
        "train/bicycle/wrong.png": png(1),
        "train/bicycle/a.png": png(2),
        "train/motorcycle/b.png": png(3),
        "test/bicycle/held-back.png": png(4),
    }
    source, reviews = write_folder(tmp_path / "in", files), tmp_path / "labels"
    write_review(reviews, "motorcycle", png(1))
    write_review(reviews, "motorcycle", png(4))
    manifest = run(tmp_path / "out", source, reviews=reviews)
    assert manifest.counts == {
        "train": {"bicycle": 1, "motorcycle": 2, "neither": 0},
        "test": {"bicycle": 1, "motorcycle": 0, "neither": 0},
    }
    assert manifest.duplicates == 2


def test_the_command_says_which_reviewed_images_joined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {"train/bicycle/a.png": png(2), "train/motorcycle/b.png": png(3), "test/bicycle/held-back.png": png(4)}
    source, reviews = write_folder(tmp_path / "in", files), tmp_path / "labels"
    same = encoded(noise(32, 32, 50), "WEBP", lossless=True)
    for content, suffix in ((png(2), "png"), (png(4), "png"), (png(50), "png"), (same, "webp")):
        write_review(reviews, "bicycle", content, suffix)
    write_review(reviews, "bicycle", b"no image")
    (reviews / f"{write_review(reviews, 'bicycle', png(51))}.png").unlink()
    command = ["stage", "--source", str(source), "--out", str(tmp_path / "out"), "--labels", str(reviews)]
    # The second run changes nothing, and says the same.
    for _ in range(2):
        assert main(command) == 0
        said, named = capsys.readouterr()
        assert (
            "2 of 6 reviewed images joined; 1 are test images; 1 are duplicates of another reviewed image; "
            "2 are unusable (named below)\n"
        ) in said
        assert named.count("skipped labels/") == 2


def test_of_two_reviews_of_the_same_picture_the_newest_counts(tmp_path: Path) -> None:
    archive, reviews = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels"
    old, new = png(50), encoded(noise(32, 32, 50), "WEBP", lossless=True)
    write_review(reviews, "bicycle", old, reviewed_at="2026-11-23T09:00:00+00:00")
    # By the clock on the wall it looks the older one.
    write_review(reviews, "motorcycle", new, "webp", reviewed_at="2026-11-23T08:30:00-05:00")
    counts = run(tmp_path / "out", archive, reviews=reviews).counts["train"]
    assert (counts["bicycle"], counts["motorcycle"]) == (3, 4)


def test_every_format_that_the_workflow_reads_can_be_staged(tmp_path: Path) -> None:
    archive, reviews = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels"
    for seed, (suffix, name) in enumerate({"jpg": "JPEG", "gif": "GIF", "bmp": "BMP", "tiff": "TIFF"}.items()):
        write_review(reviews, "bicycle", encoded(noise(32, 32, 60 + seed), name), suffix)
    manifest = run(tmp_path / "out", archive, reviews=reviews)
    assert manifest.counts["train"]["bicycle"] == 7 and manifest.unreadable == []
    # train.py knows by the origin's ending which images carry the marks of compression.
    assert sorted(e.source[-4:] for e in manifest.images if "reviewed" in e.path) == [".bmp", ".gif", ".jpg", "tiff"]


def test_a_reviewed_tiff_is_trained_on_as_it_was_seen(tmp_path: Path) -> None:
    archive, reviews, file = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels", io.BytesIO()
    grey = np.full((20, 40), 200 * 256, np.uint16)
    grey[:, :20] = 50 * 256
    turned = Image.Exif()
    turned[0x0112] = 6  # what is left is seen on top
    Image.fromarray(grey).save(file, "TIFF", exif=turned)
    name = write_review(reviews, "bicycle", file.getvalue(), "tiff")
    run(tmp_path / "out", archive, reviews=reviews)
    staged = np.asarray(Image.open(tmp_path / f"out/train/bicycle/reviewed-{name}.png"))
    assert staged.shape == (40, 20, 3)
    assert (staged[:20] == 50).all() and (staged[20:] == 200).all()


def test_reviews_that_cannot_be_trusted_are_left_out_and_named(tmp_path: Path) -> None:
    archive, reviews = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels"
    changed = write_review(reviews, "bicycle", png(50))
    (reviews / f"{changed}.png").write_bytes(png(51))
    lost = write_review(reviews, "bicycle", png(52))
    (reviews / f"{lost}.png").unlink()
    outside = write_review(reviews, "bicycle", png(53), image="../../etc/passwd")
    write_folder(reviews, {f"{'0' * 16}.json": b"[]", f"{'1' * 16}.json": b'{"label": "bicy'})
    manifest = run(tmp_path / "out", archive, reviews=reviews)
    assert manifest.counts["train"]["bicycle"] == 3
    left_out = "\n".join(manifest.unreadable)
    assert f"{changed}.png: the image has changed since the review" in left_out
    assert f"{lost}.png: it was reviewed, but the image is missing" in left_out
    assert all(f"{name}.json" in left_out for name in (outside, "0" * 16, "1" * 16))


def test_reviews_with_a_label_that_nobody_learns_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    archive, reviews = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels"
    write_review(reviews, "pickup_truck", png(50))
    command = ["stage", "--source", str(archive), "--out", str(tmp_path / "out"), "--labels", str(reviews)]
    assert main(command) == 1
    assert "pickup_truck; expected bicycle, motorcycle or neither" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main([*command, "--labels", "bicycle,motorcycle,pickup_truck"]) == 0
    assert "4 pickup_truck" in capsys.readouterr().out


def test_reviews_are_read_from_s3_and_left_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    archive, folder = write_cifar(tmp_path / "c.tar.gz"), tmp_path / "labels"
    names = [write_review(folder, "motorcycle", png(seed)) for seed in range(50, 70)]
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="images")
        for path in folder.iterdir():
            s3.put_object(Bucket="images", Key=f"labels/{path.name}", Body=path.read_bytes())
        s3.put_object(Bucket="images", Key="labels/dismissed/0123456789abcdef.json", Body=b"{}")
        before = {item["Key"]: item["LastModified"] for item in s3.list_objects_v2(Bucket="images")["Contents"]}
        manifest = run(tmp_path / "out", archive, reviews="s3://images/labels")
        run(tmp_path / "out", archive, reviews="s3://images/labels/")
        assert {i["Key"]: i["LastModified"] for i in s3.list_objects_v2(Bucket="images")["Contents"]} == before
        with pytest.raises(CommandError, match="s3://images/nothing contains no reviews"):
            ReviewedSource("s3://images/nothing")
    assert manifest.counts["train"]["motorcycle"] == 23
    origins = {entry.source for entry in manifest.images if "reviewed" in entry.path}
    assert origins == {f"s3://images/labels/{name}.png" for name in names}


def test_the_classes_are_given_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["stage", "--labels", "bicycle,motorcycle", "--labels", "bicycle,apple"]) == 1
    assert "given twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("train", "test", "warnings"),
    [
        ((500, 400, 900), (50, 50, 50), []),
        ((99, 100, 900), (50, 50, 50), ["few train images: 99 cat; at least 100"]),
        ((500, 400, 900), (29, 0, 50), ["few test images: 29 cat, 0 dog; at least 30"]),
        ((200, 601, 900), (50, 50, 50), ["lopsided: 601 training images of dog, but 200 of cat"]),
        ((200, 600, 900), (50, 50, 50), []),
        ((500, 400, 499), (50, 50, 50), ["499 training images are neither"]),
        (
            (10, 400, 0),
            (5, 50, 0),
            ["few train images: 10 cat", "few test images: 5 cat", "lopsided", "0 training images"],
        ),
    ],
)
def test_thin_and_lopsided_classes_are_warned_of(
    train: tuple[int, ...], test: tuple[int, ...], warnings: list[str]
) -> None:
    names = ("cat", "dog", "neither")
    counts = {"train": dict(zip(names, train, strict=True)), "test": dict(zip(names, test, strict=True))}
    said = warn_of_counts(counts, ["cat", "dog"])
    assert len(said) == len(warnings)
    assert all(each.startswith(start) for each, start in zip(said, warnings, strict=True))


def test_stage_prints_its_warnings_beside_the_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), (number, len(name), ord(name[0]))).save(tmp_path / "pets" / name / f"{number}.png")
    assert (
        main(["stage", "--source", str(tmp_path / "pets"), "--labels", "cat,dog", "--out", str(tmp_path / "out")]) == 0
    )
    said, warned = capsys.readouterr()
    assert "train: 2 cat, 2 dog" in said
    assert "warning: few train images: 2 cat, 2 dog; " in warned and "warning: 0 training images are neither" in warned
