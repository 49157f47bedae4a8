"""A MiniFASNet that InsightFace's own liveness class can run: its add-on's weights cannot be had everywhere."""

from __future__ import annotations

import numpy as np


def as_addon(minifasnet: bytes) -> bytes:
    """MiniFASNet behind InsightFace's add-on contract: RGB 0-1 (1, 3, 80, 80) in, the live probability (1,) out."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    model = onnx.load_model_from_string(minifasnet)
    graph = model.graph
    old_in, old_out = graph.input[0].name, graph.output[0].name
    before = [helper.make_node("Gather", ["addon_in", "bgr"], ["addon_bgr"], axis=1)]
    before += [helper.make_node("Mul", ["addon_bgr", "to_255"], [old_in])]
    after = [helper.make_node("Softmax", [old_out], ["addon_p"], axis=1)]
    after += [helper.make_node("Gather", ["addon_p", "live"], ["addon_out"], axis=1)]
    nodes = [*before, *graph.node, *after]
    weights = {"bgr": np.array([2, 1, 0]), "to_255": np.float32(255.0), "live": np.array(1)}
    graph.initializer.extend(numpy_helper.from_array(np.asarray(v), n) for n, v in weights.items())
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.extend(nodes)
    graph.input.append(helper.make_tensor_value_info("addon_in", TensorProto.FLOAT, [1, 3, 80, 80]))
    graph.output.append(helper.make_tensor_value_info("addon_out", TensorProto.FLOAT, [1]))
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())
