"""Pure: classes of equal jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from operator import attrgetter

#: (handler, version, model): what an executor has loaded.
Key = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class JobClass:
    """Jobs between which the plan makes no difference. Compared by value; the hash is made once."""

    queue: str
    handler: str
    version: str
    #: What `model_by` named; "" for handlers without.
    model: str
    #: Higher goes first. Below 0: a wish, which goes after all jobs.
    priority: int
    #: Device memory of one executor. 0: no grant is needed; None: unknown, to be learned.
    need_bytes: int | None
    #: 0 runs in the cpu lane; more than 1 is all or nothing over that many devices.
    gpus: int
    #: What `size_by` named, as one text: jobs of one size are expected to need alike.
    size: str = ""
    #: What `batch`'s `by` named: only jobs of one group go in one batch.
    group: str = ""
    tenant: str = ""
    #: No job of it runs longer, in seconds.
    limit_s: float = math.inf
    #: `need_bytes` is not to be passed, whatever was learned.
    strict: bool = False
    #: Nobody else may be at work on its devices while it runs.
    alone_on_device: bool = False
    #: Nothing runs together with it, in a batch or in another slot: it may have spoiled what did.
    alone_in_executor: bool = False
    #: Devices on which it failed in a way that may be theirs; others are taken where there are any.
    avoided_devices: tuple[str, ...] = ()
    #: It runs on these devices and on no others. Empty: wherever it fits.
    allowed_devices: tuple[str, ...] = ()
    #: Idle executors may be told to go for it.
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
        """Whether no job stands in its line, but the wish for an executor that is ready."""
        return self.priority < 0


#: All that tells two classes apart.
_values = attrgetter(*(each.name for each in fields(JobClass) if each.compare))
