"""Texts without what must not leave the terminal: the words that are known, and whatever looks like one of their kind.

Most of a bundle is picked field by field and needs none of this. It is for sentences: a log message, the detail of a fault.
It rather takes too much: a word that is missing is asked for, one that got out cannot be called back.
"""

from __future__ import annotations

import re
from base64 import b64encode, urlsafe_b64encode
from binascii import unhexlify
from collections.abc import Callable, Iterable
from json import dumps
from typing import Any
from urllib.parse import quote

from edge_agent.bundle.words import WHOLE_WORD, Words
from edge_agent.doctor.redaction import REDACTED, SHORTEST

LEAST_NAME = 3
"""A shorter user id is not looked for: it is in every second word."""
LONGEST_TEXT = 16_384
"""Characters; a longer text is cut off. No message of ours is as long."""
REPEATED, REMEMBERED = 256, 4096
"""Characters of a text, and number of texts, that are cleaned once: a log says the same again and again."""
_BLOB = 20
"""Characters of a run without a blank that may be a key or a part of a picture."""

_SENSITIVE = (
    r"password|passwd|passphrase|(?<![a-z])(?:pass|pwd|pw|sig)|secret|token|jwt|bearer|api[_-]?key|access[_-]?key|"
    r"private[_-]?key|signature|"
    r"credentials?|cookie|session[_-]?id|user[_-]?id|user[_ ]?name|customer|reference|consent|image[_-]?name|embedding|"
    r"template|merchant[_-]?id"
)
_Replace = str | Callable[[re.Match[str]], str]


def _only_host(found: re.Match[str]) -> str:
    """Scheme and host of an URL: its path may name a user, its query is a signature."""
    rest = found["rest"]
    return f"{found['scheme']}://{found['host']}{rest if rest in {'', '/'} else '/' + REDACTED}"


def _blob(found: re.Match[str]) -> str:
    """A long run of letters and digits is a word, a path or a blob: blobs mix cases with digits, or have many digits."""
    text = found[0]
    digits = sum(c.isdigit() for c in text)
    cases = min(sum(c.isupper() for c in text), sum(c.islower() for c in text))
    unbroken = re.search(rf"[A-Za-z0-9+]{{{2 * _BLOB},}}", text)
    blob = (digits and cases) or cases >= 4 or 5 * digits >= len(text) or unbroken
    return REDACTED if blob else text


_BINARY = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufffd]")
"""A text with such a character is none: the whole of it may be a picture."""
PATTERNS: tuple[tuple[re.Pattern[str], _Replace], ...] = (
    # -- headers, and whatever follows them
    (re.compile(r"(?i)\b((?:proxy-)?authorization|x-api-key|(?:set-)?cookie)(['\"]?\s*[:=]\s*).*"), rf"\1\2{REDACTED}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}"), rf"\1 {REDACTED}"),
    # -- URLs; a signature without its URL
    (re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]{1,15})://(?:[^/\s@'\"]*@)?(?P<host>[^/\s?#'\"<>,;)]*)"
                r"(?P<rest>[^\s'\"<>]*?)(?=[:.,;)]*(?:[\s'\"<>]|$))"), _only_host),
    (re.compile(r"(?i)\bX-(?:Amz|Goog|Ms)-[A-Za-z-]+=[^\s&'\"]+"), REDACTED),
    (re.compile(r"\?[^\s'\"]*=[^\s'\"]*"), f"?{REDACTED}"),
    # -- what says of itself what it is
    (re.compile(rf"(?i)((?:{_SENSITIVE})[\w-]{{0,32}}['\"]?\s*[=:]\s*)(?:\[redacted\]|\"[^\"]*\"|'[^']*'|[^\s'\",;&}})\]]+)"),
     rf"\1{REDACTED}"),
    (re.compile(r"(?<![\w.-])(users?(?:\s+id)?['\"]?\s*[=:]\s*)(?:\[redacted\]|\"[^\"]*\"|'[^']*'|[^\s'\",;&})\]]+)"), rf"\1{REDACTED}"),
    # -- shapes
    (re.compile(r"eyJ[A-Za-z0-9_-]{5,}(?:\.[A-Za-z0-9_-]*)*"), REDACTED),
    (re.compile(r"[^\s@<>,;:'\"()\[\]]{1,64}@[\w-]+(?:\.[\w-]+)+"), REDACTED),
    (re.compile(r"\bb(?:'(?:[^'\\]|\\.)*'?|\"(?:[^\"\\]|\\.)*\"?)"), REDACTED),  # Python's bytes
    (re.compile(r"(?:\\x[0-9a-fA-F]{2}|\\u00[0-9a-fA-F]{2}|[^\x20-\x7e\s]){3,}"), REDACTED),  # a picture as text
    (re.compile(r"\[?\s*(?:[-+]?(?:\d*\.\d+(?:e[-+]?\d+)?|\d+e[-+]?\d+)\s*[,;\s]\s*){3,}[-+.\de]*\s*\]?", re.IGNORECASE), f"{REDACTED} "),
    (re.compile(r"\[?\s*(?:-?\d{1,3}\s*,\s*){6,}-?\d*\s*\]?"), f"{REDACTED} "),
    (re.compile(r"(?i)\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"), REDACTED),
    (re.compile(r"(?i)(?<![0-9a-z])(?:[0-9a-f]{2}[ :-]){7,}[0-9a-f]{2}\b"), REDACTED),
    (re.compile(r"(?i)(?<![0-9a-z])(?=[0-9a-f]*\d)[0-9a-f]{16,}(?![0-9a-z])"), REDACTED),
    (re.compile(r"\b(?:sk|pk|rk|ghp|xox[a-z])[_-][A-Za-z0-9_-]{8,}"), REDACTED),
    (re.compile(rf"[A-Za-z0-9+/_-]{{{_BLOB},}}={{0,2}}"), _blob),
    (re.compile(r"\+?\d{9,}"), REDACTED),  # cards, telephones, numbers of customers
)  # fmt: skip
"""In this order; each for texts of one line or more."""


def forms(secret: bytes) -> set[str]:
    """A secret as the texts in which it may stand: itself, hex, base64, escaped."""
    found = {secret.hex(), secret.hex().upper()}
    for encoded in (b64encode(secret), urlsafe_b64encode(secret)):
        found |= {encoded.decode(), encoded.decode().rstrip("=")}
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return found
    found |= {text, quote(text, safe=""), dumps(text)[1:-1], ascii(text)[1:-1]}
    if re.fullmatch(r"(?:[0-9a-fA-F]{2}){16,}", text):  # a key in hex: also what it stands for
        raw = unhexlify(text)
        found |= {text.lower(), text.upper(), b64encode(raw).decode(), urlsafe_b64encode(raw).decode()}
    return found


class Cleaner:
    """Knows the secrets of this terminal and the names in its outbox."""

    def __init__(self, secrets: Iterable[bytes] = (), names: Iterable[str] = ()) -> None:
        """``names``: user ids and references."""
        written = {form for secret in secrets for form in forms(secret) if len(form) >= SHORTEST}
        named = {form for name in names if len(name) >= LEAST_NAME for form in forms(name.encode())}
        self._done: dict[str, str] = {}
        self._secrets = _one_of(written)
        self._names = Words(named)
        self._telling = Words(form for form in named if len(form) >= WHOLE_WORD and not _is_a_word(form))

    def text(self, text: str) -> str:
        """One sentence or several lines."""
        known = self._done.get(text)
        if known is None:
            known = self._cleaned(text)
            if len(text) <= REPEATED and len(self._done) < REMEMBERED:
                self._done[text] = known
        return known

    def _cleaned(self, text: str) -> str:
        if _BINARY.search(text):
            return REDACTED
        cut = text[:LONGEST_TEXT] + (" [cut off]" if len(text) > LONGEST_TEXT else "")
        cut = self._names.without(self._secrets.sub(REDACTED, cut) if self._secrets else cut, REDACTED)
        for pattern, instead in PATTERNS:
            cut = pattern.sub(instead, cut)
        return cut

    def value(self, value: Any) -> Any:
        """Every text of a JSON value; its keys are ours."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, dict):
            return {key: self.value(item) for key, item in value.items()}
        return [self.value(item) for item in value] if isinstance(value, list | tuple) else value

    def leaks(self, content: bytes) -> bool:
        """Whether a secret or a name is in there after all. Names that are plain words or numbers are not asked for."""
        text = content.decode("utf-8", "replace")
        secret = self._secrets.search(text) if self._secrets else None
        return secret is not None or next(self._telling.found(text), None) is not None


def _one_of(words: set[str]) -> re.Pattern[str] | None:
    """The longest first; letters of either case."""
    choice = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    return re.compile(choice, re.IGNORECASE) if words else None


def _is_a_word(text: str) -> bool:
    """What a member may hold for other reasons: a key of its JSON, a number."""
    return bool(re.fullmatch(r"[A-Za-z_]+|[0-9.:-]+", text))
