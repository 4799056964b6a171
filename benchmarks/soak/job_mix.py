"""Effect: draws the jobs that are handed in, of many kinds, and says how each may end."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Document = dict[str, Any]
QUEUES = ("red", "green", "blue")
#: Jobs of this queue measure recovery; it is never paused.
PROBE_QUEUE = "probe"
MIB = 1 << 20
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class JobDraft:
    """One job to be handed in: its body and the ends that it may come to by itself."""

    kind: str
    handler: str
    input: Document
    #: "succeeded" or codes of errors.
    ends: frozenset[str]
    options: Document = field(default_factory=dict)


Maker = Callable[[random.Random], JobDraft]


def draw_job(rng: random.Random) -> JobDraft:
    """One of all kinds, in some queue and of some priority."""
    makers = [maker for maker, _ in KINDS]
    weights = [weight for _, weight in KINDS]
    made = rng.choices(makers, weights)[0](rng)
    options = {"queue": rng.choice(QUEUES), "priority": rng.choice((10, 50, 50, 90)), **made.options}
    if rng.random() < 0.03:
        options["delay_s"] = round(rng.uniform(0.2, 3.0), 2)
    return JobDraft(made.kind, made.handler, made.input, made.ends, options)


def draw_one_of_each(rng: random.Random) -> list[JobDraft]:
    """All kinds once, for the warm-up."""
    return [maker(rng) for maker, _ in KINDS]


def probe_job() -> JobDraft:
    """The job by which recovery is measured: it needs a worker, an executor, and the store."""
    return _draft("probe", "probe", {}, priority=100, queue=PROBE_QUEUE)


def _draft(kind: str, handler: str, data: Document, ends: str = "succeeded", **options: object) -> JobDraft:
    return JobDraft(kind, handler, data, frozenset(ends.split()), dict(options))


def _act(do: str, data: Document | None = None, ends: str = "succeeded", **options: object) -> JobDraft:
    return _draft(do, "act", {"do": do, **(data or {})}, ends, **options)


def _quick(rng: random.Random) -> JobDraft:
    return _act("quick")


def _talk(rng: random.Random) -> JobDraft:
    return _act("talk", {"s": round(rng.uniform(0.3, 4.0), 2)})


def _flaky(rng: random.Random) -> JobDraft:
    fails, retries = rng.randint(1, 3), rng.randint(0, 3)
    # A start that was cut off is an attempt too, so even too few retries may be enough.
    ends = "succeeded" if fails <= retries else "succeeded handler_error"
    data: Document = {"fails": fails, "later": rng.random() < 0.3}
    return _act("flaky", data, ends, retries=retries, backoff=0.2)


def _refuse(rng: random.Random) -> JobDraft:
    return _act("refuse", ends="permanent_error", retries=2)


def _poison(rng: random.Random) -> JobDraft:
    retries = rng.choice((0, 3))
    ends = "poisoned" if retries else "worker_crashed"
    return _act(
        "die", {"how": rng.choice(("SIGKILL", "SIGSEGV", "exit"))}, ends, retries=retries, backoff=0.1
    )


def _large(rng: random.Random) -> JobDraft:
    return _act("large", {"bytes": rng.choice((1_000, 70_000, 400_000, 2_000_000))})


def _too_large(rng: random.Random) -> JobDraft:
    return _act("large", {"bytes": 17 * MIB}, "result_too_large")


def _save(rng: random.Random) -> JobDraft:
    return _act("save", {"blocks": rng.choice((1, 1_000, 20_000))})


def _escape(rng: random.Random) -> JobDraft:
    return _act("escape", {"s": round(rng.uniform(0.0, 0.5), 2)})


def _stubborn(rng: random.Random) -> JobDraft:
    return _act("stubborn", {"s": 20.0}, "timeout", timeout_s=round(rng.uniform(0.3, 1.5), 2))


def _nan(rng: random.Random) -> JobDraft:
    return _act("nan", ends="result_not_serialisable")


def _chunks(rng: random.Random) -> JobDraft:
    data = {"n": rng.randint(5, 150), "pause_s": 0.05, "padding": rng.choice((0, 200))}
    return _draft("chunks", "chunks", data)


def _flood(rng: random.Random) -> JobDraft:
    """More than any buffer holds, for the readers that do not read."""
    return _draft("flood", "chunks", {"n": 300, "pause_s": 0.05, "padding": 4_000})


def _rest(rng: random.Random) -> JobDraft:
    return _draft("rest", "rest", {"s": round(rng.uniform(0.05, 2.0), 2)})


def _model(rng: random.Random) -> JobDraft:
    return _draft("model", "model", {"s": round(rng.uniform(0.05, 0.6), 2)})


def _hog(rng: random.Random) -> JobDraft:
    return _draft("hog", "hog", {"bytes": GIB // 2, "s": 0.3})


def _overrun(rng: random.Random) -> JobDraft:
    return _draft("overrun", "hog", {"bytes": 16 * GIB, "s": 20.0}, "device_out_of_memory")


def _eater(rng: random.Random) -> JobDraft:
    return _draft("eater", "eater", {"mib": 24, "s": 0.1})


def _glutton(rng: random.Random) -> JobDraft:
    return _draft("glutton", "eater", {"mib": 160, "s": 20.0}, "memory_exceeded")


def _silent(rng: random.Random) -> JobDraft:
    return _draft("silent", "silent", {}, "stalled")


def _unloadable(rng: random.Random) -> JobDraft:
    return _draft("unloadable", "unloadable", {}, "load_error")


def _slow_to_load(rng: random.Random) -> JobDraft:
    return _draft("slow_to_load", "slow_to_load", {}, "load_timeout")


def _typed(rng: random.Random) -> JobDraft:
    number = rng.randint(0, 9)
    return _draft("typed", "typed", {"number": number}, "invalid_input" if number % 2 else "succeeded")


def _hurried(rng: random.Random) -> JobDraft:
    """May be too late before it starts."""
    return _draft("hurried", "act", {"do": "quick"}, "succeeded queue_timeout", queue_timeout_s=0.5)


KINDS: tuple[tuple[Maker, float], ...] = (
    (_quick, 40),
    (_talk, 8),
    (_flaky, 6),
    (_refuse, 2),
    (_poison, 1.5),
    (_large, 4),
    (_too_large, 0.3),
    (_save, 4),
    (_escape, 1.5),
    (_stubborn, 0.7),
    (_nan, 1),
    (_chunks, 8),
    (_flood, 0.7),
    (_rest, 6),
    (_model, 3),
    (_hog, 2),
    (_overrun, 0.5),
    (_eater, 1.5),
    (_glutton, 0.5),
    (_silent, 0.4),
    (_unloadable, 0.4),
    (_slow_to_load, 0.3),
    (_typed, 3),
    (_hurried, 3),
)
