from __future__ import annotations

from datetime import UTC, datetime

import pytest

from runner import Retry


def test_retry_after_counts_from_now() -> None:
    assert Retry("429", after="60s").earliest(now=100.0) == 160.0
    assert Retry("429", after=0.5).earliest(now=100.0) == 100.5


def test_retry_at_is_a_moment() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert Retry(at=at).earliest(now=0.0) == at.timestamp()


def test_retry_alone_leaves_it_to_the_backoff() -> None:
    assert Retry("later").earliest(now=0.0) is None


def test_retry_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="not both"):
        Retry(after=1, at=datetime.now(UTC))
    with pytest.raises(ValueError, match="time zone"):
        Retry(at=datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="duration"):
        Retry(after="soon")
