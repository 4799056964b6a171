"""Pure: how many names clients may create."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from runner.coordinator.jobs.queued_names import NameLimits, QueuedNames
from runner.errors import TooManyNames
from runner.jobs.job import Job, JobTerms


def job(queue: str = "q", tenant: str = "", model: str = "", handler: str = "h") -> Job:
    return Job(1, "job-1", handler, queue, 50, 0.0, JobTerms(tenant=tenant, model=model), 2)


def refused(names: QueuedNames, job: Job) -> str | None:
    """Name the limit that refuses a job; None if it is admitted."""
    try:
        names.require_room(job)
    except TooManyNames as error:
        assert error.status == 429 and error.code == "too_many_names"
        assert error.detail["max"] == 2 and error.detail["retry_after_s"] > 0
        assert f"limits.{error.detail['limit']}" in error.message
        return str(error.detail["limit"])
    return None


def test_a_name_beyond_a_limit_is_refused_and_a_known_one_admitted() -> None:
    names = QueuedNames(["stored"], NameLimits(queues=2, tenants=2, models=2))
    for each in (job("q", "a", "m"), job("q", "b", "n")):
        assert refused(names, each) is None
        names.add_queued(each)
    assert refused(names, job("q", "a", "m")) is None
    assert refused(names, job("stored")) is None
    assert refused(names, job("another")) == "queues"
    assert refused(names, job("q", "c")) == "tenants"
    assert refused(names, job("q", "a", "o")) == "models"
    assert refused(names, job("q", "a", "o", handler="other")) is None


def test_a_tenant_or_model_counts_while_one_of_its_jobs_is_queued() -> None:
    names = QueuedNames([], NameLimits(tenants=2, models=2))
    first, second = job(tenant="a", model="m"), job(tenant="b", model="n")
    for each in (first, first, second):
        names.add_queued(each)
    names.remove_queued(first)
    assert (refused(names, job(tenant="c")), refused(names, job(model="o"))) == ("tenants", "models")
    names.remove_queued(first)
    assert (refused(names, job(tenant="c")), refused(names, job(model="o"))) == (None, None)
    names.count("h", "stored", "kept", 5)
    assert (refused(names, job(tenant="c")), refused(names, job(model="o"))) == ("tenants", "models")


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.sampled_from(["", "a", "b", "c"]))))
def test_nothing_is_left_of_names_that_are_gone(pairs: list[tuple[str, str]]) -> None:
    names = QueuedNames([], NameLimits())
    jobs = [job(queue, tenant, tenant, handler=queue) for queue, tenant in pairs]
    for each in jobs:
        names.add_queued(each)
    for each in jobs:
        names.remove_queued(each)
    fresh = QueuedNames({queue for queue, _ in pairs}, NameLimits())
    assert vars(names) == vars(fresh)
