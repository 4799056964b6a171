"""Pure: the backends that hold an executor to its grant, and what each of them guarantees.

Two more are possible and not implemented. NVIDIA's MPS daemon can limit each client's memory, but a fatal
fault of one client ends all clients of that GPU. Control groups can limit device memory (kernel 6.14, or a
driver with its own), which requires the right to create groups. Either would be one more backend here, with a
step in the launcher that sets the limit before the executor starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

MIB = 1024 * 1024
#: Subtracted from a cap for the growth of a context after it was measured. Less than the margin over a
#: learned peak, or a job would be refused what it was seen to need.
MARGIN_BYTES = 32 * MIB

BackendName = Literal["fraction", "watchdog", "none"]


@dataclass(frozen=True, slots=True)
class EnforcementBackend:
    """One way to enforce grants."""

    name: BackendName
    #: It keeps torch's allocator below a cap, so that an allocation fails instead of taking what others were
    #: granted.
    caps_allocator: bool
    #: An executor over its grant is killed where its device has no more free bytes.
    kills_over_grant: bool
    #: Text shown to users.
    promise: str


BACKENDS: Mapping[BackendName, EnforcementBackend] = {
    each.name: each
    for each in (
        EnforcementBackend(
            "fraction",
            caps_allocator=True,
            kills_over_grant=True,
            promise="torch allocates no more than the grant; an executor that exceeds it otherwise is killed",
        ),
        EnforcementBackend(
            "watchdog",
            caps_allocator=False,
            kills_over_grant=True,
            promise="an executor over its grant is killed after two sweeps; neighbours may run out before",
        ),
        EnforcementBackend(
            "none",
            caps_allocator=False,
            kills_over_grant=False,
            promise="over-use is reported and counted; no executor is killed for it",
        ),
    )
}


def cap_bytes(backend: EnforcementBackend, grant_bytes: int, context_bytes: int | None) -> int | None:
    """Return the bytes that torch may reserve on each device of an executor; None: no cap.

    That is the grant without the CUDA context, which torch does not count, and without a margin of 32 MiB.
    `context_bytes` is None until a context was measured, and then ignored.
    """
    if not backend.caps_allocator or grant_bytes <= 0:
        return None
    return max(0, grant_bytes - (context_bytes or 0) - MARGIN_BYTES)
