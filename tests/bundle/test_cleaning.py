"""What is taken out of a text, what stays, and that many words are found as few are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_agent.bundle.cleaning import Cleaner
from edge_agent.bundle.words import WHOLE_WORD, Words

CLEAN = {
    "Authorization: Bearer abcdefgh and more": "Authorization: [redacted]",
    "it sent Bearer abcdef1234": "it sent Bearer [redacted]",
    "see https://jane:word@host.example:8443/a/jane?x=1 now": "see https://host.example:8443/[redacted] now",
    "see https://host.example/ now": "see https://host.example/ now",
    "GET /v1/users?user=jane": "GET /v1/users?[redacted]",
    'said {"user_id": "jane", "token": \'x y\'}': 'said {"user_id": [redacted], "token": [redacted]}',
    "no such user: jane": "no such user: [redacted]",
    "User=edge-agent": "User=edge-agent",
    "design: x, upwards: y": "design: x, upwards: y",
    "mail jane.roe+x@mail.example.org.": "mail [redacted].",
    "wrote b'\\xff\\xd8' there": "wrote [redacted] there",
    "id 5a9db0c0-ffee-4000-8000-5a9db0c0ffee": "id [redacted]",
    "mac ff:d8:ff:e0:00:10:4a:46": "mac [redacted]",
    "hash 9f86d081884c7d65": "hash [redacted]",
    "card 4111111111111111, phone +49151123456": "card [redacted], phone [redacted]",
    "blob aGVsbG8gd29ybGQgaGVsbG8K.": "blob [redacted].",
    "key sk_test_abcdefgh": "key [redacted]",
    "vector [0.1, -0.2, 3e-1, .4, 0.5]": "vector [redacted] ",
    "bytes [255, 216, 255, 224, 0, 16, 74]": "bytes [redacted] ",
    "a \x00 picture": "[redacted]",
    "Zoe paid, zoefish did not": "[redacted] paid, zoefish did not",
    "order:xJANE-ROE-4711x": "order:x[redacted]x",
    "it is no s3cr3t!": "it is no [redacted]!",
}
STAYS = (
    "cannot open camera /dev/video0: device busy",
    "the disk is full: 12.5 MB of 31.9 GB are free, 40 °C",
    "2026-11-22 10:15:02 the clock is 0.5 s ahead; 26 pass, 1 warn",
    'File "/opt/edge-agent/current/lib/python3.11/site-packages/edge_agent/outbox/store.py", line 120, in open',
    "sudo edge-agent models fetch open --dir /var/lib/edge-agent/models; docs/install-raspberry-pi.md",
    "edge-agent.service: Main process exited, code=exited, status=3/NOTIMPLEMENTED",
    "SessionRefused: camera_unavailable (liveness_input_rejected)",
)


@pytest.mark.parametrize(("text", "clean"), CLEAN.items())
def test_what_must_not_leave_is_taken_out(text: str, clean: str) -> None:
    assert Cleaner([b"s3cr3t"], ["zoe", "jane-roe-4711", "x"]).text(text) == clean


@pytest.mark.parametrize("text", STAYS)
def test_what_helps_stays(text: str) -> None:
    assert Cleaner().text(text) == text


@pytest.mark.parametrize(
    ("content", "leaks"),
    [
        (b"S3CR3T!", True),
        (b"733363723374", True),  # in hex
        (b"of JANE-ROE-4711", True),
        (b"zoe", False),  # too short to be looked for in what was picked field by field
        (b"configuration", False),  # a user of that name does not empty every bundle
        (b"s3cr3", False),
    ],
)
def test_the_last_look_finds_secrets_and_names(content: bytes, leaks: bool) -> None:
    assert Cleaner([b"s3cr3t"], ["zoe", "jane-roe-4711", "configuration"]).leaks(content) is leaks


WORDS = st.lists(st.text("abB1-", min_size=1, max_size=12), max_size=6)


@settings(deadline=None)  # the suite also runs on slow machines
@given(words=WORDS, text=st.text("abB1- ", max_size=60))
def test_words_are_found_where_a_plain_search_finds_them(words: list[str], text: str) -> None:
    """The longest first, at every place; short ones only where they stand alone."""
    choices = [
        re.escape(word) if len(word) >= WHOLE_WORD else rf"(?<![aAbB1]){re.escape(word)}(?![aAbB1])"
        for word in sorted(words, key=len, reverse=True)
    ]
    plain = [m.span() for m in re.finditer("|".join(choices), text, re.IGNORECASE)] if choices else []
    assert list(Words(words).found(text)) == plain
