"""Public files over HTTPS, and the one function that serves every kind of source."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from edge_agent.packs.archive import ArchiveError, read_member
from edge_agent.packs.manifest import HttpsSource, NpmSource, PypiSource, Source
from edge_agent.packs.progress import Progress
from edge_agent.packs.registry import TIMEOUT_S, MirrorError, download_tarball, download_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ARCHIVE_BYTES = 512 << 20
MAX_REDIRECTS = 5
TIMEOUTS = httpx.Timeout(30.0, connect=15.0)


class Mirrors:
    """Gets files from the sources of a manifest; an archive that serves several files is downloaded once.

    ``work_dir``: an empty folder of ours with room for the archives. ``transport`` stands in for the network in tests.
    """

    def __init__(self, work_dir: Path, progress: Progress, *, transport: httpx.BaseTransport | None = None) -> None:
        self._work_dir = work_dir
        self._progress = progress
        self._transport = transport
        self._had: dict[str, Path | MirrorError] = {}

    def get(self, source: Source, size: int) -> bytes:
        """The file of ``source`` as shipped, at most ``size`` + 1 bytes of it; not yet compared with the manifest.

        Raises MirrorError, or OSError when the disk is full.
        """
        path = self._archive(source, size)
        if source.member is None:
            with path.open("rb") as stream:
                return stream.read(size + 1)
        _check_archive(path, source.archive_sha256)
        try:
            return read_member(path, source.member, size)
        except ArchiveError as exc:
            raise MirrorError(str(exc)) from exc

    def _archive(self, source: Source, size: int) -> Path:
        key = describe(source)
        if key not in self._had:
            folder = self._work_dir / str(len(self._had))
            folder.mkdir()
            try:
                self._had[key] = self._download(source, size, folder)
            except MirrorError as exc:
                self._had[key] = exc
        had = self._had[key]
        if isinstance(had, MirrorError):
            raise had
        return had

    def _download(self, source: Source, size: int, folder: Path) -> Path:
        if isinstance(source, PypiSource):
            return download_wheel(source, folder, self._progress)
        if isinstance(source, NpmSource):
            return download_tarball(source, folder, self._progress)
        with _client(self._transport) as client:
            return _download_https(client, source, size, folder, self._progress)


def describe(source: Source) -> str:
    """The archive or file that ``source`` names, for people; equal for equal archives."""
    if isinstance(source, PypiSource):
        return f"Python package index, {source.requirement}"
    if isinstance(source, NpmSource):
        return f"npm registry, {source.package}"
    return source.url


def _check_archive(path: Path, sha256: str | None) -> None:
    """An archive that is known by hash is compared before any parser touches it."""
    if sha256 is None:
        return
    with path.open("rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != sha256:
            raise MirrorError("the archive does not have the SHA-256 of the manifest")


def _client(transport: httpx.BaseTransport | None) -> httpx.Client:
    """Honours the proxy and certificate settings of the environment, which may be wrong."""
    try:
        return httpx.Client(transport=transport, timeout=TIMEOUTS)
    except (OSError, ValueError, ImportError) as exc:
        raise MirrorError(f"cannot prepare the connection: {exc}") from exc


def _download_https(client: httpx.Client, source: HttpsSource, size: int, folder: Path, progress: Progress) -> Path:
    target = folder / "download"
    expected = source.archive_size or (size if source.member is None else None)
    url, deadline = source.url, time.monotonic() + TIMEOUT_S
    try:
        for _ in range(MAX_REDIRECTS + 1):
            with client.stream("GET", url, headers={"Accept-Encoding": "identity"}) as response:
                if response.next_request is None:
                    _save(response, target, expected, deadline, progress)
                    return target
                url = _secure(response.next_request.url)
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise MirrorError(str(exc) or type(exc).__name__) from exc
    raise MirrorError(f"more than {MAX_REDIRECTS} redirects")


def _secure(url: httpx.URL) -> str:
    if url.scheme != "https":
        raise MirrorError("redirects to an address that is not https")
    return str(url)


def _save(response: httpx.Response, target: Path, expected: int | None, deadline: float, progress: Progress) -> None:
    if response.status_code != httpx.codes.OK:
        raise MirrorError(f"answered {response.status_code} {response.reason_phrase}".strip())
    length = response.headers.get("Content-Length", "")
    announced = int(length) if length.isdecimal() else None
    label = response.url.path.rsplit("/", 1)[-1]
    with progress.transfer(label, expected or announced) as received, target.open("wb") as stream:
        for chunk in _capped(response.iter_raw(), expected or MAX_ARCHIVE_BYTES, deadline):
            stream.write(chunk)
            received(stream.tell())
        if announced is not None and stream.tell() < announced:
            raise MirrorError(f"broke off after {stream.tell()} of {announced} bytes")


def _capped(chunks: Iterator[bytes], cap: int, deadline: float) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > cap:
            raise MirrorError(f"sends more than the {cap} bytes expected")
        if time.monotonic() > deadline:
            raise MirrorError(f"not complete within {TIMEOUT_S:.0f} s")
        yield chunk
