"""Everybody has the same face here; and who shall be answered provisionally was confirmed before."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import replace

import numpy as np

from edge_agent.cypherface.wire import new_image_name
from edge_agent.offline.faces import Faces, Seen, stored
from edge_agent.offline.threshold import Yardstick
from edge_agent.outbox.provisional_records import TEMPLATE_SCOPE, NewTemplate
from edge_agent.outbox.records import NewVerification, Verdict
from edge_agent.outbox.store import Store
from edge_agent.simulator.service import SIMILARITY
from edge_agent.types import Embedding, State

CALLER = "simulator"
"""Whose the confirmations are that nobody asked for."""
_MODEL, _QUALITY, _LEASE_S = "simulated", 0.9, 60.0
_FACE: Embedding = np.full(4, 0.5, np.float32)


class SimulatedFaces(Faces):
    """Compares nothing."""

    def __init__(self) -> None:
        """Without models and pictures."""

    def yardstick(self) -> Yardstick:
        return Yardstick(_MODEL, 0.5, "none: simulated", measured=False)

    async def look(self, picture: bytes) -> Seen:
        del picture
        return Seen(_FACE, _QUALITY, _MODEL)


def confirm_before(store: Store, new: NewVerification) -> None:
    """Have this user been confirmed with consent for a template, unless that was so. Called in the store's thread."""
    consent = new.consent
    if consent is None or TEMPLATE_SCOPE not in consent.scopes or _was_confirmed(store, new.user_id):
        return
    earlier = replace(new, caller=CALLER, idempotency_key=uuid.uuid4().hex, body=b"", amount=None, currency=None)
    record, _ = store.create(earlier)
    picture = b"of an earlier day"
    store.commit_capture(record.id, picture, quality_score=_QUALITY, liveness_score=_QUALITY)
    leased = store.lease_one(record.id, lease_s=_LEASE_S)
    if leased is None:  # another capture of this user is being forwarded: that one may confirm it
        return
    name = new_image_name()
    store.record_upload(record.id, leased.lease, name)
    digest = hashlib.sha256(picture).hexdigest()
    verdict = Verdict(True, 200, name, digest, matched_field="match", similarity=SIMILARITY[True])
    store.commit_verdict(record.id, leased.lease, verdict)
    store.keep_template(record.id, NewTemplate(stored(_FACE), _MODEL, _QUALITY))


def _was_confirmed(store: Store, user_id: str) -> bool:
    return any(
        known.state is State.VERIFIED and known.consent is not None and TEMPLATE_SCOPE in known.consent.scopes
        for known in store.verdicts_of(user_id)
    )
