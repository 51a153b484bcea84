"""Rules that hold for every input, tried on many."""

import io
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from demo.drawing import encoded
from src.classify import app as classify
from src.filter import app as filter_
from src.serialize import app as serialize
from src.serialize import decoder, encoder
from tests.support.functions import FakeLambdaContext

LABELS = ["bicycle", "motorcycle", "other"]
probability = st.floats(0, 1, allow_nan=False) | st.sampled_from([0, 1])
probabilities = st.lists(probability, min_size=1, max_size=5)
text = st.text(min_size=1, max_size=5)
#: Numbers, and yet no probabilities.
beyond = (
    st.floats(max_value=0, exclude_max=True)
    | st.floats(min_value=1, exclude_min=True)
    | st.integers(max_value=-1)
    | st.integers(min_value=2)
    | st.just(math.nan)
)
#: No numbers, and yet JSON.
no_number = st.none() | st.booleans() | st.text(max_size=3) | st.lists(probability, max_size=2) | st.just({"p": 0.5})


@st.composite
def classified(draw: st.DrawFn, of: st.SearchStrategy[Any] = probabilities) -> Any:
    """Return an event as classify sends it, for any number of labels."""
    inferences = draw(of)
    address = {"s3_bucket": draw(text), "s3_key": draw(text), "label": draw(st.sampled_from(LABELS))}
    return {**address, "inferences": inferences, "confidence": max(inferences)}


@st.composite
def with_one(draw: st.DrawFn, wrong: st.SearchStrategy[Any]) -> list[Any]:
    """Return probabilities with something else among them."""
    inferences: list[Any] = draw(st.lists(probability, max_size=4))
    inferences.insert(draw(st.integers(0, len(inferences))), draw(wrong))
    return inferences


@given(classified(), probability)
def test_what_passes_reaches_the_threshold(event: dict[str, Any], threshold: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("THRESHOLD", repr(threshold))
        if max(event["inferences"]) >= threshold:
            assert filter_.lambda_handler(dict(event), FakeLambdaContext()) == event
        else:
            with pytest.raises(filter_.ThresholdNotMet):
                filter_.lambda_handler(dict(event), FakeLambdaContext())


@given(classified())
def test_filter_believes_what_classify_sends(event: dict[str, Any]) -> None:
    confidence = filter_.parse_event(json.loads(json.dumps(event)))
    assert type(confidence) is float and confidence == max(event["inferences"])


@given(classified(with_one(beyond)))
def test_filter_believes_no_number_beyond_0_to_1(event: dict[str, Any]) -> None:
    # The confidence is the highest of these numbers, so that nothing but their range is wrong.
    with pytest.raises(filter_.InvalidInference, match="from 0 to 1"):
        filter_.parse_event(event)


@given(classified(), with_one(no_number))
def test_filter_believes_numbers_only(event: dict[str, Any], inferences: list[Any]) -> None:
    numbers = [value for value in inferences if isinstance(value, int | float)]
    with pytest.raises(filter_.InvalidInference, match="from 0 to 1"):
        filter_.parse_event({**event, "inferences": inferences, "confidence": max(numbers, default=0.5)})


@given(classified(), st.data())
def test_filter_believes_no_confidence_but_the_highest_inference(event: dict[str, Any], data: st.DataObject) -> None:
    highest = event["confidence"]
    other = probability.filter(lambda value: value != highest)
    # A truth value equals 0 or 1, and is no number all the same.
    truth = st.just(bool(highest)) if highest in (0, 1) else st.booleans()
    wrong = data.draw(truth | other | beyond | no_number)
    with pytest.raises(filter_.InvalidInference):
        filter_.parse_event({**event, "confidence": wrong})


@given(classified(), probability | st.none() | st.booleans() | st.text(max_size=3) | st.just([]))
def test_filter_believes_inferences_in_a_list_only(event: dict[str, Any], inferences: Any) -> None:
    with pytest.raises(filter_.InvalidInference, match="must be a list"):
        filter_.parse_event({**event, "inferences": inferences})


@given(
    classified(),
    st.sampled_from(["s3_bucket", "s3_key", "label"]),
    st.just("") | st.none() | st.booleans() | st.integers() | st.lists(text, min_size=1, max_size=1),
)
def test_filter_needs_the_address_and_the_label(event: dict[str, Any], name: str, value: Any) -> None:
    with pytest.raises(filter_.InvalidEvent, match=name):
        filter_.parse_event({**event, name: value})
    del event[name]
    with pytest.raises(filter_.InvalidEvent, match=name):
        filter_.parse_event(event)


@given(classified(), text)
def test_filter_refuses_an_image(event: dict[str, Any], image: str) -> None:
    with pytest.raises(filter_.InvalidEvent, match="image_data"):
        filter_.parse_event({**event, "image_data": image})
    assert filter_.parse_event({**event, "image_data": ""}) == max(event["inferences"])


#: One probability per label, of at most 1 in sum.
answer = st.lists(probability, min_size=len(LABELS), max_size=len(LABELS)).map(
    lambda parts: [part / sum(parts) if sum(parts) > 1 else part for part in parts]
)


def parse(value: Any) -> list[float]:
    return classify.parse_inferences(json.dumps(value).encode(), LABELS, has_neither=False)


@given(answer)
def test_classify_believes_one_probability_per_label(answer: list[float]) -> None:
    inferences = parse(answer)
    assert inferences == answer and all(type(value) is float for value in inferences)


@given(answer, st.integers(0, len(LABELS) - 1), beyond | no_number)
def test_classify_believes_probabilities_only(answer: list[Any], where: int, wrong: Any) -> None:
    answer[where] = wrong
    with pytest.raises(classify.InvalidInference, match="from 0 to 1"):
        parse(answer)


@given(st.lists(probability, max_size=6).filter(lambda inferences: len(inferences) != len(LABELS)))
def test_classify_believes_as_many_as_there_are_labels_only(inferences: list[float]) -> None:
    with pytest.raises(classify.InvalidInference, match="Expected a list of 3"):
        parse(inferences)


@given(probability | st.none() | st.booleans() | st.text(min_size=3, max_size=3) | st.just(dict.fromkeys(LABELS, 0.1)))
def test_classify_believes_a_list_only(inferences: Any) -> None:
    with pytest.raises(classify.InvalidInference, match="Expected a list"):
        parse(inferences)


@given(
    st.lists(st.floats(0.334, 1), min_size=3, max_size=3)
    | st.tuples(st.floats(0.0011, 1), st.just(1.0), probability).map(list)
)
def test_classify_believes_no_sum_above_1(inferences: list[float]) -> None:
    with pytest.raises(classify.InvalidInference, match="sum to at most 1"):
        parse(inferences)


@given(st.floats(0, 0.0009))
def test_classify_forgives_what_rounding_adds_to_the_sum(excess: float) -> None:
    assert parse([0.25, 0.25 + excess, 0.5]) == [0.25, 0.25 + excess, 0.5]


@given(st.binary(max_size=200))
def test_no_bytes_upset_the_answer_parser(answer: bytes) -> None:
    with pytest.raises(classify.InvalidInference):
        classify.parse_inferences(b"<" + answer, LABELS, has_neither=False)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 700),
    st.integers(1, 700),
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.integers(32, 256),
)
def test_any_size_and_mode_becomes_a_small_rgb_picture(width: int, height: int, mode: str, edge: int) -> None:
    image = Image.new("RGB", (width, height), "teal")
    content = encoded(Image.new(mode, (width, height)) if mode == "I;16" else image.convert(mode))
    decoded, image_format, size = decoder.decode(content, max_edge=edge)
    assert (decoded.mode, image_format, size) == ("RGB", "PNG", (width, height))
    assert max(decoded.size) == min(edge, max(width, height)) and min(decoded.size) >= 1
    sent, content_type = encoder.encode(decoded, content)
    again = Image.open(io.BytesIO(sent))
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
