"""Pure: the `handler` decorator, which checks a handler's name and options at its definition."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any, TypeVar

import msgspec

from runner.formats.names import NAME_RULE, is_name
from runner.handlers.batch import Batch
from runner.handlers.options import read_options
from runner.handlers.spec import HandlerKind, HandlerOptions

#: Attribute of a decorated object that holds its definition.
DEFINITION_ATTR = "__runner_handler__"
#: Options of the documented interface that this version does not support yet.
UNSUPPORTED_OPTIONS = ("cache",)

Decorated = TypeVar("Decorated", bound=Callable[..., Any])


class Definition(msgspec.Struct, frozen=True):
    """The decorator's arguments after parsing."""

    name: str
    options: HandlerOptions
    #: None: the describe step uses a hash of the handler's file.
    version: str | None
    #: The decorated object, so that a subclass of it is not mistaken for it.
    target: Any


def handler(
    name: str,
    *,
    queue: str = "default",
    gpus: int | None = None,
    vram: int | str | None = None,
    ram: int | str | None = None,
    timeout: float | str | None = "10m",
    load_timeout: float | str | None = "10m",
    queue_timeout: float | str | None = None,
    stall_timeout: float | str | None = None,
    grace: float | str = "500ms",
    retries: int = 0,
    backoff: float | str | list[float | str] | dict[str, Any] | None = None,
    priority: int = 50,
    keep_alive: float | str = "5m",
    concurrency: int | None = None,
    max_jobs: int | None = None,
    model_by: str | None = None,
    size_by: str | Sequence[str] = (),
    preload: bool | Sequence[str] = False,
    strict: bool = False,
    slots: int = 1,
    batch: Batch | dict[str, Any] | None = None,
    version: str | None = None,
    **others: Any,
) -> Callable[[Decorated], Decorated]:
    """Register a function or class as a handler; the object itself is returned unchanged.

    Durations are seconds or text ("500ms", "30s", "5m"), sizes bytes or text ("6GiB").

    Args:
        gpus: number of GPUs; None: 1 for a class or if `vram` is given, otherwise 0.
        vram: peak device memory of one executor, weights included; None: learn it.
        ram: host memory of one executor; a cap everywhere, on the cpu device also its grant.
        timeout, load_timeout, queue_timeout, stall_timeout: None means no limit.
        keep_alive: how long an idle executor stays loaded; 0 unloads at once, -1 pins it.
        concurrency: limit on running attempts over all executors; `slots` is that of one executor.
        model_by, size_by: input fields that name the model, and by which memory needs are learned.
        preload: keep executors loaded while memory allows: True, or the names of models.
        strict: never grant more than `vram`, whatever was learned.
        batch: let `run` get lists of inputs, see `Batch`.
        version: version of the handler's code; None: a hash of its file.

    Raises:
        TypeError: an option does not exist or has the wrong type.
        ValueError: a value can't be parsed; the text names the option.
    """
    given = dict(locals())
    _check_names(name, others)
    options = read_options(name, given)

    def decorate(target: Decorated) -> Decorated:
        check_target(name, target, options)
        resolved = gpus if gpus is not None else int(isinstance(target, type) or vram is not None)
        final = msgspec.structs.replace(options, gpus=resolved)
        setattr(target, DEFINITION_ATTR, Definition(name, final, version, target))
        return target

    return decorate


def definition_of(target: object) -> Definition | None:
    """Return the definition of a decorated function or class; None for anything else, also for subclasses."""
    found = getattr(target, DEFINITION_ATTR, None)
    return found if isinstance(found, Definition) and found.target is target else None


def count_positional(function: Callable[..., Any]) -> int:
    """Return how many of (input, context) a function takes: 0, 1 or 2, without `self` of a bound method.

    Raises:
        TypeError: the function requires more parameters.
    """
    taken = 0
    for parameter in inspect.signature(function).parameters.values():
        needed = parameter.default is parameter.empty
        if parameter.kind is parameter.VAR_POSITIONAL:
            taken = 2
        elif parameter.kind is parameter.KEYWORD_ONLY and needed:
            raise TypeError(
                f"{_title(function)} requires the keyword {parameter.name!r}; "
                "a handler gets only its input and its context"
            )
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            if taken < 2:
                taken += 1
            elif needed:
                raise TypeError(
                    f"{_title(function)} requires a third parameter {parameter.name!r}; "
                    "a handler gets only its input and its context"
                )
    return taken


def check_target(name: str, target: object, options: HandlerOptions) -> None:
    """Check that a decorated object can be run as a handler.

    Raises:
        TypeError: not a function or class, no `run`, required parameters beyond input and context, or a kind
            of function that `batch` or `slots` does not support.
    """
    if isinstance(target, type):
        run = getattr(target, "run", None)
        if not callable(run):
            raise TypeError(f"handler {name!r}: class {target.__name__} has no method `run`")
        _check_method(name, target, "run", 2)
        _check_method(name, target, "load", 1)
        _check_method(name, target, "unload", 0)
    elif callable(target):
        count_positional(target)
    else:
        raise TypeError(f"handler {name!r}: {target!r} is neither a function nor a class")
    check_kind(name, options, kind_of(function_of(target)))


def check_kind(name: str, options: HandlerOptions, kind: HandlerKind) -> None:
    """Check that the handler's kind of function supports its options `batch` and `slots`.

    Raises:
        TypeError: a batch of generators, slots for a function that is not a coroutine function, or both.
    """
    if options.batch is not None and "generator" in kind:
        raise TypeError(
            f"handler {name!r}: option batch: `run` must return a list with one outcome per input, but it "
            "yields; stream with ctx.items[i].output(chunk)"
        )
    if options.batch is not None and options.slots > 1:
        raise TypeError(f"handler {name!r}: options batch and slots exclude each other")
    if options.slots > 1 and kind not in ("coroutine", "async_generator"):
        raise TypeError(
            f"handler {name!r}: option slots: only coroutine functions can run concurrently in one "
            "executor; use `async def`"
        )


def function_of(target: Any) -> Callable[..., Any]:
    """Return the function to call, with `self` removed from its signature: the target itself or its `run`."""
    if not isinstance(target, type):
        function: Callable[..., Any] = target
        return function
    run: Callable[..., Any] = target.run  # type: ignore[attr-defined]
    if isinstance(inspect.getattr_static(target, "run"), (staticmethod, classmethod)):
        return run
    return MethodType(run, target)


def kind_of(function: Callable[..., Any]) -> HandlerKind:
    """Return the kind of function: plain, coroutine, generator or async generator."""
    bare = inspect.unwrap(function)
    if inspect.isasyncgenfunction(bare):
        return "async_generator"
    if inspect.isgeneratorfunction(bare):
        return "generator"
    return "coroutine" if inspect.iscoroutinefunction(bare) else "function"


def _check_method(name: str, owner: type, method: str, parameters_max: int) -> None:
    """Check that an optional method (`load`, `unload`) takes at most the arguments that it will get."""
    function = getattr(owner, method, None)
    if function is None:
        return
    # A static method has no self, though it is a plain function when looked up on the class.
    own = 0 if isinstance(inspect.getattr_static(owner, method), (staticmethod, classmethod)) else 1
    needed = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if len(needed) > parameters_max + own or any(one.kind is one.KEYWORD_ONLY for one in needed):
        words = {2: "the input and the context", 1: "the context", 0: "nothing"}[parameters_max]
        raise TypeError(f"handler {name!r}: {owner.__name__}.{method} gets {words}, but requires more")


def _check_names(name: object, others: dict[str, Any]) -> None:
    if not isinstance(name, str):
        raise TypeError('a handler needs a name: write @handler("name")')
    if not is_name(name):
        raise ValueError(f"{name!r} is not a valid handler name: {NAME_RULE}")
    for option in others:
        if option in UNSUPPORTED_OPTIONS:
            raise TypeError(f"handler {name!r}: option {option!r} is not supported in this version")
        raise TypeError(f"handler {name!r}: there is no option {option!r}")


def _title(function: Callable[..., Any]) -> str:
    return str(getattr(function, "__qualname__", repr(function)))
