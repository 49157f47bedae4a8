"""onnxruntime behind our own door: silent, errors translated, no telemetry."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_agent.errors import ModelError
from edge_agent.vision import runtime
from edge_agent.vision.runtime import Session, choose_providers, load_session
from tests.vision import networks

ROOT = Path(__file__).resolve().parents[2]
PIXELS = np.zeros((1, 3, 80, 80), np.float32)

CHILD = """
import sys
opened = []
def watch(event, args):
    if event.startswith("socket.") or (event == "open" and isinstance(args[1], str) and set(args[1]) & set("wax+")):
        opened.append((event, args))
sys.addaudithook(watch)
import numpy as np
from edge_agent.vision.runtime import load_session
session = load_session(sys.stdin.buffer.read(), name="stand-in")
session.run(np.zeros((1, 3, 80, 80), np.float32))
del session
sys.exit(repr(opened) if opened else 0)
"""


def traced(trace: Path) -> list[str]:
    """The command prefix that records system calls, empty where there is no working strace."""
    strace = shutil.which("strace")
    prefix = [strace or "", "-f", "-qq", "-e", "trace=socket,connect,openat,open,creat,mkdir,mkdirat,unlink", "-o"]
    if strace is None or subprocess.run([*prefix, os.devnull, "true"], check=False, capture_output=True).returncode:
        return []
    return [*prefix, str(trace)]


def telling(line: str) -> bool:
    """Whether a line of the trace is a socket or something written."""
    if "/dev/null" in line or "/proc/self" in line:
        return False
    written = any(flag in line for flag in ("O_WRONLY", "O_RDWR", "O_CREAT", "mkdir", "creat(", "unlink("))
    return "socket(" in line or "connect(" in line or written


def test_a_child_opens_no_socket_and_writes_no_file(tmp_path: Path):
    """The system calls are traced where strace works; the audit hook and the empty home are looked at everywhere."""
    home, trace = tmp_path / "home", tmp_path / "trace"
    home.mkdir()
    keep = {k: v for k, v in os.environ.items() if k in {"PATH", "LD_LIBRARY_PATH", "LANG"}}
    environment = keep | {"HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(ROOT)}
    prefix = traced(trace)

    child = subprocess.run(
        [*prefix, sys.executable, "-c", CHILD],
        input=networks.constant([0.5]),
        env=environment,
        cwd=home,
        capture_output=True,
        check=False,
    )

    assert child.returncode == 0, child.stderr.decode()
    assert child.stderr == b""
    assert list(home.rglob("*")) == []
    calls = trace.read_text(errors="replace").splitlines() if prefix else []
    assert not prefix or len(calls) > 100
    assert [line for line in calls if telling(line)] == []


def test_the_switch_is_set_in_this_process_too():
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


def test_every_exception_of_the_library_is_translated():
    own = [v for v in vars(ort_state).values() if isinstance(v, type) and issubclass(v, Exception)]
    assert len(own) >= 10
    assert all(issubclass(kind, runtime.LIBRARY_ERRORS) for kind in own)


@pytest.mark.parametrize("model", [b"", b"no model at all", networks.constant([0.5])[:200]])
def test_a_file_that_is_no_model_is_refused(model: bytes):
    with pytest.raises(ModelError, match=r"^cannot load the model face\.onnx: ") as caught:
        load_session(model, name="face.onnx")
    assert caught.value.code == "model_invalid"
    assert caught.value.hint


def test_a_model_with_two_inputs_is_refused():
    with pytest.raises(ModelError, match="exactly one input"):
        load_session(networks.two_inputs(), name="face.onnx")


def test_a_session_describes_itself_and_runs():
    session = load_session(networks.weighted_mean(), name="face.onnx")
    assert session.input.shape == (None, 3, 80, 80)
    assert [output.shape for output in session.outputs] == [(None,)]
    assert session.providers == ("CPUExecutionProvider",)
    assert session.run(np.full((1, 3, 80, 80), 0.25, np.float32))[0] == pytest.approx([0.25], abs=1e-4)


def test_a_wrong_tensor_is_our_error():
    session = load_session(networks.constant([0.5]), name="face.onnx")
    with pytest.raises(ModelError, match=r"^cannot run the model face\.onnx: ") as caught:
        session.run(np.zeros((1, 3, 81, 81), np.float32))
    assert caught.value.code == "inference_failed"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_an_answer_that_is_not_finite_is_an_error(value: float):
    session = load_session(networks.constant([0.5, value]), name="face.onnx")
    with pytest.raises(ModelError, match="NaN or infinity"):
        session.run(PIXELS)


@pytest.mark.parametrize("kind", runtime.LIBRARY_ERRORS)
def test_any_failure_while_running_is_our_error(kind: type[Exception]):
    native = load_session(networks.constant([0.5]), name="face.onnx")._native

    class Broken:
        get_inputs, get_outputs, get_providers = native.get_inputs, native.get_outputs, native.get_providers

        def run(self, *_: object) -> None:
            raise kind("the device\nis gone")

    with pytest.raises(ModelError, match="the device is gone"):
        Session("face.onnx", Broken()).run(PIXELS)


GPU = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("setting", "available", "expected"),
    [
        ("auto", ["CPUExecutionProvider"], ["CPUExecutionProvider"]),
        ("auto", ["AzureExecutionProvider", "CPUExecutionProvider"], ["CPUExecutionProvider"]),
        ("auto", GPU, GPU),
        ("cpu", GPU, ["CPUExecutionProvider"]),
        ("cuda", GPU, ["CUDAExecutionProvider", "CPUExecutionProvider"]),
        ("tensorrt", GPU, ["TensorrtExecutionProvider", "CPUExecutionProvider"]),
        (["CUDAExecutionProvider", "CPUExecutionProvider"], GPU, ["CUDAExecutionProvider", "CPUExecutionProvider"]),
    ],
)
def test_providers(setting: str | list[str], available: list[str], expected: list[str]):
    assert choose_providers(setting, available) == expected


@pytest.mark.parametrize("setting", ["cuda", "tensorrt", ["OpenVINOExecutionProvider"]])
def test_a_provider_that_is_not_here_is_refused(setting: str | list[str]):
    with pytest.raises(ModelError, match="this ONNX Runtime does not have it") as caught:
        load_session(networks.constant([0.5]), name="face.onnx", providers=setting)
    assert caught.value.code == "provider_unavailable"


def test_auto_falls_back_to_the_cpu_when_the_accelerator_does_not_start(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: GPU)
    really_open = runtime._open

    def only_cpu(model: bytes, providers: list[str], threads: int) -> object:
        if providers != ["CPUExecutionProvider"]:
            raise RuntimeError("no device")
        return really_open(model, providers, threads)

    monkeypatch.setattr(runtime, "_open", only_cpu)
    assert load_session(networks.constant([0.5]), name="face.onnx").providers == ("CPUExecutionProvider",)
    with pytest.raises(ModelError, match="no device"):
        load_session(networks.constant([0.5]), name="face.onnx", providers="cuda")
    with pytest.raises(ModelError):
        load_session(b"garbage", name="face.onnx")
