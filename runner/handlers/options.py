"""Pure: the options of a handler and the parsing of their values.

`OPTIONS` is the single table of options: the decorator, the override tables and the docs follow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from runner.bounds import (
    ATTEMPTS_MAX,
    COUNT_MAX,
    FIELDS_MAX,
    NAME_CHARS_MAX,
    PATH_CHARS_MAX,
    PRELOADED_MODELS_MAX,
    PRIORITY_MAX,
    RETRIES_MAX,
    VERSION_CHARS_MAX,
)
from runner.formats import units
from runner.formats.names import NAME_RULE, is_name
from runner.handlers import batch as batches
from runner.handlers.spec import BatchOptions, HandlerOptions
from runner.jobs.retry import Backoff
from runner.jobs.traits import CONTROL_CHARACTER, PATH


class _OptionReader:
    """Parses single values. Every error is a ValueError that names the handler and the option."""

    def __init__(self, name: str) -> None:
        self._name = name

    def fail(self, option: str, why: object) -> ValueError:
        return ValueError(f"handler {self._name!r}: option {option}: {why}")

    def queue(self, option: str, value: Any) -> str:
        if not is_name(value):
            raise self.fail(option, f"{value!r} is not a valid queue name: {NAME_RULE}")
        return value

    def duration(self, option: str, value: Any) -> float:
        try:
            return units.parse_seconds(value)
        except ValueError as error:
            raise self.fail(option, error) from None

    def time_limit(self, option: str, value: Any) -> float | None:
        if value is None:
            return None
        limit_s = self.duration(option, value)
        if limit_s == 0:
            raise self.fail(option, "must be more than 0; None means no limit")
        return limit_s

    def keep_alive(self, option: str, value: Any) -> float:
        return -1.0 if value in (-1, "-1") else self.duration(option, value)

    def size(self, option: str, value: Any) -> int | None:
        if value is None:
            return None
        try:
            return units.parse_bytes(value)
        except ValueError as error:
            raise self.fail(option, error) from None

    def version(self, option: str, value: Any) -> str | None:
        if value is None:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= VERSION_CHARS_MAX or not value.isprintable():
            what = f"must be a string of 1 to {VERSION_CHARS_MAX} printable characters"
            raise self.fail(option, f"{what}, not {value!r}")
        return value

    def integer(self, option: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or abs(value) > COUNT_MAX:
            raise self.fail(option, f"must be an integer of at most 32 bits, not {value!r}")
        return value

    def priority(self, option: str, value: Any) -> int:
        if not 0 <= self.integer(option, value) <= PRIORITY_MAX:
            raise self.fail(option, f"must be 0 to {PRIORITY_MAX}, not {value}")
        return int(value)

    def count(self, option: str, value: Any, least: int = 0) -> int:
        if self.integer(option, value) < least:
            raise self.fail(option, f"must be at least {least}, not {value}")
        return int(value)

    def retries(self, option: str, value: Any) -> int:
        if self.count(option, value) > RETRIES_MAX:
            raise self.fail(option, f"must be at most {RETRIES_MAX}, not {value}")
        return int(value)

    def optional_count(self, option: str, value: Any) -> int | None:
        return None if value is None else self.count(option, value, 1)

    def optional_path(self, option: str, value: Any) -> str | None:
        return None if value is None else self.path(option, value)

    def path(self, option: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > PATH_CHARS_MAX or not PATH.fullmatch(value):
            raise self.fail(option, f'must be a field of the input, such as "a" or "a.b", not {value!r}')
        return value

    def paths(self, option: str, value: Any) -> tuple[str, ...]:
        named = [value] if isinstance(value, str) else value
        if not isinstance(named, list | tuple) or len(named) > FIELDS_MAX:
            raise self.fail(option, f"must be at most {FIELDS_MAX} fields of the input, not {value!r}")
        return tuple(self.path(option, name) for name in named)

    def models(self, option: str, value: Any) -> tuple[str, ...]:
        if isinstance(value, bool):
            return ("",) if value else ()
        if not isinstance(value, list | tuple) or len(value) > PRELOADED_MODELS_MAX:
            raise self.fail(
                option,
                f"must be true, false or at most {PRELOADED_MODELS_MAX} models, not {value!r}",
            )
        for name in value:
            if (
                not isinstance(name, str)
                or not 0 < len(name) <= NAME_CHARS_MAX
                or CONTROL_CHARACTER.search(name)
            ):
                raise self.fail(option, f"{name!r} is not a valid name of a model")
        return tuple(dict.fromkeys(value))

    def boolean(self, option: str, value: Any) -> bool:
        if not isinstance(value, bool):
            raise self.fail(option, f"must be true or false, not {value!r}")
        return value

    def slots(self, option: str, value: Any) -> int:
        if self.count(option, value, 1) > ATTEMPTS_MAX:
            raise self.fail(option, f"must be at most {ATTEMPTS_MAX}, not {value}")
        return int(value)

    def batch(self, option: str, value: Any) -> BatchOptions | None:
        try:
            return batches.read_batch(value)
        except ValueError as error:
            raise self.fail(option, error) from None

    def backoff(self, option: str, value: Any) -> Backoff:
        if value is None:
            return Backoff()
        try:
            return units.parse_backoff(value)
        except ValueError as error:
            raise self.fail(option, error) from None


#: Option -> field of HandlerOptions, and the function that parses its value.
OPTIONS: dict[str, tuple[str, Callable[[_OptionReader, str, Any], Any]]] = {
    "queue": ("queue", _OptionReader.queue),
    "vram": ("vram_bytes", _OptionReader.size),
    "ram": ("ram_bytes", _OptionReader.size),
    "timeout": ("timeout_s", _OptionReader.time_limit),
    "load_timeout": ("load_timeout_s", _OptionReader.time_limit),
    "queue_timeout": ("queue_timeout_s", _OptionReader.time_limit),
    "stall_timeout": ("stall_timeout_s", _OptionReader.time_limit),
    "grace": ("grace_s", _OptionReader.duration),
    "retries": ("retries", _OptionReader.retries),
    "backoff": ("backoff", _OptionReader.backoff),
    "priority": ("priority", _OptionReader.priority),
    "keep_alive": ("keep_alive_s", _OptionReader.keep_alive),
    "concurrency": ("concurrency", _OptionReader.optional_count),
    "max_jobs": ("max_jobs", _OptionReader.optional_count),
    "model_by": ("model_by", _OptionReader.optional_path),
    "size_by": ("size_by", _OptionReader.paths),
    "preload": ("preload", _OptionReader.models),
    "strict": ("strict", _OptionReader.boolean),
    "slots": ("slots", _OptionReader.slots),
    "batch": ("batch", _OptionReader.batch),
}


def read_options(name: str, given: Mapping[str, Any]) -> HandlerOptions:
    """Return the parsed options of handler `name`; options that are not given keep their defaults.

    `gpus=None` is not resolved here: the decorator knows whether the handler is a class.

    Raises:
        ValueError: a value can't be parsed; the text names the handler and the option.
    """
    reader = _OptionReader(name)
    if given["gpus"] is not None:
        reader.count("gpus", given["gpus"])
    reader.version("version", given["version"])
    return HandlerOptions(
        **{field: read(reader, option, given[option]) for option, (field, read) in OPTIONS.items()}
    )


def check_combinations(options: HandlerOptions) -> None:
    """Check options that depend on each other.

    Raises:
        ValueError: two options contradict each other.
    """
    if options.preload and options.model_by is not None and "" in options.preload:
        raise ValueError('option preload: a handler with model_by must list the models: preload=["a", "b"]')
    if options.preload and options.model_by is None and options.preload != ("",):
        raise ValueError("option preload: a handler without model_by has no models to list: preload=True")
