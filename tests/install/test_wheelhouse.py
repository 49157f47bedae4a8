"""A lock is judged for the terminal, not for the machine that collects."""

from __future__ import annotations

import pytest

from scripts.wheelhouse import lock_for, target

LOCK = """\
click==8.1 \\
    --hash=sha256:aa
numpy==2.4 ; python_full_version < '3.12' \\
    --hash=sha256:bb \\
    --hash=sha256:cc
numpy==2.5 ; python_full_version >= '3.12' \\
    --hash=sha256:dd
only-arm==1 ; platform_machine == 'aarch64' \\
    --hash=sha256:ee
windows==1 ; sys_platform == 'win32' \\
    --hash=sha256:ff
"""

CASES = [
    ("3.11", "x86_64", ["click==8.1", "numpy==2.4"], ["aa", "bb", "cc"]),
    ("3.11", "aarch64", ["click==8.1", "numpy==2.4", "only-arm==1"], ["aa", "bb", "cc", "ee"]),
    ("3.13", "aarch64", ["click==8.1", "numpy==2.5", "only-arm==1"], ["aa", "dd", "ee"]),
]


@pytest.mark.parametrize(("python", "machine", "pins", "sums"), CASES)
def test_markers_are_judged_for_the_terminal(python: str, machine: str, pins: list[str], sums: list[str]) -> None:
    lines = lock_for(LOCK, python, machine).splitlines()
    assert [line.removesuffix(" \\") for line in lines if "==" in line] == pins
    assert [line.strip().removesuffix(" \\")[-2:] for line in lines if "--hash" in line] == sums


def test_only_what_glibc_2_28_can_load_is_asked_for() -> None:
    options = target("3.11", "aarch64")
    assert "manylinux_2_28_aarch64" in options
    assert "manylinux2014_aarch64" in options
    assert not any("manylinux_2_29" in option or "x86_64" in option for option in options)
