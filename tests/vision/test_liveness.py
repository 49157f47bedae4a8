"""Liveness: each family's input, and that no odd answer ever passes."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import Liveness as LivenessManifest
from edge_agent.packs.manifest import LivenessMember
from edge_agent.types import Box, Face
from edge_agent.vision.align import ADDON_TEMPLATE
from edge_agent.vision.liveness import LivenessModel, crop_around, open_liveness, out_of_bounds
from edge_agent.vision.runtime import load_session
from tests.vision import networks

IMAGE = np.random.default_rng(5).integers(0, 256, (240, 320, 3), np.uint8)
FACE = Face(Box(120, 80, 200, 180), (ADDON_TEMPLATE * 2 + (80, 40)).astype(np.float32), 0.9)


def manifest(
    family: Literal["crop_softmax", "insightface_addon"] = "crop_softmax",
    scales: tuple[float | None, ...] = (2.7,),
    **changes: object,
) -> LivenessManifest:
    members = tuple(LivenessMember(file="x.onnx", input_px=80, crop_scale=scale) for scale in scales)
    made = LivenessManifest(name="model", family=family, members=members, live_class=1, threshold=0.6)
    return replace(made, **changes)  # type: ignore[arg-type]


def model(described: LivenessManifest, *networks_bytes: bytes) -> LivenessModel:
    return open_liveness(described, [load_session(data, name="x.onnx") for data in networks_bytes])


coordinates, lengths = st.floats(-300, 600), st.floats(1, 500)


@given(coordinates, coordinates, lengths, lengths, st.floats(0.5, 5))
def test_any_box_gives_a_crop_from_inside_the_picture(x: float, y: float, width: float, height: float, scale: float):
    crop = crop_around(IMAGE, Box(x, y, x + width, y + height), scale, 16)
    assert crop.shape == (16, 16, 3)


@given(coordinates, coordinates, lengths, lengths, st.floats(0.5, 5))
def test_out_of_bounds_is_the_share_of_the_enlarged_box(x: float, y: float, width: float, height: float, scale: float):
    box = Box(x, y, x + width, y + height)
    (cx, cy), half_x, half_y = box.centre, width * scale / 2, height * scale / 2
    grid = (np.arange(400) + 0.5) / 400 * 2 - 1
    inside_x = ((cx + grid * half_x >= 0) & (cx + grid * half_x < 320)).mean()
    inside_y = ((cy + grid * half_y >= 0) & (cy + grid * half_y < 240)).mean()
    assert out_of_bounds(box, scale, IMAGE) == pytest.approx(1 - inside_x * inside_y, abs=0.02)


@pytest.mark.parametrize(
    ("box", "scale", "expected"),
    [
        (Box(150, 110, 170, 130), 2.0, (140, 100, 181, 141)),  # centred: nothing to move
        (Box(0, 0, 20, 20), 2.0, (0, 0, 41, 41)),  # moved right and down
        (Box(300, 220, 320, 240), 2.0, (279, 199, 320, 240)),  # moved left and up
        (Box(60, 20, 260, 220), 4.0, (40, 0, 280, 240)),  # shrunk to the picture's height
    ],
)
def test_the_crop_is_moved_inside_and_shrunk_like_the_trained_one(
    box: Box, scale: float, expected: tuple[int, int, int, int]
):
    x1, y1, x2, y2 = expected
    assert np.array_equal(crop_around(IMAGE, box, scale, y2 - y1), IMAGE[y1:y2, x1:x2])


@pytest.mark.parametrize(("logits", "live"), [([0, 0, 0], 1 / 3), ([-9, 9, -9], 1.0), ([9, -9, 0], 0.0)])
def test_the_score_is_the_softmax_of_the_live_class(logits: list[float], live: float):
    score = model(manifest(), networks.constant(logits, [1, 3])).score(IMAGE, FACE)
    assert score.score == pytest.approx(live, abs=1e-3)
    assert score.passed == (live >= 0.6)
    assert (score.model, score.threshold) == ("model", 0.6)


def test_members_are_averaged_and_the_worst_crop_is_reported():
    both = model(
        manifest(scales=(2.7, 4.0)), networks.constant([-9, 9, -9], [1, 3]), networks.constant([9, -9, -9], [1, 3])
    )
    score = both.score(IMAGE, FACE)
    assert score.score == pytest.approx(0.5, abs=1e-3) and not score.passed
    assert score.out_of_bounds == out_of_bounds(FACE.box, 4.0, IMAGE)


@pytest.mark.parametrize(("colour", "live"), [("bgr", 0.0), ("rgb", 1.0)])
def test_the_colour_order_is_the_packs(colour: str, live: float):
    """A network that calls a picture live when its first channel is the brighter one."""
    from onnx import TensorProto, helper, numpy_helper

    weights = np.array([[1, -1], [0, 0], [-1, 1]], np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
            helper.make_node("Flatten", ["mean"], ["flat"], axis=1),
            helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        ],
        "channels",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 80, 80])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    data = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    red = np.zeros((240, 320, 3), np.uint8)
    red[:, :, 2] = 200
    score = model(manifest(colour=colour, live_class=0), data).score(red, FACE)
    assert score.score == pytest.approx(live, abs=1e-6)


ODD_SOFTMAX = {
    "nan": networks.constant([0.1, float("nan"), 0.2], [1, 3]),
    "infinity": networks.constant([0.1, float("inf"), 0.2], [1, 3]),
    "one class": networks.constant([3.0], [1, 1]),
    "no batch": networks.constant([1.0, 2.0, 3.0], [3]),
    "two rows": networks.constant([1.0] * 6, [2, 3]),
}


@pytest.mark.parametrize("case", ODD_SOFTMAX)
def test_an_odd_answer_is_an_error_never_live(case: str):
    with pytest.raises(ModelError) as caught:
        model(manifest(), ODD_SOFTMAX[case]).score(IMAGE, FACE)
    assert caught.value.code == "inference_failed"


ODD_ADDON = {
    "nan": networks.constant([float("nan")], [1]),
    "above one": networks.constant([1.01], [1]),
    "below zero": networks.constant([-0.01], [1]),
    "logits": networks.constant([0.1, 0.9], [1, 2]),
    "two faces": networks.constant([0.9, 0.9], [2]),
}


@pytest.mark.parametrize("case", ODD_ADDON)
def test_an_odd_answer_of_the_add_on_is_an_error_never_live(case: str):
    with pytest.raises(ModelError) as caught:
        model(manifest("insightface_addon", (None,)), ODD_ADDON[case]).score(IMAGE, FACE)
    assert caught.value.code == "inference_failed"


@pytest.mark.parametrize(("probability", "passed"), [(0.0, False), (0.59, False), (0.6, True), (1.0, True)])
def test_the_add_ons_answer_is_the_probability_itself(probability: float, passed: bool):
    score = model(manifest("insightface_addon", (None,)), networks.constant([probability], [1])).score(IMAGE, FACE)
    assert score.score == pytest.approx(probability)
    assert score.passed == passed


def test_the_add_on_refuses_a_crop_that_is_mostly_outside():
    """The network would say "live": it is not asked."""
    outside = Face(FACE.box, FACE.landmarks - np.float32(100), 0.9)
    score = model(manifest("insightface_addon", (None,)), networks.constant([1.0], [1])).score(IMAGE, outside)
    assert score.score is None and not score.passed
    assert score.out_of_bounds > 0.30


@pytest.mark.parametrize(
    ("described", "networks_bytes", "why"),
    [
        (manifest(), [networks.constant([0.5], [1], side_px=96)], "the file says"),
        (manifest(scales=(None,)), [networks.constant([0.5], [1])], "no crop_scale"),
        (manifest("insightface_addon", (None,)), [networks.constant([0.5], [1], side_px=96)], "the file says"),
        (manifest("insightface_addon", (None, None)), [networks.constant([0.5], [1])] * 2, "single model"),
    ],
)
def test_a_pack_that_does_not_fit_its_files_is_refused(
    described: LivenessManifest, networks_bytes: list[bytes], why: str
):
    with pytest.raises(ModelError, match=why) as caught:
        model(described, *networks_bytes)
    assert caught.value.code == "model_invalid"
