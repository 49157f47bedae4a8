"""Where a picture may be sent: the pre-signed URL, its allow-list and its life.

The URL is parsed by ``httpx.URL``, the very parser that sends the request, so that the host that is checked is the
host that is contacted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import httpx

from edge_agent.config import LOOPBACK_HOSTS
from edge_agent.errors import ServiceMisconfigured

UploadKind = Literal["upload", "match"]
"""``upload``: the source (enrolment) image. ``match``: the target image of the next match."""

DEFAULT_EXPIRES_S = 60.0
"""The shorter of the two documented lives (60 s, 80 minutes)."""

_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:]+")
_LONGEST_EXPIRES_S = 604_800


@dataclass(frozen=True, slots=True)
class UploadTarget:
    """A pre-signed URL for one picture. The URL is a secret: whoever has it can write the picture."""

    url: str = field(repr=False)
    host: str
    """host, or host:port where the port is not the scheme's own."""
    image_name: str = field(repr=False)
    content_type: str
    """Announced with the URL; the PUT must carry exactly this one."""
    kind: UploadKind
    received_at_s: float
    """By the client's clock (running time of the machine)."""
    expires_after_s: float
    """Counted from receipt."""

    def stale(self, now_s: float) -> bool:
        """True when the URL must not be used any more."""
        return now_s - self.received_at_s >= self.expires_after_s


def accept_url(text: str, upload_hosts: Sequence[str]) -> httpx.URL:
    """The parsed URL of a place that may receive pictures.

    Raises ServiceMisconfigured: ``bad_upload_url``, ``upload_url_insecure`` or ``upload_host_refused``. The messages
    name the host at most, never the path or the query.
    """
    url = _parse(text)
    if url.scheme == "http" and url.host not in LOOPBACK_HOSTS:
        raise ServiceMisconfigured(
            f"cannot upload to {url.host}: the upload URL is not https", code="upload_url_insecure"
        )
    if not any(_admits(entry, url) for entry in upload_hosts):
        raise ServiceMisconfigured(
            f"cannot upload to {authority(url)}: it is not in cypherface.upload_hosts",
            code="upload_host_refused",
            hint="if CypherFace confirms that this is its storage, add exactly this host to cypherface.upload_hosts",
        )
    return url


def _parse(text: str) -> httpx.URL:
    problem = None
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, ValueError):
        problem = "it cannot be parsed"
    else:
        if url.scheme not in _PORTS:
            problem = "it is neither https nor http"
        elif url.userinfo:
            problem = "it carries credentials"
        elif not _HOST.fullmatch(url.raw_host.decode("ascii")):
            problem = "its host name is not one"
        elif url.port is not None and not 0 < url.port < 65536:
            problem = "its port is not one"
    if problem:
        # Raised outside the handler: the parser's own message quotes the URL.
        raise ServiceMisconfigured(f"cannot use the upload URL that CypherFace gave: {problem}", code="bad_upload_url")
    return url


def authority(url: httpx.URL) -> str:
    """``host`` or ``host:port``, in the form that cypherface.upload_hosts uses."""
    host = url.raw_host.decode("ascii")
    name = f"[{host}]" if ":" in host else host
    return name if url.port in {None, _PORTS[url.scheme]} else f"{name}:{url.port}"


def _admits(entry: str, url: httpx.URL) -> bool:
    """An entry without a port admits the scheme's own port only; ``*.domain`` admits any host below the domain."""
    name = entry.lower().removesuffix(f":{_PORTS[url.scheme]}")
    here = authority(url)
    if name.startswith("*."):
        return here.endswith(name[1:]) and len(here) > len(name) - 1
    return here == name


def expires_after_s(url: httpx.URL) -> float:
    """Seconds that the URL says it is valid (``X-Amz-Expires``; the smallest, if repeated), else 60."""
    values = [value for key, value in url.params.multi_items() if key.lower() == "x-amz-expires"]
    if not values or not all(re.fullmatch(r"[0-9]{1,6}", value, re.ASCII) for value in values):
        return DEFAULT_EXPIRES_S
    return float(min(*map(int, values), _LONGEST_EXPIRES_S))
