"""The body of ``scripts/wheelhouse``: ``pip download`` of a lock, for this machine or another one.

pip judges a lock's markers by the Python it runs on, so they are judged here, by that of the terminal.
"""

from __future__ import annotations

import argparse
import platform
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from pip._vendor.packaging.markers import Marker

GLIBC_MINORS = range(28, 16, -1)
"""manylinux_2_28 and older: what Debian 12, Raspberry Pi OS and Ubuntu 22.04 can load."""
PINNED = re.compile(r"^(?P<name>[a-z0-9][a-z0-9._-]*)==(?P<version>[^\s;\\]+)(?: ; (?P<marker>[^\\]*?))? \\$")


def lock_for(lock: str, python: str, machine: str) -> str:
    """The lock without markers, and without what they exclude on CPython ``python`` on Linux on ``machine``."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
    }
    kept: list[str] = []
    wanted = True
    for line in lock.splitlines():
        if pin := PINNED.match(line):
            marker = pin["marker"]
            wanted = marker is None or Marker(marker).evaluate(environment)
            line = f"{pin['name']}=={pin['version']} \\"  # noqa: PLW2901 - the same line without its marker
        if wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"


def target(python: str, machine: str) -> list[str]:
    """Pip's options that name the terminal's Python and processor."""
    tags = [f"manylinux_2_{minor}_{machine}" for minor in GLIBC_MINORS] + [f"manylinux2014_{machine}"]
    digits = python.replace(".", "")
    platforms = [word for tag in tags for word in ("--platform", tag)]
    return [*platforms, "--implementation", "cp", "--python-version", python, "--abi", f"cp{digits}", "--abi", "abi3", "--abi", "none"]  # fmt: skip


def main() -> int:
    """The exit code."""
    parser = argparse.ArgumentParser(prog="wheelhouse")
    parser.add_argument("lock", type=Path)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--platform", choices=("aarch64", "x86_64"), default=platform.machine())
    parser.add_argument("--python", default=f"{sys.version_info[0]}.{sys.version_info[1]}", metavar="3.11")
    options = parser.parse_args()
    if not re.fullmatch(r"3\.1[1-9]", options.python):
        parser.error(f"--python {options.python}: write 3.11 or newer")
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", suffix=".lock") as lock:
        lock.write(lock_for(options.lock.read_text(encoding="utf-8"), options.python, options.platform))
        lock.flush()
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--no-deps",
                   "--require-hashes", "--only-binary", ":all:", "--dest", str(options.folder),
                   *target(options.python, options.platform), "-r", lock.name]  # fmt: skip
        if subprocess.run(command, check=False).returncode != 0:
            print("wheelhouse: cannot collect every library of the lock (see above)\n"
                  "  try: the same again when the network is back; what is there already is not fetched twice",
                  file=sys.stderr)  # fmt: skip
            return 3
    wheels = sorted(options.folder.glob("*.whl"))
    size = sum(wheel.stat().st_size for wheel in wheels)
    print(
        f"{len(wheels)} wheels, {size / 1e6:.0f} MB, for Python {options.python} on {options.platform}: {options.folder}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
