"""Biometric bytes go to the operator's hosts and nowhere else."""

from __future__ import annotations

import pytest

from edge_agent.cypherface.upload import UploadTarget, accept_url, authority, expires_after_s
from edge_agent.errors import ServiceMisconfigured

from .service import SIGNED_URL

ADMITTED = [
    ("https://bucket.example/k?X-Amz-Signature=1", "bucket.example"),
    ("https://bucket.example:443/k", "bucket.example"),
    ("HTTPS://Bucket.Example:443/k", "bucket.example"),
    ("https://bucket.example/k", "bucket.example:443"),
    ("https://bucket.example:8443/k", "bucket.example:8443"),
    ("https://a.bucket.example/k", "*.bucket.example"),
    ("https://a.b.bucket.example/k", "*.bucket.example"),
    ("https://a.bucket.example:8443/k", "*.bucket.example:8443"),
    ("http://127.0.0.1:9000/k", "127.0.0.1:9000"),
    ("http://localhost/k", "localhost"),
    ("http://[::1]:9000/k", "[::1]:9000"),
    ("https://my_bucket.s3.example/k", "my_bucket.s3.example"),
]

REFUSED = [
    ("https://evil.example/k", "bucket.example", "upload_host_refused"),
    ("https://bucket.example.evil.example/k", "bucket.example", "upload_host_refused"),
    ("https://evilbucket.example/k", "*.bucket.example", "upload_host_refused"),
    ("https://bucket.example/k", "*.bucket.example", "upload_host_refused"),
    ("https://.bucket.example/k", "*.bucket.example", "bad_upload_url"),
    ("https://bucket.example./k", "bucket.example", "bad_upload_url"),
    ("https://bucket.example:8443/k", "bucket.example", "upload_host_refused"),
    ("https://bucket.example/k", "bucket.example:8443", "upload_host_refused"),
    ("https://bucket.example:80/k", "bucket.example", "upload_host_refused"),
    ("https://a.bucket.example:8443/k", "*.bucket.example", "upload_host_refused"),
    ("http://bucket.example/k", "bucket.example", "upload_url_insecure"),
    ("http://127.0.0.2:9000/k", "127.0.0.2:9000", "upload_url_insecure"),
    ("http://localhost.evil.example/k", "localhost.evil.example", "upload_url_insecure"),
    ("http://127.0.0.1:9001/k", "127.0.0.1:9000", "upload_host_refused"),
    ("https://bucket.example@evil.example/k", "bucket.example", "bad_upload_url"),
    ("https://user:pass@bucket.example/k", "bucket.example", "bad_upload_url"),
    ("https://evil.example\\.bucket.example/k", "*.bucket.example", "bad_upload_url"),
    ("https://evil.example\\@bucket.example/k", "bucket.example", "bad_upload_url"),
    ("https://evil.example%2ebucket.example/k", "*.bucket.example", "bad_upload_url"),
    ("https://evil.example#.bucket.example/k", "*.bucket.example", "upload_host_refused"),
    ("https://evil.example?.bucket.example/k", "*.bucket.example", "upload_host_refused"),
    ("https://evil.example/.bucket.example", "*.bucket.example", "upload_host_refused"),
    ("https://bücket.example/k", "bucket.example", "upload_host_refused"),
    ("https://bucket.example:0/k", "bucket.example", "bad_upload_url"),
    ("https://bucket.example:99999/k", "bucket.example", "bad_upload_url"),
    ("https:///k", "bucket.example", "bad_upload_url"),
    ("//bucket.example/k", "bucket.example", "bad_upload_url"),
    ("/k", "bucket.example", "bad_upload_url"),
    ("file:///etc/passwd", "bucket.example", "bad_upload_url"),
    ("ftp://bucket.example/k", "bucket.example", "bad_upload_url"),
    ("javascript:alert(1)", "bucket.example", "bad_upload_url"),
    ("https://bucket.example/\ud800", "bucket.example", "bad_upload_url"),
    ("https://bucket.example/\r\nx: y", "bucket.example", "bad_upload_url"),
    ("https://[bucket.example/k", "bucket.example", "bad_upload_url"),
    ("", "bucket.example", "bad_upload_url"),
]


@pytest.mark.parametrize(("url", "entry"), ADMITTED)
def test_an_allowed_place_is_admitted(url: str, entry: str) -> None:
    assert accept_url(url, ["other.example", entry])


@pytest.mark.parametrize(("url", "entry", "code"), REFUSED)
def test_any_other_place_is_refused(url: str, entry: str, code: str) -> None:
    with pytest.raises(ServiceMisconfigured, match="cannot") as caught:
        accept_url(url, [entry])
    assert caught.value.code == code
    assert caught.value.__context__ is None


def test_a_refusal_names_the_host_and_keeps_the_signature() -> None:
    with pytest.raises(ServiceMisconfigured) as caught:
        accept_url(SIGNED_URL, ["other.example"])
    assert "bucket.example" in caught.value.message
    assert "deadbeef" not in caught.value.message
    assert "upload_hosts" in (caught.value.hint or "")


def test_the_signature_survives_parsing() -> None:
    query = "X-Amz-Credential=AK%2F20260101%2Feu%2Fs3&X-Amz-Signature=a%2Bb%3D%3D&x=a+b&y=~!*'()"
    url = accept_url(f"https://bucket.example/k/%41%20b?{query}", ["bucket.example"])
    assert url.raw_path.decode() == f"/k/%41%20b?{query}"
    assert str(accept_url(str(url), ["bucket.example"])) == str(url)


@pytest.mark.parametrize(
    ("query", "expires_s"),
    [
        ("X-Amz-Expires=4800", 4800.0),
        ("x-amz-expires=30", 30.0),
        ("X-Amz-Expires=0", 0.0),
        ("X-Amz-Expires=999999", 604800.0),
        ("X-Amz-Expires=900&X-Amz-Expires=10", 10.0),
        ("X-Amz-Expires=-5", 60.0),
        ("X-Amz-Expires=soon", 60.0),
        ("X-Amz-Expires=", 60.0),
        ("X-Amz-Expires=1e9", 60.0),
        ("", 60.0),
    ],
)
def test_the_url_says_how_long_it_lives_else_the_shorter_documented_life(query: str, expires_s: float) -> None:
    assert expires_after_s(accept_url(f"https://bucket.example/k?{query}", ["bucket.example"])) == expires_s


def test_a_target_goes_stale_by_the_clock_and_hides_its_url() -> None:
    url = accept_url(SIGNED_URL, ["bucket.example"])
    target = UploadTarget(SIGNED_URL, authority(url), "name.jpg", "image/jpeg", "match", 100.0, 60.0)
    assert not target.stale(159.9)
    assert target.stale(160.0)
    assert "deadbeef" not in repr(target)
    assert "bucket.example" in repr(target)
