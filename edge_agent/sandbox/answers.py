"""The bodies of the service's answers in every documented variant."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse, PlainTextResponse, Response

from edge_agent.sandbox.matcher import Comparison
from edge_agent.sandbox.variants import Variants


class Refusal(Exception):
    """The service answers with this status and message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status} {message}")
        self.status = status
        self.message = message


def error(variants: Variants, status: int, message: str) -> Response:
    """An error in the variant's style."""
    if variants.error_style == "text":
        return PlainTextResponse(message, status)
    body: dict[str, Any] = {"message": message}
    if variants.error_style == "success_message":
        body = {"success": False, **body}
    return JSONResponse(body, status)


def token(variants: Variants, jwt: str) -> Response:
    answer = _nested(variants.token_field, jwt, under_data=variants.token_under_data)
    if variants.session_cookie:
        answer.set_cookie("connect.sid", "s%3Asandbox", httponly=True)
    return answer


def upload_url(variants: Variants, url: str) -> Response:
    return _nested(variants.url_field, url, under_data=variants.url_under_data)


def _nested(field: str, value: str, *, under_data: bool) -> Response:
    return JSONResponse({"success": True, "data": {field: value}} if under_data else {field: value})


def verdict(variants: Variants, comparison: Comparison) -> Response:
    """The answer of the match call."""
    if comparison.outcome == "no_face":
        return error(variants, variants.no_face_status, "No face was detected in the target image.")
    similarity = variants.reported_similarity if variants.reported_similarity is not None else comparison.similarity
    if comparison.outcome == "match":
        return _positive(variants, similarity)
    return _negative(variants, similarity)


def _positive(variants: Variants, similarity: float | None) -> Response:
    if variants.match_style == "empty":
        return Response(status_code=200)
    if variants.match_style == "bare":
        return JSONResponse({"success": True})
    return JSONResponse(_verdict_body(variants, matched=True, similarity=similarity))


def _negative(variants: Variants, similarity: float | None) -> Response:
    if variants.mismatch_style == "success_false_200":
        return JSONResponse({"success": False, "message": "Faces do not match."})
    if variants.mismatch_style == "false_4xx":
        return JSONResponse({"faceMatch": False, "message": "Faces do not match."}, variants.mismatch_status)
    return JSONResponse(_verdict_body(variants, matched=False, similarity=similarity))


def _verdict_body(variants: Variants, *, matched: bool, similarity: float | None) -> dict[str, Any]:
    if variants.match_style == "face_match_message":
        outcome = "Face matched successfully." if matched else "Face did not match."
        return {"faceMatch": matched, "message": f"{outcome} Similarity is {similarity}%."}
    if variants.match_style == "matched":
        return {"matched": matched}
    return {"match": matched, "similarity": similarity}
