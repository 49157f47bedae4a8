"""Small ONNX networks with the contracts of models that cannot be had here, made in the test."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def _model(nodes: list[Any], inputs: list[Any], outputs: list[Any], weights: dict[str, np.ndarray]) -> bytes:
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "stand_in", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def weighted_mean(side_px: int = 80) -> bytes:
    """The add-on's contract, float32 [N, 3, S, S] -> [N]: a weighted mean of pixels in 0-1.

    Every pixel and channel has its own weight, so any slip in crop, order or scale changes the answer.
    """
    weights = np.random.default_rng(7).random((3 * side_px * side_px, 1)).astype(np.float32)
    weights /= weights.sum()
    nodes = [
        helper.make_node("Flatten", ["input"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["column"]),
        helper.make_node("Squeeze", ["column", "axis"], ["probability"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side_px, side_px])],
        [helper.make_tensor_value_info("probability", TensorProto.FLOAT, ["N"])],
        {"w": weights, "axis": np.array([1])},
    )


def projector(side_px: int = 112, dimensions: int = 512) -> bytes:
    """An embedder's contract, float32 [N, 3, S, S] -> [N, D]: pooled pixels times a random matrix."""
    pooled = 3 * (side_px // 14) ** 2
    weights = np.random.default_rng(8).standard_normal((pooled, dimensions)).astype(np.float32)
    nodes = [
        helper.make_node("AveragePool", ["input"], ["pooled"], kernel_shape=[14, 14], strides=[14, 14]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "w"], ["embedding"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, side_px, side_px])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["N", dimensions])],
        {"w": weights},
    )


def constant(values: list[float] | np.ndarray, shape: list[int] | None = None, *, side_px: int = 80) -> bytes:
    """float32 [1, 3, S, S] -> always ``values`` (reshaped to ``shape``), whatever the picture."""
    answer = np.array(values, np.float32)
    answer = answer.reshape(shape) if shape is not None else answer
    nodes = [
        helper.make_node("ReduceSum", ["input"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["sum", "zero"], ["nothing"]),
        helper.make_node("Add", ["answer", "nothing"], ["output"]),
    ]
    return _model(
        nodes,
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, side_px, side_px])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, list(answer.shape))],
        {"zero": np.array(0, np.float32), "answer": answer},
    )


def two_inputs() -> bytes:
    shape = [1, 3, 80, 80]
    names = ("a", "b")
    return _model(
        [helper.make_node("Add", list(names), ["sum"])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in names],
        [helper.make_tensor_value_info("sum", TensorProto.FLOAT, shape)],
        {},
    )
