"""Which files of folders and archives are images of a label, and what is said of the others."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from common.errors import CommandError
from common.folders import SUFFIXES, Found, find_in_folder
from common.image_sets import find_sets
from common.labels import parse_labels
from common.manifest import Manifest, read_manifest
from demo import images as demo_images
from demo.drawing import encoded, noise
from monitoring.check import captures_of_images
from tests.support.reviews import write_review
from training.__main__ import main
from training.dataset.reviewed import ReviewedSource
from training.dataset.sources import Source
from training.dataset.staging import stage

REPOSITORY = Path(__file__).parents[2]
LABELS = ["bicycle", "motorcycle"]


def picture(seed: int, kind: str = "PNG", **options: Any) -> bytes:
    return encoded(noise(40, 40, seed), kind, **options)


def write_tree(root: Path, *names: str | bytes) -> Path:
    """Write a different picture under each name, which may be bytes."""
    for seed, name in enumerate(names):
        path = Path(os.fsdecode(os.fsencode(root) + b"/" + os.fsencode(name)))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(seed))
    return root


def write_tar(path: Path, root: Path, prefix: str = "") -> Path:
    with tarfile.open(path, "w:gz") as tar:
        tar.add(root, prefix or ".")
    return path


def staged(source: Path, out: Path, labels: str = "bicycle,motorcycle") -> Manifest:
    return stage([Source(source)], parse_labels(labels), out)


def classes(found: Found) -> dict[str, str]:
    return {image.name: image.class_name for image in found.images}


def reasons(manifest: Manifest) -> dict[str, int]:
    return {skip["reason"]: skip["count"] for skip in manifest.skipped or []}


@pytest.mark.parametrize("kind", ["folder", "tar", "wrapped tar"])
def test_subfolders_belong_to_their_class_and_system_files_to_none(tmp_path: Path, kind: str) -> None:
    root = write_tree(
        tmp_path / "in",
        "bicycle/0.png",
        "bicycle/2024-05/0.png",
        "bicycle/2024-06/far/down/0.PNG",
        "motorcycle/0.png",
        "dog/2024-05/0.png",
        "bicycle/.ipynb_checkpoints/1.png",
        "bicycle/@eaDir/1.png/SYNOPHOTO_THUMB_M.png",
        "bicycle/@eaDir/2.png/SYNOPHOTO_THUMB_M.png",
        "__MACOSX/motorcycle/._0.png",
        "motorcycle/._0.png",
        "motorcycle/.DS_Store",
        "motorcycle/Thumbs.db",
        "$RECYCLE.BIN/S-1/1.png",
        "#recycle/bicycle/1.png",
        "lost+found/1.png",
        "bicycle/notes.txt",
        "bicycle/photo.HEIC",
        "bicycle/photo",
        "beside.png",
    )
    (root / "van/empty").mkdir(parents=True)
    if kind != "folder":
        root = write_tar(tmp_path / "in.tar.gz", root, "set" if kind == "wrapped tar" else "")
    manifest = staged(root, tmp_path / "out")
    assert manifest.counts["train"] == {"bicycle": 3, "motorcycle": 1, "neither": 1}
    assert manifest.neither_classes == {"dog": 1}
    assert reasons(manifest) == {
        "hidden or system file or folder": 9,
        "file type .txt": 1,
        "file type .heic": 1,
        "file name without the extension of an image": 1,
        "in no class folder": 1,
        "folder without images": 1,
    }


def test_what_was_skipped_is_printed_and_is_in_both_json_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path / "in", "bicycle/0.png", "motorcycle/0.png", "bicycle/a.txt", "van/0.png", "van/.x")
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["stage", "--source", str(root), "--out", str(out)]) == 0
        said, named = capsys.readouterr()
        assert "neither comes from 1 class: van (1)\n" in said
        assert "skipped 1: file type .txt (in/bicycle/a.txt)\n" in named
        assert "skipped 1: hidden or system file or folder (in/van/.x)\n" in named
    arguments = ["evaluate", "--data", str(root), "--out", str(tmp_path / "evaluation")]
    assert main(arguments) == 0
    said, named = capsys.readouterr()
    assert "background comes from 1 class: van (1)\n" in said and "skipped 1: file type .txt" in named
    assert main([*arguments, "--json"]) == 0
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert skipped == read_manifest(out).skipped
    assert {"reason": "file type .txt", "count": 1, "examples": ["in/bicycle/a.txt"]} in skipped
    assert json.loads((tmp_path / "evaluation/evaluation.json").read_text())["sets"]["in"]["skipped"] == skipped


@pytest.mark.parametrize("name", ["Bicycle", "BICYCLE", "bicycle ", " bicycle", "bicycle\u200b", "ｂｉｃｙｃｌｅ"])
@pytest.mark.parametrize("others", [["motorcycle/0.png"], ["motorcycle/0.png", "bicycle/1.png"]])
def test_a_folder_that_is_nearly_a_label_is_refused(tmp_path: Path, name: str, others: list[str]) -> None:
    root = write_tree(tmp_path / "in", f"{name}/2024-05/0.png", *others)
    for attempt in (
        lambda: staged(root, tmp_path / "out"),
        lambda: staged(write_tar(tmp_path / "in.tar.gz", root, "set"), tmp_path / "out"),
        lambda: find_sets([str(root)], LABELS),
    ):
        with pytest.raises(CommandError) as caught:
            attempt()
        assert f"{name!r} for 'bicycle'" in str(caught.value)
    with pytest.raises(CommandError, match="motorcycle"):
        find_in_folder(write_tree(tmp_path / "Motorcycle", "0.png"), LABELS)


def test_spellings_that_only_a_person_can_judge_are_listed_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    many = [f"class{i}/{j}.png" for i in range(30) for j in range(2)]
    root = write_tree(
        tmp_path / "in", "bicycle/0.png", "motorcycle/0.png", "bicycles/0.png", "motor-cycle/0.png", *many
    )
    arguments = ["stage", "--source", str(root), "--out", str(tmp_path / "out"), "--neither-limit", "0"]
    assert main(arguments) == 0
    assert "neither comes from 32 classes: bicycles (1), motor-cycle (1), class0 (2), " in capsys.readouterr().out


@pytest.mark.parametrize(("first", "second"), [("bicycle", "motorcycle"), ("motorcycle", "bicycle"), ("a", "bicycle")])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_a_picture_under_two_labels_is_left_out_and_named(tmp_path: Path, first: str, second: str, kind: str) -> None:
    root = write_tree(tmp_path / "in", "bicycle/own.png", "motorcycle/own.png", f"{first}/1.png", "a/own.png")
    # The same pixels, in other bytes perhaps.
    (root / second / "2.webp").write_bytes(picture(2, kind, lossless=True))
    manifest = staged(root, tmp_path / "out")
    assert {entry.source for entry in manifest.images} == {f"in/{c}/own.png" for c in ("bicycle", "motorcycle", "a")}
    (pair,) = manifest.conflicts
    assert f"in/{first}/1.png" in pair and f"in/{second}/2.webp" in pair
    assert manifest.duplicates == 0
    assert sorted(p.name for p in (tmp_path / "out").rglob("*.png")) == ["a_own.png", "own.png", "own.png"]


def test_of_a_picture_under_two_labels_a_person_decides(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", "bicycle/own.png", "motorcycle/own.png", "bicycle/1.png", "motorcycle/1.png")
    (root / "motorcycle/1.png").write_bytes((root / "bicycle/1.png").read_bytes())
    write_review(tmp_path / "labels", "motorcycle", (root / "bicycle/1.png").read_bytes())
    reviewed = [ReviewedSource(str(tmp_path / "labels"))]
    manifest = stage([Source(root)], LABELS, tmp_path / "out", reviewed=reviewed)
    assert manifest.conflicts == [] and manifest.counts["train"] == {"bicycle": 1, "motorcycle": 2, "neither": 0}


def test_evaluate_counts_no_picture_under_two_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "in", "bicycle/0.png", "motorcycle/0.png", "bicycle/1.png")
    (root / "motorcycle/1.webp").write_bytes(picture(2, "WEBP", lossless=True))
    assert main(["evaluate", "--data", f"[/in]\n={root}", "--out", str(tmp_path / "out"), "--json"]) == 0
    said, named = capsys.readouterr()
    assert json.loads(said)["n"] == 2
    assert "bicycle/1.png and motorcycle/1.webp" in named
    assert [skip["reason"] for skip in json.loads(said)["skipped"]] == ["image under two labels"]


def test_an_image_in_folders_of_two_labels_is_refused(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", "bicycle/motorcycle/0.png", "motorcycle/0.png")
    with pytest.raises(CommandError, match=r"in/bicycle/motorcycle/0.png lies in folders of two labels"):
        staged(root, tmp_path / "out")


def test_links_are_followed_unless_they_lead_back_or_nowhere(tmp_path: Path) -> None:
    write_tree(tmp_path / "elsewhere", "m/0.png", "m/deep/1.png")
    root = write_tree(tmp_path / "in", "bicycle/0.jpg", "bicycle/1.jpg")
    (root / "bicycle/0.jpg").write_bytes(picture(9, "JPEG"))
    (root / "motorcycle").symlink_to("../elsewhere/m")
    (tmp_path / "elsewhere/m/back").symlink_to(root)
    for name, target in {"up": "..", "all": "/", "self": "self", "gone.png": "nowhere", "2.jpg": "1.jpg"}.items():
        (root / "bicycle" / name).symlink_to(target)
    found = find_in_folder(root, LABELS)
    assert classes(found) == {
        "bicycle/0.jpg": "bicycle",
        "bicycle/1.jpg": "bicycle",
        "bicycle/2.jpg": "bicycle",
        "motorcycle/0.png": "motorcycle",
        "motorcycle/deep/1.png": "motorcycle",
    }
    skips = {skip["reason"]: skip["examples"] for skip in found.skipped.summary()}
    assert skips == {
        "link to a folder around it": ["bicycle/all", "bicycle/up", "motorcycle/back"],
        "broken link": ["bicycle/gone.png", "bicycle/self"],
    }
    (tmp_path / "elsewhere").rename(tmp_path / "moved")
    with pytest.raises(CommandError, match=r"no source has a class 'motorcycle'.*broken link \(.*in/motorcycle"):
        staged(root, tmp_path / "out")


def test_links_in_archives_are_followed_inside_them_only(tmp_path: Path) -> None:
    root = write_tree(tmp_path / "in", "bicycle/0.png", "motorcycle/0.png", "store/2.png")
    with tarfile.open(tmp_path / "in.tar", "w") as tar:
        tar.add(root / "store/2.png", "store/2.png")
        for name in ("bicycle/0.png", "motorcycle/0.png"):
            tar.add(root / name, name.replace("/", "\\"))  # as made on Windows
        for name, kind, target in (
            ("bicycle/hard.png", tarfile.LNKTYPE, "bicycle\\0.png"),
            ("bicycle/loop.png", tarfile.SYMTYPE, "loop.png"),
            ("motorcycle/secret.png", tarfile.SYMTYPE, str(root / "store/2.png")),
            ("vans", tarfile.SYMTYPE, "store"),
            ("bicycle/pipe.png", tarfile.FIFOTYPE, ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            tar.addfile(member)
    manifest = staged(tmp_path / "in.tar", tmp_path / "out")
    assert manifest.counts["train"] == {"bicycle": 1, "motorcycle": 1, "neither": 1} and manifest.duplicates == 1
    assert manifest.unreadable == ["in.tar/bicycle/loop.png: broken link", "in.tar/motorcycle/secret.png: broken link"]
    assert reasons(manifest) == {"link in an archive": 1, "not a regular file": 1}


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".JPG", ".JfIf", ".TIFF"])
def test_every_extension_of_an_image_is_looked_at(tmp_path: Path, suffix: str) -> None:
    root = write_tree(tmp_path / "in", f"bicycle/0{suffix}", "motorcycle/0.png")
    assert classes(find_in_folder(root, LABELS))[f"bicycle/0{suffix}"] == "bicycle"
    assert staged(write_tar(tmp_path / "in.tar.gz", root), tmp_path / "out").counts["train"]["bicycle"] == 1


@pytest.mark.parametrize("place", ["split/test", "split/test/", "split/TEST", "link", "test", "split/test/../test"])
def test_a_source_called_test_is_test_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    learn = write_tree(tmp_path / "learn", "bicycle/0.png", "motorcycle/0.png")
    folder = tmp_path / ("split/TEST" if "TEST" in place else "split/test")
    write_tree(folder, "x.txt", "y.txt", "bicycle/1.png", "motorcycle/1.png", "train/bicycle/2.png")
    (tmp_path / "link").symlink_to("split/test")
    (tmp_path / "test").symlink_to("split")
    monkeypatch.chdir(tmp_path)
    if place == "test":
        (folder / "train").rename(tmp_path / "split/train")
    manifest = stage([Source(learn), Source(Path(place))], LABELS, tmp_path / "out")
    assert manifest.counts == {
        "train": {"bicycle": 2, "motorcycle": 1, "neither": 0},
        "test": {"bicycle": 1, "motorcycle": 1, "neither": 0},
    }
    assert stage([Source(Path(place), "train")], LABELS, tmp_path / "all").counts["test"]["bicycle"] == 0


def test_a_source_without_training_images_says_where_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = write_tree(tmp_path / "test", "bicycle/0.png", "motorcycle/0.png")
    monkeypatch.chdir(root)
    assert main(["stage", "--source", ".", "--out", str(tmp_path / "out")]) == 1
    assert "training image of 'bicycle' was found in the sources; 1 are test images" in capsys.readouterr().err


def test_a_folder_of_one_class_and_a_label_called_train(tmp_path: Path) -> None:
    one = write_tree(tmp_path / "x/test/bicycle", "0.png", "2024-05/1.png")
    found = find_in_folder(one, LABELS)
    assert {(image.class_name, image.split) for image in found.images} == {("bicycle", "test")}
    with pytest.raises(CommandError, match="named after a label, but no folder in it is"):
        find_in_folder(write_tree(tmp_path / "bicycle", "cat/0.png", "dog/0.png"), LABELS)
    assert classes(find_in_folder(write_tree(tmp_path / "a", "train/0.png", "bus/0.png"), ["bus", "train"])) == {
        "bus/0.png": "bus",
        "train/0.png": "train",
    }
    split = write_tree(tmp_path / "b", "train/train/0.png", "train/bus/0.png", "train/dog/0.png", "test/train/0.png")
    assert {(i.name, i.class_name, i.split) for i in find_in_folder(split, ["bus", "train"]).images} == {
        ("train/train/0.png", "train", "train"),
        ("train/bus/0.png", "bus", "train"),
        ("train/dog/0.png", "dog", "train"),
        ("test/train/0.png", "train", "test"),
    }


def test_strange_names_are_staged_and_printed_as_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: list[str | bytes] = [
        b"bicycle/\xff\xfe.png",
        "bicycle/two\nlines\x1b[31m.png",
        "motorcycle/[bold]x[/nonsense].png",
        f"motorcycle/{'m' * 251}.png",
        f"{'o' * 200}/{'p' * 251}.png",
        b"not \xe9 utf-8/0.png",
        b"bicycle/\xff\n.txt",
        b"bicycle/broken\xff\n.png",
    ]
    root = write_tree(tmp_path / "[red]in\n", *names)
    Path(os.fsdecode(os.fsencode(root) + b"/bicycle/broken\xff\n.png")).write_bytes(b"\x89PNG")
    for source in (root, write_tar(tmp_path / "in.tar.gz", root)):
        out = tmp_path / source.suffix / "out"
        for _ in range(2):
            assert main(["stage", "--source", str(source), "--out", str(out)]) == 0
            said, named = capsys.readouterr()
            assert "train: 2 bicycle, 2 motorcycle, 2 neither\n" in said
            assert r"not \udce9 utf-8 (1)" in said
            assert r"bicycle/\udcff\n.txt" in named and r"bicycle/broken\udcff\n.png: " in named
            assert len(named.splitlines()) == 4
    # rich shows its bar on a terminal only, and the report writes a page.
    code = (
        "import sys; sys.stderr.isatty = lambda: True; from training.__main__ import main; sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "evaluate", "--data", f"[/in]\n={root}", "--out", str(tmp_path / "evaluation")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert r"[/in]\n, threshold" in done.stdout and r"broken\udcff\n.png: " in done.stderr
    assert r"broken\udcff\n.png" in (tmp_path / "evaluation/report.html").read_text()


def test_equal_names_in_subfolders_do_not_overwrite_each_other(tmp_path: Path) -> None:
    names = [f"{folder}/{name}" for folder in ("bicycle", "bicycle/a", "dog", "dog/b") for name in ("x.png", "X.png")]
    names += [f"bicycle/{'n' * 130}{end}.png" for end in "ab"]
    manifest = staged(write_tree(tmp_path / "in", "motorcycle/0.png", *names), tmp_path / "out")
    paths = [entry.path for entry in manifest.images]
    assert len(paths) == len({path.lower() for path in paths}) == 11
    # What training takes for the kind of other things: everything before the last underscore.
    assert {Path(path).stem.rpartition("_")[0] for path in paths if "neither" in path} == {"dog"}
    for entry in manifest.images:
        seed = next(i for i, name in enumerate(["motorcycle/0.png", *names]) if f"in/{name}" == entry.source)
        with Image.open(tmp_path / "out" / entry.path) as image, Image.open(io.BytesIO(picture(seed))) as source:
            assert np.array_equal(np.array(image), np.array(source))


def test_labels_that_differ_only_in_capitals_are_refused() -> None:
    for labels in ("bicycle,Bicycle", "bicycle,Neither"):
        with pytest.raises(CommandError):
            parse_labels(labels)


def test_other_files_beside_reviews_change_nothing(tmp_path: Path) -> None:
    write_review(tmp_path / "labels", "bicycle", picture(0))
    before = ReviewedSource(str(tmp_path / "labels")).sha256()
    write_tree(tmp_path / "labels", ".DS_Store", b"\xff.png", "._0123456789abcdef.json")
    assert ReviewedSource(str(tmp_path / "labels")).sha256() == before


def test_the_baseline_skips_the_same_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_tree(tmp_path / "in", "bicycle/2024/0.png", "van/0.jfif", "bicycle/@eaDir/0.png", "bicycle/1.png")
    (root / "bicycle/1.png").write_bytes(b"\x89PNG")
    captures, _ = captures_of_images(root, REPOSITORY / "training/model/model.onnx")
    assert [capture.event_id for capture in captures] == ["bicycle/0.png", "van/0.jfif"]
    named = capsys.readouterr().err
    assert "in/bicycle/@eaDir/" in named and "skipped bicycle/1.png: " in named


def test_the_demo_sends_images_of_class_folders_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "photos", "bicycle/0.png", "bicycle/.DS_Store", "other/0.png", ".cache/0.png")
    monkeypatch.setenv("IMAGE_DATA_DIR", str(tmp_path))
    samples = demo_images.collect().samples
    assert [sample.key for sample in samples[:3]] == [
        "incoming/bicycle-0.png",
        "incoming/other-0.png",
        "incoming/out-of-focus.jpg",
    ]


@pytest.mark.parametrize("command", ["stage", "evaluate"])
def test_remarks_of_the_image_library_are_not_printed(tmp_path: Path, command: str) -> None:
    root = write_tree(tmp_path / "in", "bicycle/0.png", "motorcycle/0.png")
    # An EXIF directory that promises more entries than there are: Pillow warns, without the file's name.
    exif = b"Exif\0\0II*\0\x08\0\0\0\x05\0" + b"\x12\x01\x03\0\x01\0\0\0\x01\0\0\0"
    (root / "bicycle/1.jpg").write_bytes(picture(5, "JPEG", exif=exif))
    place = {"stage": "--source", "evaluate": "--data"}[command]
    done = subprocess.run(
        [sys.executable, "-m", "training", command, place, str(root), "--out", str(tmp_path / "out")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and "Warning" not in done.stderr and "EXIF" not in done.stderr
