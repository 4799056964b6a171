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

Name = Literal["fraction", "watchdog", "none"]


@dataclass(frozen=True, slots=True)
class Backend:
    """One of the means."""

    name: Name
    #: It holds torch's allocator below a cap, so that an allocation fails instead of taking what others have.
    caps: bool
    #: An executor over its grant ends where its device has no more.
    kills: bool
    #: For people.
    promise: str


BACKENDS: Mapping[Name, Backend] = {
    each.name: each
    for each in (
        Backend(
            "fraction",
            caps=True,
            kills=True,
            promise="torch refuses to go over the grant; what other libraries take is seen and ended",
        ),
        Backend(
            "watchdog",
            caps=False,
            kills=True,
            promise="who is over its grant is ended after two looks; until then its neighbours may run out",
        ),
        Backend(
            "none",
            caps=False,
            kills=False,
            promise="over-use is shown and counted, and nobody is ended for it",
        ),
    )
}


def cap_bytes(backend: Backend, grant_bytes: int, context_bytes: int | None) -> int | None:
    """What torch may reserve on each device of an executor; None: anything. The context is outside of what
    torch counts; until it was measured it is left out of account."""
    if not backend.caps or grant_bytes <= 0:
        return None
    return max(0, grant_bytes - (context_bytes or 0) - MARGIN_BYTES)
