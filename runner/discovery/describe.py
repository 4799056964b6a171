"""Effect: a process that imports one source of handlers, describes its contents and exits.

Started as `python -P -m runner.discovery.describe REQUEST FD`: REQUEST is a JSON object; the reply (msgpack
of a `SourceDescription`) is written to the descriptor. User code may do anything here: it affects only its
own source.
"""

from __future__ import annotations

import faulthandler
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from types import ModuleType
from typing import Any

import msgspec

from runner.discovery import fingerprint
from runner.executor import bootstrap, failures
from runner.executor.loader import find_target, import_source
from runner.formats import strict_json
from runner.handlers import annotations as handler_annotations
from runner.handlers import output_types
from runner.handlers.decorator import Definition, count_positional, definition_of, function_of, kind_of
from runner.handlers.options import check_combinations
from runner.handlers.spec import HandlerSpec, Source, SourceDescription

DESCRIPTION_MAX = 4000
#: Resolution of file modification times, in seconds: the kernel's tick.
TICK_S = 0.01
#: Folders with code that is not the handlers' own: the interpreter, runner, installed packages.
_STDLIB = os.path.dirname(os.path.abspath(os.__file__)) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


class DescribeRequest(msgspec.Struct):
    """The source to import; `name` is its name in lists if the import fails."""

    name: str
    #: The fields of `discovery.sources.SourceRef` of the same names.
    kind: str
    target: str
    attr: str | None
    path: tuple[str, ...]
    must_have_handlers: bool


def describe(request: DescribeRequest) -> SourceDescription:
    """Return all handlers of a source, or the error of its import, whatever the user's code raised."""
    source = Source(request.kind, request.target, request.attr or "", request.path)  # type: ignore[arg-type]
    started_at = time.time()
    try:
        module = import_source(source)
        found = _find_definitions(module, request)
    except BaseException as error:
        return SourceDescription(
            error=failures.format_traceback(error), files=_source_files(request, started_at)
        )
    specs = [_spec(definition, msgspec.structs.replace(source, attr=attr)) for attr, definition in found]
    return SourceDescription(specs, files=_source_files(request, started_at))


def broken_spec(name: str, source: Source, error: str) -> HandlerSpec:
    """Return the placeholder that lists a source that can't be used, with the reason."""
    return HandlerSpec(name, "", "broken", source, error=strict_json.replace_surrogates(error))


def main() -> None:
    """Describe the source, reply and exit at once, even if the module has started threads."""
    bootstrap.bind_to_parent()
    faulthandler.enable()
    request = msgspec.json.decode(sys.argv[1], type=DescribeRequest)
    answer = msgspec.msgpack.encode(describe(request))
    fd = int(sys.argv[2])
    while answer:
        answer = answer[os.write(fd, answer) :]
    os._exit(0)


def _source_files(request: DescribeRequest, started_at: float) -> dict[str, str]:
    """Return the digests of the source's own files by path: its file, files next to it, and its package."""
    found = {request.target} if request.kind == "file" else set()
    package = request.target.partition(".")[0] if request.kind == "module" else None
    folders = tuple(os.path.join(folder, "") for folder in request.path)
    for name, module in list(sys.modules.items()):
        # Not getattr: a module with a lazy __getattr__ might import something when it is asked.
        file = getattr(module, "__dict__", {}).get("__file__")
        if not isinstance(file, str) or not file.endswith(".py"):
            continue
        path = os.path.abspath(file)
        if path.startswith((_STDLIB, _OURS)):
            continue
        beside = path.startswith(folders) and not any(part in path for part in _INSTALLED)
        if beside or name.partition(".")[0] == package:
            found.add(path)
    return {path: _digest_if_unchanged(path, started_at) for path in sorted(found)}


def _digest_if_unchanged(path: str, started_at: float) -> str:
    """Return the digest of a file's content; "" if the file may have changed after it was imported."""
    try:
        if started_at - TICK_S <= os.stat(path).st_mtime <= time.time():
            return ""
    except OSError:
        return ""
    return fingerprint.file_digest(path)


def _find_definitions(module: ModuleType, request: DescribeRequest) -> list[tuple[str, Definition]]:
    """Return the (attribute path, definition) pairs that the request asks for; raises LookupError if none."""
    if request.attr is None:
        found = list(_module_definitions(module))
        if not found and request.must_have_handlers:
            raise LookupError(f"{request.target} has no handlers: nothing is decorated with @handler")
        return found
    named = [(attr, one) for attr, one in _module_definitions(module) if one.name == request.attr]
    try:
        definition = definition_of(find_target(module, request.attr))
    except AttributeError:
        definition = None
        if not named:
            raise
    if definition is not None:
        return [(request.attr, definition)]
    if not named:
        raise LookupError(f"{request.target}:{request.attr} is not decorated with @handler")
    return named


def _module_definitions(module: ModuleType) -> Iterator[tuple[str, Definition]]:
    """Yield the module's own handlers, each once; an imported handler belongs to its own source."""
    seen: set[int] = set()
    for attr, value in list(vars(module).items()):
        definition = definition_of(value)
        if definition is not None and id(value) not in seen and not _is_foreign(value, module):
            seen.add(id(value))
            yield attr, definition


def _is_foreign(target: Any, module: ModuleType) -> bool:
    """Return whether a decorated object was imported from another module."""
    module_name = str(getattr(target, "__module__", module.__name__))
    if module_name == module.__name__ or module_name.startswith(f"{module.__name__}."):
        return False
    # A definition made for this module by a factory elsewhere is this module's own.
    return getattr(sys.modules.get(module_name), getattr(target, "__name__", ""), None) is target


def _spec(definition: Definition, source: Source) -> HandlerSpec:
    """Return the description of one handler: its schemas, options and version."""
    try:
        check_combinations(definition.options)
        function = function_of(definition.target)
        kind = kind_of(function)
        is_batched = definition.options.batch is not None
        return HandlerSpec(
            name=definition.name,
            version=definition.version or _version(definition.target, source),
            state="ok",
            source=source,
            options=definition.options,
            kind=kind,
            description=_description(definition.target),
            input_schema=_input_schema(function, is_batched),
            output_schema=_output_schema(function, kind, is_batched),
        )
    except Exception as error:
        return broken_spec(definition.name, source, failures.format_traceback(error))


def _input_schema(function: Callable[..., Any], is_batched: bool) -> bytes:
    """Return the JSON Schema of the input as JSON text; raises TypeError for an annotation without one."""
    if not count_positional(function):
        if is_batched:
            raise TypeError("a handler with the option batch needs a parameter for the list of inputs")
        return b"true"
    wanted = handler_annotations.input_annotation(function)
    if is_batched:
        wanted = handler_annotations.item_annotation(wanted)
    if handler_annotations.is_anything(wanted):
        return b"true"
    plain = handler_annotations.find_plain(wanted)
    if plain is not None:
        return plain.schema
    from pydantic import TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        return msgspec.json.encode(TypeAdapter(wanted).json_schema(mode="validation"))
    except PydanticUserError as error:
        raise TypeError(
            f"the annotation of the input, {wanted!r}, has no JSON Schema; "
            f"use a pydantic model, a plain type or no annotation ({error.message})"
        ) from None


def _output_schema(function: Callable[..., Any], kind: str, is_batched: bool) -> bytes:
    """Return the JSON Schema of the output; `true` if the annotation says nothing.

    Raises:
        TypeError: values of the annotation can't be serialised.
    """
    try:
        types = output_types.read_output_types(
            function, is_batched=is_batched, is_generator="generator" in kind
        )
    except TypeError:
        # It names a type that exists for type checkers only.
        return b"true"
    return output_types.output_schema(types)


def _version(target: Any, source: Source) -> str:
    """Return the handler's version: a digest of the file that defines it."""
    module = sys.modules.get(str(getattr(target, "__module__", "")))
    file = source.target if source.kind == "file" else getattr(module, "__file__", None)
    if file is None:
        return "0"
    with open(file, "rb") as code:
        return sha256(code.read()).hexdigest()[:12]


def _description(target: Any) -> str:
    """Return the handler's docstring, cleaned and cut to DESCRIPTION_MAX characters; "" without one."""
    text = getattr(target, "__doc__", None)
    return (
        strict_json.replace_surrogates(inspect.cleandoc(text))[:DESCRIPTION_MAX]
        if isinstance(text, str)
        else ""
    )


if __name__ == "__main__":
    main()
