from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from runner import Batch, handler
from runner.handlers.decorator import count_positional, definition_of
from runner.handlers.spec import BatchOptions, HandlerOptions


def echo(data: Any) -> Any:
    return data


def options(**given: Any) -> HandlerOptions:
    found = definition_of(handler("x", **given)(lambda data: data))
    assert found is not None
    return found.options


def test_the_function_itself_is_given_back() -> None:
    def plain(data: Any) -> Any:
        return data

    assert handler("plain")(plain) is plain
    assert plain(3) == 3


def test_a_class_needs_one_gpu_and_a_plain_function_none() -> None:
    class Model:
        def run(self, data: Any) -> Any:
            return data

    assert definition_of(handler("m")(Model)).options.gpus == 1  # type: ignore[union-attr]
    assert options().gpus == 0
    assert options(vram="1GiB").gpus == 1
    assert options(vram="1GiB", gpus=0).gpus == 0


def test_units_are_resolved() -> None:
    found = options(vram="6GiB", ram=5, timeout="5m", grace="1s", keep_alive=-1, backoff=[1, 2], retries=2)
    assert (found.vram_bytes, found.ram_bytes, found.timeout_s, found.grace_s) == (6 << 30, 5, 300.0, 1.0)
    assert (found.keep_alive_s, found.backoff.kind, found.retries) == (-1.0, "list", 2)


def test_fields_of_the_input_are_named_by_paths() -> None:
    found = options(model_by="checkpoint.name", size_by=["width", "batch.n"])
    assert (found.model_by, found.size_by) == ("checkpoint.name", ("width", "batch.n"))
    assert options(size_by="steps").size_by == ("steps",)


def test_the_defaults_are_those_of_the_contract() -> None:
    assert options() == HandlerOptions()


@pytest.mark.parametrize(
    "option",
    ["timeout", "load_timeout", "queue_timeout", "stall_timeout", "grace", "keep_alive", "backoff"],
)
def test_no_duration_of_a_handler_is_longer_than_ten_years(option: str) -> None:
    given: dict[str, Any] = {option: "3661d"}
    with pytest.raises(ValueError, match=f"'x': option {option}: a duration is at most ten years"):
        options(**given)


@pytest.mark.parametrize("option", ["cache"])
def test_options_of_later_versions_are_refused_by_name(option: str) -> None:
    given: dict[str, Any] = {option: 1}
    with pytest.raises(TypeError, match=f"option '{option}' is not supported in this version"):
        handler("x", **given)


def test_an_unknown_option_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="no option 'vrma'"):
        handler("x", vrma="6GiB")


@pytest.mark.parametrize(
    "given",
    [
        {"timeout": "soon"},
        {"timeout": 0},
        {"vram": "lots"},
        {"retries": -1},
        {"concurrency": 0},
        {"priority": "high"},
        {"priority": 101},
        {"priority": -1},
        {"queue": "a b"},
        {"gpus": -1},
        {"backoff": []},
        {"keep_alive": -2},
        {"max_jobs": 0},
        {"version": ""},
        {"strict": 1},
        {"model_by": ""},
        {"model_by": 3},
        {"model_by": "a..b"},
        {"model_by": "x" * 201},
        {"size_by": ["width", ""]},
        {"size_by": {"width": 1}},
        {"size_by": ["n"] * 9},
        {"preload": "small"},
        {"preload": [""]},
        {"preload": [3]},
        {"preload": ["m"] * 1001},
        {"slots": 0},
        {"slots": 1001},
        {"batch": 8},
        {"batch": {"most": 8}},
        {"batch": {"max": 0}},
        {"batch": {"wait": "soon"}},
        {"batch": {"by": "a..b"}},
        {"batch": {"by": [1]}},
    ],
)
def test_a_bad_value_names_its_option(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"'x'.*{next(iter(given))}"):
        handler("x", **given)


@pytest.mark.parametrize(
    ("batch", "expected"),
    [
        (Batch(), BatchOptions(8, 0.02, ())),
        (Batch(max=4, wait="1s", by="model"), BatchOptions(4, 1.0, ("model",))),
        ({"max": 2, "by": ("a.b", "c")}, BatchOptions(2, 0.02, ("a.b", "c"))),
        (None, None),
    ],
)
def test_a_batch_is_read_from_its_object_and_from_a_mapping(
    batch: Any, expected: BatchOptions | None
) -> None:
    assert options(batch=batch).batch == expected


def test_generators_are_no_batch() -> None:
    def stream(data: list[int]) -> Iterator[int]:
        yield from data

    with pytest.raises(TypeError, match="'x': option batch: `run` must return a list"):
        handler("x", batch=Batch())(stream)


def test_only_coroutines_have_slots() -> None:
    async def rest(data: int) -> int:
        return data

    assert definition_of(handler("x", slots=3)(rest)).options.slots == 3  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="'x': option slots: only coroutine functions"):
        handler("x", slots=2)(echo)
    with pytest.raises(TypeError, match="'x': options batch and slots"):
        handler("x", slots=2, batch=Batch())(rest)


@pytest.mark.parametrize("name", ["", "a b", "ä", "x" * 101, "a/b"])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="valid handler name"):
        handler(name)


def test_a_decorator_without_its_name_says_how_to_write_it() -> None:
    with pytest.raises(TypeError, match=r'@handler\("name"\)'):
        handler(echo)  # type: ignore[arg-type]


def test_a_class_without_run_is_refused() -> None:
    with pytest.raises(TypeError, match="no method `run`"):
        handler("x")(type("Empty", (), {}))


@pytest.mark.parametrize(
    "function", [lambda a, b, c: None, lambda *, needed: None], ids=["three", "keyword only"]
)
def test_parameters_that_nobody_passes_are_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(TypeError):
        handler("x")(function)


@pytest.mark.parametrize(
    ("function", "count"),
    [
        (lambda: None, 0),
        (lambda a: None, 1),
        (lambda a, b: None, 2),
        (lambda a, b, c=1: None, 2),
        (lambda *a: None, 2),
        (lambda a, *, k=1: None, 1),
    ],
)
def test_input_and_context_are_counted(function: Callable[..., Any], count: int) -> None:
    assert count_positional(function) == count


def test_a_subclass_is_no_handler_by_inheritance() -> None:
    @handler("parent")
    class Parent:
        def run(self, data: Any) -> Any:
            return data

    class Child(Parent):
        pass

    assert definition_of(Parent) is not None
    assert definition_of(Child) is None


def test_what_is_preloaded_is_the_handler_or_models_of_it() -> None:
    def options(**given: Any) -> Any:
        definition = definition_of(handler("x", **given)(lambda: None))
        assert definition is not None
        return definition.options.preload

    assert options() == options(preload=False) == ()
    assert options(preload=True) == ("",)
    assert options(model_by="m", preload=["a", "b", "a"]) == ("a", "b")
