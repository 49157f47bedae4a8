"""What the documentation leaves open or contradicts, each as a switch that can be turned at run time."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

MATCH_PATH = "/api/face/match/"
MATCH_PATH_ALIAS = "/api/face-match/"

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Variants(BaseModel):
    """How this sandbox plays the service; the defaults follow the documentation's examples."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    token_field: Literal["accessToken", "access_token", "token"] = Field(
        "accessToken", description="name of the token in the answers of access-token and refresh-token"
    )
    token_under_data: bool = Field(False, description="the token is nested under data")
    id_claim: Literal["merchantId", "cypherFaceId"] = Field("merchantId", description="claim with the merchant's id")
    token_life_s: int = Field(172_800, ge=1, le=31_536_000, description="exp - iat of a token (2 days)")
    refresh: Literal["ok", "refused"] = Field("ok", description="whether refresh-token gives a new token")
    auth_scheme: Literal["raw", "bearer", "both"] = Field(
        "raw", description="authorization header: the bare JWT, Bearer JWT, or either"
    )
    bad_token_status: Literal[401, 403] = Field(403, description="answer to a bad or expired JWT")
    bad_key_status: Literal[401, 403] = Field(401, description="answer to a wrong merchantId or x-api-key")
    api_key_revoked: bool = Field(False, description="the API key, and every token made with it, is refused")
    session_cookie: bool = Field(False, description="access-token also sets the cookie connect.sid")

    url_field: Literal["url", "uploadUrl", "uploadURL", "signedUrl", "presignedUrl", "generatedUrl"] = Field(
        "url", description="name of the pre-signed URL in the answer of generate-url"
    )
    url_under_data: bool = Field(False, description="the URL is nested under data")
    url_valid_s: int = Field(
        4800, ge=1, le=604_800, description="validity of a pre-signed URL: 4800 (80 minutes) or 60 in the documentation"
    )
    url_host: str | None = Field(
        None, pattern=r"^[A-Za-z0-9.:\[\]-]{1,255}$", description="host[:port] in pre-signed URLs instead of our own"
    )

    match_path: Literal["both", "/api/face/match/", "/api/face-match/"] = Field(
        "both", description="which spelling of the match path exists"
    )
    match_style: Literal["match_similarity", "face_match_message", "matched", "empty", "bare"] = Field(
        "match_similarity", description="body of a 200 for a match; empty = no body, bare = JSON without a verdict"
    )
    mismatch_style: Literal["false_200", "success_false_200", "false_4xx"] = Field(
        "false_200", description="how a mismatch is told"
    )
    mismatch_status: Literal[400, 401, 403, 404, 409, 422] = Field(422, description="status of false_4xx")
    no_face_status: Literal[400, 402, 422] = Field(422, description="answer when the target picture has no usable face")
    unknown_user_at: Literal["match", "generate_url"] = Field(
        "match", description="which call answers 404 for a user who was never enrolled"
    )
    overwrite_status: Literal[409, 422] = Field(409, description="answer when an enrolled source would be overwritten")
    error_style: Literal["message", "success_message", "text"] = Field(
        "message", description="body of an error: {message}, {success: false, message}, or plain text"
    )

    processing_lag_s: float = Field(
        0.0, ge=0, le=3600, description="a picture takes part in matching only so long after it landed"
    )
    while_processing: Literal["previous", "refuse"] = Field(
        "previous", description="a match meanwhile judges the previous target, or answers 422"
    )
    clock_skew_s: float = Field(
        0.0, ge=-1e9, le=1e9, description="how far this server's clock is ahead: tokens, URLs, Date header"
    )

    reported_similarity: float | None = Field(
        None, ge=0, le=100, description="similarity to report whatever was measured"
    )
    mismatch_sha256: frozenset[Sha256] = Field(
        frozenset(), description="target pictures with these SHA-256 never match, whatever the matcher says"
    )
