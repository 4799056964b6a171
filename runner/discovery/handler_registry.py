"""Effect: describes all sources of handlers concurrently in child processes, and caches the descriptions.

A cached description is used as long as the source's files, the interpreter and runner itself are unchanged.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import secrets
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
from runner.discovery.handler_table import HandlerTable
from runner.discovery.sources import SourceRef
from runner.executor.bootstrap import PARENT_PID
from runner.handlers.spec import HandlerSpec, Source, SourceDescription
from runner.processes.orphans import MARKER, kill_marked

#: Longest time to import and describe a source.
DESCRIBE_S = 120.0  # guard: describe-limit
#: Longest description of a source; a longer one is treated as a failure.
ANSWER_MAX_BYTES = 16 * 1024 * 1024
STDERR_TAIL_BYTES = 8 * 1024
#: How often the processes that an import left behind are looked for.
KILL_ROUNDS = 3

_decoder = msgspec.msgpack.Decoder(SourceDescription)
SourceId = tuple[str, str, str | None]


@dataclass(frozen=True, slots=True)
class DescribedSource:
    """A source with its description and its handlers."""

    ref: SourceRef
    description: SourceDescription
    #: The description's handlers; after a failed import, broken placeholders for the known ones.
    specs: list[HandlerSpec]
    #: Cache key of its last complete description; None if it can't be cached.
    key: str | None

    @property
    def handler_names(self) -> set[str]:
        """Return the names of its handlers, usable or not."""
        return {spec.name for spec in self.specs}

    def is_current(self, ref: SourceRef) -> bool:
        """Return whether describing `ref` again would give the same result.

        False for a broken source: it may be fixed without a change to its own files.
        """
        files = self.description.files
        if ref != self.ref or not self.description.is_complete:
            return False
        if not files:
            # Without recorded source files only the cache key can tell.
            return self.key is not None and ref.cache_key() == self.key
        return all(fingerprint.is_unchanged(path, digest) for path, digest in files.items())


class HandlerRegistry:
    """All handlers by name, described at the start and again by `reload`.

    `on_change` is called on the event loop whenever the start has added handlers to `specs`; `reload`
    replaces `specs` in one step instead. `describe_s` bounds the import of one source, in seconds.
    """

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
        marker: str | None = None,
    ) -> None:
        """Create a registry without handlers.

        `marker` begins the marker of every process that describes a source, by which the processes that an
        import leaves behind are found and killed, at the next start too; None: one that nobody else knows.
        """
        #: Some sources have not been described yet.
        self.describing = True
        #: New descriptions of the start or the last reload, to pass as `cache` to the next start.
        self.cache_entries: dict[str, bytes] = {}
        #: Keys of `cache` or an earlier reload that no later start will use.
        self.outdated_keys: set[str] = set()
        self._requests = requests
        self._entry_points = entry_points
        self._env = {**env, "CUDA_VISIBLE_DEVICES": "", PARENT_PID: str(os.getpid())}
        self._cwd = cwd
        self._cache = cache
        self._on_change = on_change
        self._describe_s = describe_s
        self._marker = marker or f"describe-{secrets.token_hex(4)}"
        self._table = HandlerTable()
        self._described: dict[SourceId, DescribedSource] = {}
        #: Sources to describe; None before `load_cache`.
        self._pending: list[SourceRef] | None = None
        #: Handler names of each source when it was last described, by an earlier start too.
        self._names_before: dict[SourceId, set[str]] = {}
        self._changed = asyncio.Event()
        self._child_slots = asyncio.Semaphore(os.cpu_count() or 1)

    @property
    def specs(self) -> Mapping[str, HandlerSpec]:
        """Return all handlers by name, including broken ones."""
        return self._table.specs

    def load_cache(self) -> None:
        """Find the sources and use cached descriptions where they are valid; `describe_all` makes the others.

        Raises:
            RefusedStart: a file does not exist, or two handlers have the same name.
        """
        self._pending = [ref for ref in self._find_sources() if not self._load_cached(ref)]
        self.describing = bool(self._pending)
        if self._pending:
            self._names_before = _names_by_source(self._cache.values())
        self._notify()

    async def describe_all(self) -> None:
        """Describe all sources that are not cached; return when all handlers are known.

        Raises:
            RefusedStart: as `load_cache`.
        """
        try:
            if self._pending is None:
                self.load_cache()
            await _run_all([self._describe_and_add(ref) for ref in self._pending or []])
        finally:
            self.describing = False
            self._notify()

    @property
    def sources_being_described(self) -> list[str]:
        """Return the titles of the sources of the start that are still being imported."""
        return [ref.title for ref in self._pending or () if ref.id not in self._described]

    def is_expected(self, name: str) -> bool:
        """Return whether a source that is still being imported may define this handler.

        A source that was described before is expected to define the same names; a new one any name.
        """
        if self._pending is None:
            return self.describing
        left = [ref for ref in self._pending if ref.id not in self._described]
        return any(name in self._names_before.get(ref.id, {name}) for ref in left)

    async def wait_for_handler(self, name: str) -> HandlerSpec | None:
        """Return the handler of this name as soon as it is described; None if no source has it."""
        while name not in self.specs and self.describing:
            await self._changed.wait()
        return self.specs.get(name)

    async def wait_until_described(self) -> None:
        """Wait until no source is being described."""
        while self.describing:
            await self._changed.wait()

    async def reload(self) -> set[str]:
        """Find the sources again and describe those whose files have changed; not reentrant.

        Returns:
            The names of handlers that are new, removed or possibly changed.

        Raises:
            RefusedStart: as `load_cache`; nothing has changed then.
        """
        await self.wait_until_described()
        refs, stale = await asyncio.to_thread(self._find_changed)
        described: dict[SourceId, DescribedSource] = {}

        async def describe(ref: SourceRef) -> None:
            described[ref.id] = await self._describe(ref, self._described.get(ref.id))

        await _run_all([describe(ref) for ref in stale])
        table, before, now = HandlerTable(), self._described, {}
        for ref in refs:
            one = now[ref.id] = described.get(ref.id) or before[ref.id]
            table.add(ref.title, one.specs)
        self._table, self._described = table, now
        return self._record_changes(before, described)

    def watched_folders(self) -> set[str]:
        """Return the folders in which a change may affect handlers, as absolute paths."""
        found: set[str] = set()
        for known in self._described.values():
            found.update(known.ref.path)
            found.update(os.path.dirname(path) for path in known.description.files)
        return found

    def _find_sources(self) -> list[SourceRef]:
        return sources.find_sources(
            self._requests, with_entry_points=self._entry_points, cwd=self._cwd, env=self._env
        )

    def _find_changed(self) -> tuple[list[SourceRef], list[SourceRef]]:
        """Return all sources as they are now, and those to describe again.

        Reads files, so it must not run on the event loop.
        """
        importlib.invalidate_caches()
        refs = self._find_sources()
        stale = [
            ref for ref in refs if (known := self._described.get(ref.id)) is None or not known.is_current(ref)
        ]
        for ref in stale:
            if ref.id in self._described:
                _drop_bytecode(self._described[ref.id].description)
        return refs, stale

    def _record_changes(
        self, before: Mapping[SourceId, DescribedSource], described: Mapping[SourceId, DescribedSource]
    ) -> set[str]:
        """Record the result of a reload: the cache entries to write and to drop. Return the changed names."""
        self.cache_entries, self.outdated_keys, names = {}, set(), set()
        for known in described.values():
            self._cache_description(known)
        for source_id, old in before.items():
            new = self._described.get(source_id)
            if new is None or (new is not old and new.description != old.description):
                names |= old.handler_names
            if old.key is not None and (new is None or new.key != old.key):
                self.outdated_keys.add(old.key)
        for source_id, new in described.items():
            if source_id not in before or new.description != before[source_id].description:
                names |= new.handler_names
        return names

    def _load_cached(self, ref: SourceRef) -> bool:
        """Use the cached description of a source; return False if there is none or it is outdated."""
        key = ref.cache_key()
        found = None if key is None else self._cache.get(key)
        if found is None:
            return False
        try:
            description = _decoder.decode(found)
        except msgspec.DecodeError:
            # Written by another version of runner: treat it as not cached.
            return False
        known = DescribedSource(ref, description, description.specs, key)
        if not known.is_current(ref):
            # A file that the source imports has changed.
            _drop_bytecode(description)
            return False
        self._add(known)
        return True

    async def _describe_and_add(self, ref: SourceRef) -> None:
        known = await self._describe(ref)
        self._cache_description(known)
        self._add(known)
        self._notify()

    async def _describe(self, ref: SourceRef, before: DescribedSource | None = None) -> DescribedSource:
        """Describe a source in a child; if the import fails, all its known handlers are broken."""
        # Compute the key first: a file that changes during the import must not be cached as changed.
        key = ref.cache_key()
        async with self._child_slots:
            # Unique for each description, since several run at a time.
            marker = f"{self._marker}.{secrets.token_hex(4)}/"
            env = {**self._env, MARKER: marker}
            try:
                description = await _describe_in_child(ref, env, self._cwd, self._describe_s)
            finally:
                # What the import started in a session of its own outlives the process group.
                await asyncio.to_thread(_kill_all_marked, marker)
        kept = before.key if before is not None else None
        if not description.error:
            return DescribedSource(
                ref, description, description.specs, key if description.is_complete else kept
            )
        source = Source(ref.kind, ref.target, ref.attr or "", ref.path)
        names = sorted(before.handler_names) if before is not None and before.specs else [ref.name]
        specs = [broken_spec(name, source, description.error) for name in names]
        return DescribedSource(ref, description, specs, kept)

    def _cache_description(self, known: DescribedSource) -> None:
        # Never cache a broken source: it may be fixed without a change to its own file.
        if known.key is not None and known.description.is_complete:
            self.cache_entries[known.key] = msgspec.msgpack.encode(known.description)

    def _add(self, known: DescribedSource) -> None:
        self._described[known.ref.id] = known
        self._table.add(known.ref.title, known.specs)

    def _notify(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._on_change()


def _names_by_source(descriptions: Iterable[bytes]) -> dict[SourceId, set[str]]:
    """Return the handler names of each source in cached descriptions; unreadable ones are left out."""
    found: dict[SourceId, set[str]] = {}
    for text in descriptions:
        try:
            specs = _decoder.decode(text).specs
        except msgspec.DecodeError:
            # Written by another version of runner.
            continue
        for spec in specs:
            source = (spec.source.kind, spec.source.target, spec.source.attr or None)
            # A source without an attribute defines the handlers of all attributes.
            for source_id in (source, (*source[:2], None)):
                found.setdefault(source_id, set()).add(spec.name)
    return found


def _kill_all_marked(marker: str) -> None:
    """Kill all processes with this marker; again, a bounded number of times, if one has forked meanwhile."""
    for _ in range(KILL_ROUNDS):
        if not kill_marked(marker):
            return


def _drop_bytecode(description: SourceDescription) -> None:
    """Remove bytecode from before the change: the next import must not use it."""
    for path, digest in description.files.items():
        if not fingerprint.is_unchanged(path, digest):
            fingerprint.drop_bytecode(path)


async def _run_all(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Run the coroutines concurrently; if one fails, cancel the others and raise its error."""
    tasks = [asyncio.ensure_future(work) for work in coroutines]
    try:
        for task in asyncio.as_completed(tasks):
            await task
    finally:
        for one in tasks:
            one.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _describe_in_child(
    ref: SourceRef, env: dict[str, str], cwd: Path, within_s: float
) -> SourceDescription:
    """Return the child's description, or one with the error if the child crashed or timed out."""
    request = DescribeRequest(ref.name, ref.kind, ref.target, ref.attr, ref.path, ref.must_have_handlers)
    try:
        child = _DescribingChild(request, env, cwd)
    except OSError as error:
        return SourceDescription(error=f"cannot start a process to import {ref.target}: {error}")
    try:
        await asyncio.wait_for(child.exited, within_s)
        why = f"the process importing {ref.target} exited with {_exit_text(child.kill())}"
    except TimeoutError:
        why = f"importing {ref.target} timed out after {within_s:g} s"
    finally:
        child.kill()
    try:
        return _decoder.decode(child.answer)
    except msgspec.DecodeError:
        tail = child.stderr_tail.decode("utf-8", "replace")
        return SourceDescription(error=f"{why} before it had replied\n{tail}".rstrip())


def _exit_text(status: int) -> str:
    """Return the exit status as text: an exit code or a signal's name."""
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


class _DescribingChild:
    """A describing process.

    Its process group is always killed: an import may have started other processes.
    """

    def __init__(self, request: DescribeRequest, env: dict[str, str], cwd: Path) -> None:
        answer_in, answer_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "runner.discovery.describe",
                    msgspec.json.encode(request).decode(),
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
        self.stderr_tail = b""
        self._status: int | None = None
        assert self._process.stderr is not None
        self._stderr = self._process.stderr
        self._loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = self._loop.create_future()
        self._pidfd = os.pidfd_open(self._process.pid)
        self._answer_fd = answer_in
        self._readers = {
            answer_in: self._on_answer,
            self._stderr.fileno(): self._on_stderr,
            self._pidfd: self._on_exit,
        }
        for fd, read in self._readers.items():
            os.set_blocking(fd, False)
            self._loop.add_reader(fd, read)

    def kill(self) -> int:
        """Kill the rest of the process group, read the remaining output, and return the exit status."""
        if self._status is not None:
            return self._status
        # Safe until the leader is reaped: before that, no other process can get its pid.
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

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        if not self.exited.done():
            self.exited.set_result(None)

    def _on_answer(self) -> None:
        while chunk := self._read(self._answer_fd):
            self.answer += chunk
            if len(self.answer) > ANSWER_MAX_BYTES:
                # Too long for a description: stop reading, since a truncated one does not decode.
                self._loop.remove_reader(self._answer_fd)
                return

    def _on_stderr(self) -> None:
        while chunk := self._read(self._stderr.fileno()):
            self.stderr_tail = (self.stderr_tail + chunk)[-STDERR_TAIL_BYTES:]

    def _read(self, fd: int) -> bytes:
        try:
            chunk = os.read(fd, 65536)
        except BlockingIOError:
            return b""
        if not chunk:
            self._loop.remove_reader(fd)
        return chunk
