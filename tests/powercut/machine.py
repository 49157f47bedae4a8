"""The emulated machine: what goes into it, and one boot of it with or without a plug to pull."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge_agent.errors import EnvironmentFault

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
LIBRARIES = [
    "annotated-types",
    "anyio",
    "certifi",
    "cffi",
    "click",
    "cryptography",
    "h11",
    "httpcore",
    "httpx",
    "idna",
    "numpy",
    "pycparser",
    "pydantic",
    "pydantic-core",
    "pyjwt",
    "pyyaml",
    "starlette",
    "typing-extensions",
    "typing-inspection",
    "uvicorn",
]
"""What outbox, forwarder, client and sandbox import, with what these need: no models, no camera."""
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
PYTHON = "3.11"
"""Debian 12's."""
NOT_FOR_IT = "python_full_version >= '3.12'"
"""Marks the lock's entries that are for newer ones."""
HOME = "/opt/powercut"
BOOT_LIMIT_S = 240
"""For starting and stopping the machine, beside what the command is given."""
STOP_S = 10.0
TURN_S = 0.01


@dataclass(frozen=True, slots=True)
class Machine:
    """One disk, kept between the boots."""

    program: Path
    """Boots the machine: ``PROGRAM --share DIR --out DIR --disk FILE --timeout S COMMAND``, in its own process group."""
    folder: Path

    @property
    def share(self) -> Path:
        """What stands at /mnt/share in the machine."""
        return self.folder / "share"

    @property
    def out(self) -> Path:
        """What was written at /mnt/out in the machine."""
        return self.folder / "out"

    def install(self) -> None:
        """Put the libraries and this checkout on the disk. Ends with a power-off in order."""
        for folder in (self.share, self.out, self.folder / "tmp"):
            folder.mkdir(parents=True)
        pack(libraries(), self.share / "site.tar", ".")
        pack(ROOT, self.share / "code.tar", "edge_agent", "tests")
        shutil.copy(Path(__file__).with_name("life.sh"), self.share)
        unpack = "".join(
            f"mkdir -p {HOME}/{part} && tar -C {HOME}/{part} -xf /mnt/share/{part}.tar && " for part in ("site", "code")
        )
        # what is imported once is compiled and on the disk for every life
        warm = f"cd {HOME}/code && PYTHONPATH={HOME}/site:{HOME}/code python3 -m tests.powercut.guest --help"
        self.run(unpack + warm, limit_s=300)

    def run(self, command: str, *, limit_s: float, plug: Plug | None = None) -> str:
        """Boot, run the command and power off, or pull the plug when it is time.

        The plug is SIGKILL for the program and everything it started: the machine has no chance to write anything.
        Returns what the command printed. Raises EnvironmentFault when it or the machine failed.
        """
        options = ["--share", self.share, "--out", self.out, "--disk", self.folder / "disk.qcow2"]
        options += ["--timeout", str(int(limit_s) + BOOT_LIMIT_S)]
        words = [str(word) for word in (self.program, *options, command)]
        status, printed = run_program(words, plug, self.folder / "tmp")
        if status != (0 if plug is None else -signal.SIGKILL):
            raise EnvironmentFault(f"cannot go on: {self.program} ended with {status}:\n{printed[-2000:]}")
        return printed

    def live(self, arguments: Iterable[str], *, limit_s: float, plug: Plug | None = None, network: str = "") -> str:
        """One life (life.sh). ``network``: the arguments of netem on the loopback device, for example ``loss 30%``."""
        words = " ".join(f"'{word}'" for word in arguments)
        life = f"sh /mnt/share/life.sh {words}"
        if network:
            life = (
                f"modprobe sch_netem && tc qdisc add dev lo root netem {network} && {life} && tc -s qdisc show dev lo"
            )
        return self.run(life, limit_s=limit_s, plug=plug)


class Plug(Protocol):
    """When to pull it."""

    def is_due(self) -> bool:
        """Asked about a hundred times a second."""
        ...


def run_program(command: list[str], plug: Plug | None, scratch: Path) -> tuple[int, str]:
    """Run it to its end or to the plug's. When this process is stopped, the program is asked to clean up first."""
    with tempfile.TemporaryFile("w+") as printed:
        with subprocess.Popen(
            command,
            stdout=printed,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(scratch)},
        ) as process:
            try:
                status = _wait(process, plug)
            except BaseException:
                stop(process)
                raise
        printed.seek(0)
        return status, printed.read()


def _wait(process: subprocess.Popen[bytes], plug: Plug | None) -> int:
    if plug is None:
        return process.wait()
    while process.poll() is None:
        if plug.is_due():
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()
        time.sleep(TURN_S)
    return process.returncode


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask it to clean up, then end all of its group."""
    if process.poll() is not None:
        return
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # nobody is left


def pack(folder: Path, archive: Path, *parts: str) -> None:
    """A tar of these parts of the folder, without what this machine's Python compiled."""

    def wanted(entry: tarfile.TarInfo) -> tarfile.TarInfo | None:
        return None if "__pycache__" in entry.name.split("/") else entry

    with tarfile.open(archive, "w") as tar:
        for part in parts:
            tar.add(folder / part, part, filter=wanted)


def locked(lock: str, names: list[str]) -> str:
    """The entries of these libraries in a lock file, hashes included, for the machine's Python whatever this one is.

    Raises EnvironmentFault when one is missing.
    """
    entries: dict[str, str] = {}
    for entry in re.split(r"(?m)^(?=[a-z0-9])", lock):
        if NOT_FOR_IT not in entry.partition("\n")[0]:
            entries[entry.partition("=")[0]] = re.sub(r" ;[^\\]*", " ", entry, count=1)
    missing = sorted(set(names) - set(entries))
    if missing:
        raise EnvironmentFault(f"cannot install {', '.join(missing)}: not in {LOCK.name}")
    return "".join(entries[name] for name in names)


def libraries() -> Path:
    """A folder with the libraries for the machine's Python; made by pip once per lock and kept."""
    wanted = locked(LOCK.read_text(encoding="utf-8"), LIBRARIES)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edge-agent"
    site = cache / f"powercut-{hashlib.sha256(wanted.encode()).hexdigest()[:16]}"
    if not site.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as scratch:
            made = install(Path(scratch), wanted)
            made.rename(site)
    return site


def install(scratch: Path, wanted: str) -> Path:
    (scratch / "lock").write_text(wanted)
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    pip = [sys.executable, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    pip += ["--require-hashes", "--only-binary", ":all:", "--python-version", PYTHON, *platforms]
    done = subprocess.run([*pip, "--target", scratch / "site", "-r", scratch / "lock"], check=False)
    if done.returncode:
        raise EnvironmentFault(f"cannot fetch the libraries for the machine: pip ended with {done.returncode}")
    return scratch / "site"
