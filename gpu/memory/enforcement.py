"""Pure: by what means an executor is held to its grant, and what each of them can promise.

Two more are known and not there. NVIDIA's MPS daemon can limit each client's memory, but a fatal fault of one
client ends all clients of that GPU. Control groups can limit device memory (kernel 6.14, or a driver that has
its own), which takes the right to make groups. Either would be one more backend here, and a place in the
launcher that sets the limit before the executor starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024
#: Kept from a cap for what a context grows by after it was measured. Less than the margin over a learned
#: peak, or a job would be refused what it was seen to need.
MARGIN_BYTES = 32 * MIB

BackendName = Literal["fraction", "watchdog", "none"]


@dataclass(frozen=True, slots=True)
class EnforcementBackend:
    """One of the means."""

    name: BackendName
    #: It holds torch's allocator below a cap, so that an allocation fails instead of taking what others have.
    caps_allocator: bool
    #: An executor over its grant ends where its device has no more.
    kills_over_grant: bool
    #: For people.
    promise: str


BACKENDS: Mapping[BackendName, EnforcementBackend] = {
    each.name: each
    for each in (
        EnforcementBackend(
            "fraction",
            caps_allocator=True,
            kills_over_grant=True,
            promise="torch refuses to go over the grant; what other libraries take is seen and ended",
        ),
        EnforcementBackend(
            "watchdog",
            caps_allocator=False,
            kills_over_grant=True,
            promise="who is over its grant is ended after two looks; until then its neighbours may run out",
        ),
        EnforcementBackend(
            "none",
            caps_allocator=False,
            kills_over_grant=False,
            promise="over-use is shown and counted, and nobody is ended for it",
        ),
    )
}


def cap_bytes(backend: EnforcementBackend, grant_bytes: int, context_bytes: int | None) -> int | None:
    """What torch may reserve on each device of an executor; None: anything. The context is outside of what
    torch counts; until it was measured it is left out of account."""
    if not backend.caps_allocator or grant_bytes <= 0:
        return None
    return max(0, grant_bytes - (context_bytes or 0) - MARGIN_BYTES)
