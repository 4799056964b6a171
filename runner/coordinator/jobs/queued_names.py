"""Pure: the names that clients give to queues, tenants and models, counted so that they stay bounded.

Each name costs memory, and each plan walks over the classes that wait: without a bound, a client who makes up
names slows the server down for all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from runner.errors import TooManyNames
from runner.jobs.job import Job

#: Seconds after which a submit that was refused may be tried again.
RETRY_S = 5.0


class NameLimits(NamedTuple):
    """Bounds on the names in use, see the settings `[limits]`."""

    queues: int = 10_000
    #: Tenants that have a queued job.
    tenants: int = 100_000
    #: Models of one handler that have a queued job.
    models: int = 10_000


#: The defaults of the settings.
DEFAULT_LIMITS = NameLimits()


class QueuedNames:
    """All queues that have or had a job, and the tenants and models of the queued jobs.

    Jobs without a tenant and a model, which are most, are not counted.
    """

    def __init__(self, queues: Iterable[str], limits: NameLimits) -> None:
        self.limits = limits
        self.queues = set(queues)
        #: Queued jobs by tenant.
        self._tenants: Counter[str] = Counter()
        #: Handler -> queued jobs by model.
        self._models: dict[str, Counter[str]] = {}

    def require_room(self, job: Job) -> None:
        """Check that a new job brings no name beyond the limits.

        Raises:
            TooManyNames: it does; `detail` has the limit and its value.
        """
        terms = job.terms
        if job.queue not in self.queues:
            self.require_queue_room(job.queue, len(self.queues))
        if terms.tenant and terms.tenant not in self._tenants and len(self._tenants) >= self.limits.tenants:
            raise _too_many("tenants", self.limits.tenants, "tenants have queued jobs")
        if terms.model:
            models = self._models.get(job.handler)
            if models and terms.model not in models and len(models) >= self.limits.models:
                raise _too_many("models", self.limits.models, f"models of {job.handler!r} have queued jobs")

    def require_queue_room(self, name: str, count: int) -> None:
        """Check that the queue `name` may be added to `count` queues.

        Raises:
            TooManyNames: it may not.
        """
        if count >= self.limits.queues:
            raise _too_many("queues", self.limits.queues, f"queues exist, so {name!r} can't be added")

    def add_queued(self, job: Job) -> None:
        """Count a job that is queued from now on."""
        if job.queue not in self.queues:
            self.queues.add(job.queue)
        if job.terms.tenant or job.terms.model:
            self.count(job.handler, job.terms.tenant, job.terms.model, 1)

    def remove_queued(self, job: Job) -> None:
        """Uncount a job that is no longer queued."""
        if job.terms.tenant or job.terms.model:
            self.count(job.handler, job.terms.tenant, job.terms.model, -1)

    def count(self, handler: str, tenant: str, model: str, change: int) -> None:
        """Change the number of queued jobs of a tenant and a model; both may be empty."""
        if tenant:
            _change(self._tenants, tenant, change)
        if model:
            models = self._models.setdefault(handler, Counter())
            _change(models, model, change)
            if not models:
                del self._models[handler]


def _change(counts: Counter[str], name: str, change: int) -> None:
    counts[name] += change
    if counts[name] <= 0:
        del counts[name]


def _too_many(limit: str, most: int, what: str) -> TooManyNames:
    return TooManyNames(
        f"{most} {what}, the limit (limits.{limit}); use fewer names, or try again later",
        limit=limit,
        max=most,
        retry_after_s=RETRY_S,
    )
