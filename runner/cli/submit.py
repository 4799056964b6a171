"""Effect: `runner submit` and `runner run`: submits a job, and follows it to its end."""

from __future__ import annotations

import contextlib
import functools
import inspect
import signal
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, get_type_hints

import typer

from runner.cli.arguments import CommandUsageError, job_input, metadata
from runner.cli.common_options import Url, open_client, print_json
from runner.cli.downloads import OutputFolder, fetch_files
from runner.cli.formatting import one_line

if TYPE_CHECKING:
    from types import FrameType

    from runner.cli.progress_display import Display
    from runner.client import Client, JobHandle
    from runner.client.operations import JobOptions

Handler = Annotated[str, typer.Argument(metavar="HANDLER", help="The handler's name.", show_default=False)]
InputArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="INPUT",
        help="key=text, key:=JSON, @file.json, or - for JSON on standard input.",
        show_default=False,
    ),
]
Wait = Annotated[
    str | None,
    typer.Option("--wait", metavar="TIME", help="Stop waiting after this time; the job continues."),
]

#: Longest wait, in seconds, for the end of a job that Ctrl-C cancelled.
CANCEL_S = 5.0


class _TimeLimitReached(BaseException):
    """Not a TimeoutError: the connection that it passes through would take that for a disconnect."""


class JobOptionTexts(TypedDict):
    """The options of `JobOptions` as they are typed; None: not given."""

    queue: Annotated[str | None, typer.Option(metavar="NAME", help="The queue.  [default: the handler's]")]
    priority: Annotated[
        str | None,
        typer.Option(metavar="PRIORITY", help="0 to 100, higher first, or critical, high, normal, low."),
    ]
    timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Timeout of one run, such as 30s or 5m.")
    ]
    queue_timeout: Annotated[
        str | None, typer.Option(metavar="TIME", help="Timeout of the wait before the start.")
    ]
    run_at: Annotated[str | None, typer.Option(metavar="WHEN", help="Earliest start, as an RFC 3339 time.")]
    delay: Annotated[str | None, typer.Option(metavar="TIME", help="Delay before the earliest start.")]
    retries: Annotated[int | None, typer.Option(metavar="NUMBER", help="Number of retries after failures.")]
    backoff: Annotated[
        str | None, typer.Option(metavar="SECONDS", help="Delay before each retry: 5s, or a list 1,5,30.")
    ]
    vram: Annotated[str | None, typer.Option(metavar="SIZE", help="Peak device memory, such as 6GiB.")]
    tenant: Annotated[str | None, typer.Option(metavar="NAME", help="Tenant that the job is counted for.")]
    tags: Annotated[list[str] | None, typer.Option("--tag", metavar="TAG", help="A tag. Repeat it for more.")]
    metadata: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Metadata. Repeat it for more.")
    ]


def _with_job_options(command: Callable[..., None]) -> Callable[..., None]:
    """Return the command with the options of a job in place of its parameter `options`.

    typer reads the options of a command from the signature of its function.
    """
    option_types = get_type_hints(JobOptionTexts, include_extras=True)

    @functools.wraps(command)
    def expanded(**values: Any) -> None:
        command(options={name: values.pop(name) for name in option_types}, **values)

    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == "options":
            parameters += [
                parameter.replace(name=name, default=None, annotation=option_type)
                for name, option_type in option_types.items()
            ]
        else:
            parameters.append(parameter)
    expanded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return expanded


@_with_job_options
def submit(
    handler: Handler,
    arguments: InputArguments = None,
    *,
    options: JobOptionTexts,
    as_json: Annotated[bool, typer.Option("--json", help="Print the job, not only its id.")] = False,
    url: Url = None,
) -> None:
    """Submit a job and print its id."""
    with open_client(url) as client:
        handle = _submit(client, handler, arguments, options)
        if as_json:
            print_json(handle.status())
        else:
            print(handle.id)


@_with_job_options
def run(
    handler: Handler,
    arguments: InputArguments = None,
    *,
    options: JobOptionTexts,
    wait: Wait = None,
    output: OutputFolder = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole job at its end, not only the output.")
    ] = False,
    url: Url = None,
) -> None:
    """Submit a job, follow its progress, and print the output as JSON.

    Progress and logs go to stderr, the output to stdout. Ctrl-C cancels the job and waits up to 5 s for
    its end; a second Ctrl-C exits at once. Exit code: 0 succeeded, 1 failed, 6 --wait timed out, 7 cancelled.
    """
    wait_s = parse_duration(wait, "--wait")
    with open_client(url) as client:
        handle = _submit(client, handler, arguments, options)
        try:
            with time_limit(wait_s, handle.id):
                screen = show_events(handle, handler)
                if output is not None:
                    fetch_files(client, handle.id, output)
                print_result(handle, as_json=as_json, screen=screen)
        except KeyboardInterrupt:
            _cancel_on_interrupt(handle)
            raise


def show_events(handle: JobHandle[Any], name: str) -> Display:
    """Show the job's events on stderr until it has ended; return what has shown them."""
    from runner.cli.progress_display import open_display

    with open_display(name) as screen:
        for event in handle.events():
            screen.show(event)
    return screen


def print_result(handle: JobHandle[Any], *, as_json: bool, screen: Display | None = None) -> None:
    """Print the output of an ended job, or the whole job if `as_json`; raise its failure.

    An output that `screen` has shown on this terminal as text is not printed again.
    """
    if as_json:
        print_json(handle.wait())
        with contextlib.redirect_stdout(None):
            handle.result()
    else:
        output = handle.result()
        if screen is None or not sys.stdout.isatty() or not screen.has_shown(output):
            print_json(output)


@contextlib.contextmanager
def time_limit(seconds: float | None, job_id: str) -> Iterator[None]:
    """Raise TimeoutError in the block after `seconds`; None: never.

    The limit is a SIGALRM timer, so only the main thread can use this.
    """
    if seconds is None:
        yield
        return

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise _TimeLimitReached

    before = signal.signal(signal.SIGALRM, on_alarm)
    # A timer of 0 would be disabled.
    signal.setitimer(signal.ITIMER_REAL, max(0.001, seconds))
    try:
        yield
    except _TimeLimitReached:
        raise TimeoutError(f"job {job_id} did not end within {seconds:g} s; it continues") from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def parse_duration(text: str | None, option: str) -> float | None:
    """Return the seconds of a duration option; None if it was not given. Raises CommandUsageError."""
    from runner.formats.units import parse_seconds

    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise CommandUsageError(f"{option}: {error}") from None


def _submit(
    client: Client, handler: str, arguments: list[str] | None, options: JobOptionTexts
) -> JobHandle[Any]:
    """Submit one job with the options that were given; errors of the options are usage errors."""
    values: dict[str, Any] = {
        **options,
        "metadata": metadata(options["metadata"] or ()),
        "tags": options["tags"] or None,
        "backoff": _backoff(options["backoff"]),
        "priority": _priority(options["priority"]),
    }
    given: JobOptions = {name: value for name, value in values.items() if value is not None}  # type: ignore[assignment]
    data = job_input(arguments or (), sys.stdin.read, lambda: _input_schema(client, handler))
    queue = options["queue"]
    is_queue_new = queue is not None and queue not in [one["name"] for one in client.queues()]
    try:
        handle = client.submit(handler, data, **given)
    except (ValueError, TypeError) as error:
        raise CommandUsageError(str(error)) from None
    for warning in handle.warnings:
        print(f"runner: warning: {one_line(warning)}", file=sys.stderr)
    if is_queue_new:
        print(f"runner: queue {queue!r} is new; the job is the first in it", file=sys.stderr)
    return handle


def _input_schema(client: Client, handler: str) -> Any:
    """Return the JSON Schema of a handler's input; `true` for an unknown handler, which the submit names."""
    from runner.errors import NotFound

    try:
        return client.handler(handler).get("input_schema", True)
    except NotFound:
        return True


def _priority(text: str | None) -> int | str | None:
    """Return a number, or a word for the server, which refuses unknown ones."""
    return int(text) if text is not None and text.isascii() and text.isdigit() else text


def _backoff(text: str | None) -> Any:
    """Return the backoff as the API takes it: seconds, a list of seconds, or a JSON value."""
    if text is None:
        return None
    if text.startswith(("{", "[")):
        return job_input([f"backoff:={text}"], lambda: "")["backoff"]
    steps = [parse_duration(part.strip(), "--backoff") for part in text.split(",")]
    return steps if len(steps) > 1 else steps[0]


def _cancel_on_interrupt(handle: JobHandle[Any]) -> None:
    """Cancel the job after Ctrl-C and report its state on stderr."""
    from runner.errors import Conflict, RunnerError

    print(f"cancelling {handle.id} (press Ctrl-C again to exit at once)", file=sys.stderr)
    try:
        handle.cancel("interrupted at the command line")
        state = handle.wait(CANCEL_S).state
    except TimeoutError:
        state = "still being cancelled"
    except Conflict:
        # The job ended by itself meanwhile.
        state = handle.status().state
    except RunnerError as error:
        state = f"not cancelled: {error}"
    print(f"job {handle.id}: {state}", file=sys.stderr)
