"""Effect: the context of an attempt: all that a handler can tell us and ask of us."""

from __future__ import annotations

from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

from runner.executor.active_run import LOGGER
from runner.formats import strict_json
from runner.handlers.exceptions import JobCancelled

if TYPE_CHECKING:
    import logging
    from datetime import datetime
    from pathlib import Path

    from runner.executor.active_run import ActiveRun
    from runner.executor.files import FileData


class ChunkTooLarge(ValueError):
    """A chunk of output that is larger than an output may be."""


class Context:
    """Given to `load` and as second parameter to a handler; may be used from any thread of it.

    That of a batch speaks to all its items at once, and is cancelled when all of them are.
    After the attempt has ended it is dead: `progress` and `metric` are dropped, the rest raises RuntimeError.
    """

    __slots__ = ("_items", "_run")

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    @property
    def items(self) -> list[Context]:
        """In a batch the contexts of its items, in the order of the inputs; else this one alone."""
        if not hasattr(self, "_items"):
            self._items = [Context(run) for run in self._run.members]
        return self._items

    @property
    def job_id(self) -> str:
        """The job's id; empty for a batch as a whole, and in `load` where no job waits for it."""
        return self._run.job_id

    @property
    def attempt(self) -> int:
        """Which start of the job this is, from 1."""
        return self._run.number

    @property
    def device(self) -> str:
        """Where to put tensors: "cuda:0" or "cpu"."""
        return self._run.environment.config.device

    @property
    def devices(self) -> list[str]:
        """Ids of the devices this process may use, such as "gpu0"."""
        return list(self._run.environment.config.devices)

    @property
    def model(self) -> str:
        """The model that this process is loaded for, as the field says that `model_by` names; "" without."""
        return self._run.environment.config.model

    @property
    def vram_bytes(self) -> int | None:
        """Device memory promised to this process; None: none was promised."""
        return self._run.environment.config.grant_bytes or None

    @property
    def deadline(self) -> datetime | None:
        """When the run timeout strikes (UTC); None: never."""
        from datetime import UTC, datetime

        timeout_s = self._run.attempt.timeout_s
        if timeout_s is None or not self._run.started_at:
            return None
        try:
            return datetime.fromtimestamp(self._run.started_at + timeout_s, UTC)
        except (OverflowError, ValueError):
            # A timeout beyond the year 9999 never strikes.
            return None

    @property
    def tmpdir(self) -> Path:
        """A private folder, made when first asked for and removed when the attempt ends."""
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
        """A logger whose records become log events, like those of every other logger."""
        import logging

        if not self._run.closed:
            self._run.touch()
        return logging.getLogger(LOGGER)

    @property
    def cancelled(self) -> bool:
        """The job has been asked to stop."""
        if not self._run.closed:
            self._run.touch()
        return self._run.cancelled

    def check_cancelled(self) -> None:
        """
        Raises:
            JobCancelled: the job has been asked to stop.
        """
        self._run.require_open()
        if self.cancelled:
            raise JobCancelled(self._run.reason)

    def on_cancel(self, function: Callable[[], object]) -> None:
        """Call this, in a thread of its own, when the job is asked to stop (at once if it was already)."""
        self._run.require_open()
        self._run.touch()
        self._run.on_cancel(function)

    def progress(
        self, done: float, total: float | None = 100, message: str | None = None, **details: Any
    ) -> None:
        """How far it is; `details` are JSON values. May be called as often as you like: at most one in 50 ms
        is passed on, the first and the last always.

        Raises:
            ValueError: a number that is not finite, or details that are not JSON.
        """
        if not self._run.closed:
            self._run.touch()
            self._run.add_progress(done, total, message, details)

    def output(self, chunk: Any) -> None:
        """Stream a chunk (a JSON value or pydantic model) to whoever listens.

        Raises:
            ValueError: not JSON, or larger than an output may be.
        """
        run = self._run
        run.require_open()
        run.touch()
        data = strict_json.encode(chunk)
        if len(data) > run.environment.config.output_max_bytes:
            raise ChunkTooLarge(
                f"a chunk of {len(data)} bytes; an output may have {run.environment.config.output_max_bytes}"
            )
        run.add_output(data)

    def metric(self, name: str, value: float) -> None:
        """A figure over time, such as a loss.

        Raises:
            ValueError: not a finite number.
        """
        if not self._run.closed:
            self._run.touch()
            self._run.add_metric(name, value)

    def save_file(self, name: str, data: FileData, content_type: str | None = None) -> dict[str, Any]:
        """Keep a file with the job: bytes, a path, or an open file. Gives its reference, which may go into
        the output. The same name again replaces the earlier file.

        Raises:
            ValueError: not the name of a file.
            OSError: the disk does not take it.
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
