"""Pure: measured figures, their medians and spread, and how they stand to a target."""

from __future__ import annotations

import statistics
from typing import Literal

import msgspec


class Figure(msgspec.Struct):
    """One measured quantity over all rounds of a run."""

    name: str
    #: Who was measured: "runner", or one of the references.
    subject: str
    unit: str
    #: One value a round, in the order of the rounds.
    values: list[float] = msgspec.field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def low(self) -> float:
        return min(self.values)

    @property
    def high(self) -> float:
        return max(self.values)


class Target(msgspec.Struct, frozen=True):
    """A bound on runner's median: on its ratio to a reference's, or on the figure itself."""

    figure: str
    #: None: the bound is on the figure itself, in its own unit.
    reference: str | None
    relation: Literal[">=", "<="]
    bound: float

    def text(self) -> str:
        """The target as the table prints it."""
        return f"{self.relation} {self.bound:,.10g}" + (f" x {self.reference}" if self.reference else "")


class TargetResult(msgspec.Struct, frozen=True):
    target: Target
    #: The ratio of medians, or the median where there is no reference.
    reached: float
    ok: bool


class Figures:
    """All figures of a run, by (name, subject), in the order of their first value."""

    def __init__(self) -> None:
        self.by_key: dict[tuple[str, str], Figure] = {}

    def add(self, name: str, subject: str, unit: str, value: float) -> None:
        """Append one round's value."""
        self.by_key.setdefault((name, subject), Figure(name, subject, unit)).values.append(value)

    def judge(self, target: Target) -> TargetResult | None:
        """The verdict on a target; None where one side was not measured."""
        ours = self.by_key.get((target.figure, "runner"))
        if ours is None:
            return None
        reached = ours.median
        if target.reference is not None:
            theirs = self.by_key.get((target.figure, target.reference))
            if theirs is None:
                return None
            reached /= theirs.median
        ok = reached >= target.bound if target.relation == ">=" else reached <= target.bound
        return TargetResult(target, reached, ok)


def percentile(values: list[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the values lie, by nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
