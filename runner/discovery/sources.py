"""Effect: finds files, folders, modules and entry points with handlers without importing them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from pathlib import Path
from typing import Literal, NamedTuple

from runner.errors import RefusedStart

GROUP = "runner.handlers"
#: Folder of the package `runner`.
_OWN = Path(__file__).resolve().parent.parent
#: Files that affect how a description is made; it is made again when one of them changes.
_DESCRIBER_FILES = (
    "handlers/annotations.py",
    "handlers/batch.py",
    "discovery/fingerprint.py",
    "handlers/decorator.py",
    "discovery/describe.py",
    "handlers/options.py",
    "handlers/spec.py",
    "formats/units.py",
)


class SourceRef(NamedTuple):
    """One module, file or object to import and describe."""

    #: How an operator recognises it.
    title: str
    #: Name under which it is listed until its handlers are known.
    name: str
    kind: Literal["file", "module"]
    target: str
    #: The single object meant; None: all handlers of the module.
    attr: str | None
    path: tuple[str, ...]
    #: The file whose content keys the cache; None: it can't be found without importing.
    file: Path | None
    #: A source without a handler is an error (False for each of several files of a folder).
    must_have_handlers: bool = True

    @property
    def id(self) -> tuple[str, str, str | None]:
        """Return what distinguishes it from all others."""
        return self.kind, self.target, self.attr

    def cache_key(self) -> str | None:
        """Return the key of its cached description; None: it can't be cached."""
        try:
            content = None if self.file is None else self.file.read_bytes()
        except OSError:
            content = None
        if content is None:
            return None
        digest = sha256(
            f"{sys.version}\0{sys.executable}\0{'|'.join(map(str, self))}\0".encode("utf-8", "replace")
        )
        for name in _DESCRIBER_FILES:
            digest.update((_OWN / name).read_bytes())
        digest.update(content)
        return digest.hexdigest()


def find_sources(
    requests: Sequence[str], *, with_entry_points: bool, cwd: Path, env: Mapping[str, str]
) -> list[SourceRef]:
    """Return all sources, each once, in the order of the requests, then entry points.

    Raises:
        RefusedStart: a named file or folder does not exist.
    """
    refs: dict[tuple[str, str, str | None], SourceRef] = {}
    for request in requests:
        for ref in _find_requested(request, cwd, env):
            refs.setdefault(ref.id, ref)
    if with_entry_points:
        for ref in _find_entry_points(env):
            refs.setdefault(ref.id, ref)
    return list(refs.values())


def _find_requested(request: str, cwd: Path, env: Mapping[str, str]) -> Iterable[SourceRef]:
    path = cwd / request
    # A bare name is a folder too, unless it is a package: without __init__.py there is nothing to import.
    if path.is_dir() and ("/" in request or not _is_module(request) or not (path / "__init__.py").is_file()):
        return _folder(request, path.resolve())
    if request.endswith(".py") or "/" in request:
        return [_file(request, path.resolve(), None)]
    script, _, attr = request.rpartition(":")
    if script.endswith(".py"):
        return [_file(request, (cwd / script).resolve(), attr)]
    module, _, attr = request.partition(":")
    if not _is_module(module):
        raise RefusedStart(f"--handlers {request}: neither a file, a folder nor a module[:name]")
    folder = str(cwd.resolve())
    file = _module_file(module, [folder, *_search_path(env)])
    name = module.rpartition(".")[2]
    return [SourceRef(f"--handlers {request}", _name(name), "module", module, attr or None, (folder,), file)]


def _file(request: str, file: Path, attr: str | None) -> SourceRef:
    if not file.is_file():
        raise RefusedStart(f"--handlers {request}: there is no file {file}")
    folder = str(file.parent)
    return SourceRef(f"--handlers {request}", _name(file.stem), "file", str(file), attr, (folder,), file)


def _folder(request: str, folder: Path) -> list[SourceRef]:
    files = [file for file in sorted(folder.glob("*.py")) if not file.name.startswith("_")]
    if not files:
        raise RefusedStart(f"--handlers {request}: there is no Python file in {folder}")
    return [
        SourceRef(
            f"--handlers {request} ({file.name})",
            _name(file.stem),
            "file",
            str(file),
            None,
            (str(folder),),
            file,
            False,
        )
        for file in files
    ]


def _find_entry_points(env: Mapping[str, str]) -> Iterable[SourceRef]:
    for entry_point in entry_points(group=GROUP):
        package = entry_point.dist.name if entry_point.dist is not None else "?"
        file = _module_file(entry_point.module, _search_path(env))
        title = f"entry point {entry_point.name} of {package}"
        yield SourceRef(
            title, _name(entry_point.name), "module", entry_point.module, entry_point.attr or None, (), file
        )


def _is_module(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))


def _search_path(env: Mapping[str, str]) -> list[str]:
    """Return the module path of a process that runs user code: this one's, less the folder of the runner."""
    ours = {_OWN / "_site", _OWN.parent}
    folders = [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder] + sys.path
    return [folder for folder in folders if folder and Path(folder).resolve() not in ours]


def _module_file(module: str, path: Sequence[str] | None) -> Path | None:
    """Return the file of a module; `importlib.util.find_spec` would import its parents, user code."""
    name = ""
    file: str | None = None
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        found = PathFinder.find_spec(name, path)
        if found is None:
            return None
        path = found.submodule_search_locations
        file = found.origin if found.has_location else None
    return None if file is None else Path(file)


def _name(text: str) -> str:
    """Return the text as a handler's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:100] or "-"
