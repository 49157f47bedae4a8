"""Between the columns of a row and the parts of a record."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from operator import add
from typing import Any

from edge_agent.outbox.clock import BootInstant
from edge_agent.outbox.crypto import authenticate, encode, encode_each
from edge_agent.outbox.records import Consent, Environment, Lease, Verdict

Row = sqlite3.Row | dict[str, Any]

_UNBOUND = dict.fromkeys(("failures", "templates", "provisional_answers"), frozenset({"mac", "seq"}))
"""Columns outside a row's mac; the number of such a row is known only after the insert, and nothing refers to it."""

_PRIVATE = frozenset({"reference", "amount", "currency", "consent", "challenge"})
"""What may be in a row's private details."""


def columns_of(row: Row) -> dict[str, Any]:
    """The row by column; a ``sqlite3.Row`` looks for every name among all of them."""
    return row if isinstance(row, dict) else dict(zip(row.keys(), row, strict=True))


def environment_text(environment: Environment) -> str:
    return f"{environment.merchant_id} {environment.base_url}"


def row_mac(key: bytes, table: str, values: Mapping[str, Any]) -> bytes:
    """The mac of a row: over the table's name, then the columns in the order of their names, each with its value."""
    names, labels = _bound(table, tuple(values))
    contents = encode_each([values[name] for name in names])
    return authenticate(key, encode(table) + b"".join(map(add, labels, contents)))


@cache
def _bound(table: str, columns: tuple[str, ...]) -> tuple[list[str], list[bytes]]:
    """The columns that the mac of a row of this table covers, and their names as they go into the mac."""
    names = sorted(set(columns) - _UNBOUND.get(table, frozenset({"mac"})))
    return names, encode_each(names)


def boot_instant(row: Row, prefix: str) -> BootInstant | None:
    boot_id = row[f"{prefix}_boot_id"]
    return BootInstant(boot_id, row[f"{prefix}_boottime_s"]) if boot_id is not None else None


def verdict_of(row: Row) -> Verdict | None:
    if row["positive"] is None:
        return None
    return Verdict(
        positive=bool(row["positive"]),
        http_status=row["http_status"],
        image_name=row["image_name"],
        image_sha256=row["image_sha256"],
        matched_field=row["matched_field"],
        similarity=row["similarity"],
    )


def lease_of(row: Row) -> Lease | None:
    if row["lease_token"] is None:
        return None
    return Lease(row["lease_token"], row["lease_instance"], row["lease_until_running_s"])


def private_text(
    reference: str | None, amount: Decimal | None, currency: str | None, consent: Consent | None
) -> str | None:
    """The personal details of a request as JSON, or None when there are none."""
    details = {
        "reference": reference,
        "amount": None if amount is None else str(amount),
        "currency": currency,
        "consent": None if consent is None else [consent.reference, *consent.scopes],
    }
    present = {name: value for name, value in details.items() if value is not None}
    return json.dumps(present) if present else None


def with_challenge(text: str | None, challenge: str) -> str:
    """The details of a request, and what was passed beside the models."""
    return json.dumps({**(json.loads(text) if text else {}), "challenge": challenge})


def private_details(text: str | None) -> dict[str, Any]:
    """Fields of a VerificationRecord; those that a later version of this program added are passed over."""
    told = json.loads(text) if text else {}
    details = {name: value for name, value in told.items() if name in _PRIVATE}
    if "amount" in details:
        details["amount"] = Decimal(details["amount"])
    if "consent" in details:
        reference, *scopes = details["consent"]
        details["consent"] = Consent(reference, tuple(scopes))
    return details
