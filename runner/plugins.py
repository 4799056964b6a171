"""Effect: describes all sources of handlers side by side, in children, and remembers what they said."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from runner import sources
from runner.describe import Order, broken
from runner.errors import RefusedStart
from runner.execution.process import PARENT_PID
from runner.sources import Place
from runner.spec import HandlerSpec, Source

#: Longest time a source may take to be imported and described.
DESCRIBE_S = 120.0
ANSWER_MAX_BYTES = 16 * 1024 * 1024
STDERR_TAIL_BYTES = 8 * 1024

_specs_decoder = msgspec.msgpack.Decoder(list[HandlerSpec])


class Plugins:
    """`specs` holds what is described so far, by name; `on_change` is called whenever it has changed."""

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
        self.specs: dict[str, HandlerSpec] = {}
        #: Some sources are not described yet.
        self.describing = True
        #: Descriptions that were made now, for the next start's `cache`.
        self.remembered: dict[str, bytes] = {}
        self._requests = requests
        self._entry_points = entry_points
        self._env = {**env, "CUDA_VISIBLE_DEVICES": "", PARENT_PID: str(os.getpid())}
        self._cwd = cwd
        self._cache = cache
        self._on_change = on_change
        self._describe_s = describe_s
        self._titles: dict[str, str] = {}
        #: What is to be described; None before `recall`.
        self._fresh: list[Place] | None = None
        self._changed = asyncio.Event()
        self._children = asyncio.Semaphore(os.cpu_count() or 1)

    def recall(self) -> None:
        """Find the sources, and take those whose description is remembered; `run` describes the others.

        Raises:
            RefusedStart: a file that is not there, or two handlers of one name.
        """
        places = sources.find(
            self._requests, with_entry_points=self._entry_points, cwd=self._cwd, env=self._env
        )
        self._fresh = [place for place in places if not self._recall(place)]
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
            await self._describe_all(self._fresh or [])
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

    def _recall(self, place: Place) -> bool:
        key = place.key()
        known = None if key is None else self._cache.get(key)
        if known is None:
            return False
        try:
            specs = _specs_decoder.decode(known)
        except msgspec.DecodeError:
            # Written by another version: as good as not remembered.
            return False
        self._add(place, specs)
        return True

    async def _describe_all(self, places: list[Place]) -> None:
        tasks = [asyncio.ensure_future(self._describe(place)) for place in places]
        try:
            for task in asyncio.as_completed(tasks):
                await task
        finally:
            for one in tasks:
                one.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _describe(self, place: Place) -> None:
        # Taken before: a file that is changed while it is read must not be remembered as the new one.
        key = place.key()
        async with self._children:
            specs = await _ask_child(place, self._env, self._cwd, self._describe_s)
        # What is broken may be mended without a change of its own file.
        if key is not None and all(spec.state == "ok" for spec in specs):
            self.remembered[key] = msgspec.msgpack.encode(specs)
        self._add(place, specs)
        self._tell()

    def _add(self, place: Place, specs: list[HandlerSpec]) -> None:
        for spec in specs:
            other = self.specs.get(spec.name)
            if other is None:
                self.specs[spec.name] = spec
                self._titles[spec.name] = place.title
            elif spec.state == other.state == "ok":
                if not _is_same(spec, other):
                    raise RefusedStart(
                        f"two handlers are called {spec.name!r}: "
                        f"{self._titles[spec.name]} ({_where(other)}) and {place.title} ({_where(spec)})"
                    )
            else:
                self._add_beside(spec, other, place)

    def _add_beside(self, spec: HandlerSpec, other: HandlerSpec, place: Place) -> None:
        """Of two the usable one keeps the name; a broken source is listed under a name that is free."""
        good, bad = (spec, other) if spec.state == "ok" else (other, spec)
        self.specs[spec.name] = good
        number = 2
        while f"{spec.name}-{number}" in self.specs:
            number += 1
        name = f"{spec.name}-{number}"
        self.specs[name] = msgspec.structs.replace(bad, name=name)
        self._titles[name] = place.title if bad is spec else self._titles[spec.name]

    def _tell(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        self._on_change()


def _is_same(one: HandlerSpec, other: HandlerSpec) -> bool:
    """The same object, reached on two ways."""
    a, b = one.source, other.source
    return (a.kind, a.target, a.attr) == (b.kind, b.target, b.attr)


def _where(spec: HandlerSpec) -> str:
    return f"{spec.source.target}:{spec.source.attr}"


async def _ask_child(place: Place, env: dict[str, str], cwd: Path, within_s: float) -> list[HandlerSpec]:
    """Its answer, or one broken spec that says why there is none."""
    order = Order(place.name, place.kind, place.target, place.attr, place.path, place.is_meant)
    source = Source(place.kind, place.target, place.attr or "", place.path)
    try:
        child = _Child(order, env, cwd)
    except OSError as error:
        return [broken(place.name, source, f"no process could be started to import {place.target}: {error}")]
    try:
        await asyncio.wait_for(child.ended, within_s)
        why = f"the process that imported {place.target} ended with {_ending(child.end())}"
    except TimeoutError:
        why = f"importing {place.target} took longer than {within_s:g} s"
    finally:
        child.end()
    try:
        specs = _specs_decoder.decode(child.answer)
    except msgspec.DecodeError:
        tail = child.printed.decode("utf-8", "replace")
        return [broken(place.name, source, f"{why}, before it had answered\n{tail}".rstrip())]
    return specs


def _ending(status: int) -> str:
    if status >= 0:
        return f"exit code {status}"
    with contextlib.suppress(ValueError):
        return f"signal {signal.Signals(-status).name}"
    return f"signal {-status}"


class _Child:
    """A describing process. Its group is killed in any case: an import may have started others."""

    def __init__(self, order: Order, env: dict[str, str], cwd: Path) -> None:
        answer_in, answer_out = os.pipe()
        try:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "runner.describe",
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
