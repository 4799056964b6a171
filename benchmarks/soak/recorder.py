"""Effect: writes down what clients asked and what they were answered, for `benchmarks.soak.judge`.

[history.py](judge/history.py) of the judge says what a line holds. Outputs are kept as digests.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Document = dict[str, Any]
JOBS = "/v1/jobs"


class SseEvent(NamedTuple):
    name: str
    #: None: it is not stored.
    id: int | None
    data: bytes


class HistoryRecorder:
    """The file of one run. Lines are written as calls end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("w", encoding="utf-8")

    def close(self) -> None:
        self._file.close()

    def record_request(
        self, method: str, path: str, document: Any, start: float, status: int | None, body: bytes
    ) -> None:
        """A request that has ended now; `status` None: without an answer."""
        call: Document = {"start": start, "end": time.monotonic(), "status": status}
        where = path.partition("?")[0]
        if where == JOBS and method == "GET":
            rows = json.loads(body)["data"] if status == 200 else ()
            self._write({"call": "list", **call, "path": path, "views": [_view(row) for row in rows]})
        elif where == JOBS and method == "POST":
            self._write({"call": "submit", **call, "tag": document["tags"][0], **_accepted(status, body)})
        elif where == f"{JOBS}/bulk":
            self._record_bulk(call, document["jobs"], body)
        elif where.startswith(f"{JOBS}/"):
            job_id, _, verb = where.removeprefix(f"{JOBS}/").partition("/")
            self._record_job_call(method, verb, {**call, "job": job_id}, body)

    def record_stream(
        self,
        path: str,
        after: int | None,
        start: float,
        status: int | None,
        how: str,
        events: Sequence[SseEvent],
    ) -> None:
        """A stream that has ended now, by the server, a cut or its reader."""
        job_id = path.removeprefix(f"{JOBS}/").partition("/")[0]
        self._write(
            {
                "call": "stream",
                "job": job_id,
                "after": after,
                "start": start,
                "end": time.monotonic(),
                "status": status,
                "how": how,
                "events": [[event.name, event.id, _digest(event.data), _facts(event)] for event in events],
            }
        )

    def record_execution(
        self, job_id: str, attempt: int, start: float, end: float | None, waited_s: float
    ) -> None:
        """User code has run for an attempt; `end` None: it was killed."""
        self._write(
            {
                "call": "execution",
                "job": job_id,
                "attempt": attempt,
                "start": start,
                "end": end,
                "waited_s": waited_s,
            }
        )

    def record_fault(self, what: str, start: float) -> None:
        """A fault that was done to the server since `start` and is over now."""
        self._write({"call": "fault", "what": what, "start": start, "end": time.monotonic()})

    def record_complete(self) -> None:
        """Every job was given the time to end, and was looked at."""
        self._write({"call": "complete", "start": time.monotonic()})

    def _record_bulk(self, call: Document, jobs: Sequence[Document], body: bytes) -> None:
        is_answered = call["status"] is not None and call["status"] < 300
        rows = json.loads(body)["jobs"] if is_answered else [None] * len(jobs)
        for job, row in zip(jobs, rows, strict=True):
            found: Document = {}
            if row is not None:
                found = {"job": row["id"]} if "id" in row else {"status": row["status"]}
            self._write({"call": "submit", **call, "tag": job["tags"][0], **found})

    def _record_job_call(self, method: str, verb: str, call: Document, body: bytes) -> None:
        has_document = call["status"] in (200, 202)
        if method == "GET" and verb == "attempts":
            rows = json.loads(body)["data"] if has_document else ()
            told = [[row["attempt"], row["started_at"], row["ended_at"]] for row in rows]
            self._write({"call": "attempts", **call, "attempts": told})
            return
        kind = {("GET", ""): "get", ("DELETE", ""): "delete"}.get((method, verb), verb)
        if kind in ("get", "delete", "cancel", "retry"):
            view = _view(json.loads(body)) if has_document else None
            self._write({"call": kind, **call, **({"view": view} if view is not None else {})})

    def _write(self, record: Document) -> None:
        self._file.write(json.dumps(record, separators=(",", ":")) + "\n")


def parse_sse(buffer: bytearray) -> list[SseEvent]:
    """Take the whole events off a buffer; comments and `retry` are no events."""
    events: list[SseEvent] = []
    while (end := buffer.find(b"\n\n")) >= 0:
        name = "message"
        event_id: int | None = None
        data: list[bytes] = []
        for line in bytes(buffer[:end]).split(b"\n"):
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode()
            elif field == b"id":
                event_id = int(value)
            elif field == b"data":
                data.append(value)
        del buffer[: end + 2]
        if data:
            events.append(SseEvent(name, event_id, b"\n".join(data)))
    return events


def _accepted(status: int | None, body: bytes) -> Document:
    if status is None or status >= 300:
        return {}
    job = json.loads(body)
    return {"job": job["id"], "view": _view(job)}


def _view(job: Mapping[str, Any]) -> Document:
    """What the judge reads of a job's document."""
    output = job["output"]
    parts = output if isinstance(output, list) else [] if output is None else [output]
    named = {(str(part.get("key")), str(part.get("job")), int(part.get("attempt", 0))) for part in parts}
    return {
        "job": job["id"],
        "tag": job["tags"][0] if job["tags"] else "",
        "state": job["state"],
        "attempt": job["attempt"],
        "code": job["error"]["code"] if job["error"] else None,
        "digest": None if output is None else _digest(json.dumps(output, sort_keys=True).encode()),
        "parts": sorted(named),
    }


def _facts(event: SseEvent) -> Document:
    if event.name not in ("gap", "status", "done"):
        return {}
    data = json.loads(event.data)
    return {name: data[name] for name in ("from", "to", "state", "attempt") if name in data}


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()
