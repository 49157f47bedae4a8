"""Comparing a capture with templates: the most similar one counts, and what cannot be compared is an error."""

from __future__ import annotations

import numpy as np
import pytest

from edge_agent.errors import ModelError
from edge_agent.offline.faces import Seen, likeness, stored
from edge_agent.offline.threshold import Yardstick
from edge_agent.outbox.provisional_records import Template
from tests.faces import appearance_of

BY = Yardstick("model/1", 0.6, "a test", measured=False)


def templates(*people: int) -> list[Template]:
    return [Template(f"t{person}", stored(appearance_of(person))) for person in people]


def test_the_most_similar_template_counts() -> None:
    found = likeness(Seen(appearance_of(2), 0.8, "model/1"), templates(1, 2, 3), BY)
    assert (found.template_id, found.same_person, found.threshold) == ("t2", True, 0.6)
    assert found.cosine == pytest.approx(1.0, abs=1e-6)


def test_a_stranger_is_like_nobody() -> None:
    found = likeness(Seen(appearance_of(9), 0.8, "model/1"), templates(1, 2, 3), BY)
    assert not found.same_person
    assert abs(found.cosine) < 0.3


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (Seen(appearance_of(1), 0.8, "model/2"), "the models were changed"),
        (Seen(appearance_of(1)[:128], 0.8, "model/1"), "another size"),
    ],
)
def test_what_cannot_be_compared_is_an_error(seen: Seen, why: str) -> None:
    with pytest.raises(ModelError, match=why):
        likeness(seen, templates(1), BY)


def test_a_broken_embedding_is_like_nobody() -> None:
    nothing = np.full(256, np.nan, np.float32)
    found = likeness(Seen(nothing, 0.8, "model/1"), templates(1), BY)
    assert not found.same_person
