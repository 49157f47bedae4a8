"""Every change goes through here: each is said, and in a dry run only said."""

from __future__ import annotations

import grp
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from scripts.installer.refusal import CannotInstall

TAIL_LINES = 12


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended: exit code, and stdout and stderr together."""

    code: int
    output: str

    @property
    def tail(self) -> str:
        """Its last lines, indented, for an error message."""
        return "".join(f"\n    {line}" for line in self.output.strip().splitlines()[-TAIL_LINES:])


Runner = Callable[[Sequence[str], float], Answer]


def start(command: Sequence[str], timeout_s: float) -> Answer:
    """Run a command without the caller's Python settings; ours must not reach the interpreter of a release."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", check=False, timeout=timeout_s, env=environment
        )
    except subprocess.TimeoutExpired:
        return Answer(124, f"it took longer than {timeout_s:.0f} s")
    except OSError as exc:
        return Answer(127, f"{command[0]}: {exc.strerror}")
    return Answer(done.returncode, done.stdout + done.stderr)


class Hands:
    """``out`` gets a line for every step. Raises CannotInstall when one fails."""

    def __init__(self, *, dry: bool, out: TextIO | None = None, runner: Runner = start) -> None:
        self.dry = dry
        self._out = out or sys.stdout
        self._runner = runner

    def say(self, text: str) -> None:
        """Anything but a step."""
        print(text, file=self._out, flush=True)

    def step(self, text: str) -> bool:
        """Say a step; True when it is to be done."""
        self.say(f"  {text}")
        return not self.dry

    def ask(self, *command: str, timeout_s: float = 30.0) -> Answer:
        """A command that changes nothing: it runs in a dry run, too."""
        return self._runner(command, timeout_s)

    def tidy(self, *command: str) -> None:
        """Run a command that is not worth a line and may fail."""
        if not self.dry:
            self._runner(command, 30.0)

    def attempt(self, *command: str, timeout_s: float = 300.0) -> Answer:
        """Run a command whose failure the caller judges."""
        return self._runner(command, timeout_s) if self.step(" ".join(command)) else Answer(0, "")

    def run(
        self, *command: str, failing: str, hint: str | Callable[[str], str] | None = None, timeout_s: float = 300.0
    ) -> None:
        """Run a command that must succeed; ``hint`` may depend on what the command said."""
        answer = self.attempt(*command, timeout_s=timeout_s)
        if answer.code != 0:
            advice = hint(answer.output) if callable(hint) else hint
            raise CannotInstall(
                f"{failing}: {Path(command[0]).name} ended with {answer.code}{answer.tail}", hint=advice
            )

    def folder(self, path: Path, mode: int = 0o755) -> None:
        if not path.is_dir() and self.step(f"make {path}/"):
            path.mkdir(parents=True, mode=mode)
            path.chmod(mode)

    def write(self, path: Path, content: bytes, mode: int = 0o644, group: str | None = None) -> bool:
        """Replace the file at once and synced; False when it has this content already."""
        if path.is_file() and path.read_bytes() == content:
            return False
        if self.step(f"write {path}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            part.unlink(missing_ok=True)
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            if group is not None:
                shutil.chown(part, group=group)
            part.replace(path)
        return True

    def let_read(self, path: Path, group: str) -> None:
        """A file that somebody copied here as root may be for root alone."""
        found = path.stat()
        try:
            theirs = found.st_gid == grp.getgrnam(group).gr_gid and found.st_mode & 0o040
        except KeyError:  # a dry run, before there is such a group
            theirs = 0
        if not (theirs or found.st_mode & 0o004) and self.step(f"let {group} read {path}"):
            shutil.chown(path, group=group)
            path.chmod(found.st_mode & 0o777 | 0o040)

    def copy(self, source: Path, target: Path) -> None:
        """A file, or a folder with everything below it but compiled modules."""
        if not self.step(f"copy {source.name} to {target}"):
            return
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def link(self, path: Path, target: Path) -> None:
        """Point a link to ``target``, in one step for whoever looks."""
        if path.is_symlink() and path.readlink() == target:
            return
        if self.step(f"link {path} -> {target}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{path.name}.part")
            part.unlink(missing_ok=True)
            part.symlink_to(target)
            part.replace(path)
            os.sync()

    def remove(self, path: Path) -> None:
        """A file, a link or a folder with everything in it; nothing when it is not there."""
        if not (path.exists() or path.is_symlink()):
            return
        folder = path.is_dir() and not path.is_symlink()
        if self.step(f"remove {path}{'/' if folder else ''}"):
            if folder:
                shutil.rmtree(path)
            else:
                path.unlink()
