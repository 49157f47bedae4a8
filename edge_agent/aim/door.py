"""Who may see the page: the one browser that came first with the link, on this machine or through its owner's tunnel."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import urlsplit

COOKIE = "edge-agent-aim"
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
"""The port is the tunnel's business; another name for this address is a page of somebody else (DNS rebinding)."""
OWN_PAGE = frozenset({"same-origin", "none"})
"""Sec-Fetch-Site of what the page itself asks, and of what a person types."""


class Door:
    """The link's token opens once; then its browser has a cookie of its own, and the token opens to nobody else."""

    def __init__(self) -> None:
        self.token = secrets.token_urlsafe(24)
        self._cookie: str | None = None

    @property
    def opened(self) -> bool:
        return self._cookie is not None

    def open(self, token: str) -> str | None:
        """The cookie's value, for the first who knows the token; None for everybody else."""
        if not compare_digest(token.encode(), self.token.encode()) or self.opened:
            return None
        self._cookie = secrets.token_urlsafe(24)
        return self._cookie

    def knows(self, cookies: Mapping[str, str]) -> bool:
        """It is the browser that came first."""
        given = cookies.get(COOKIE, "")
        return self._cookie is not None and compare_digest(given.encode(), self._cookie.encode())


def from_loopback(host: str) -> bool:
    """The request was addressed to loopback by that name, whatever the port."""
    try:
        return urlsplit(f"//{host}").hostname in LOOPBACK
    except ValueError:
        return False


def from_own_page(headers: Mapping[str, str]) -> bool:
    """No other page had the browser send it. Programs send neither header."""
    origin = headers.get("origin")
    if origin is not None and origin != f"http://{headers.get('host', '')}":
        return False
    return headers.get("sec-fetch-site", "none") in OWN_PAGE
