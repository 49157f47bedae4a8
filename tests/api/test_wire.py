"""Fields of the API: what is refused, with which code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edge_agent.api.wire import VerificationRequest, looks_like_card_number

LUHN_VALID = [
    "4111111111111111",
    "4111 1111 1111 1111",
    "4111-1111-1111-1111",
    "378282246310005",
    "6304000000000000000",
]


def error_type(**fields: object) -> str:
    with pytest.raises(ValidationError) as caught:
        VerificationRequest.model_validate(fields)
    return caught.value.errors()[0]["type"]


BESIDE_OTHER_DIGITS = [
    "4111111111111111 123",
    "4111 1111 1111 1111 123",
    "17 4111-1111-1111-1111",
    "2026 4111 1111 1111 1111 12-27",
    "3782 822463 10005 1234",
]


@pytest.mark.parametrize(
    "text", [*LUHN_VALID, *BESIDE_OTHER_DIGITS, "order 4111111111111111 paid", "a4111111111111111"]
)
def test_card_numbers_are_noticed(text: str) -> None:
    assert looks_like_card_number(text)


@pytest.mark.parametrize("text", ["4111111111111112", "411111111111", "customer-17", "", "2026-11-21T10:00", "u" * 50])
def test_other_texts_are_not(text: str) -> None:
    assert not looks_like_card_number(text)


@given(st.integers(10**11, 10**18 - 1))
def test_every_luhn_number_of_13_to_19_digits_is_noticed(payload: int) -> None:
    digits = str(payload)
    total = sum(sum(divmod(int(d) * 2, 10)) if i % 2 == 0 else int(d) for i, d in enumerate(reversed(digits)))
    assert looks_like_card_number(digits + str(-total % 10))


@pytest.mark.parametrize(
    "user_id",
    ["", ".", "..", "../etc/passwd", "a/b", "a\\b", "a b", "a\x00b", "a\nb", "ü", "x" * 129, "x" * 1024, "a%2fb"],
)
def test_a_user_id_with_anything_strange_is_refused(user_id: str) -> None:
    assert error_type(user_id=user_id) == "invalid_user_id"


def test_a_user_id_that_looks_like_a_card_number_is_refused() -> None:
    assert error_type(user_id="4111111111111111") == "looks_like_card_number"
    assert error_type(user_id="u", reference="card 4111 1111 1111 1111") == "looks_like_card_number"


@pytest.mark.parametrize(
    "user_id", ["customer-17", "a", "a.b_c@d:e+f=g", "x" * 128, "5f1b9a7e-77b0-4c11-9e1c-1f0c2a1f9d10"]
)
def test_an_ordinary_user_id_is_accepted(user_id: str) -> None:
    assert VerificationRequest(user_id=user_id).user_id == user_id


@pytest.mark.parametrize(
    "fields",
    [
        {"user": "typo"},
        {"user_id": 17},
        {"amount": "-1"},
        {"amount": "1.23456"},
        {"amount": "NaN"},
        {"amount": "Infinity"},
        {"currency": "eur"},
        {"currency": "EURO"},
        {"reference": ""},
        {"reference": "a\x00"},
        {"reference": "x" * 129},
        {"search_timeout_s": 0.5},
        {"search_timeout_s": 601},
        {"consent": {"reference": "c", "scopes": ["everything"]}},
        {"consent": {}},
    ],
)
def test_a_wrong_field_is_refused(fields: dict[str, object]) -> None:
    assert error_type(**{"user_id": "u", **fields})


def test_all_fields_are_accepted() -> None:
    asked = VerificationRequest.model_validate_json(
        '{"user_id": "u", "reference": "r", "amount": "12.50", "currency": "EUR", "search_timeout_s": 5,'
        ' "consent": {"reference": "c-1", "scopes": ["match", "template"]}}'
    )
    assert str(asked.amount) == "12.50"
    assert asked.consent is not None
    assert asked.consent.scopes == ["match", "template"]
