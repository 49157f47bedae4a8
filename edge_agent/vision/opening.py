"""Opening a pack: its models are verified and loaded side by side while the rest of vision is being imported.

ONNX Runtime lets go of the interpreter while it loads a model, so on two cores this halves the time to the first frame.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Generic, TypeVar

from edge_agent.vision.heap import keep_heap_small, return_freed_memory

if TYPE_CHECKING:
    from edge_agent.config import ModelsSection
    from edge_agent.packs.manifest import Pack
    from edge_agent.vision.pipeline import Pipeline
    from edge_agent.vision.runtime import Session

T = TypeVar("T")


def open_configured(models: ModelsSection) -> Pipeline:
    """The pipeline that the configuration names, in the daemon. Raises ModelError as load_pack and open_pipeline do."""
    keep_heap_small()  # from the beginning: with the daemon's other threads the heap would never shrink again
    from edge_agent.packs.manifest import load_pack

    return open_pipeline(load_pack(models.pack), models.dir, providers=models.providers, threads=models.threads)


def open_ahead(models: ModelsSection) -> Callable[[ModelsSection], Pipeline]:
    """``open_configured`` in a thread, from now on: the first call waits for its result, a later one opens anew."""
    ahead = [Ahead(partial(open_configured, models), "open models")]

    def opened(wanted: ModelsSection) -> Pipeline:
        result = ahead.pop() if ahead else None
        return result.result() if result is not None and wanted == models else open_configured(wanted)

    return opened


def open_pipeline(
    pack: Pack,
    models_dir: Path,
    *,
    providers: str | Sequence[str] = "auto",
    threads: int = 0,
    with_embedder: bool = False,
) -> Pipeline:
    """Load and verify the pack's models from ``models_dir``.

    ``with_embedder`` loads the embedder now instead of at its first use. Raises ModelError (``models_missing``,
    ``model_tampered``, ``model_invalid``, ``provider_unavailable``).
    """
    # Imported in the order of their need; open_ahead runs this in a thread, beside the imports of the main thread.
    from edge_agent.packs.verify import require_model
    from edge_agent.vision.runtime import load_session, on_cpu_only

    def load(name: str) -> Session:
        model = require_model(models_dir, name, pack.files[name], pack=pack.name)
        return load_session(model, name=name, providers=providers, threads=threads)

    # An accelerator compiles what it loads and needs memory for it: one after the other there.
    names = _needed(pack, with_embedder) if on_cpu_only(providers) else []
    started = {name: Ahead(partial(load, name), f"load {name}") for name in names}

    def loaded(name: str) -> Session:
        ahead = started.pop(name, None)
        return load(name) if ahead is None else ahead.result()

    try:
        # The rest in the meantime.
        from edge_agent.vision.pipeline import Pipeline

        pipeline = Pipeline(pack, loaded)
        if with_embedder:
            pipeline.warm_up()
    finally:
        for ahead in started.values():
            ahead.join()
    return_freed_memory()
    return pipeline


def _needed(pack: Pack, with_embedder: bool) -> list[str]:
    """The files to load, each once, the detector (the largest) first."""
    names = [pack.detector.file, *(member.file for model in pack.liveness for member in model.members)]
    if with_embedder and pack.embedder is not None:
        names.append(pack.embedder.file)
    return list(dict.fromkeys(names))


class Ahead(threading.Thread, Generic[T]):
    """Work that goes on in a thread of its own until somebody asks for its result."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        super().__init__(name=name)
        self._work = work
        self._result: T | None = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._result = self._work()
        except Exception as exc:  # handed to the thread that asks, like any other result
            self._error = exc

    def result(self) -> T:
        """What the work gave, once it is done. Raises what the work raised."""
        self.join()
        if self._result is None:
            raise self._error or RuntimeError(f"{self.name} gave nothing")
        return self._result
