"""The parent's side of the contenders: children that work by turns, one at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from scripts.benches.stage import Stage

BODY = Path(__file__).with_name("contender.py")
WARM_UP = 5


class ContenderFailed(RuntimeError):
    """It could not begin, or it ended."""


@dataclass(slots=True)
class Contender:
    """One child and what it has shown so far. A context manager."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    works: tuple[str, ...] = ()
    seconds: dict[str, list[float]] = field(default_factory=dict)

    def __enter__(self) -> Self:
        try:
            self.works = tuple(self._read()["works"])
        except ContenderFailed:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.terminate()
        self.process.wait()

    def do(self, work: str, frame: int) -> None:
        """One piece of work."""
        answer = self._ask({"work": work, "frame": frame})
        self.seconds.setdefault(work, []).append(float(answer["seconds"]))

    def memory_mb(self) -> tuple[float, float]:
        """Resident now, and the most so far; MB of 10^6 bytes."""
        found = self._ask({"memory": True})
        return float(found["VmRSS"]), float(found["VmHWM"])

    def _ask(self, what: dict[str, Any]) -> dict[str, Any]:
        if self.process.stdin is None:
            raise ContenderFailed(f"{self.name} cannot be asked")
        self.process.stdin.write(json.dumps(what) + "\n")
        self.process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            tail = (self.log.read_text(errors="replace").strip().splitlines() or ["it says nothing"])[-1]
            raise ContenderFailed(f"{self.name}: {tail}")
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def contender(
    stage: Stage, name: str, kind: str, *, one_thread: bool, python: str = sys.executable, **terms: Any
) -> Iterator[Contender]:
    """A child that is ready. Raises ContenderFailed when it does not come up."""
    given = {"frames": str(stage.frames), "one": one_thread, **terms}
    environment = dict(stage.environment)
    if one_thread:
        environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    log = stage.folder / f"contender-{kind}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [python, "-W", "ignore", str(BODY), kind, json.dumps(given)],
            cwd=stage.folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    with Contender(name, process, log) as ready:
        yield ready


def by_turns(contenders: Iterable[Contender], frames: int) -> None:
    """Every work of every contender on every frame: forwards, then backwards, so that none is always the second."""
    order = [(contender, work) for contender in contenders for work in contender.works]
    for number in range(2, frames + WARM_UP + 2):
        for contender, work in order if number % 2 else reversed(order):
            contender.do(work, number)
    for contender, work in order:
        del contender.seconds[work][:WARM_UP]
