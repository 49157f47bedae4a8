"""A configuration on trial: what survives a crash, and what counts as worse."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from edge_agent.errors import EnvironmentFault
from edge_agent.outbox.clock import BootInstant
from edge_agent.reload import Change
from edge_agent.swap import replace_file, swap
from edge_agent.trial import TRIAL_FILE, Health, Phase, Trial, at_start, begin, digest, read, save, worse

NOW = BootInstant("boot-1", 1000.0)
SERVICE = {
    "base_url": "https://a.example/",
    "merchant_id": "5a9db0c0ffee5a9db0c0ffee",
    "api_key": {"env": "KEY"},
    "upload_hosts": ["a.example"],
}


def text(folder: Path, terminal_id: str) -> str:
    return yaml.safe_dump({"terminal_id": terminal_id, "state_dir": str(folder / "state"), "cypherface": SERVICE})


def trial(candidate: str, **changes: Any) -> Trial:
    made = Trial(
        id="t",
        phase=Phase.WATCHING,
        text=candidate,
        digest=digest(candidate),
        began=replace(NOW, boottime_s=990.0),
        watch_s=20.0,
        confirm_within_s=None,
        restart=False,
        before=Health({"models": "models_missing"}, "online", None, None, ("outbox",)),
        changes=(Change("terminal_id", "a", "b"),),
    )
    return replace(made, **changes)


LATER = {"began": BootInstant("boot-1", 800.0)}
OTHER_BOOT = {"began": BootInstant("boot-0", 990.0)}


@pytest.mark.parametrize(
    ("changes", "in_place", "phase"),
    [
        ({"phase": Phase.RESTARTING}, False, Phase.WATCHING),
        ({"phase": Phase.RESTARTING, **LATER}, False, Phase.ROLLED_BACK),
        ({"phase": Phase.RESTARTING, **OTHER_BOOT}, False, Phase.ROLLED_BACK),
        ({"phase": Phase.RESTARTING}, True, Phase.KEPT),
        ({"phase": Phase.WATCHING}, False, Phase.ROLLED_BACK),
        ({"phase": Phase.HEALTHY}, False, Phase.ROLLED_BACK),
        ({"phase": Phase.CONFIRMED}, False, Phase.ROLLED_BACK),
        ({"phase": Phase.CONFIRMED}, True, Phase.KEPT),
        ({"phase": Phase.CONFIRMED, **OTHER_BOOT}, True, Phase.KEPT),
        ({"phase": Phase.KEPT}, False, Phase.KEPT),
        ({"phase": Phase.ROLLED_BACK}, True, Phase.ROLLED_BACK),
    ],
)
def test_a_start_runs_a_candidate_only_where_a_restart_was_asked_for_just_now(
    changes: Any, in_place: bool, phase: Phase
) -> None:
    file = digest("candidate" if in_place else "the file of before")
    assert at_start(trial("candidate", **changes), file, NOW).phase is phase


def test_a_candidate_gets_one_start_and_no_second(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text(tmp_path, "old"))
    save(tmp_path / "state", trial(text(tmp_path, "new"), phase=Phase.RESTARTING, restart=True))
    config, source = begin(file, lambda: NOW)
    assert (config.terminal_id, source.trial and source.trial.open) == ("new", True)
    config, source = begin(file, lambda: NOW)  # it crashed
    assert (config.terminal_id, source.trial and source.trial.phase) == ("old", Phase.ROLLED_BACK)


def test_a_candidate_that_cannot_be_written_down_as_started_is_not_started(tmp_path: Path, monkeypatch: Any) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(text(tmp_path, "old"))
    save(tmp_path / "state", trial(text(tmp_path, "new"), phase=Phase.RESTARTING))

    def full(*_: Any, **__: Any) -> None:
        raise EnvironmentFault("cannot write: No space left on device")

    monkeypatch.setattr("edge_agent.trial.replace_file", full)
    config, source = begin(file, lambda: NOW)
    assert (config.terminal_id, source.trial and source.trial.phase) == ("old", Phase.ROLLED_BACK)


def test_the_record_comes_back_as_it_was_and_is_private(tmp_path: Path) -> None:
    save(tmp_path / "state", trial("candidate"))
    assert read(tmp_path / "state") == trial("candidate")
    assert (tmp_path / "state" / TRIAL_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"phase": "watching"}', b"\xff"])
def test_a_record_that_cannot_be_understood_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / TRIAL_FILE).write_bytes(content)
    assert read(tmp_path) is None


WELL = Health({}, "online")


@pytest.mark.parametrize(
    ("before", "now", "final", "why"),
    [
        (WELL, WELL, True, None),
        (WELL, replace(WELL, faults={"models": "models_missing"}), False, "models is missing: models_missing"),
        (Health({"models": "a"}), Health({"models": "a"}), True, None),
        (Health({"models": "a"}), Health({"models": "b"}), False, "models is missing: b"),
        (WELL, replace(WELL, network="offline"), False, None),
        (WELL, replace(WELL, network="offline"), True, "CypherFace cannot be reached any more"),
        (WELL, replace(WELL, network="unknown"), True, "CypherFace cannot be reached any more"),
        (Health({}, "offline"), Health({}, "offline"), True, None),
        (Health({}, "unknown"), Health({}, "offline"), True, None),
        (WELL, Health({}, "stopped", "unauthenticated"), False, "forwarding stopped: unauthenticated"),
        (Health({}, "stopped", "a"), Health({}, "stopped", "a"), True, None),
        (Health({}, "stopped", "a"), Health({}, "stopped", "b"), False, "forwarding stopped: b"),
        (WELL, replace(WELL, camera="unplugged"), False, "the camera cannot be opened: unplugged"),
        (replace(WELL, camera="unplugged"), replace(WELL, camera="unplugged"), True, None),
        (WELL, replace(WELL, late=("outbox",)), False, "a loop hangs: outbox"),
    ],
)
def test_worse_is_what_was_not_so_before(before: Health, now: Health, final: bool, why: str | None) -> None:
    assert worse(before, now, final=final) == why


# -- replacing the file -----------------------------------------------------------------------------------------------


def test_a_swap_keeps_mode_and_owner_and_the_file_of_before(tmp_path: Path) -> None:
    target = tmp_path / "config.yaml"
    target.write_text("old")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 1234, 5678)
    owner = (target.stat().st_uid, target.stat().st_gid)
    assert swap(target, "new") == tmp_path / "config.yaml.previous"
    found = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert found == {"config.yaml": "new", "config.yaml.previous": "old"}
    for path in tmp_path.iterdir():
        assert (path.stat().st_mode & 0o777, path.stat().st_uid, path.stat().st_gid) == (0o640, *owner)


def test_a_swap_of_the_same_text_does_not_lose_the_file_of_before(tmp_path: Path) -> None:
    target = tmp_path / "config.yaml"
    target.write_text("one")
    swap(target, "two")
    swap(target, "two")
    assert (tmp_path / "config.yaml.previous").read_text() == "one"


def test_a_link_to_the_file_stays_one(tmp_path: Path) -> None:
    (tmp_path / "real.yaml").write_text("old")
    (tmp_path / "config.yaml").symlink_to("real.yaml")
    swap(tmp_path / "config.yaml", "new")
    assert (tmp_path / "config.yaml").is_symlink()
    assert (tmp_path / "real.yaml").read_text() == "new"


def test_a_file_that_was_not_there_is_made(tmp_path: Path) -> None:
    assert swap(tmp_path / "config.yaml", "new") is None
    assert (tmp_path / "config.yaml").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("step", ["open", "write", "fsync"])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    target = tmp_path / "config.yaml"
    target.write_text("old")

    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"edge_agent.swap.os.{step}", fail)
        with pytest.raises(EnvironmentFault, match="cannot write"):
            replace_file(target, b"new", mode=0o600)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"config.yaml": "old"}


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("step", ["os.open", "os.write", "os.fchmod", "os.fsync", "Path.replace"])
@pytest.mark.parametrize("nth", [1, 2])
def test_a_swap_that_is_cut_off_leaves_a_whole_file_and_the_next_one_works(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    """The first write is of the file of before, the second of the new one."""
    target = tmp_path / "config.yaml"
    target.write_text("old")
    calls = 0

    def counted(original: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == nth:
                raise Killed
            return original(*args, **kwargs)

        return call

    with monkeypatch.context() as patched:
        original = Path.replace if step == "Path.replace" else getattr(os, step.partition(".")[2])
        patched.setattr(f"edge_agent.swap.{step}", counted(original))
        with pytest.raises(Killed):
            swap(target, "new")
    assert target.read_text() == "old"
    swap(target, "new")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "config.yaml": "new",
        "config.yaml.previous": "old",
    }
