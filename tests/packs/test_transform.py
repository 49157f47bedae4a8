"""CenterFace does not run as shipped: what fetch makes of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from edge_agent.errors import ModelError
from edge_agent.packs.check import check
from edge_agent.packs.manifest import ModelFile, load_pack
from edge_agent.packs.transform import as_loaded, symbolic_dims
from edge_agent.packs.verify import matches
from tests.packs.stand_ins import OTHER, frozen_network, transformed_entry


def dims(value: onnx.ValueInfoProto) -> list[str | int]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


def test_batch_height_and_width_become_names_and_the_channels_stay() -> None:
    graph = onnx.load_from_string(symbolic_dims(frozen_network())).graph
    assert [dims(value) for value in graph.input] == [["batch", 3, "height", "width"]]
    assert [dims(value) for value in graph.output] == [["batch", 2, "cells_high", "cells_wide"]]


def test_the_weights_are_no_longer_inputs() -> None:
    before = onnx.load_from_string(frozen_network()).graph
    after = onnx.load_from_string(symbolic_dims(frozen_network())).graph
    assert [value.name for value in before.input] == ["input", "weights"]
    assert [value.name for value in after.input] == ["input"]
    assert list(after.initializer) == list(before.initializer)


def test_the_result_runs_on_a_size_that_the_shipped_model_refuses() -> None:
    session = onnxruntime.InferenceSession(symbolic_dims(frozen_network()), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"input": np.ones((1, 3, 64, 96), np.float32)})
    assert result.shape == (1, 2, 64, 96)
    assert np.allclose(result, 3.0)


def test_the_result_is_the_same_byte_for_byte() -> None:
    assert symbolic_dims(frozen_network()) == symbolic_dims(frozen_network())


@pytest.mark.parametrize("garbage", [b"", b"\xff" * 100, b"<html>"])
def test_something_that_is_no_model_is_refused(garbage: bytes) -> None:
    with pytest.raises(ModelError) as caught:
        symbolic_dims(garbage)
    assert caught.value.code == "model_invalid"


def test_the_shipped_and_the_finished_file_are_both_accepted() -> None:
    shipped = frozen_network()
    finished = symbolic_dims(shipped)
    file = check(ModelFile, transformed_entry(shipped, finished))
    assert as_loaded(shipped, file) == finished
    assert as_loaded(finished, file) == finished
    assert as_loaded(shipped[:-1], file) is None
    assert as_loaded(OTHER, file) is None


def test_a_transform_that_gives_other_bytes_than_the_manifest_names_is_refused() -> None:
    shipped = frozen_network()
    file = check(ModelFile, transformed_entry(shipped, OTHER))
    with pytest.raises(ModelError, match="did not give the bytes that the manifest names"):
        as_loaded(shipped, file)


@pytest.mark.assets
def test_centerface_as_shipped_becomes_the_file_of_the_manifest(assets: Path) -> None:
    file = load_pack("open").files["centerface.onnx"]
    finished = symbolic_dims((assets / "models/registry/centerface.onnx").read_bytes())
    assert matches(finished, file.sha256, file.size)
