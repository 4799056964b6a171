"""Pure: the phases of a live job in memory, and the transitions between them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, Literal

#: behind: queued behind the window of its class, or without a known handler; delayed: until `ready_at`;
#: spilled: behind or delayed, and not in memory; waiting: in the planner's state; assigned: to an executor,
#: not sent to its worker yet (input or commit under way); staged: sent to a busy executor, not started;
#: starting: the attempt is on its way or loading; running: user code runs; ended: terminal, until its commit.
JobPhase = Literal[
    "behind", "delayed", "spilled", "waiting", "assigned", "staged", "starting", "running", "ended"
]
#: The phases in which a live job is created. A submitted job is `waiting`, without a class until it is
#: queued; a job loaded from the store is `behind` or `delayed`; recovery creates the others.
FirstPhase = Literal["waiting", "behind", "delayed", "assigned", "running"]

#: An attempt that an executor holds: it ends, or returns to the queue whether it has started or not.
_HELD: Final[frozenset[JobPhase]] = frozenset(("assigned", "staged", "starting", "running"))

#: Phase -> the phases from which a job may enter it.
PREDECESSORS: Final[Mapping[JobPhase, frozenset[JobPhase]]] = MappingProxyType(
    {
        # waiting -> waiting, behind: the job's handler has changed. waiting -> delayed: the job has just been
        # submitted or resubmitted. delayed -> delayed: its timer fired a fraction of a millisecond early.
        "waiting": frozenset[JobPhase](("waiting", "behind", "delayed")) | _HELD,
        "behind": frozenset[JobPhase](("waiting", "delayed")) | _HELD,
        "delayed": frozenset[JobPhase](("waiting", "delayed")) | _HELD,
        "spilled": frozenset(("behind", "delayed")),
        "assigned": frozenset(("waiting",)),
        "staged": frozenset(("assigned",)),
        "starting": frozenset(("assigned",)),
        "running": frozenset(("assigned", "staged", "starting")),
        # spilled -> ended: the store refused a part of a bulk, and what it stored already is withdrawn.
        "ended": frozenset[JobPhase](("waiting", "behind", "delayed", "spilled")) | _HELD,
    }
)

#: The phases in which recovery adopts an attempt that the last coordinator started: the job becomes
#: `assigned` unless the store holds the attempt as running. A job that is still queued is dequeued first.
ADOPTABLE: Final[frozenset[JobPhase]] = frozenset(("waiting", "behind", "delayed", "assigned", "running"))


class IllegalTransition(RuntimeError):
    """A job was about to enter a phase that does not follow its current one: a bug of the coordinator."""

    def __init__(self, job_id: str, phase: JobPhase, next_phase: JobPhase) -> None:
        super().__init__(f"job {job_id} is {phase} and can't become {next_phase}")
        self.job_id = job_id
        self.phase = phase
        self.next_phase = next_phase
