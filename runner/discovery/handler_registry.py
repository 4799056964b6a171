"""Effect: describes all sources of handlers side by side, in children, and remembers what they said."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from runner.discovery import fingerprint, sources
from runner.discovery.describe import DescribeRequest, broken_spec
from runner.discovery.handler_table import Shelf
from runner.discovery.sources import SourceRef
from runner.executor.bootstrap import PARENT_PID
from runner.handlers.spec import HandlerSpec, Source, SourceDescription

#: Longest time a source may take to be imported and described.
DESCRIBE_S = 120.0  # guard: describe-limit
ANSWER_MAX_BYTES = 16 * 1024 * 1024
STDERR_TAIL_BYTES = 8 * 1024

_decoder = msgspec.msgpack.Decoder(SourceDescription)
PlaceId = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class Known:
    """A source, what came of importing it, and its handlers."""

    place: SourceRef
    description: SourceDescription
    specs: list[HandlerSpec]
    #: What the last whole description of it is remembered by.
    key: str | None

    @property
    def names(self) -> set[str]:
        """Of its handlers, whether they can be used or not."""
        return {spec.name for spec in self.specs}

    def is_current(self, place: SourceRef) -> bool:
        """Whether describing `place` would give the same again; what is broken may be mended from outside."""
        files = self.description.files
        if place != self.place or not self.description.is_complete:
            return False
        if not files:
            # Not of source files: it is known by its one file.
            return self.key is not None and place.cache_key() == self.key
        return all(fingerprint.is_unchanged(path, digest) for path, digest in files.items())


class Plugins:
    """`specs` holds what is described so far, by name; `on_change` is called whenever the start has added
    to it. `reload` replaces it at once."""

    def __init__(
        self,
        requests: Sequence[str],
        *,
        entry_points: bool,
        env: dict[str, str],
        cwd: Path,
        cache: Mapping[str, bytes],
        on_change: Callable[[], None],
        describe_s: float = DESCRIBE_S,
    ) -> None:
        #: Some sources are not described yet.
        self.describing = True
        #: Descriptions that the start, or the last reload, has made, for the next start's `cache`.
        self.remembered: dict[str, bytes] = {}
        #: Those of a `cache` or an earlier reload that no start will ask for any more.
        self.outdated: set[str] = set()
        self._requests = requests
        self._entry_points = entry_points
        self._env = {**env, "CUDA_VISIBLE_DEVICES": "", PARENT_PID: str(os.getpid())}
        self._cwd = cwd
        self._cache = cache
        self._on_change = on_change
        self._describe_s = describe_s
        self._shelf = Shelf()
        self._known: dict[PlaceId, Known] = {}
        #: What is to be described; None before `recall`.
        self._fresh: list[SourceRef] | None = None
        self._changed = asyncio.Event()
        self._children = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def specs(self) -> Mapping[str, HandlerSpec]:
        """All handlers by name, the broken ones too."""
        return self._shelf.specs

    def recall(self) -> None:
        """Find the sources, and take those whose description is remembered; `run` describes the others.

        Raises:
            RefusedStart: a file that is not there, or two handlers of one name.
        """
        self._fresh = [place for place in self._find() if not self._recall(place)]
        self.describing = bool(self._fresh)
        self._tell()

    async def run(self) -> None:
        """Describe everything; returns when all is known.

        Raises:
            RefusedStart: as `recall`.
        """
        try:
            if self._fresh is None:
                self.recall()
            await _all([self._describe_new(place) for place in self._fresh or []])
        finally:
            self.describing = False
            self._tell()

    async def wait_for(self, name: str) -> HandlerSpec | None:
        """The handler of this name, once it is described; None where there is none after all were."""
        while name not in self.specs and self.describing:
            await self._changed.wait()
        return self.specs.get(name)

    async def settled(self) -> None:
        """Until nothing is being described any more."""
        while self.describing:
            await self._changed.wait()

    async def reload(self) -> set[str]:
        """Find the sources anew and describe those whose files are not what they were. Gives the names of
        handlers that may be others now, gone or new. One at a time.

        Raises:
            RefusedStart: as `recall`; everything is left as it was.
        """
        await self.settled()
        places, stale = await asyncio.to_thread(self._sift)
        fresh: dict[PlaceId, Known] = {}

        async def describe(place: SourceRef) -> None:
            fresh[place.id] = await self._describe(place, self._known.get(place.id))

        await _all([describe(place) for place in stale])
        shelf, before, now = Shelf(), self._known, {}
        for place in places:
            one = now[place.id] = fresh.get(place.id) or before[place.id]
            shelf.add(place.title, one.specs)
        self._shelf, self._known = shelf, now
        return self._account(before, fresh)

    def folders(self) -> set[str]:
        """Those in which a change may mean other handlers."""
        found: set[str] = set()
        for known in self._known.values():
            found.update(known.place.path)
            found.update(os.path.dirname(path) for path in known.description.files)
        return found

    def _find(self) -> list[SourceRef]:
        return sources.find_sources(
            self._requests, with_entry_points=self._entry_points, cwd=self._cwd, env=self._env
        )

    def _sift(self) -> tuple[list[SourceRef], list[SourceRef]]:
        """All sources as they are now, and those that have to be described. Reads files: not for the loop."""
        importlib.invalidate_caches()
        places = self._find()
        stale = [
            place
            for place in places
            if (known := self._known.get(place.id)) is None or not known.is_current(place)
        ]
        for place in stale:
            if place.id in self._known:
                _drop_bytecode(self._known[place.id].description)
        return places, stale

    def _account(self, before: Mapping[PlaceId, Known], fresh: Mapping[PlaceId, Known]) -> set[str]:
        """What a reload has changed: the names, and what is to be remembered and forgotten."""
        self.remembered, self.outdated, names = {}, set(), set()
        for known in fresh.values():
            self._remember(known)
        for place_id, old in before.items():
            new = self._known.get(place_id)
            if new is None or (new is not old and new.description != old.description):
                names |= old.names
            if old.key is not None and (new is None or new.key != old.key):
                self.outdated.add(old.key)
        for place_id, new in fresh.items():
            if place_id not in before or new.description != before[place_id].description:
                names |= new.names
        return names

    def _recall(self, place: SourceRef) -> bool:
        key = place.cache_key()
        found = None if key is None else self._cache.get(key)
        if found is None:
            return False
        try:
            description = _decoder.decode(found)
        except msgspec.DecodeError:
            # Written by another version: as good as not remembered.
            return False
        known = Known(place, description, description.specs, key)
        if not known.is_current(place):
            # A file that it imports has changed.
            _drop_bytecode(description)
            return False
        self._take(known)
        return True

    async def _describe_new(self, place: SourceRef) -> None:
        known = await self._describe(place)
        self._remember(known)
        self._take(known)
        self._tell()

    async def _describe(self, place: SourceRef, before: Known | None = None) -> Known:
        """Import it in a child. Of a source that can't be imported any more all handlers are broken."""
        # Taken before: a file that is changed while it is read must not be remembered as the new one.
        key = place.cache_key()
        async with self._children:
            description = await _ask_child(place, self._env, self._cwd, self._describe_s)
        kept = before.key if before is not None else None
        if not description.error:
            return Known(place, description, description.specs, key if description.is_complete else kept)
        source = Source(place.kind, place.target, place.attr or "", place.path)
        names = sorted(before.names) if before is not None and before.specs else [place.name]
        specs = [broken_spec(name, source, description.error) for name in names]
        return Known(place, description, specs, kept)

    def _remember(self, known: Known) -> None:
        # What is broken may be mended without a change of its own file.
        if known.key is not None and known.description.is_complete:
            self.remembered[known.key] = msgspec.msgpack.encode(known.description)

    def _take(self, known: Known) -> None:
        self._known[known.place.id] = known
        self._shelf.add(known.place.title, known.specs)

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._on_change()


def _drop_bytecode(description: SourceDescription) -> None:
    """What will be imported again must not be what was compiled before the change."""
    for path, digest in description.files.items():
        if not fingerprint.is_unchanged(path, digest):
            fingerprint.drop_bytecode(path)


async def _all(works: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do them side by side; where one fails, none goes on."""
    tasks = [asyncio.ensure_future(work) for work in works]
    try:
        for task in asyncio.as_completed(tasks):
            await task
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _ask_child(place: SourceRef, env: dict[str, str], cwd: Path, within_s: float) -> SourceDescription:
    """Its answer, or one that says why there is none."""
    order = DescribeRequest(
        place.name, place.kind, place.target, place.attr, place.path, place.must_have_handlers
    )
    try:
        child = _Child(order, env, cwd)
    except OSError as error:
        return SourceDescription(error=f"no process could be started to import {place.target}: {error}")
    try:
        await asyncio.wait_for(child.ended, within_s)
        why = f"the process that imported {place.target} ended with {_ending(child.end())}"
    except TimeoutError:
        why = f"importing {place.target} took longer than {within_s:g} s"
    finally:
        child.end()
    try:
        return _decoder.decode(child.answer)
    except msgspec.DecodeError:
        tail = child.printed.decode("utf-8", "replace")
        return SourceDescription(error=f"{why}, before it had answered\n{tail}".rstrip())


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


class _Child:
    """A describing process. Its group is killed in any case: an import may have started others."""

    def __init__(self, order: DescribeRequest, env: dict[str, str], cwd: Path) -> None:
        answer_in, answer_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "runner.discovery.describe",
                    msgspec.json.encode(order).decode(),
                    str(answer_out),
                ],
                pass_fds=(answer_out,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env=env,
                cwd=cwd,
            )
        except OSError:
            os.close(answer_in)
            raise
        finally:
            os.close(answer_out)
        self.answer = b""
        self.printed = b""
        self._status: int | None = None
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._answer_fd = answer_in
        self._readers = {
            answer_in: self._on_answer,
            self._stderr.fileno(): self._on_stderr,
            self._pidfd: self._on_end,
        }
        for fd, read in self._readers.items():
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, read)

    def end(self) -> int:
        """Kill what is left of its group, read what is left of its words, and give its exit status."""
        if self._status is not None:
            return self._status
        # While the leader is not reaped its number can't be another's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._status = self._process.wait()
        for fd in list(self._readers):
            self._loop.remove_reader(fd)
        self._on_answer()
        self._on_stderr()
        self._stderr.close()
        os.close(self._answer_fd)
        os.close(self._pidfd)
        return self._status

    def _on_end(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.ended.done():
            self.ended.set_result(None)

    def _on_answer(self) -> None:
        while chunk := self._read(self._answer_fd):
            self.answer += chunk
            if len(self.answer) > ANSWER_MAX_BYTES:
                # Not an answer of ours; what is cut off does not decode.
                self._loop.remove_reader(self._answer_fd)
                return

    def _on_stderr(self) -> None:
        while chunk := self._read(self._stderr.fileno()):
            self.printed = (self.printed + chunk)[-STDERR_TAIL_BYTES:]

    def _read(self, fd: int) -> bytes:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return b""
        if not chunk:
            self._loop.remove_reader(fd)
        return chunk
