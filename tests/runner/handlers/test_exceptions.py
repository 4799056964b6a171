from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from runner import JobCancelled, Retry
from runner.bounds import SECONDS_MAX
from runner.client.operations import CancelledJob


def test_retry_after_counts_from_now() -> None:
    assert Retry("429", after="60s").earliest(now=100.0) == 160.0
    assert Retry("429", after=0.5).earliest(now=100.0) == 100.5


def test_retry_at_is_a_moment() -> None:
    at = datetime(2030, 1, 1, tzinfo=UTC)
    assert Retry(at=at).earliest(now=at.timestamp() - 60) == at.timestamp()


def test_a_retry_is_at_most_ten_years_ahead() -> None:
    latest = 2_000_000_000.0
    at = datetime.fromtimestamp(latest, UTC)
    assert Retry(at=at).earliest(now=latest - SECONDS_MAX) == latest
    with pytest.raises(ValueError, match="at most ten years"):
        Retry(at=at).earliest(now=latest - SECONDS_MAX - 1)
    with pytest.raises(ValueError, match="at most ten years"):
        Retry(at=datetime.max.replace(tzinfo=timezone(-timedelta(hours=23)))).earliest(now=latest)
    with pytest.raises(ValueError, match="at most ten years"):
        Retry(after=1e16)


def test_retry_alone_leaves_it_to_the_backoff() -> None:
    assert Retry("later").earliest(now=0.0) is None


def test_retry_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="not both"):
        Retry(after=1, at=datetime.now(UTC))
    with pytest.raises(ValueError, match="time zone"):
        Retry(at=datetime(2030, 1, 1))
    with pytest.raises(ValueError, match="duration"):
        Retry(after="soon")


def test_a_cancel_has_its_reason_as_the_error_on_both_sides() -> None:
    assert JobCancelled("enough").error == {"code": "cancelled", "message": "enough"}
    assert JobCancelled().error == {"code": "cancelled", "message": ""}
    error = {"code": "cancelled", "message": "by hand"}
    with pytest.raises(JobCancelled) as caught:
        raise CancelledJob("job-1", error)
    # The type checker knows the attribute.
    assert caught.value.error["message"] == "by hand"
