"""Stand-ins of the packs tests: small networks with the contracts of the real ones, archives, packs and a web."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import onnx
import yaml
from onnx import TensorProto, helper, numpy_helper

from edge_agent.packs.check import check
from edge_agent.packs.manifest import ModelFile, Pack, builtin_dir

CONTENT = {"detector.onnx": b"D" * 1000, "live.onnx": b"L" * 500}
OTHER = b"X" * 1000


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(data: bytes, *sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    described = {"sha256": sha256(data), "size": len(data), "licence": "MIT", "origin": "the test"}
    return {**described, "sources": list(sources), **more}


def https(path: str, **more: Any) -> dict[str, Any]:
    return {"kind": "https", "url": f"https://mirror.example/{path}", **more}


def pack_value(**files: dict[str, Any]) -> dict[str, Any]:
    """A pack of a detector and a liveness model; ``files`` replaces their entries (detector=, live=)."""
    entries = {name: entry(data, https(name)) for name, data in CONTENT.items()}
    entries.update({f"{name}.onnx": value for name, value in files.items()})
    return {
        "name": "small",
        "title": "a pack of the test",
        "commercial_use": "yes",
        "licence_note": "do what you like",
        "detector": {
            "family": "yunet",
            "file": "detector.onnx",
            "input_px": [320, 320],
            "score_threshold": 0.6,
            "nms_threshold": 0.45,
        },
        "liveness": [
            {
                "name": "live",
                "family": "crop_softmax",
                "members": [{"file": "live.onnx", "input_px": 80, "crop_scale": 2.7}],
                "live_class": 1,
                "threshold": 0.5,
            }
        ],
        "files": entries,
    }


def small_pack(**files: dict[str, Any]) -> Pack:
    return check(Pack, pack_value(**files))


def insightface_pack(contents: dict[str, bytes]) -> Pack:
    """The shipped manifest ``insightface`` with the hashes of stand-in networks."""
    value = yaml.safe_load((builtin_dir() / "insightface.yaml").read_text())
    for name, data in contents.items():
        value["files"][name].update(sha256=sha256(data), size=len(data))
    return check(Pack, value)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def streamed(body: bytes, announced: int) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Length": str(announced)}, stream=httpx.ByteStream(body))


class Web(httpx.BaseTransport):
    """Answers each URL with bytes, a response or an exception; everything else with 404. Keeps what was asked."""

    def __init__(self, answers: dict[str, bytes | httpx.Response | Exception | Callable[[], httpx.Response]]) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        answer = self.answers.get(str(request.url), httpx.Response(404))
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, bytes):
            return streamed(answer, len(answer))
        return answer if isinstance(answer, httpx.Response) else answer()


def small_web(**more: Any) -> Web:
    """A web that has the files of ``small_pack``; ``more`` replaces answers by the path below the mirror."""
    answers: dict[str, Any] = {f"https://mirror.example/{name}": data for name, data in CONTENT.items()}
    return Web({**answers, **{f"https://mirror.example/{path}": answer for path, answer in more.items()}})


def network(input_shape: list[Any], output_shape: list[Any], *, weights_as_inputs: bool = False) -> bytes:
    """A network of one 1x1 convolution from a 3-channel picture, or of a mean where the output has no picture shape."""
    inputs = [helper.make_tensor_value_info("input", TensorProto.FLOAT, input_shape)]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, output_shape)]
    if len(output_shape) == 4:
        weights = numpy_helper.from_array(np.ones((output_shape[1], 3, 1, 1), np.float32), "weights")
        nodes = [helper.make_node("Conv", ["input", "weights"], ["output"])]
    else:
        weights = numpy_helper.from_array(np.zeros(output_shape, np.float32), "weights")
        nodes = [
            helper.make_node("ReduceMean", ["input"], ["mean"], keepdims=0),
            helper.make_node("Add", ["mean", "weights"], ["output"]),
        ]
    if weights_as_inputs:
        inputs.append(helper.make_tensor_value_info("weights", TensorProto.FLOAT, list(weights.dims)))
    graph = helper.make_graph(nodes, "stand_in", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def frozen_network() -> bytes:
    """Like CenterFace as shipped: fixed numbers for every dimension, the weights among the inputs."""
    return network([10, 3, 32, 32], [10, 2, 32, 32], weights_as_inputs=True)


def transformed_entry(shipped: bytes, result: bytes, *sources: dict[str, Any]) -> dict[str, Any]:
    more = {"transform": "symbolic_dims", "shipped_sha256": sha256(shipped), "shipped_size": len(shipped)}
    return entry(result, *sources, **more)


def model_file(data: bytes) -> ModelFile:
    return check(ModelFile, entry(data))
