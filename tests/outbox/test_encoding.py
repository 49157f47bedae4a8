"""What macs are made over: one text per value and type, and a fixed form that a store of yesterday was sealed with."""

from __future__ import annotations

import hmac
from enum import IntEnum, StrEnum

import pytest

from edge_agent.outbox.crypto import Value, encode, mac
from edge_agent.outbox.rows import row_mac

KEY = bytes(range(32))


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 7


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, b"n\0\0\0\0"),
        (1, b"i\0\0\0\x011"),
        (-12, b"i\0\0\0\x03-12"),
        (1.0, b"f\0\0\0\x08\x3f\xf0\0\0\0\0\0\0"),
        ("1", b"s\0\0\0\x011"),
        ("ü", b"s\0\0\0\x02\xc3\xbc"),
        (b"1", b"b\0\0\0\x011"),
        (True, b"i\0\0\0\x011"),
        (Colour.RED, b"s\0\0\0\x03red"),
        (Level.HIGH, b"i\0\0\0\x017"),
    ],
)
def test_a_value_is_written_with_its_type_and_length(value: Value, written: bytes) -> None:
    assert encode(value) == written


def test_values_cannot_run_into_each_other() -> None:
    assert len({encode("ab", "c"), encode("a", "bc"), encode("abc"), encode("ab", "c", None), encode(b"ab", "c")}) == 5


def test_what_is_no_value_of_a_column_is_refused() -> None:
    with pytest.raises(TypeError, match="no column holds one"):
        encode([1])  # type: ignore[arg-type]  # the point of the test


def test_a_row_is_authenticated_over_its_names_and_values_in_the_order_of_the_names() -> None:
    row = {"b": 2, "mac": b"not this", "a": "x"}
    expected = hmac.digest(KEY, encode("table", "a", "x", "b", 2), "sha256")
    assert row_mac(KEY, "table", row) == expected == mac(KEY, "table", "a", "x", "b", 2)


def test_the_number_of_a_failure_is_outside_its_mac() -> None:
    assert row_mac(KEY, "failures", {"seq": 1, "kind": "spoof"}) == mac(KEY, "failures", "kind", "spoof")
