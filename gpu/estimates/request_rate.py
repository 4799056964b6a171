"""Pure: how often each key, that is each model that executors load, is requested."""

from __future__ import annotations

import math

from gpu.job_class import Key

#: A start this long ago counts about a third of one now.
FADE_S = 3600.0
#: Where more keys than this are known, the least requested ones are forgotten.
KEYS_MAX = 4096


class RequestRates:
    """A rate for each key in starts per second; it decays exponentially, with `FADE_S` as time constant."""

    def __init__(self) -> None:
        self._rates: dict[Key, tuple[float, float]] = {}

    def record_starts(self, key: Key, count: int, now: float) -> None:
        """Record that `count` jobs of a key started; `now` is in seconds of any clock."""
        rate = self.rate(key, now) + count / FADE_S
        if key not in self._rates and len(self._rates) >= KEYS_MAX:
            self._forget_rarest(now)
        self._rates[key] = rate, now

    def rate(self, key: Key, now: float) -> float:
        """Return the present rate of a key in starts per second; 0 for an unknown key."""
        rate, at = self._rates.get(key, (0.0, now))
        return rate * math.exp((at - now) / FADE_S) if now > at else rate

    def _forget_rarest(self, now: float) -> None:
        """Keep the more frequently requested half."""
        kept = sorted(self._rates, key=lambda key: self.rate(key, now), reverse=True)[: KEYS_MAX // 2]
        self._rates = {key: self._rates[key] for key in kept}
