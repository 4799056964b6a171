"""Effect: converts the return value of a handler's function to the JSON text of the job's output."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Coroutine, Generator
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from runner.executor.attempt_run import AttemptRun
from runner.executor.result_errors import ResultTooLarge
from runner.executor.results import ResultEncoder
from runner.handlers.exceptions import JobCancelled

if TYPE_CHECKING:
    import asyncio

    from runner.executor.active_run import ActiveRun


class Invocation:
    """Converts results by their kind: a value, coroutine, generator or asynchronous generator.

    The kind of the result counts, not that of the function, so a decorated handler is no special case.
    Coroutines of one executor share one event loop: connections that `load` opened in it stay usable.
    """

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def encode_result(self, run: AttemptRun, value: Any, encoder: ResultEncoder) -> bytes:
        """Return the JSON text of the output, as the handler's encoder makes it.

        Raises:
            NotSerialisable: the value or a chunk is not JSON.
            ResultTooLarge: the text exceeds the limit of an output.
            JobCancelled: the job was asked to stop between two chunks.
        """
        if isinstance(value, CoroutineType):
            value = self.run_coroutine(run, value)
        if isinstance(value, GeneratorType):
            return self._collect(run, value, encoder)
        if isinstance(value, AsyncGeneratorType):
            output: bytes = self.run_coroutine(run, self._collect_async(run, value, encoder))
            return output
        output = encoder.encode_returned(run, value)
        _check_size(len(output), run)
        return output

    def resolve_batch_result(self, run: ActiveRun, value: Any) -> Any:
        """Return the outcomes of a batch call; a coroutine is run to its end first."""
        return self.run_coroutine(run, value) if isinstance(value, CoroutineType) else value

    async def encode_result_in_loop(self, run: AttemptRun, value: Any, encoder: ResultEncoder) -> bytes:
        """Do the same as `encode_result` for the result of an asynchronous handler, in the running loop."""
        if isinstance(value, CoroutineType):
            value = await value
        if isinstance(value, AsyncGeneratorType):
            return await self._collect_async(run, value, encoder)
        output = encoder.encode_returned(run, value)
        _check_size(len(output), run)
        return output

    def run_coroutine(self, run: ActiveRun, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine to its end in the executor's loop and return its result.

        A cancel request for the run cancels the coroutine.

        Raises:
            BaseException: whatever the coroutine raises, CancelledError included.
        """
        loop = self.event_loop()
        task = loop.create_task(coroutine)
        run.interrupt = lambda: _cancel_soon(loop, task)
        # The cancel request may have come before there was a task to interrupt.
        if run.cancelled:
            task.cancel()
        try:
            return loop.run_until_complete(task)
        finally:
            run.interrupt = None

    def event_loop(self) -> asyncio.AbstractEventLoop:
        """Return the executor's event loop, created at first use: asyncio is slow to import."""
        if self._loop is None:
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop

    def _collect(self, run: AttemptRun, generator: Generator[Any, Any, Any], encoder: ResultEncoder) -> bytes:
        chunks = _ChunkCollector(run, encoder)
        try:
            while True:
                try:
                    chunk = next(generator)
                except StopIteration as stop:
                    return chunks.encode_result(stop.value)
                chunks.add(chunk)
        finally:
            # Its `finally` blocks run now, not when the garbage collector finds it.
            generator.close()

    async def _collect_async(
        self, run: AttemptRun, generator: AsyncGenerator[Any, Any], encoder: ResultEncoder
    ) -> bytes:
        chunks = _ChunkCollector(run, encoder)
        try:
            async for chunk in generator:
                chunks.add(chunk)
        finally:
            await generator.aclose()
        return chunks.encode_result(None)


class _ChunkCollector:
    """Streams the chunks that a generator yields, and keeps them as long as they may become the output."""

    def __init__(self, run: AttemptRun, encoder: ResultEncoder) -> None:
        self._run = run
        self._encoder = encoder
        self._kept: list[bytes] = []
        #: Bytes of the chunks as one JSON array, with one comma more than the array has.
        self._size = 2

    def add(self, chunk: Any) -> None:
        """Send a chunk as an output event and keep it.

        Raises:
            JobCancelled: the job was asked to stop.
            NotSerialisable: the chunk is not JSON.
            ResultTooLarge: all chunks together exceed the limit of an output.
        """
        run = self._run
        run.touch()
        if run.cancelled:
            raise JobCancelled(run.reason)
        data = self._encoder.encode_yielded(run, chunk)
        self._size += len(data) + 1
        # Count before streaming: an endless generator stops here, not in the store.
        _check_size(self._size - 1, run)
        self._kept.append(data)
        run.add_output(data)

    def encode_result(self, returned: Any) -> bytes:
        """Return the output: what the generator returned or, if that is None, the array of its chunks."""
        if returned is None:
            return b"[" + b",".join(self._kept) + b"]"
        data = self._encoder.encode_returned(self._run, returned)
        _check_size(len(data), self._run)
        return data


def _check_size(size: int, run: AttemptRun) -> None:
    """Check that an output may have this size in bytes.

    Raises:
        ResultTooLarge: it may not.
    """
    limit = run.environment.config.output_max_bytes
    if size > limit:
        raise ResultTooLarge(f"an output of {size} bytes or more; the limit is {limit}")


def _cancel_soon(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any]) -> None:
    """Cancel the task from the channel thread."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(task.cancel)
