"""Privacy that can be shown: what is held is told, what is destroyed is gone, and a stolen card opens nothing."""

from __future__ import annotations

import base64
import json
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from edge_agent.errors import StorageError
from edge_agent.outbox import Store
from edge_agent.outbox.clock import SystemClock
from edge_agent.outbox.crypto import Place, unseal
from edge_agent.outbox.holdings import ASIDE, PURPOSES, Holding, Holdings
from edge_agent.outbox.records import Consent, Limits
from tests.outbox.fakes import NOON, FakeClock, capture, finish, lease, open_store, pending, picture, search
from tests.outbox.test_erasure import every_byte, found_in
from tests.outbox.test_provisional import PROVISIONAL, confirm, offline
from tests.outbox.v1 import make_v1
from tests.project.tree import ROOT
from tests.stocked import open_real_store, stocked_config, stocked_terminal
from tests.terminal import KEY
from tests.test_outbox_commands import Site

JANE = "customer-4711-jane-roe"
PLANTED = (JANE, "order-99-of-jane", "consent-form-jane", f"no such user: {JANE}")
FACE = picture("jane", 20_000)
DAY_S = 86_400.0


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, monkeypatch, capsys)


def plant(folder: Path) -> str:
    """A parked capture with everything personal that a record can hold, beside somebody else's; the first one's id."""
    stocked_config(folder)  # writes the keys
    with open_real_store(folder, limits=Limits(reserve_bytes=0)) as store:
        consent = Consent(PLANTED[2], ("match",))
        record = pending(store, JANE, jpeg=FACE, reference=PLANTED[1], consent=consent)
        leased = lease(store)
        store.park(record.id, leased.lease, code="unknown_user", detail=PLANTED[3], status=404)
        pending(store, "john", jpeg=picture("john"))
        return record.id


def traces(state_dir: Path) -> list[str]:
    """What of the planted is readable in any file; the picture in 32-byte slices."""
    files = every_byte(state_dir)
    pieces = [FACE[start : start + 32] for start in range(0, len(FACE), 32)]
    pictures = [name for name, content in files.items() if any(piece in content for piece in pieces)]
    return [text for text in PLANTED if found_in(files, text.encode())] + pictures


# -- the destruction of one user --------------------------------------------------------------------------------------


def test_nothing_planted_is_readable_before_or_after_a_user_is_deleted_over_the_api(tmp_path: Path) -> None:
    planted = plant(tmp_path)
    (tmp_path / "state/probe").write_bytes(PLANTED[1].encode() + FACE[64:200])
    assert traces(tmp_path / "state") == [PLANTED[1], str(tmp_path / "state/probe")]  # the search can find it
    (tmp_path / "state/probe").unlink()
    with stocked_terminal(tmp_path) as terminal, terminal.client() as client:
        assert client.outbox_show(planted).item.error
        assert traces(tmp_path / "state") == []
        done = client.delete_user(JANE)
        assert (done.captures, done.verifications, done.traces_left) == (1, 1, False)
        assert traces(tmp_path / "state") == []
    assert traces(tmp_path / "state") == []


def test_old_pages_of_a_deleted_user_cannot_be_decrypted_with_what_is_left(tmp_path: Path) -> None:
    plant(tmp_path)
    with open_real_store(tmp_path, limits=Limits(reserve_bytes=0)) as store:
        old = {
            table: [dict(row) for row in store._database.execute(f"SELECT * FROM {table}")]
            for table in ("verifications", "payloads")
        }
        keys = {row["user_hmac"]: store._user_key(row["user_hmac"]) for row in old["verifications"]}
        jane = bytes.fromhex(store.user_hmac(JANE))
        assert opens(old, jane, keys[jane]) == 3  # row key, reference, error detail: with the key they would
        store.delete_user(JANE)
        left = [store._user_key(row["user_hmac"]) for row in store._database.execute("SELECT * FROM users").fetchall()]
        left += [store._keys.lookup, *store._keys.rows.values(), *store._keys.audits.values(), bytes.fromhex(KEY)]
        assert len(left) == 5
        assert [opens(old, jane, key) for key in left] == [0] * 5
        assert store._user_key(jane) is None


def opens(old: dict[str, list[dict[str, bytes]]], user_hmac: bytes, key: bytes | None) -> int:
    """How many of the blobs that are sealed under the user's key open with ``key``."""
    ids = {row["seq"]: row for row in old["verifications"] if row["user_hmac"] == user_hmac}
    blobs = [(row[column], Place("verifications", str(row["id"]), column, user_hmac)) for row in ids.values()
             for column in ("private", "error_detail")]  # fmt: skip
    blobs += [(row["row_key"], Place("payloads", str(ids[row["seq"]]["id"]), "row key", user_hmac))
              for row in old["payloads"] if row["seq"] in ids]  # fmt: skip
    return sum(key is not None and _opened(key, blob, place) for blob, place in blobs if blob)


def _opened(key: bytes, blob: bytes, place: Place) -> bool:
    try:
        unseal(key, blob, place)
    except StorageError:
        return False
    return True


# -- the stolen card --------------------------------------------------------------------------------------------------


def test_a_stolen_card_opens_nothing_when_the_key_is_a_credential(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted = plant(site.folder)
    credentials = tmp_path / "run"
    credentials.mkdir()
    (site.folder / "device.key").rename(credentials / "edge-agent-key")
    values = yaml.safe_load(site.config.read_text())
    values["outbox"] = {"key": {"credential": "edge-agent-key"}, "reserve_bytes": 0}
    site.config.write_text(yaml.safe_dump(values))
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    assert site("outbox", "verify")[0] == 0  # at home it opens
    stolen = tmp_path / "elsewhere/state"
    shutil.copytree(site.folder / "state", stolen)
    site.config.write_text(yaml.safe_dump({**values, "state_dir": str(stolen)}))
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    looks: tuple[tuple[str, ...], ...] = (("list",), ("show", planted), ("verify",))
    for words in looks:
        code, body = site.json("outbox", *words)
        assert (code, body["authenticated"], body["why_not"]["code"]) == (3, False, "key_unavailable")
        assert not any(text in json.dumps(body) for text in PLANTED)
    for words in (("outbox", "export", planted, "--yes"), ("outbox", "retry"), ("privacy", "delete", JANE, "--yes")):
        code, out, err = site(*words)
        assert (code, out) == (3, "")
        assert "cannot read the credential edge-agent-key" in err
    assert list(site.folder.glob("*.jpg")) == []
    key = bytes.fromhex(KEY)
    files = every_byte(stolen)
    assert [found_in(files, form) for form in (key, KEY.encode(), KEY.upper().encode(), base64.b64encode(key))] == [
        []
    ] * 4
    assert traces(stolen) == []


def test_another_key_opens_a_stolen_card_neither(site: Site) -> None:
    planted = plant(site.folder)
    (site.folder / "device.key").write_text("22" * 32)
    code, _, err = site("outbox", "export", planted, "--yes")
    assert (code, "is not the one it was made with" in err) == (3, True)


# -- the report -------------------------------------------------------------------------------------------------------


def held(state_dir: Path, clock: FakeClock, limits: Limits | None = None) -> dict[str, Holding]:
    with Holdings(state_dir, clock) as holdings:
        return {holding.purpose.name: holding for holding in holdings.holdings(limits or Limits())}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def test_the_report_says_since_when_and_until_when(tmp_path: Path, clock: FakeClock) -> None:
    with open_store(tmp_path, clock) as store:
        consent = Consent("form-1", ("match",))
        pending(store, "alice", consent=consent)
        finish(store, lease(store))
        clock.advance(2 * DAY_S)
        first = capture(store, "bob", jpeg=picture("bob", 3000))
        clock.advance(DAY_S)
        pending(store, "bob", consent=consent)
        search(store, "carol")
        store.tick()
        found = held(tmp_path, clock)
        waiting, over = found["capture"], found["verdict"]
        assert (waiting.items, waiting.bytes, waiting.users, waiting.with_consent) == (2, 5000, 1, 1)
        assert (waiting.since, waiting.until) == (first.created_at, NOON + timedelta(days=5))
        assert (over.items, over.users, over.with_consent) == (1, 1, 1)
        assert (over.since, over.until) == (NOON, NOON + timedelta(days=30))
        log = found["audit"]
        assert (log.items, log.since) == (store.verify_audit().records, NOON)
        assert log.until == NOON + timedelta(days=365)
        assert found["idempotency"].until is None
        shorter = held(tmp_path, clock, replace(Limits(), max_age_s=DAY_S))["capture"]
        assert (shorter.kept_s, shorter.until) == (DAY_S, NOON + timedelta(days=3))


def test_what_is_destroyed_is_not_reported_any_more(tmp_path: Path, clock: FakeClock) -> None:
    with open_store(tmp_path, clock) as store:
        pending(store, "alice", consent=Consent("form-1"))
        finish(store, lease(store))
        capture(store, "alice")
        store.delete_user("alice")
        found = held(tmp_path, clock)
        for purpose in ("capture", "verdict", "aside"):
            holding = found[purpose]
            assert (holding.items, holding.since, holding.until) == (0, None, None)
        assert found["capture"].users == 0


def test_what_was_set_aside_is_reported(tmp_path: Path, clock: FakeClock) -> None:
    with open_store(tmp_path, clock) as store:
        folder = tmp_path / "aside/0001-20300601T120000Z"
        folder.mkdir(parents=True)
        (folder / "outbox.db").write_bytes(b"damaged")
        store.recover()
        aside = held(tmp_path, clock)["aside"]
        assert (aside.items, aside.bytes, aside.since) == (1, 7, datetime(2030, 6, 1, 12, tzinfo=UTC))


def test_the_report_is_readable_and_names_nobody(site: Site) -> None:
    plant(site.folder)
    code, out, _ = site("privacy", "report")
    lines = out.splitlines()
    assert code == 0
    assert lines[1].split() == ["PURPOSE", "ITEMS", "USERS", "CONSENT", "SINCE", "KEPT", "GONE", "BY"]
    assert lines[2].split()[:4] == ["capture", "2", "2", "1"]
    assert max(len(line) for line in lines[:9]) <= 80
    assert not any(text in out for text in PLANTED)
    (site.folder / "device.key").unlink()
    code, body = site.json("privacy", "report")  # it needs no key
    assert (code, body["purposes"][0]["items"]) == (0, 2)


def test_periods_are_kept_where_no_agent_runs(site: Site, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.open(site.folder / "state", KEY.encode(), clock=clock) as store:
        old = store.cancel(search(store, "old").id)
    clock.advance(40 * DAY_S)
    monkeypatch.setattr("edge_agent.cli.files.SystemClock", lambda: clock)
    assert site("privacy", "sweep")[:2] == (0, "1 ended verifications stripped, 0 audit records cut off\n")
    with Store.open(site.folder / "state", KEY.encode(), clock=clock) as store:
        assert store.get(old.id).erased
    with stocked_terminal(site.folder):
        code, out, err = site("privacy", "sweep")
        assert (code, out, "the agent runs" in err) == (0, "", True)
    (site.folder / "device.key").unlink()
    assert site("privacy", "sweep")[0] == 3


def test_a_user_is_deleted_on_the_command_line(site: Site) -> None:
    plant(site.folder)
    assert site("privacy", "delete", JANE)[0] == 2
    assert site("privacy", "delete", "jane roe", "--yes")[0] == 2
    assert site("privacy", "delete", "4111111111111111", "--yes")[0] == 2
    code, out, err = site("privacy", "delete", JANE, "--yes")
    assert (code, out.split(";")[0]) == (0, "1 pictures destroyed, 1 verifications stripped")
    assert "CypherFace" in err
    assert site.json("privacy", "delete", JANE, "--yes")[1]["verifications"] == 0
    assert site.json("privacy", "report")[1]["purposes"][0]["items"] == 1
    with Store.open(site.folder / "state", KEY.encode(), clock=SystemClock()) as store:
        assert store.verify().ok


def test_templates_and_what_limits_them_are_reported(tmp_path: Path) -> None:
    limits, clock = Limits(provisional=PROVISIONAL, max_failures=0), FakeClock()
    with open_store(tmp_path / "state", clock, limits=limits) as store:
        confirm(store)
        offline(store)
    with Holdings(tmp_path / "state", clock) as holdings:
        held = {holding.purpose.name: holding for holding in holdings.holdings(limits)}
    assert (held["template"].items, held["template"].users, held["template"].with_consent) == (1, 1, 1)
    assert held["template"].until is not None
    assert (held["provisional"].items, held["provisional"].users) == (1, 1)


def test_a_file_that_an_older_version_left_is_reported_too(tmp_path: Path) -> None:
    make_v1(tmp_path / "state", rows=2)
    with Holdings(tmp_path / "state", FakeClock()) as holdings:
        held = {holding.purpose.name: holding for holding in holdings.holdings(Limits())}
    assert set(held) == {purpose.name for purpose in (*PURPOSES, ASIDE)}
    assert (held["capture"].items, held["template"].items, held["provisional"].items) == (2, 0, 0)


def test_the_page_has_every_purpose_with_its_default_and_its_setting() -> None:
    rows = re.findall(r"^\| (\w+) \|(.+)\|$", (ROOT / "docs/privacy.md").read_text(), re.MULTILINE)
    page = {name: [cell.strip() for cell in cells.split("|")] for name, cells in rows}
    for purpose in PURPOSES:
        kept_s = purpose.kept_s(Limits())
        days = "while in service" if kept_s is None else f"{kept_s / DAY_S:g} day"
        assert page[purpose.name][2].startswith(days), purpose.name
        assert (purpose.setting or "") in page[purpose.name][3]
    assert page["template"][2] == f"{Limits().template_age_s / DAY_S:g} days"
    assert ASIDE.name in page
