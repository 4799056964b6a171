"""Pure: a job as the server returns it."""

from __future__ import annotations

from typing import Any

from runner.jobs.job import ENDED


class Job(dict[str, Any]):
    """The JSON document of one job at one moment; the common fields are also attributes.

    It does not change by itself: `client.get(id)` returns a newer one.
    """

    @property
    def id(self) -> str:
        """UUIDv7 text."""
        return str(self["id"])

    @property
    def handler(self) -> str:
        """Name of the handler."""
        return str(self["handler"])

    @property
    def queue(self) -> str:
        """Name of the queue."""
        return str(self["queue"])

    @property
    def state(self) -> str:
        """queued, running, succeeded, failed or cancelled."""
        return str(self["state"])

    @property
    def reason(self) -> str | None:
        """Why the job is in its state, such as "waiting_for_memory"; for an ended job the error's code."""
        return self.get("reason")

    @property
    def position(self) -> int | None:
        """1 + how many jobs should start before it; None unless it is queued, in lists, and where unknown."""
        return self.get("position")

    @property
    def eta_s(self) -> float | None:
        """Seconds to its start, from learned durations; None unless it is queued, and where unknown."""
        return self.get("eta_s")

    @property
    def last_error(self) -> dict[str, Any] | None:
        """Error of the attempt before, while the job waits for its retry; None otherwise."""
        return self.get("last_error")

    @property
    def ended(self) -> bool:
        """True once it succeeded, failed or was cancelled."""
        return self["state"] in ENDED

    @property
    def attempt(self) -> int:
        """Number of starts so far; 0 before the first."""
        return int(self.get("attempt") or 0)

    @property
    def progress(self) -> dict[str, Any] | None:
        """Latest progress: done, total, fraction, message, details."""
        return self.get("progress")

    @property
    def output(self) -> Any:
        """What the handler returned; None in lists if it is large (see `output_bytes`)."""
        return self.get("output")

    @property
    def error(self) -> dict[str, Any] | None:
        """Code, message, detail, and whether a retry may help; None without an error."""
        return self.get("error")

    @property
    def warnings(self) -> list[str]:
        """Texts about ignored fields of the input; empty except in the answer to a submit."""
        return list(self.get("warnings") or ())

    def __repr__(self) -> str:
        """Return a short form: lists of jobs are often printed."""
        return f"<Job {self.get('id')} {self.get('handler')} {self.get('state')}>"
