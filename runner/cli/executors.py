"""Effect: `runner load` and `runner unload`: load a handler's executors ahead of its jobs, or unload them."""

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
    str | None, typer.Option("--model", metavar="MODEL", help="Which of its models, where it has some.")
]
Device = Annotated[str | None, typer.Option("--device", metavar="ID", help="Only there, such as gpu0.")]

#: Interval at which the reason is checked; a faster load shows none.
POLL_S = 0.5


def load(
    handler: Handler,
    model: Model = None,
    device: Device = None,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="TIME", help="Stop waiting after this; the load goes on.")
    ] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Load a handler without a job.

    Waits until it is ready, and says where. Idle executors go for it as they would for a job. Ctrl-C
    leaves the load alone. Exit code: 0 loaded, 1 it could not be loaded, 6 --wait is over.
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

    Idle executors go now, busy ones when they have ended what they run. Jobs that wait, and those to come,
    load it again.
    """
    with open_client(url) as client:
        found = client.unload(handler, model, device)
    if as_json:
        return print_json(found)
    if not found["executors"]:
        print(f"{_title(handler, model)} is not loaded")
    for executor in found["executors"]:
        jobs = len(executor["jobs"])
        condition = f" when {jobs} job{'s have' if jobs > 1 else ' has'} ended" if jobs else ""
        print(f"{_title(handler, executor['model'])} goes from {_location(executor)}{condition}")
    return None


class LoadProgress:
    """Prints on standard error why a load waits, while another call waits for its end."""

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
                    # The other call gets the same error and reports it.
                    continue
                self._print(self._progress_text(document), time.monotonic() - begin)

    def _progress_text(self, document: Mapping[str, Any]) -> str:
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
    from runner.cli.formatting import one_line

    return one_line(f"{handler} ({model})" if model else handler)


def _location(executor: Mapping[str, Any]) -> str:
    from runner.cli.formatting import format_size

    granted = executor["granted_bytes"]
    granted_text = f", {format_size(granted)} granted" if granted else ""
    return f"{', '.join(executor['devices'])} (executor {executor['id']}{granted_text})"
