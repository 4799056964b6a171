"""Pure: an operator's options, laid over a handler's own."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec
import pytest

from runner.errors import RefusedStart
from runner.handlers.decorator import handler
from runner.handlers.overrides import CODE_ONLY, Overrides
from runner.handlers.spec import BatchOptions, HandlerOptions, HandlerSpec, Source
from runner.jobs.retry import Backoff

SPEC = HandlerSpec(
    "paint",
    "v1",
    "ok",
    Source("file", "/paint.py", "Paint"),
    HandlerOptions(gpus=1, vram_bytes=6 << 30, timeout_s=300.0, retries=2, queue="art"),
    kind="coroutine",
)
BATCHED = msgspec.structs.replace(SPEC, options=HandlerOptions(batch=BatchOptions(8, 0.5, ("model",))))
#: A value for each option, and what becomes of it.
READ: dict[str, tuple[Any, str, Any]] = {
    "queue": ("night", "queue", "night"),
    "gpus": (0, "gpus", 0),
    "vram": ("3GiB", "vram_bytes", 3 << 30),
    "ram": ("none", "ram_bytes", None),
    "timeout": ("none", "timeout_s", None),
    "load_timeout": ("1h", "load_timeout_s", 3600.0),
    "queue_timeout": (30, "queue_timeout_s", 30.0),
    "stall_timeout": ("5m", "stall_timeout_s", 300.0),
    "grace": ("2s", "grace_s", 2.0),
    "retries": (5, "retries", 5),
    "backoff": ([1, "1m"], "backoff", Backoff(kind="list", steps_s=(1.0, 60.0), max_s=600.0, jitter=0.0)),
    "priority": (90, "priority", 90),
    "keep_alive": (-1, "keep_alive_s", -1.0),
    "concurrency": (1, "concurrency", 1),
    "max_jobs": ("none", "max_jobs", None),
    "model_by": ("checkpoint.name", "model_by", "checkpoint.name"),
    "strict": (True, "strict", True),
    "size_by": (["width", "height"], "size_by", ("width", "height")),
    "preload": (True, "preload", ("",)),
    "slots": (4, "slots", 4),
}


def over(**table: Any) -> HandlerOptions:
    return Overrides({"paint": table}).apply_to(SPEC).options


@pytest.mark.parametrize("option", READ)
def test_an_option_is_read_as_the_decorator_reads_it_and_changes_nothing_else(option: str) -> None:
    value, field, expected = READ[option]
    changed = over(**{option: value})
    assert getattr(changed, field) == expected
    others = set(HandlerOptions.__struct_fields__) - {field}
    assert [name for name in others if getattr(changed, name) != getattr(SPEC.options, name)] == []


def test_every_option_of_the_decorator_can_be_overridden_but_what_names_the_code() -> None:
    parameters = inspect.signature(handler).parameters.values()
    options = {one.name for one in parameters if one.kind is one.KEYWORD_ONLY} - set(CODE_ONLY)
    assert [option for option in options if option not in READ] == ["batch"]


def test_the_fields_of_a_batch_are_laid_over_each_for_itself() -> None:
    changed = Overrides({"paint": {"batch": {"max": 2, "wait": "1s"}}}).apply_to(BATCHED)
    assert changed.options == HandlerOptions(batch=BatchOptions(2, 1.0, ("model",)))


@pytest.mark.parametrize(
    ("spec", "table", "said"),
    [
        (SPEC, {"batch": {"max": 2}}, "batch: the handler's code does not take batches"),
        (BATCHED, {"batch": "none"}, "batch: the handler's code takes batches"),
        (BATCHED, {"slots": 2}, "options batch and slots"),
        (msgspec.structs.replace(SPEC, kind="function"), {"slots": 2}, "slots: only coroutine functions"),
    ],
)
def test_what_the_code_can_not_do_breaks_that_handler_alone(
    spec: HandlerSpec, table: dict[str, Any], said: str
) -> None:
    changed = Overrides({"paint": table}, "runner.toml").apply_to(spec)
    assert changed.state == "broken"
    assert changed.error.startswith(f"runner.toml: [handlers.paint] {said}")


def test_the_description_itself_and_other_handlers_stay_as_they_are() -> None:
    before = SPEC.options
    overrides = Overrides({"paint": {"retries": 9}, "absent": {}})
    assert overrides.apply_to(SPEC).options.retries == 9
    assert SPEC.options is before and before.retries == 2
    other = HandlerSpec("other", "v1", "ok", SPEC.source)
    assert overrides.apply_to(other) is other
    assert overrides.unused_tables(["paint", "other"]) == ["absent"]


def test_what_the_decorator_would_work_out_is_left_alone() -> None:
    on_cpu = HandlerSpec("paint", "v1", "ok", SPEC.source, HandlerOptions(gpus=0))
    assert Overrides({"paint": {"vram": "1GiB"}}).apply_to(on_cpu).options.gpus == 0


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"vram": "much"}, r"runner\.toml: \[handlers\.paint\] vram: 'much' is not a size"),
        ({"timeout": 0}, r"\[handlers\.paint\] timeout: must be more than 0"),
        ({"retries": "2"}, r"\[handlers\.paint\] retries: must be an integer"),
        ({"grace": "none"}, r"\[handlers\.paint\] grace: 'none' is not a duration"),
        ({"keep_alive": "11000d"}, r"\[handlers\.paint\] keep_alive: a duration is at most ten years"),
        ({"backoff": 1e18}, r"\[handlers\.paint\] backoff: a duration is at most ten years"),
        ({"batch": {"wait": 1e18}}, r"\[handlers\.paint\] batch: a duration is at most ten years"),
        ({"backoff": {"kind": "odd"}}, r"\[handlers\.paint\] backoff: kind of a backoff must be one of"),
        ({"vramm": 1}, r"\[handlers\.paint\] there is no option 'vramm'"),
        ({"version": "2"}, r"\[handlers\.paint\] version: can't be overridden"),
        ({"batch": {"maxx": 1}}, r"\[handlers\.paint\] batch: must be Batch"),
        ({"name": "x"}, r"\[handlers\.paint\] name: can't be overridden"),
        (3, r"\[handlers\.paint\] must be a table of options, not 3"),
    ],
)
def test_a_mistake_is_refused_with_file_table_and_key(table: Any, said: str) -> None:
    with pytest.raises(RefusedStart, match=said) as caught:
        Overrides({"paint": table}, "/etc/runner.toml")
    assert "\n" not in caught.value.message
