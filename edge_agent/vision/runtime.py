"""ONNX Runtime with our own options; the only module that imports it.

Builds since 1.30 send telemetry unless told not to (a device id and a database in the cache folder, DNS look-ups),
so the switch is set before the import. Every exception of the library is translated here into ModelError.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Final

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import numpy as np
import onnxruntime as ort  # the environment variable above must be set first
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from edge_agent.errors import ModelError

Tensor = NDArray[np.float32]

DEFAULT_THREADS: Final = 1
"""Intra-op threads per model: see docs/gate.md, "Speed"."""

_ACCELERATORS: Final = {"tensorrt": "TensorrtExecutionProvider", "cuda": "CUDAExecutionProvider"}
_CPU: Final = "CPUExecutionProvider"

_SILENT: Final = 4
"""Severity "fatal": what the library would log as a warning or an error reaches us as an exception anyway."""

ort.set_default_logger_severity(_SILENT)

# One arena for all sessions, which grows by what is asked for. They run by turns, so it holds what the hungriest needs;
# without it the system maps and clears the same pages for every frame (docs/performance.md, "The pipeline").
ort.create_and_register_allocator(
    ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT),
    ort.OrtArenaCfg(0, 1, -1, -1),  # no limit, same as requested, the library's own defaults
)


def _library_errors() -> tuple[type[Exception], ...]:
    """Every exception class of the library, and the built-in ones that its binding raises."""
    own = [v for v in vars(ort_state).values() if isinstance(v, type) and issubclass(v, Exception)]
    return (*own, RuntimeError, ValueError, TypeError, IndexError, MemoryError, OSError)


LIBRARY_ERRORS: Final = _library_errors()


@dataclass(frozen=True, slots=True)
class TensorShape:
    """Name and shape of one input or output; None stands for a free dimension."""

    name: str
    shape: tuple[int | None, ...]


class Session:
    """One loaded model with one float32 input."""

    def __init__(self, name: str, native: Any) -> None:
        """``native`` is a loaded ``onnxruntime.InferenceSession``. Raises ModelError for any other input contract."""
        self.name = name
        self._native = native
        inputs = native.get_inputs()
        if len(inputs) != 1 or inputs[0].type != "tensor(float)":
            raise invalid_model(name, "it must have exactly one input, of type float32")
        self.input = _shape_of(inputs[0])
        self.outputs = tuple(_shape_of(node) for node in native.get_outputs())
        self.providers: tuple[str, ...] = tuple(native.get_providers())

    def run(self, tensor: Tensor) -> list[Tensor]:
        """All outputs, in the model's order. Raises ModelError (``inference_failed``) also for NaN and infinity."""
        try:
            outputs = self._native.run(None, {self.input.name: tensor})
        except LIBRARY_ERRORS as exc:
            raise inference_failed(self.name, _one_line(exc)) from exc
        for output in outputs:
            # a sum of finite numbers is finite but for an overflow: one look at all of them is enough where it is
            if not isfinite(output.sum()) and not np.isfinite(output).all():
                raise inference_failed(self.name, "the model answered NaN or infinity")
        return list(outputs)


def load_session(model: bytes, *, name: str, providers: str | Sequence[str] = "auto", threads: int = 0) -> Session:
    """Load a model from memory.

    ``providers``: ``auto`` (TensorRT or CUDA where they are present and work, else the CPU), ``cpu``, ``cuda``,
    ``tensorrt``, or ONNX Runtime's own provider names. ``threads``: 0 = DEFAULT_THREADS. ``name`` is for messages.
    Raises ModelError (``model_invalid``, ``provider_unavailable``).
    """
    wanted = choose_providers(providers, ort.get_available_providers())
    try:
        native = _open(model, wanted, threads)
    except LIBRARY_ERRORS as exc:
        if providers != "auto" or wanted == [_CPU]:
            raise invalid_model(name, _one_line(exc)) from exc
        native = _open_on_cpu(model, name, threads)
    return Session(name, native)


def choose_providers(providers: str | Sequence[str], available: Sequence[str]) -> list[str]:
    """ONNX Runtime's provider names for a setting; the CPU always closes the list.

    Raises ModelError (``provider_unavailable``) when an asked-for provider is not in this build.
    """
    if providers == "auto":
        names = [name for name in _ACCELERATORS.values() if name in available]
    elif isinstance(providers, str):
        names = [] if providers == "cpu" else [_ACCELERATORS.get(providers, providers)]
    else:
        names = [name for name in providers if name != _CPU]
    missing = [name for name in names if name not in available]
    if missing:
        raise ModelError(
            f"cannot run models on {', '.join(missing)}: this ONNX Runtime does not have it",
            code="provider_unavailable",
            hint=f"set models.providers to auto or cpu; here are: {', '.join(available)}",
        )
    return [*names, _CPU]


def on_cpu_only(providers: str | Sequence[str]) -> bool:
    """Whether no accelerator would be tried. Raises ModelError as choose_providers does."""
    return choose_providers(providers, ort.get_available_providers()) == [_CPU]


def on_cpu(session: Session) -> bool:
    """Whether ``session`` runs on the CPU."""
    return session.providers[:1] == (_CPU,)


def _open_on_cpu(model: bytes, name: str, threads: int) -> Any:
    try:
        return _open(model, [_CPU], threads)
    except LIBRARY_ERRORS as exc:
        raise invalid_model(name, _one_line(exc)) from exc


def _open(model: bytes, providers: list[str], threads: int) -> Any:
    # The library's own fallback prints to standard output, which belongs to our JSON.
    native = ort.InferenceSession(model, _options(threads), providers=providers, enable_fallback=0)
    # Kept by the library for that fallback alone, as long as the session lives: the whole file once more.
    if hasattr(native, "_model_bytes"):
        native._model_bytes = None  # noqa: SLF001 - there is no public way to let go of it
    return native


def _options(threads: int) -> Any:
    """Small and quiet: one thread, one arena for all, no spinning (measured in docs/performance.md, "The pipeline")."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or DEFAULT_THREADS
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.enable_cpu_mem_arena = True
    options.enable_mem_pattern = False
    options.log_severity_level = _SILENT
    options.add_session_config_entry("session.use_env_allocators", "1")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def invalid_model(name: str, why: str) -> ModelError:
    return ModelError(
        f"cannot load the model {name}: {why}",
        code="model_invalid",
        hint="edge-agent models verify says whether the files are the pack's own",
    )


def inference_failed(name: str, why: str) -> ModelError:
    return ModelError(
        f"cannot run the model {name}: {why}",
        code="inference_failed",
        hint="edge-agent models verify; with providers other than cpu, try models.providers: cpu",
    )


def _shape_of(node: Any) -> TensorShape:
    return TensorShape(node.name, tuple(d if isinstance(d, int) and d > 0 else None for d in node.shape))


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())[:300]
