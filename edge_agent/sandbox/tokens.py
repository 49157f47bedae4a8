"""Access tokens as the service makes them: HS256 JWTs that hold the merchant's id and the API key."""

from __future__ import annotations

import secrets
from typing import Any

import jwt

ALGORITHM = "HS256"


class TokenRefused(Exception):
    """The token is not ours, was altered, has expired, or belongs to another key."""


def issue(secret: str, *, id_claim: str, merchant_id: str, api_key: str, now_s: float, life_s: int) -> str:
    """A new token; ``jti`` makes two tokens of the same second differ."""
    claims = {
        id_claim: merchant_id,
        "xApiKey": api_key,
        "iat": int(now_s),
        "exp": int(now_s) + life_s,
        "jti": secrets.token_hex(8),
    }
    return jwt.encode(claims, secret, algorithm=ALGORITHM)


def check(token: str, secret: str, *, api_key: str, now_s: float, expired_is_fine: bool = False) -> None:
    """Raises TokenRefused unless the token is valid at ``now_s`` (the sandbox's clock, not the machine's)."""
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["exp", "iat"]}
    try:
        claims = jwt.decode(token, secret, algorithms=[ALGORITHM], options=options)
    except jwt.InvalidTokenError as exc:
        raise TokenRefused(str(exc)) from exc
    if claims.get("xApiKey") != api_key:
        raise TokenRefused("made with another API key")
    if not expired_is_fine and now_s >= claims["exp"]:
        raise TokenRefused("expired")
