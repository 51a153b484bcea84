"""Rules that hold for every input, tried on many."""

import io
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize
from src.serialize import decoder
from tests.unit.conftest import FakeLambdaContext

LABELS = ["bicycle", "motorcycle", "other"]
probability = st.floats(0, 1, allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.lists(probability, min_size=1, max_size=5), probability)
def test_what_passes_reaches_the_threshold(inferences: list[float], threshold: float) -> None:
    event = {"s3_bucket": "b", "s3_key": "k", "label": "l", "inferences": inferences, "confidence": max(inferences)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRESHOLD", repr(threshold))
        try:
            passed = filter_.lambda_handler(event, FakeLambdaContext())
        except filter_.ThresholdNotMet:
            assert max(inferences) < threshold
        else:
            assert passed == event and max(inferences) >= threshold


@given(json_values, json_values)
def test_filter_believes_only_probabilities(inferences: object, confidence: object) -> None:
    event = {"s3_bucket": "b", "s3_key": "k", "label": "l", "inferences": inferences, "confidence": confidence}
    try:
        accepted = filter_.parse_event(event)
    except filter_.InvalidInference:
        return
    assert isinstance(inferences, list)
    assert accepted == max(inferences) and 0 <= accepted <= 1
    assert all(type(value) in (int, float) and 0 <= value <= 1 for value in inferences)


@given(json_values)
def test_classify_believes_one_probability_per_label_or_nothing(value: object) -> None:
    try:
        inferences = classify.parse_inferences(json.dumps(value).encode(), LABELS)
    except classify.InvalidInference:
        return
    assert len(inferences) == len(LABELS)
    assert all(type(p) is float and math.isfinite(p) and 0 <= p <= 1 for p in inferences)
    assert sum(inferences) <= 1 + classify.SUM_TOLERANCE


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_answer_parser(answer: bytes) -> None:
    with pytest.raises(classify.InvalidInference):
        classify.parse_inferences(b"<" + answer, LABELS)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.integers(32, 256),
)
def test_any_size_and_mode_becomes_a_small_rgb_picture(width: int, height: int, mode: str, edge: int) -> None:
    image = Image.new("RGB", (width, height), "teal")
    buffer = io.BytesIO()
    (Image.new(mode, (width, height)) if mode == "I;16" else image.convert(mode)).save(buffer, "PNG")
    decoded, image_format, size = decoder.decode(buffer.getvalue(), max_edge=edge)
    assert (decoded.mode, image_format, size) == ("RGB", "PNG", (width, height))
    assert max(decoded.size) == min(edge, max(width, height)) and min(decoded.size) >= 1
    encoded, content_type = serialize.encode(decoded, buffer.getvalue())
    again = Image.open(io.BytesIO(encoded))
    assert again.size == decoded.size and again.mode == "RGB" and not again.info.get("exif")
    assert content_type == Image.MIME[str(again.format)]


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=400), st.integers(0, 400), st.sampled_from(decoder.FORMATS))
def test_damaged_images_are_decoded_or_refused_by_name(noise: bytes, where: int, image_format: str) -> None:
    buffer = io.BytesIO()
    Image.linear_gradient("L").convert("RGB").resize((40, 30)).save(buffer, image_format)
    data = bytearray(buffer.getvalue())
    data[where : where + len(noise)] = noise
    try:
        decoded, _, _ = decoder.decode(bytes(data), max_edge=224)
    except (serialize.UnsupportedImage, serialize.ImageTooLarge):
        return
    assert decoded.mode == "RGB"
