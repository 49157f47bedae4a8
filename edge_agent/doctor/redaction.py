"""The last look at what a check says: nothing secret leaves, whoever wrote the sentence."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from edge_agent.config import Config, SecretRef
from edge_agent.doctor.finding import Finding, Value
from edge_agent.errors import ConfigurationError

REDACTED = "[redacted]"
SHORTEST = 6
"""A shorter secret would be cut out of words that hold it by chance."""
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")
_TOKEN = re.compile(r"eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_.-]+")


def known_secrets(config: Config | None) -> tuple[str, ...]:
    """The secrets that this user can read, as text, the longest first."""
    found = {text for ref in _references(config) for text in _texts(ref) if len(text) >= SHORTEST}
    return tuple(sorted(found, key=len, reverse=True))


def _references(config: Config | None) -> Iterable[SecretRef]:
    if config is None:
        return ()
    api = config.api
    refs = (config.cypherface.api_key, config.outbox.key, config.outbox.previous_key)
    return [ref for ref in (*refs, api.token, api.enrol_token, api.admin_token) if ref is not None]


def _texts(ref: SecretRef) -> tuple[str, ...]:
    try:
        secret = ref.read()
    except ConfigurationError:
        return ()
    return secret.decode("utf-8", "replace"), secret.hex()


def redacted(finding: Finding, secrets: Iterable[str]) -> Finding:
    """Without the secrets, the credentials of URLs and anything that looks like a token."""

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, REDACTED)
        return _TOKEN.sub(REDACTED, _USER_INFO.sub(f"{REDACTED}@", text))

    def clean_value(value: Value) -> Value:
        return clean(value) if isinstance(value, str) else value

    return replace(
        finding,
        detail=clean(finding.detail),
        mend=clean(finding.mend) if finding.mend else None,
        value=clean_value(finding.value),
        limit=clean_value(finding.limit),
    )
