"""Effect: the context of an attempt, through which a handler uses the runner."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from runner.executor import results
from runner.executor.active_run import LOGGER
from runner.handlers.exceptions import JobCancelled

if TYPE_CHECKING:
    import logging
    from datetime import datetime
    from pathlib import Path

    from runner.executor.active_run import ActiveRun
    from runner.executor.files import FileData


class ChunkTooLarge(ValueError):
    """A chunk of output exceeds the limit of an output."""


class Context:
    """Passed to `load`, and to a handler as its second parameter; any thread of it may use it.

    The context of a batch acts on all its items at once and is cancelled when all of them are.
    After the attempt has ended, `progress` and `metric` do nothing; the rest raises RuntimeError.
    """

    __slots__ = ("_items", "_run")

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    @property
    def items(self) -> list[Context]:
        """The contexts of a batch's items, in the order of the inputs; otherwise this context alone."""
        if not hasattr(self, "_items"):
            self._items = [Context(run) for run in self._run.members]
        return self._items

    @property
    def job_id(self) -> str:
        """The job's id; empty for a batch as a whole, and in a `load` that no job caused."""
        return self._run.job_id

    @property
    def attempt(self) -> int:
        """Number of this attempt of the job, from 1."""
        return self._run.number

    @property
    def device(self) -> str:
        """Device to put tensors on: "cuda:0" or "cpu"."""
        return self._run.environment.config.device

    @property
    def devices(self) -> list[str]:
        """Ids of the devices this process may use, such as "gpu0"."""
        return list(self._run.environment.config.devices)

    @property
    def model(self) -> str:
        """The model that this process is loaded for, from the input field that `model_by` names; else ""."""
        return self._run.environment.config.model

    @property
    def vram_bytes(self) -> int | None:
        """Device memory granted to this process; None: no grant."""
        return self._run.environment.config.grant_bytes or None

    @property
    def deadline(self) -> datetime | None:
        """When the run timeout ends the attempt (UTC); None: never."""
        from datetime import UTC, datetime

        timeout_s = self._run.attempt.timeout_s
        if timeout_s is None or not self._run.started_at:
            return None
        try:
            return datetime.fromtimestamp(self._run.started_at + timeout_s, UTC)
        except (OverflowError, ValueError):
            # A timeout beyond the year 9999 never ends it.
            return None

    @property
    def tmpdir(self) -> Path:
        """A private folder, created at first use and removed when the attempt ends."""
        run = self._run
        run.require_open()
        run.touch()
        if run.tmpdir is None:
            import tempfile
            from pathlib import Path

            run.tmpdir = Path(tempfile.mkdtemp(prefix="job-", dir=run.environment.config.tmp_dir or None))
        return run.tmpdir

    @property
    def log(self) -> logging.Logger:
        """A logger whose records become log events, as those of every other logger do."""
        import logging

        if not self._run.closed:
            self._run.touch()
        return logging.getLogger(LOGGER)

    @property
    def cancelled(self) -> bool:
        """Whether the job has been asked to stop."""
        if not self._run.closed:
            self._run.touch()
        return self._run.cancelled

    def check_cancelled(self) -> None:
        """Raise if the job has been asked to stop.

        Raises:
            JobCancelled: the job has been asked to stop.
        """
        self._run.require_open()
        if self.cancelled:
            raise JobCancelled(self._run.reason)

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call the function in its own thread when the job is asked to stop, or now if it already was."""
        self._run.require_open()
        self._run.touch()
        self._run.on_cancel(function)

    def progress(
        self, done: float, total: float | None = 100, message: str | None = None, **details: Any
    ) -> None:
        """Report progress; `details` are JSON values.

        May be called at any rate: at most one event in 50 ms is passed on, the first and the last always.

        Raises:
            ValueError: a number that is not finite, or details that are not JSON.
        """
        if not self._run.closed:
            self._run.touch()
            self._run.add_progress(done, total, message, details)

    def output(self, chunk: Any) -> None:
        """Stream a chunk to the job's subscribers; it may hold whatever an output may.

        Raises:
            ValueError: the chunk is not JSON, or larger than an output may be.
            ResultTooLarge: the attempt has sent as many events as it may; it fails even if this is caught.
        """
        run = self._run
        run.require_open()
        run.touch()
        data = results.encode_value(run, chunk)
        if len(data) > run.environment.config.output_max_bytes:
            raise ChunkTooLarge(
                f"a chunk of {len(data)} bytes; an output may have {run.environment.config.output_max_bytes}"
            )
        run.add_output(data)

    def metric(self, name: str, value: float) -> None:
        """Record a value over time, such as a loss.

        Raises:
            ValueError: the value is not a finite number.
        """
        if not self._run.closed:
            self._run.touch()
            self._run.add_metric(name, value)

    def save_file(self, name: str, data: FileData, content_type: str | None = None) -> dict[str, Any]:
        """Save a file with the job from bytes, a path or an open file.

        Returns its reference, which may be part of the output. Saving a name again replaces the earlier file.

        Raises:
            ValueError: the name is not a file name, the content type is not one, or the attempt has saved
                10,000 files.
            OSError: the disk refused the write.
        """
        from runner.executor import files

        self._run.require_open()
        self._run.touch()
        return files.save_file(self._run.file_owner(), name, data, content_type)

    def open_file(self, reference: dict[str, Any] | str) -> IO[bytes]:
        """Open the file of a reference (`{"$file": id}` or its id) for reading.

        Raises:
            FileNotFoundError: there is no such file.
        """
        from runner.executor import files

        self._run.require_open()
        self._run.touch()
        return files.open_file(self._run.members[0], reference)
