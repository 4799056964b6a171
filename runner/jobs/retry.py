"""Pure: computes the delay before a retry."""

from __future__ import annotations

from typing import Literal

import msgspec


class Backoff(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """A retry curve; failures are counted from 1.

    `fixed` waits `base_s` each time, `linear` `base_s * failure`, `exponential`
    `base_s * 2 ** (failure - 1)`, `list` the seconds in `steps_s` (the last one repeats).
    The delay is capped at `max_s`, then spread by `jitter` (0.2 = up to 20 % less or more).
    """

    kind: Literal["fixed", "linear", "exponential", "list"] = "exponential"
    base_s: float = 1.0
    max_s: float = 600.0
    jitter: float = 0.2
    #: Seconds before each retry; only for `list`.
    steps_s: tuple[float, ...] = ()


def delay_s(backoff: Backoff, failure: int, spread: float) -> float:
    """Return the seconds to wait after the `failure`-th failure (>= 1).

    `spread` is a random number in [0, 1) from the caller; 0.5 gives the curve without jitter.
    """
    if backoff.kind == "list":
        bare = backoff.steps_s[min(failure, len(backoff.steps_s)) - 1] if backoff.steps_s else 0.0
    elif backoff.kind == "fixed":
        bare = backoff.base_s
    elif backoff.kind == "linear":
        bare = backoff.base_s * failure
    else:
        # Clamp the exponent: 2**63 s is longer than any wait, and larger powers may overflow a float.
        bare = backoff.base_s * 2.0 ** min(failure - 1, 63)
    bare = min(bare, backoff.max_s)
    return max(0.0, bare * (1.0 + backoff.jitter * (2.0 * spread - 1.0)))
