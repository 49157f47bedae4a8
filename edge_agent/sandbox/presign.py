"""Pre-signed PUT URLs as S3 makes them.

The signature is AWS Signature Version 4 in the query string (documentation "Authenticating Requests: Using Query
Parameters"), with ``content-type`` and ``host`` signed and the payload unsigned.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote

ALGORITHM = "AWS4-HMAC-SHA256"
ACCESS_KEY = "EDGEAGENTSANDBOX"
REGION = "local"
SIGNED_HEADERS = "content-type;host"


class StorageRefused(Exception):
    """The storage answers with this status, S3 error code and message."""

    def __init__(self, code: str, message: str, status: int = 403) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status


def presign(secret: str, *, host: str, path: str, content_type: str, now_s: float, valid_s: int) -> str:
    """The query string that lets anybody PUT ``content_type`` bytes to ``path`` (percent-encoded) on ``host``."""
    date = datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    query = {
        "X-Amz-Algorithm": ALGORITHM,
        "X-Amz-Credential": f"{ACCESS_KEY}/{_scope(date)}",
        "X-Amz-Date": date,
        "X-Amz-Expires": str(valid_s),
        "X-Amz-SignedHeaders": SIGNED_HEADERS,
    }
    signature = _signature(secret, "PUT", host, path, query, content_type)
    return f"{_encode(query)}&X-Amz-Signature={signature}"


def check(
    secret: str, *, method: str, host: str, path: str, query_string: str, content_type: str, now_s: float
) -> None:
    """Raises StorageRefused unless the request is exactly what was signed and the URL is still valid at ``now_s``."""
    query = dict(parse_qsl(query_string, keep_blank_values=True))
    given = query.pop("X-Amz-Signature", "")
    if not given or query.get("X-Amz-Algorithm") != ALGORITHM:
        raise StorageRefused("AccessDenied", "Access Denied")
    expected = _signature(secret, method, host, path, query, content_type)
    if not hmac.compare_digest(given.encode(), expected.encode()):
        raise StorageRefused(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        )
    signed_at = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    if now_s >= signed_at + int(query["X-Amz-Expires"]):
        raise StorageRefused("AccessDenied", "Request has expired")


def _signature(secret: str, method: str, host: str, path: str, query: Mapping[str, str], content_type: str) -> str:
    date = query.get("X-Amz-Date", "")
    headers = f"content-type:{content_type.strip()}\nhost:{host}\n"
    request = "\n".join([method, path, _encode(query), headers, SIGNED_HEADERS, "UNSIGNED-PAYLOAD"])
    text = "\n".join([ALGORITHM, date, _scope(date), hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in _scope(date).split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _scope(date: str) -> str:
    return f"{date[:8]}/{REGION}/s3/aws4_request"


def _encode(query: Mapping[str, str]) -> str:
    return "&".join(f"{quote(k, safe='-_.~')}={quote(v, safe='-_.~')}" for k, v in sorted(query.items()))
