"""Effect: the stamps that executions left: which ran, when, and whether two were alive at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ExecutionStamp:
    """One execution of an attempt; times are of the machine's monotonic clock."""

    attempt: int
    pid: int
    started_at: float
    #: Seconds that it waited until no earlier execution of its job was alive.
    waited_s: float
    #: None: it was killed.
    ended_at: float | None = None
    #: "ok" or the exception that ended it.
    how: str | None = None


class ExecutionStamps:
    """The folder of stamps."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # By the end of the id, which is random: one folder of all would be slow to look through.
        for number in range(256):
            (folder / f"{number:02x}").mkdir(parents=True, exist_ok=True)

    def find(self, job_id: str) -> list[ExecutionStamp]:
        """All executions of a job in the order of their starts."""
        paths = (self.folder / job_id[-2:]).glob(f"{job_id}.*")
        found = [_read_stamp(path) for path in paths if path.suffix != ".lock"]
        return sorted((stamp for stamp in found if stamp is not None), key=lambda stamp: stamp.started_at)

    def remove(self, job_id: str) -> None:
        """Forget a job."""
        for path in (self.folder / job_id[-2:]).glob(f"{job_id}.*"):
            path.unlink(missing_ok=True)


def _read_stamp(path: Path) -> ExecutionStamp | None:
    """None where the process was killed before it wrote a word."""
    lines = [line.split() for line in path.read_text().splitlines()]
    if not lines or lines[0][0] != "start":
        return None
    _, started, pid, waited = lines[0]
    attempt = int(path.name.split(".")[1])
    if len(lines) == 1:
        return ExecutionStamp(attempt, int(pid), float(started), float(waited))
    _, ended, how = lines[1]
    return ExecutionStamp(attempt, int(pid), float(started), float(waited), float(ended), how)
