"""Effect: `runner load` and `runner unload`: load a handler ahead of its jobs, or unload it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Annotated, Any, Self

import typer

from runner.cli.common_options import AsJson, Url, open_client, print_json

Handler = Annotated[str, typer.Argument(metavar="HANDLER", help="The handler's name.", show_default=False)]
Model = Annotated[
    str | None, typer.Option("--model", metavar="MODEL", help="The model, for a handler with `model_by`.")
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="ID", help="Only on this device, such as gpu0.")
]

#: Interval, in seconds, at which the reason for the wait is fetched; a faster load shows none.
POLL_S = 0.5


def load(
    handler: Handler,
    model: Model = None,
    device: Device = None,
    wait: Annotated[
        str | None,
        typer.Option("--wait", metavar="TIME", help="Stop waiting after this time; the load continues."),
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Load a handler without a job.

    Waits until it is loaded and prints where. Idle executors may be evicted for it, as for a job. Ctrl-C does
    not stop the load. Exit code: 0 loaded, 1 the load failed, 6 --wait timed out.
    """
    from runner.cli.submit import parse_duration

    timeout_s = parse_duration(wait, "--wait")
    with open_client(url) as client, LoadProgress(url, handler, model, device):
        found = client.load(handler, model, device, timeout=timeout_s)
    if as_json:
        return print_json(found)
    print(f"{_title(handler, model)} is loaded on {_location(found['executor'])}")


def unload(
    handler: Handler, model: Model = None, device: Device = None, as_json: AsJson = False, url: Url = None
) -> None:
    """Unload a handler.

    Idle executors are unloaded now, busy ones after their current jobs. Later jobs load the handler again.
    """
    with open_client(url) as client:
        found = client.unload(handler, model, device)
    if as_json:
        return print_json(found)
    if not found["executors"]:
        print(f"{_title(handler, model)} is not loaded")
    for executor in found["executors"]:
        jobs = len(executor["jobs"])
        condition = f" after {jobs} running job{'s' if jobs > 1 else ''}" if jobs else ""
        print(f"unloading {_title(handler, executor['model'])} from {_location(executor)}{condition}")
    return None


class LoadProgress:
    """Prints on stderr why a load waits, in a thread of its own, while the caller waits for its end.

    On a terminal one line is rewritten; elsewhere a line is printed whenever the reason changes.
    """

    def __init__(self, url: str | None, handler: str, model: str | None, device: str | None) -> None:
        self._url = url
        self._handler, self._model, self._device = handler, model, device
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._is_live = sys.stderr.isatty()
        self._printed = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join(5.0)
        if self._is_live and self._printed:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _run(self) -> None:
        from runner.errors import RunnerError

        begin = time.monotonic()
        with open_client(self._url) as client:
            while not self._stopped.wait(POLL_S):
                try:
                    document = client.handler(self._handler)
                except (RunnerError, TimeoutError):
                    # The caller's own request gets the same error and reports it.
                    continue
                self._print(self._progress_text(document), time.monotonic() - begin)

    def _progress_text(self, document: Mapping[str, Any]) -> str:
        """Return why the load waits, or on which devices it runs; from the handler's document."""
        for one in document["waiting"]:
            if not one["preload"] and (one["model"], one["device"]) == (self._model, self._device):
                return str(one["message"])
        for one in document["executors"]:
            if one["state"] == "loading" and one["model"] == self._model:
                return f"loading on {', '.join(one['devices'])}"
        return "waiting"

    def _print(self, text: str, seconds: float) -> None:
        from runner.cli.formatting import format_duration, one_line

        if self._is_live:
            sys.stderr.write(
                f"\r\x1b[K{one_line(self._handler)}: {one_line(text, 100)}  {format_duration(seconds)}"
            )
        elif text != self._printed:
            sys.stderr.write(f"{one_line(self._handler)}: {one_line(text)}\n")
        self._printed = text
        sys.stderr.flush()


def _title(handler: str, model: str | None) -> str:
    """Return the handler's name, with its model in parentheses if there is one."""
    from runner.cli.formatting import one_line

    return one_line(f"{handler} ({model})" if model else handler)


def _location(executor: Mapping[str, Any]) -> str:
    """Return where an executor is: its devices, number and grant."""
    from runner.cli.formatting import format_size

    granted = executor["granted_bytes"]
    granted_text = f", {format_size(granted)} granted" if granted else ""
    return f"{', '.join(executor['devices'])} (executor {executor['id']}{granted_text})"
