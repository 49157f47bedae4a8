"""The text at ``/docs``: every call with curl, every variant, every fault, made from the code itself."""

from __future__ import annotations

from pydantic.fields import FieldInfo

from edge_agent.sandbox.faults import KINDS, Fault
from edge_agent.sandbox.runtime import Credentials
from edge_agent.sandbox.variants import Variants

_TEXT = """\
edge-agent sandbox: the CypherFace merchant API on this machine
===============================================================
A test double. It keeps pictures and user ids in the clear: never show it a customer.

One verification with curl
--------------------------
  B={base_url}
  # 1. a token (header authorization: <JWT>; see auth_scheme below)
  TOKEN=$(curl -s -X POST $B/api/access-token/ -H 'merchantId: {merchant_id}' \\
    -H 'x-api-key: {api_key}' | python3 -c 'import json,sys; print(json.load(sys.stdin)["accessToken"])')
  # 2. enrol: type upload = the source picture, once per user; type match = the target of the next match
  URL=$(curl -s $B/api/upload/generate-url/ -H "authorization: $TOKEN" -H 'content-type: application/json' \\
    -d '{{"userId":"alice","imageName":"source.jpg","contentType":"image/jpeg","type":"upload"}}' \\
    | python3 -c 'import json,sys; print(json.load(sys.stdin)["url"])')
  # 3. PUT the bytes: exactly the announced Content-Type, no authorization header, before it expires
  curl -s -i -X PUT -H 'content-type: image/jpeg' --data-binary @alice.jpg "$URL"
  # 4. the same two calls with "type":"match" and the fresh picture, then:
  curl -s $B/api/face/match/ -H "authorization: $TOKEN" -H 'content-type: application/json' -d '{{"userId":"alice"}}'

Calls
-----
  POST /api/access-token/         headers merchantId, x-api-key; no body
  POST /api/refresh-token/        header authorization with an expired or expiring token
  POST /api/upload/generate-url/  {{"userId", "imageName", "contentType": image/jpeg|image/png, "type": upload|match}}
  PUT  <pre-signed URL>           S3-like: 403 XML AccessDenied or SignatureDoesNotMatch; the same PUT overwrites
  POST /api/face/match/           {{"userId"}}; also spelled /api/face-match/
Not played: the server-side liveness flow (start-liveness-session, upload-frame, check-liveness, match-liveness-face).

Control (no token)
------------------
  GET    /_sandbox/state       users, pictures, settings, waiting faults;  DELETE forgets users and judgements
  GET    /_sandbox/judged      SHA-256 of every picture judged, with user, time and outcome;  ?user_id= filters
  GET    /_sandbox/requests    what arrived: step, status, fault, header names (no values)
  PUT    /_sandbox/settings    {{"name": value, ...}} changes variants;  GET shows,  DELETE restores the defaults
  POST   /_sandbox/faults      a fault or a list;  GET shows what waits,  DELETE clears
  POST   /_sandbox/advance     {{"seconds": N}} moves the clock: tokens and URLs expire, late pictures land
  for example:
  curl -s -X PUT $B/_sandbox/settings -d '{{"token_field": "token", "url_valid_s": 60}}'
  curl -s -X POST $B/_sandbox/faults -d '{{"step": "match", "kind": "status", "status": 429, "retry_after": 2}}'

Variants
--------
{variants}
Faults: kinds
-------------
{kinds}
Faults: parameters
------------------
{parameters}"""


def text(base_url: str, credentials: Credentials) -> str:
    """The guide as plain text."""
    return _TEXT.format(
        base_url=base_url,
        merchant_id=credentials.merchant_id,
        api_key=credentials.api_key,
        variants=_fields(Variants.model_fields),
        kinds=_table([(kind, what) for kind, what in KINDS.items()]),
        parameters=_fields(Fault.model_fields),
    )


def _fields(fields: dict[str, FieldInfo]) -> str:
    rows = []
    for name, field in fields.items():
        choices = _choices(field)
        rows.append((name, f"{field.description}{choices}{_default(field)}"))
    return _table(rows)


def _choices(field: FieldInfo) -> str:
    values = getattr(field.annotation, "__args__", ())
    names = [str(v) for v in values if isinstance(v, str | int)]
    return f" ({' | '.join(names)})" if names else ""


def _default(field: FieldInfo) -> str:
    if field.is_required() or field.default is None or isinstance(field.default, frozenset):
        return ""
    return f" [{str(field.default).lower() if isinstance(field.default, bool) else field.default}]"


def _table(rows: list[tuple[str, str]]) -> str:
    return "".join(f"  {name:<20} {what}\n" for name, what in rows)
