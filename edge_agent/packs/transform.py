"""What fetch does to a model that does not run as shipped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.errors import ModelError
from edge_agent.packs.manifest import ModelFile
from edge_agent.packs.verify import matches

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

FIRST_IR_WITH_PLAIN_WEIGHTS = 4


def symbolic_dims(shipped: bytes) -> bytes:
    """The same network for any batch, height and width.

    ``shipped``: an ONNX file whose graph input 0 and outputs are (N, C, H, W) with fixed numbers. Only N, H and W
    become names, so a wrong channel count is still refused. The weights leave the list of graph inputs: listed there
    they count as replaceable, and the runtime folds nothing (measured at 320x320, one thread: 41 ms as shipped, 16 ms
    without; the outputs differ by less than 5e-6). The result is the same byte for byte with every version of onnx
    that was tried (1.17 to 1.23). Raises ModelError (``model_invalid``).
    """
    # Needed by nothing but this function, and slow to import.
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_from_string(shipped)
        _name_dims(model.graph.input[0], ("batch", None, "height", "width"))
    except (DecodeError, IndexError) as exc:
        raise ModelError(
            "cannot make the model's dimensions symbolic: not an ONNX model", code="model_invalid"
        ) from exc
    for output in model.graph.output:
        _name_dims(output, ("batch", None, "cells_high", "cells_wide"))
    _unlist_weights(model)
    return bytes(model.SerializeToString(deterministic=True))


def _name_dims(value: ValueInfoProto, names: tuple[str | None, ...]) -> None:
    for dim, name in zip(value.type.tensor_type.shape.dim, names, strict=True):
        if name is not None:
            dim.dim_param = name


def _unlist_weights(model: ModelProto) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, FIRST_IR_WITH_PLAIN_WEIGHTS)


TRANSFORMS = {"symbolic_dims": symbolic_dims}


def as_loaded(data: bytes, file: ModelFile) -> bytes | None:
    """The bytes to store, made from a file as shipped or as stored; None when ``data`` is neither.

    Raises ModelError (``model_invalid``) when the transform does not give what the manifest names.
    """
    if matches(data, file.sha256, file.size):
        return data
    if file.transform is None or not matches(data, file.shipped_sha256 or "", file.shipped_size or 0):
        return None
    result = TRANSFORMS[file.transform](data)
    if not matches(result, file.sha256, file.size):
        raise ModelError(
            f"cannot use the model: the transform {file.transform} did not give the bytes that the manifest names",
            code="model_invalid",
            hint="install the version of onnx in the lock file",
        )
    return result
