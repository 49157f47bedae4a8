"""Fetching: local copies first, then each mirror in turn; nothing unverified ever gets a model's name."""

from __future__ import annotations

import errno
import fcntl
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from edge_agent.errors import InputError, ModelError, StorageError
from edge_agent.packs.fetch import fetch_pack
from edge_agent.packs.manifest import Pack, model_path
from edge_agent.packs.progress import Received, Silent
from edge_agent.packs.transform import symbolic_dims
from edge_agent.packs.verify import FileState, require_model, verify_pack
from tests.packs.stand_ins import (
    CONTENT,
    OTHER,
    Web,
    entry,
    frozen_network,
    https,
    insightface_pack,
    network,
    sha256,
    small_pack,
    small_web,
    streamed,
    tarred,
    transformed_entry,
    zipped,
)

DETECTOR, LIVE = CONTENT["detector.onnx"], CONTENT["live.onnx"]
OFFLINE = Web({})


class Telling(Silent):
    """Keeps what it is told; may raise in the middle of a transfer."""

    def __init__(self, interrupt: BaseException | None = None) -> None:
        self.lines: list[str] = []
        self.transfers: list[tuple[str, int | None, int]] = []
        self.interrupt = interrupt

    def line(self, text: str) -> None:
        self.lines.append(text)

    @contextmanager
    def transfer(self, label: str, expected: int | None) -> Iterator[Received]:
        received = [0]

        def feed(total: int) -> None:
            received[0] = total
            if self.interrupt:
                raise self.interrupt

        yield feed
        self.transfers.append((label, expected, received[0]))


def states(pack: Pack, folder: Path) -> set[FileState]:
    return {report.state for report in verify_pack(pack, folder)}


def visible(folder: Path) -> list[str]:
    """Everything in the folder but the lock file: models, and whatever should not be there."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def failed_fetch(pack: Pack, folder: Path, web: Web, **more: Any) -> ModelError:
    with pytest.raises(ModelError) as caught:
        fetch_pack(pack, folder, transport=web, **more)
    assert caught.value.code == "models_unavailable"
    assert caught.value.exit_code == 3
    assert "--from FOLDER" in (caught.value.hint or "")
    return caught.value


# --- over HTTPS


def test_a_pack_is_fetched_and_verified(tmp_path: Path) -> None:
    pack, telling = small_pack(), Telling()
    files = fetch_pack(pack, tmp_path / "new/folder", transport=small_web(), progress=telling)
    assert states(pack, tmp_path / "new/folder") == {FileState.OK}
    assert [file.origin for file in files] == [
        "https://mirror.example/detector.onnx",
        "https://mirror.example/live.onnx",
    ]
    assert telling.transfers == [("detector.onnx", 1000, 1000), ("live.onnx", 500, 500)]
    assert visible(tmp_path / "new/folder") == sorted(file.path.name for file in files)
    assert {file.path.stat().st_mode & 0o777 for file in files} == {0o644}


def test_what_is_there_and_verified_is_not_fetched_again(tmp_path: Path) -> None:
    fetch_pack(small_pack(), tmp_path, transport=small_web())
    (tmp_path / ".lock").unlink()
    web = small_web()
    assert [file.origin for file in fetch_pack(small_pack(), tmp_path, transport=web)] == ["", ""]
    assert web.asked == []
    assert not (tmp_path / ".lock").exists(), "a complete folder may be read-only"


@pytest.mark.parametrize("damage", [b"", OTHER, DETECTOR[:-1]])
def test_a_damaged_file_is_replaced(tmp_path: Path, damage: bytes) -> None:
    pack = small_pack()
    fetch_pack(pack, tmp_path, transport=small_web())
    path = model_path(tmp_path, "detector.onnx", pack.files["detector.onnx"])
    path.write_bytes(damage)
    web = small_web()
    with path.open("rb") as in_use:
        fetch_pack(pack, tmp_path, transport=web)
        assert in_use.read() == damage, "replaced by a rename, not written over under a reader"
    assert web.asked == ["https://mirror.example/detector.onnx"]
    assert states(pack, tmp_path) == {FileState.OK}


def breaks_off() -> httpx.Response:
    def stream() -> Iterator[bytes]:
        yield DETECTOR[:300]
        raise httpx.ReadError("connection reset by peer")

    return httpx.Response(200, content=stream())


BAD_ANSWERS = [
    pytest.param(OTHER, "another SHA-256", id="tampered"),
    pytest.param(DETECTOR[:-1], "not the 1000 bytes expected", id="truncated"),
    pytest.param(DETECTOR + b"!", "more than the 1000 bytes", id="too long"),
    pytest.param(b"", "not the 1000 bytes expected", id="empty"),
    pytest.param(httpx.Response(404), "404 Not Found", id="not found"),
    pytest.param(httpx.Response(503), "503 Service Unavailable", id="unavailable"),
    pytest.param(httpx.Response(302, headers={"Location": "http://mirror.example/x"}), "not https", id="to http"),
    pytest.param(httpx.Response(302, headers={"Location": "/detector.onnx"}), "more than 5 redirects", id="in circles"),
    pytest.param(httpx.ConnectError("no route to host"), "no route to host", id="no network"),
    pytest.param(httpx.ReadTimeout(""), "ReadTimeout", id="time-out"),
    pytest.param(breaks_off, "connection reset by peer", id="interrupted"),
    pytest.param(
        lambda: streamed(DETECTOR[:300], 1000),
        "broke off after 300 of 1000 bytes",
        id="ends early",
    ),
]


@pytest.mark.parametrize(("answer", "why"), BAD_ANSWERS)
def test_a_bad_download_leaves_nothing_behind(tmp_path: Path, answer: Any, why: str) -> None:
    pack = small_pack()
    error = failed_fetch(pack, tmp_path, small_web(**{"detector.onnx": answer}))
    assert "cannot fetch 1 of the 2 files" in error.message
    assert why in error.message
    live = model_path(tmp_path, "live.onnx", pack.files["live.onnx"])
    assert visible(tmp_path) == [live.name], "the file that could be had is there, and nothing else"


@pytest.mark.parametrize(("answer", "why"), BAD_ANSWERS)
def test_the_next_mirror_is_tried(tmp_path: Path, answer: Any, why: str) -> None:
    pack, telling = small_pack(detector=entry(DETECTOR, https("detector.onnx"), https("second.onnx"))), Telling()
    web = small_web(**{"detector.onnx": answer, "second.onnx": DETECTOR})
    files = fetch_pack(pack, tmp_path, transport=web, progress=telling)
    assert files[0].origin == "https://mirror.example/second.onnx"
    assert any(why in line for line in telling.lines)


def test_mirrors_are_tried_in_order_and_the_first_good_one_ends_it(tmp_path: Path) -> None:
    pack = small_pack(detector=entry(DETECTOR, https("first.onnx"), https("second.onnx"), https("third.onnx")))
    web = small_web(**{"second.onnx": DETECTOR, "third.onnx": DETECTOR})
    fetch_pack(pack, tmp_path, transport=web)
    assert web.asked[:2] == ["https://mirror.example/first.onnx", "https://mirror.example/second.onnx"]
    assert "https://mirror.example/third.onnx" not in web.asked


def test_one_error_names_every_file_every_mirror_and_why(tmp_path: Path) -> None:
    pack = small_pack(detector=entry(DETECTOR, https("first.onnx"), https("second.onnx")), live=entry(LIVE))
    web = small_web(**{"first.onnx": httpx.ConnectError("no route"), "second.onnx": OTHER})
    lines = failed_fetch(pack, tmp_path, web).message.splitlines()
    assert lines == [
        "cannot fetch 2 of the 2 files of the pack small:",
        "  detector.onnx",
        "    https://mirror.example/first.onnx: no route",
        "    https://mirror.example/second.onnx: delivered another file than the manifest names (another SHA-256)",
        "  live.onnx",
        "    the pack names no mirror for it",
    ]


def test_a_redirect_to_https_is_followed(tmp_path: Path) -> None:
    moved = httpx.Response(302, headers={"Location": "https://cdn.example/d"})
    web = small_web(**{"detector.onnx": moved})
    web.answers["https://cdn.example/d"] = DETECTOR
    fetch_pack(small_pack(), tmp_path, transport=web)
    assert states(small_pack(), tmp_path) == {FileState.OK}


def test_an_endless_download_is_cut_at_the_expected_size(tmp_path: Path) -> None:
    sent = []

    def endless() -> httpx.Response:
        def stream() -> Iterator[bytes]:
            while True:
                sent.append(1)
                yield b"x" * 400

        return httpx.Response(200, content=stream())

    failed_fetch(small_pack(), tmp_path, small_web(**{"detector.onnx": endless}))
    assert len(sent) == 3


@pytest.mark.parametrize(("name", "value"), [("HTTPS_PROXY", "nonsense://x"), ("SSL_CERT_FILE", "/does/not/exist")])
def test_wrong_network_settings_are_said_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ModelError, match="cannot prepare the connection") as caught:
        fetch_pack(small_pack(), tmp_path)
    assert caught.value.code == "models_unavailable"


# --- archives


def test_an_archive_that_serves_two_files_is_downloaded_once(tmp_path: Path) -> None:
    pack = small_pack(
        detector=entry(DETECTOR, https("pack.zip", member="detector.onnx")),
        live=entry(LIVE, https("pack.zip", member="live.onnx")),
    )
    web = small_web(**{"pack.zip": zipped(CONTENT)})
    fetch_pack(pack, tmp_path, transport=web)
    assert web.asked == ["https://mirror.example/pack.zip"]
    assert states(pack, tmp_path) == {FileState.OK}


@pytest.mark.parametrize("build", [zipped, tarred])
def test_a_member_is_found_in_any_folder_of_the_archive(tmp_path: Path, build: Any) -> None:
    pack = small_pack(detector=entry(DETECTOR, https("pack", member="detector.onnx")))
    fetch_pack(
        pack, tmp_path, transport=small_web(pack=build({"readme": b"hello", "models/v1/detector.onnx": DETECTOR}))
    )
    assert states(pack, tmp_path) == {FileState.OK}


NOISE = random.Random(1).randbytes(900)  # does not compress, so that the archive is about as long
DETECTOR_ZIP, DETECTOR_TAR = zipped({"detector.onnx": NOISE}), tarred({"detector.onnx": NOISE})


def scratched(data: bytes) -> bytes:
    return data[:300] + b"scratch!" + data[308:]


@pytest.mark.parametrize(
    ("archive", "more", "why"),
    [
        (zipped({"other.onnx": DETECTOR}), {}, "pack holds no detector.onnx"),
        (zipped({"detector.onnx": OTHER}), {}, "another SHA-256"),
        (zipped({"detector.onnx": DETECTOR * 1000}), {}, "not the 1000 bytes"),
        (b"<html>sign in to the hotel network</html>", {}, "damaged or no archive"),
        (DETECTOR_ZIP[:600], {}, "damaged or no archive"),
        (scratched(DETECTOR_ZIP), {}, "damaged or no archive"),
        (DETECTOR_TAR[:600], {}, "damaged or no archive"),
        (DETECTOR_TAR[:2] + b"\xff" + DETECTOR_TAR[3:], {}, "damaged or no archive"),
        (zipped({"detector.onnx": DETECTOR}), {"archive_sha256": sha256(b"")}, "archive does not have the SHA-256"),
        (zipped({"detector.onnx": DETECTOR}), {"archive_size": 20}, "more than the 20 bytes"),
    ],
)
def test_a_bad_archive_leaves_nothing_behind(tmp_path: Path, archive: bytes, more: dict[str, Any], why: str) -> None:
    pack = small_pack(detector=entry(DETECTOR, https("pack", member="detector.onnx", **more)))
    # The archive is known by name only: a download has no suffix.
    error = failed_fetch(pack, tmp_path, small_web(pack=archive))
    assert why.replace("pack holds", "download holds") in error.message
    assert len(visible(tmp_path)) == 1


def test_an_archive_of_known_hash_is_accepted(tmp_path: Path) -> None:
    archive = zipped({"detector.onnx": DETECTOR})
    source = https("pack", member="detector.onnx", archive_sha256=sha256(archive), archive_size=len(archive))
    pack = small_pack(detector=entry(DETECTOR, source))
    fetch_pack(pack, tmp_path, transport=small_web(pack=archive))
    assert states(pack, tmp_path) == {FileState.OK}


# --- InsightFace: its own addresses, with networks of the same contract


INSIGHTFACE = {
    "det_500m.onnx": network([1, 3, "h", "w"], [1, 1, "h", "w"]),
    "w600k_mbf.onnx": network([1, 3, 112, 112], [1, 512]),
    "insightface_liveness.onnx": network(["n", 3, 80, 80], [1]),
}
RELEASE = "https://github.com/deepinsight/insightface/releases/download"
ADDON = "https://github.com/deepinsight/insightface-model-addons/releases/download/addons/liveness.onnx"
BUFFALO = zipped({name: INSIGHTFACE[name] for name in ("det_500m.onnx", "w600k_mbf.onnx")})


@pytest.mark.parametrize("release", ["v0.7", "model-zoo"])
def test_insightfaces_files_come_from_its_release_archive_and_its_addon(tmp_path: Path, release: str) -> None:
    pack = insightface_pack(INSIGHTFACE)
    web = Web({f"{RELEASE}/{release}/buffalo_sc.zip": BUFFALO, ADDON: INSIGHTFACE["insightface_liveness.onnx"]})
    fetch_pack(pack, tmp_path, transport=web)
    for name, data in INSIGHTFACE.items():
        assert require_model(tmp_path, name, pack.files[name]) == data


def test_insightfaces_archive_and_addon_can_be_brought_along(tmp_path: Path) -> None:
    usb = tmp_path / "usb"
    usb.mkdir()
    (usb / "buffalo_sc.zip").write_bytes(BUFFALO)
    (usb / "liveness.onnx").write_bytes(INSIGHTFACE["insightface_liveness.onnx"])
    pack = insightface_pack(INSIGHTFACE)
    fetch_pack(pack, tmp_path / "models", from_path=usb, transport=OFFLINE)
    assert states(pack, tmp_path / "models") == {FileState.OK}
    assert OFFLINE.asked == []


# --- from a file, a folder or an archive


@pytest.mark.parametrize(
    "files",
    [
        pytest.param(CONTENT, id="by name"),
        pytest.param({"a/b/detector.onnx": DETECTOR, "c/live.onnx": LIVE}, id="below folders"),
        pytest.param({"downloaded(1)": DETECTOR, "x.bin": LIVE}, id="under any name"),
        pytest.param({"detector.onnx": OTHER, "the real one": DETECTOR, "live.onnx": LIVE}, id="beside a wrong one"),
        pytest.param({"both.zip": zipped(CONTENT)}, id="in a zip archive"),
        pytest.param(
            {"one.whl": zipped({"d": DETECTOR}), "two.tgz": tarred({"package/l": LIVE})}, id="in two archives"
        ),
        pytest.param({"broken.zip": b"PK", "both.tar.gz": tarred(CONTENT)}, id="beside a broken archive"),
    ],
)
def test_files_are_found_below_a_folder_by_their_hash(tmp_path: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        path = tmp_path / "usb" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    web = Web({})
    fetch_pack(small_pack(), tmp_path / "models", from_path=tmp_path / "usb", transport=web)
    assert states(small_pack(), tmp_path / "models") == {FileState.OK}
    assert web.asked == []


def test_the_mirrors_serve_what_the_folder_lacks(tmp_path: Path) -> None:
    (tmp_path / "detector.onnx").write_bytes(DETECTOR)
    web = small_web()
    fetch_pack(small_pack(), tmp_path / "models", from_path=tmp_path / "detector.onnx", transport=web)
    assert web.asked == ["https://mirror.example/live.onnx"]


def test_a_local_file_that_is_not_the_right_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb/detector.onnx").write_bytes(DETECTOR[:10])
    (tmp_path / "usb/live.onnx").write_bytes(b"l" * 500)
    message = failed_fetch(small_pack(), tmp_path / "models", Web({}), from_path=tmp_path / "usb").message
    assert "detector.onnx is not the file of the manifest (10 bytes instead of 1000)" in message
    assert "live.onnx is not the file of the manifest (another SHA-256)" in message
    assert "https://mirror.example/live.onnx: answered 404" in message
    assert visible(tmp_path / "models") == []


def test_an_alias_and_a_members_name_count_as_the_files_name(tmp_path: Path) -> None:
    (tmp_path / "usb").mkdir()
    (tmp_path / "usb/old-name.onnx").write_bytes(b"short")
    pack = small_pack(
        detector=entry(DETECTOR, aliases=["old-name.onnx"]), live=entry(LIVE, https("x", member="a/inner.onnx"))
    )
    message = failed_fetch(pack, tmp_path / "models", Web({}), from_path=tmp_path / "usb").message
    assert "old-name.onnx is not the file of the manifest" in message
    assert "holds no inner.onnx or live.onnx" in message


def test_a_from_path_that_does_not_exist_is_an_error_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist") as caught:
        fetch_pack(small_pack(), tmp_path, from_path=tmp_path / "nowhere")
    assert caught.value.exit_code == 2


def test_the_shipped_and_the_finished_model_are_both_taken_and_stored_finished(tmp_path: Path) -> None:
    shipped = frozen_network()
    finished = symbolic_dims(shipped)
    pack = small_pack(detector=transformed_entry(shipped, finished, https("frozen.onnx")))
    for folder, data in (("shipped", shipped), ("finished", finished)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "any").write_bytes(data)
        fetch_pack(pack, tmp_path / f"from-{folder}", from_path=tmp_path / folder, transport=small_web())
    fetch_pack(pack, tmp_path / "from-web", transport=small_web(**{"frozen.onnx": shipped}))
    for models in ("from-shipped", "from-finished", "from-web"):
        assert require_model(tmp_path / models, "detector.onnx", pack.files["detector.onnx"]) == finished


@pytest.mark.assets
@pytest.mark.parametrize("name", ["open", "open-lite", "scrfd-minifas"])
def test_the_shared_assets_hold_the_measured_packs(assets: Path, tmp_path: Path, name: str) -> None:
    from edge_agent.packs.manifest import load_pack

    fetch_pack(load_pack(name), tmp_path, from_path=assets / "models", transport=Web({}))
    assert states(load_pack(name), tmp_path) == {FileState.OK}


# --- the disk, other processes, interruptions


def test_a_full_disk_is_said_so_and_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full") as caught:
        fetch_pack(small_pack(), tmp_path, transport=small_web())
    assert caught.value.code == "storage_full"
    assert visible(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file in the way")
    with pytest.raises(StorageError, match="cannot store models in") as caught:
        fetch_pack(small_pack(), tmp_path / "models", transport=small_web())
    assert caught.value.code == "storage_failed"
    assert "--dir" in (caught.value.hint or "")


def test_an_interrupted_fetch_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fetch_pack(small_pack(), tmp_path, transport=small_web(), progress=Telling(KeyboardInterrupt()))
    assert visible(tmp_path) == []


def test_what_a_killed_fetch_left_is_removed_by_the_next(tmp_path: Path) -> None:
    (tmp_path / ".fetch-killed/0").mkdir(parents=True)
    (tmp_path / ".fetch-killed/0/download").write_bytes(DETECTOR[:100])
    files = fetch_pack(small_pack(), tmp_path, transport=small_web())
    assert visible(tmp_path) == sorted(file.path.name for file in files)


def test_only_one_fetch_at_a_time_works_in_a_folder(tmp_path: Path) -> None:
    locked = []

    def answer() -> httpx.Response:
        with (tmp_path / ".lock").open("ab") as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        locked.append(True)
        return streamed(DETECTOR, len(DETECTOR))

    fetch_pack(small_pack(), tmp_path, transport=small_web(**{"detector.onnx": answer}))
    assert locked == [True]


def test_a_second_fetch_says_that_it_waits_and_then_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def flock(lock: object, operation: int) -> None:
        calls.append(operation)
        if operation & fcntl.LOCK_NB:
            raise BlockingIOError

    monkeypatch.setattr(fcntl, "flock", flock)
    telling = Telling()
    fetch_pack(small_pack(), tmp_path, transport=small_web(), progress=telling)
    assert telling.lines[0] == "waiting for another fetch into the same folder"
    assert calls == [fcntl.LOCK_EX | fcntl.LOCK_NB, fcntl.LOCK_EX]


def test_what_another_fetch_brought_meanwhile_is_not_fetched_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web = small_web()

    def other_fetch(lock: object, operation: int) -> None:
        monkeypatch.undo()
        fetch_pack(small_pack(), tmp_path / "other", transport=small_web())
        for path in (tmp_path / "other").glob("*.onnx"):
            path.rename(tmp_path / "models" / path.name)

    monkeypatch.setattr(fcntl, "flock", other_fetch)
    fetch_pack(small_pack(), tmp_path / "models", transport=web)
    assert web.asked == []
