"""Effect: imports user code and wraps it in a callable that takes an attempt's input."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

from runner.executor.context import Context
from runner.executor.failures import InvalidInput
from runner.executor.results import ResultEncoder
from runner.formats import strict_json
from runner.handlers import annotations as handler_annotations
from runner.handlers.decorator import count_positional, kind_of
from runner.handlers.spec import Source


def import_source(source: Source) -> ModuleType:
    """Import the module of a source, with its folders first in `sys.path`.

    Raises:
        ImportError: no such module or file.
        BaseException: whatever the module raises.
    """
    for folder in reversed(source.path):
        if folder not in sys.path[:1]:
            sys.path.insert(0, folder)
    if source.kind == "module":
        return importlib.import_module(source.target)
    return _import_file(source.target)


def find_target(module: ModuleType, attr: str) -> Any:
    """Return the object at an attribute path.

    Raises:
        AttributeError: there is no such attribute.
    """
    found: Any = module
    for part in attr.split("."):
        found = getattr(found, part)
    return found


def module_name(path: str) -> str:
    """Return the name under which a file is imported.

    It is the file's own, so that children can unpickle its functions, unless that would hide another module.
    """
    stem = os.path.splitext(os.path.basename(path))[0]
    if stem.isidentifier() and stem not in sys.stdlib_module_names and stem not in sys.modules:
        return stem
    return f"handlers_{zlib.crc32(path.encode()):08x}"


class LoadedHandler:
    """A handler that is ready to run.

    A class is instantiated once, and its method `run` is called. Raises whatever the class raises.
    """

    def __init__(self, target: Any, *, is_batched: bool = False) -> None:
        self._instance = target() if isinstance(target, type) else None
        self.call: Callable[..., Any] = target if self._instance is None else self._instance.run
        self.parameter_count = count_positional(self.call)
        #: Reads an input; for a handler that takes batches, one element of its list.
        self.read_input = _make_reader(self.call, is_batched) if self.parameter_count else None
        #: Encodes what the handler returns and yields.
        self.results = ResultEncoder(
            self.call, is_batched=is_batched, is_generator="generator" in kind_of(self.call)
        )

    def find_hook(self, name: str) -> Callable[..., Any] | None:
        """Return the `load` or `unload` method of a class; None for a function or without that method."""
        found = getattr(self._instance, name, None)
        return found if callable(found) else None

    def build_arguments(self, data: bytes, context: Context) -> tuple[Any, ...]:
        """Return the arguments of the call: none, the input, or the input and the context.

        `data`: the input as JSON text.

        Raises:
            InvalidInput: the input does not match the parameter's annotation.
        """
        if self.read_input is None:
            return ()
        value = self.read_input(data)
        return (value,) if self.parameter_count == 1 else (value, context)


def _import_file(path: str) -> ModuleType:
    """Import a file; a module whose import fails is removed from `sys.modules`."""
    name = module_name(path)
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _make_reader(function: Callable[..., Any], is_batched: bool) -> Callable[[bytes], Any]:
    """Return a function that reads JSON text as the type of the first parameter; pydantic only if needed."""
    wanted = handler_annotations.input_annotation(function)
    if is_batched:
        wanted = handler_annotations.item_annotation(wanted)
    if handler_annotations.is_anything(wanted):
        return strict_json.decode
    plain = handler_annotations.find_plain(wanted)
    return _model_reader(wanted) if plain is None else _plain_reader(plain)


def _plain_reader(kind: handler_annotations.PlainType) -> Callable[[bytes], Any]:
    def read(data: bytes) -> Any:
        value = strict_json.decode(data)
        if type(value) in kind.types:
            return value if kind.convert is None else kind.convert(value)
        raise InvalidInput([{"pointer": "", "message": f"must be {kind.label}"}])

    return read


def _model_reader(wanted: Any) -> Callable[[bytes], Any]:
    from pydantic import TypeAdapter, ValidationError

    validate = TypeAdapter(wanted).validate_json

    def read(data: bytes) -> Any:
        try:
            return validate(data)
        except ValidationError as error:
            found = error.errors(include_url=False, include_context=False, include_input=False)
        raise InvalidInput(
            [{"pointer": _json_pointer(one["loc"]), "message": one["msg"]} for one in found[:100]]
        )

    return read


def _json_pointer(location: tuple[int | str, ...]) -> str:
    """Return a JSON pointer (RFC 6901) to the place of a pydantic error."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in location)
