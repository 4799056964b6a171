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
#: Files of runner that affect descriptions: when one of them changes, cached descriptions are invalid.
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

    #: The operator's name for it, as in `--handlers FILE`; used in errors.
    title: str
    #: Name under which it is listed until its handlers are known.
    name: str
    kind: Literal["file", "module"]
    #: Absolute path of a file, or dotted name of a module.
    target: str
    #: The single decorated object to use; None: all handlers of the module.
    attr: str | None
    #: Folders to put first on sys.path.
    path: tuple[str, ...]
    #: The file whose content is part of the cache key; None if it can't be found without importing.
    file: Path | None
    #: A source without a handler is an error (False for each of several files of a folder).
    must_have_handlers: bool = True

    @property
    def id(self) -> tuple[str, str, str | None]:
        """Return the identity of the source: kind, target and attribute."""
        return self.kind, self.target, self.attr

    def cache_key(self) -> str | None:
        """Return the key of its cached description; None if it can't be cached.

        The key covers the interpreter, the reference itself, the file's content and runner's own describer.
        """
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
    """Return all sources, each once: those of `requests` in order, then entry points.

    Args:
        requests: values of `--handlers`: module[:name], a .py file or a folder.
        with_entry_points: also use entry points of group `runner.handlers`.
        cwd: folder from which relative paths count.
        env: environment of the importing processes; its PYTHONPATH is searched.

    Raises:
        RefusedStart: a requested file, folder or module name is invalid.
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
    """Return the sources of one `--handlers` value."""
    path = cwd / request
    # A bare name may be a folder as well as a module: only a folder with __init__.py can be imported.
    if path.is_dir() and ("/" in request or not _is_module(request) or not (path / "__init__.py").is_file()):
        return _folder(request, path.resolve())
    if request.endswith(".py") or "/" in request:
        return [_file(request, path.resolve(), None)]
    script, _, attr = request.rpartition(":")
    if script.endswith(".py"):
        return [_file(request, (cwd / script).resolve(), attr)]
    module, _, attr = request.partition(":")
    if not _is_module(module):
        raise RefusedStart(f"--handlers {request}: not a file, a folder or a module[:name]")
    folder = str(cwd.resolve())
    file = _module_file(module, [folder, *_search_path(env)])
    name = module.rpartition(".")[2]
    return [SourceRef(f"--handlers {request}", _name(name), "module", module, attr or None, (folder,), file)]


def _file(request: str, file: Path, attr: str | None) -> SourceRef:
    """Return the source of one file; raises RefusedStart if there is none."""
    if not file.is_file():
        raise RefusedStart(f"--handlers {request}: there is no file {file}")
    folder = str(file.parent)
    return SourceRef(f"--handlers {request}", _name(file.stem), "file", str(file), attr, (folder,), file)


def _folder(request: str, folder: Path) -> list[SourceRef]:
    """Return one source per Python file of a folder, without recursion."""
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
    """Yield the sources of entry points, except runner's own."""
    for entry_point in entry_points(group=GROUP):
        package = entry_point.dist.name if entry_point.dist is not None else "?"
        file = _module_file(entry_point.module, _search_path(env))
        title = f"entry point {entry_point.name} of {package}"
        yield SourceRef(
            title, _name(entry_point.name), "module", entry_point.module, entry_point.attr or None, (), file
        )


def _is_module(text: str) -> bool:
    """Return whether the text is a dotted name of a module."""
    return all(part.isidentifier() for part in text.split("."))


def _search_path(env: Mapping[str, str]) -> list[str]:
    """Return the module path of a process that runs user code: this one's without runner's own folder."""
    ours = {_OWN / "_site", _OWN.parent}
    folders = [folder for folder in env.get("PYTHONPATH", "").split(os.pathsep) if folder] + sys.path
    return [folder for folder in folders if folder and Path(folder).resolve() not in ours]


def _module_file(module: str, path: Sequence[str] | None) -> Path | None:
    """Return the file of a module, without importing anything.

    `importlib.util.find_spec` would import the parent packages, which are user code.
    """
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
    """Return the text with characters that names of handlers can't have replaced."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", text)[:100] or "-"
