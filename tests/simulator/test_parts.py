"""The simulator's parts: its grammar, its scenes before the real gate, its picture, its folder, its documentation."""

from __future__ import annotations

import stat
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.api.problems import CATALOGUE, of_error
from edge_agent.config import CaptureSection, GateSection
from edge_agent.errors import EnvironmentFault, InputError, ModelError
from edge_agent.picture import read_picture
from edge_agent.screening import Screener
from edge_agent.simulator import card, outcomes, run
from edge_agent.simulator.camera import NONCE_BYTES
from edge_agent.simulator.eyes import BROKEN, GOOD_VIEW, Eyes, Scene, SceneFrame
from edge_agent.simulator.outcomes import RULES, Kind, Outcome, find, parse
from edge_agent.types import Assessment, GateCode
from edge_agent.vision.capture import encode_capture
from tests.project.tree import ROOT

EVERY = [Outcome(kind, str(detail)) for kind, rule in RULES.items() for detail in rule.details]
BLANK = np.zeros((720, 1280, 3), np.uint8)


def seen(scene: Scene, frames: int = 3) -> list[Assessment]:
    screener = Screener(Eyes(), GateSection())
    return [screener.screen(SceneFrame(BLANK, 1.0 + i / 15, i, scene)) for i in range(frames)]


def test_every_outcome_has_a_place_in_the_grammar_and_reads_back() -> None:
    assert {o.kind for o in EVERY} == set(Kind)
    assert [parse(str(o)) for o in EVERY] == EVERY
    assert [find(f"{o}@somebody") for o in EVERY] == EVERY


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz._@:+=-0123456789", max_size=40))
def test_a_user_id_names_an_outcome_or_none_or_is_refused(user_id: str) -> None:
    try:
        outcome = find(user_id)
    except InputError:
        assert user_id.startswith(tuple(Kind))
    else:
        assert outcome is None or user_id.startswith(str(outcome))


@pytest.mark.parametrize("code", GateCode)
def test_the_real_gate_refuses_each_scene_for_the_chosen_reason(code: GateCode) -> None:
    assert [a.reasons[:1] for a in seen(Scene(code))][1:] == [(code,)] * 2
    assert not any(a.accepted for a in seen(Scene(code))[1:])


def test_restlessness_begins_with_the_first_frame_after_a_quiet_one() -> None:
    screener = Screener(Eyes(), GateSection())
    for start in (0, 1):
        scenes = [Scene(GateCode.TOO_FAR), Scene(GateCode.HOLD_STILL), Scene(GateCode.HOLD_STILL)]
        frames = [SceneFrame(BLANK, 1.0 + i / 15, start + i, scene) for i, scene in enumerate(scenes)]
        assert [screener.screen(f).reasons[:1] for f in frames][1:] == [(GateCode.HOLD_STILL,)] * 2


def test_a_good_view_is_accepted_and_a_broken_one_is_an_error_of_the_models() -> None:
    good = seen(GOOD_VIEW)
    assert all(a.accepted for a in good)
    assert all(a.track_id == b.track_id for a, b in pairwise(good))
    with pytest.raises(ModelError):
        seen(BROKEN)


def test_the_uploaded_picture_says_what_was_chosen() -> None:
    for outcome in EVERY:
        text = f"{outcome}#{'f' * 2 * NONCE_BYTES}"
        jpeg = encode_capture(card.paint(text), card.FACE, CaptureSection())
        assert card.read(jpeg) == text
    dark = encode_capture(np.full((480, 480, 3), 200, np.uint8), card.FACE, CaptureSection())
    assert read_picture(dark) is not None
    with pytest.raises(InputError):
        card.read(dark)


def test_a_simulated_refusal_is_the_problem_that_it_names() -> None:
    for code in RULES[Kind.REFUSED].details:
        assert of_error(outcomes.refusal(code)) is CATALOGUE[code]


def test_a_temporary_state_is_private_and_removed_and_a_kept_one_is_not() -> None:
    with run.state_folder(None) as folder:
        assert stat.S_IMODE((folder / run.KEY_FILE).stat().st_mode) == 0o600
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert not folder.exists()


def test_a_kept_state_keeps_its_key_and_nobody_elses_folder_is_touched(tmp_path: Path) -> None:
    keys = []
    for _ in range(2):
        with run.state_folder(tmp_path / "kept") as folder:
            keys.append((folder / run.KEY_FILE).read_text())
    assert keys[0] == keys[1]
    (tmp_path / "outbox.db").touch()
    with pytest.raises(EnvironmentFault, match="something else"), run.state_folder(tmp_path):
        pass
    assert not (tmp_path / run.KEY_FILE).exists()


def test_the_default_socket_is_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert run.default_socket() == tmp_path / "edge-agent-simulator.sock"
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = run.default_socket().parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(0o755)
    with pytest.raises(EnvironmentFault, match="not yours alone"):
        run.default_socket()


@pytest.mark.parametrize("speed", [0.1, 1.0, 7.0, 100.0])
def test_every_speed_gives_a_configuration_that_can_be_used(tmp_path: Path, speed: float) -> None:
    for lockout, failures in ((True, 5), (False, 0)):
        options = run.Options(tmp_path / "api.sock", parse("verified"), speed, lockout)
        config = run.configuration(tmp_path, options)
        assert config.session.max_failures == failures
    assert config.session.hint_hold_s <= 0.5 / speed + 1e-9 or speed < 0.1


def test_the_page_lists_every_outcome_and_option() -> None:
    from edge_agent.cli.simulate import simulate

    page = (ROOT / "docs/simulator.md").read_text(encoding="utf-8")
    assert outcomes.table() in page
    for option in simulate.params:
        assert f"`{option.opts[0]}" in page, option.opts
