"""``--state DIR``: a sandbox that is stopped, or killed, and started again still knows everybody."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from edge_agent.errors import StorageError
from edge_agent.sandbox.runtime import Credentials
from edge_agent.sandbox.server import SandboxServer
from edge_agent.sandbox.state import SandboxState
from tests.sandbox.conftest import Caller


def test_enrolments_targets_tokens_urls_and_judgements_survive_a_restart(tmp_path: Path):
    with SandboxServer(folder=tmp_path) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
            caller.upload(b"source", type_="upload")
            caller.upload(b"target")
            caller.match()
            server.advance(3600)
            url = caller.generate_url().json()["url"]
    with SandboxServer(folder=tmp_path, port=server.port) as again:
        later = Caller(again)
        later.token = caller.token
        with later.http:
            assert later.match().json() == {"match": True, "similarity": 99.5}
            assert later.put(url, b"another").status_code == 200
            assert later.match().status_code == 200
            assert later.generate_url(type_="upload").status_code == 409
        assert [j.user_id for j in again.judged] == ["alice"] * 3
        assert again.sandbox.clock.advanced_s == 3600


def test_a_token_is_good_after_a_restart_although_nothing_else_happened(tmp_path: Path):
    with SandboxServer(folder=tmp_path) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
    with SandboxServer(folder=tmp_path) as again:
        later = Caller(again)
        later.token = caller.token
        with later.http:
            assert later.refresh().status_code == 200


def test_a_token_made_with_another_key_is_refused(tmp_path: Path):
    with SandboxServer(folder=tmp_path) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
    with SandboxServer(folder=tmp_path, credentials=Credentials(api_key="the next one")) as again:
        later = Caller(again)
        later.token = caller.token
        with later.http:
            assert later.refresh().status_code == 403


def test_what_was_acknowledged_is_on_disk_before_the_answer(tmp_path: Path):
    """A killed process runs nothing at its end: the folder alone must do."""
    with SandboxServer(folder=tmp_path) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
            caller.upload(b"source", type_="upload")
            copy = tmp_path / "copy"
            (copy / "pictures").mkdir(parents=True)
            for file in ("state.json", *(f"pictures/{p.name}" for p in (tmp_path / "pictures").iterdir())):
                (copy / file).write_bytes((tmp_path / file).read_bytes())
    state = SandboxState(copy)
    source = state.source("alice", 1e12)
    state.close()
    assert source is not None
    assert state.blob(source.sha256) == b"source"


def test_forgetting_removes_the_pictures(tmp_path: Path):
    with SandboxServer(folder=tmp_path) as server:
        server.enrol("alice", b"source")
        assert len(list((tmp_path / "pictures").iterdir())) == 1
        caller = Caller(server)
        with caller.http:
            caller.control("DELETE", "state")
        assert list((tmp_path / "pictures").iterdir()) == []
    with SandboxServer(folder=tmp_path) as again:
        assert not again.state.knows("alice")


def test_old_pictures_are_removed_from_the_folder(tmp_path: Path):
    with SandboxServer(folder=tmp_path) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
            for content in (b"one", b"two", b"two"):
                caller.upload(content)
    assert [p.read_bytes() for p in (tmp_path / "pictures").iterdir()] == [b"two"]


def test_the_folder_is_private_and_holds_no_temporary_files(tmp_path: Path):
    folder = tmp_path / "new" / "state"
    with SandboxServer(folder=folder) as server:
        server.enrol("alice", b"source")
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder, folder / "pictures")} == {0o700}
    assert {stat.S_IMODE(p.stat().st_mode) for p in (folder / "state.json", *(folder / "pictures").iterdir())} == {
        0o600
    }
    assert sorted(p.name for p in folder.iterdir()) == ["lock", "pictures", "state.json"]


def test_a_folder_that_was_there_keeps_its_mode(tmp_path: Path):
    tmp_path.chmod(0o755)
    with SandboxServer(folder=tmp_path):
        assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755


def test_two_sandboxes_cannot_share_a_folder(tmp_path: Path):
    with SandboxServer(folder=tmp_path), pytest.raises(StorageError, match="another sandbox is using it"):
        SandboxServer(folder=tmp_path)
    with SandboxServer(folder=tmp_path):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"pictures": [{}]}', b"\xff"])
def test_a_damaged_state_is_refused_with_a_way_out(tmp_path: Path, content: bytes):
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(StorageError, match="cannot read the sandbox state") as caught:
        SandboxServer(folder=tmp_path)
    assert caught.value.hint == f"delete {tmp_path} to start anew"


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match="cannot use the sandbox state folder"):
        SandboxServer(folder=tmp_path / "file" / "state")


def test_a_picture_missing_from_the_folder_is_no_verdict(tmp_path: Path):
    with SandboxServer(folder=tmp_path) as server:
        caller = Caller(server)
        with caller.http:
            caller.log_in()
            server.enrol("alice", b"source")
            caller.upload()
            for picture in (tmp_path / "pictures").iterdir():
                picture.unlink()
            assert caller.match().status_code == 402
        assert server.judged == ()
