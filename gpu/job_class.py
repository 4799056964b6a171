"""Pure: classes of equal jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from operator import attrgetter

#: (handler, version, model): what an executor has loaded.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class JobClass:
    """Jobs that the plan treats alike. Compared by value; the hash is computed once."""

    queue: str
    handler: str
    version: str
    #: The value of the `model_by` field; "" for handlers without one.
    model: str
    #: Higher goes first. Below 0: a prewarm request, which goes after all jobs.
    priority: int
    #: Device memory of one executor. 0: no grant is needed; None: unknown, to be learned.
    need_bytes: int | None
    #: 0 runs on the cpu; more than 1 takes that many devices at once or none.
    gpus: int
    #: The value of the `size_by` fields, as one text: jobs of one size should have the same needs.
    size: str = ""
    #: The value of the `by` fields of `batch`: only jobs of one group share a batch.
    group: str = ""
    tenant: str = ""
    #: The longest that its jobs may run, in seconds.
    limit_s: float = math.inf
    #: `need_bytes` is never exceeded, whatever was learned.
    strict: bool = False
    #: No other executor may be at work on its devices while it runs.
    alone_on_device: bool = False
    #: Nothing runs together with it, in a batch or in another slot: it may have made its companions fail.
    alone_in_executor: bool = False
    #: Devices where it failed, possibly through their fault; others are preferred where there are any.
    avoided_devices: tuple[str, ...] = ()
    #: It runs only on these devices. Empty: wherever it fits.
    allowed_devices: tuple[str, ...] = ()
    #: Idle executors may be evicted for it.
    may_evict: bool = True
    key: Key = field(init=False, compare=False, repr=False)
    _hash: int = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", (self.handler, self.version, self.model))
        object.__setattr__(self, "_hash", hash(_values(self)))

    def __hash__(self) -> int:
        return self._hash

    @property
    def is_prewarm(self) -> bool:
        """Whether this is not a job's class but a request for an executor to be loaded in advance."""
        return self.priority < 0


#: All values that distinguish two classes.
_values = attrgetter(*(each.name for each in fields(JobClass) if each.compare))
