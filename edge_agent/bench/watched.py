"""Models that can be looked at while they work: how long each took, and with which inputs."""

from __future__ import annotations

from collections.abc import Sequence

from edge_agent.bench.figures import timed
from edge_agent.config import ModelsSection
from edge_agent.packs.manifest import Pack
from edge_agent.packs.verify import require_model
from edge_agent.vision.pipeline import Pipeline
from edge_agent.vision.runtime import Session, Tensor, load_session


class WatchedSession(Session):
    """A session that notes the time of its runs and, when asked to, a copy of each input."""

    def __init__(self, inner: Session) -> None:
        super().__init__(inner.name, inner._native)  # noqa: SLF001 - the floor is the library's own call
        self.took_s = 0.0
        """Of all runs since it was last set to 0."""
        self.inputs: list[Tensor] | None = None
        """None: they are not kept."""

    def run(self, tensor: Tensor) -> list[Tensor]:
        if self.inputs is not None:
            self.inputs.append(tensor.copy())
        seconds, outputs = timed(lambda: super(WatchedSession, self).run(tensor))
        self.took_s += seconds
        return outputs

    def run_bare(self, tensor: Tensor) -> None:
        """The library's own call and nothing else."""
        self._native.run(None, {self.input.name: tensor})


class WatchedPipeline(Pipeline):
    """The pipeline itself; only its sessions are watched."""

    def __init__(self, pack: Pack, models: ModelsSection) -> None:
        """``models``: their folder, providers and threads. Raises ModelError as open_pipeline does."""
        self.sessions: dict[str, WatchedSession] = {}

        def load(name: str) -> Session:
            model = require_model(models.dir, name, pack.files[name], pack=pack.name)
            session = WatchedSession(load_session(model, name=name, providers=models.providers, threads=models.threads))
            return self.sessions.setdefault(name, session)

        super().__init__(pack, load)

    def forget_times(self) -> None:
        for session in self.sessions.values():
            session.took_s = 0.0

    def keep_inputs(self, *, keep: bool) -> list[tuple[WatchedSession, Tensor]]:
        """Begin to keep inputs, or stop it and give what every model was asked since, in no particular order."""
        kept = [(session, tensor) for session in self.sessions.values() for tensor in session.inputs or []]
        for session in self.sessions.values():
            session.inputs = [] if keep else None
        return kept


def run_floor(asked: Sequence[tuple[WatchedSession, Tensor]]) -> None:
    """The bare runs of the models with inputs that are prepared: no pipeline of them can be faster."""
    for session, tensor in asked:
        session.run_bare(tensor)
