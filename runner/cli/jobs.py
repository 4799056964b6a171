"""Effect: `runner jobs` and `runner job ...`: show jobs and act on them."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from runner.cli.common_options import AsJson, JobId, Url, open_client, open_console, print_json
from runner.cli.submit import parse_duration, print_result, time_limit
from runner.cli.submit import show_events as follow_job

job = typer.Typer(
    help="Look at one job, follow it, or act on it.", no_args_is_help=True, rich_markup_mode=None
)


def jobs(
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="queued, running, succeeded, failed, cancelled.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(metavar="REASON", help="Such as waiting_for_memory or timeout.")
    ] = None,
    handler: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of this handler.")] = None,
    queue: Annotated[list[str] | None, typer.Option(metavar="NAME", help="In this queue.")] = None,
    tag: Annotated[list[str] | None, typer.Option(metavar="TAG", help="With this tag.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(metavar="NAME", help="Of this tenant.")] = None,
    count: Annotated[
        int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="At most so many, newest first.")
    ] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, newest first."""
    filters = {
        "state": state,
        "reason": reason,
        "handler": handler,
        "queue": queue,
        "tag": tag,
        "tenant": tenant,
    }
    with open_client(url) as client:
        found = client.jobs(limit=count, **{name: value or None for name, value in filters.items()})
    if as_json:
        print_json(found)
    elif found:
        from runner.cli import tables

        open_console().print(tables.jobs(found, datetime.now(UTC)))
    else:
        print("no such jobs")


def explain(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Say why a job waits: what it needs, and what each device has."""
    with open_client(url) as client:
        found = client.explain(job_id)
    if as_json:
        return print_json(found)
    from runner.cli import tables
    from runner.cli.formatting import one_line

    out = open_console()
    out.print(one_line(found["message"]), markup=False, highlight=False)
    if found.get("devices"):
        out.print()
        out.print(tables.placements(found["devices"]))


@job.command()
def show(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Show everything of a job and its attempts."""
    with open_client(url) as client:
        document = client.get(job_id)
        if as_json:
            return print_json(document)
        attempts = client.attempts(job_id)
    from runner.cli import tables

    out = open_console()
    out.print(tables.job(document, datetime.now(UTC)))
    if attempts:
        out.print()
        out.print(tables.attempts(attempts))


@job.command()
def follow(
    job_id: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="Print every event as one line of JSON.")] = False,
    url: Url = None,
) -> None:
    """Show a job live to its end; the exit code is the job's. Ctrl-C leaves the job alone."""
    with open_client(url) as client:
        handle = client.job(job_id)
        if not as_json:
            follow_job(handle, client.get(job_id).handler)
            return print_result(handle, as_json=False)
        for event in handle.events():
            print_json({"type": event.type, **event.data}, compact=True)
        handle.result()


@job.command()
def logs(
    job_id: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="Print every entry as one line of JSON.")] = False,
    url: Url = None,
) -> None:
    """Print what the job wrote, and go on until it has ended. Ctrl-C leaves the job alone."""
    from runner.client.events import LogEvent
    from runner.formats.printable import printable

    with open_client(url) as client:
        for event in client.events(job_id, types=("log", "done")):
            if not isinstance(event, LogEvent):
                continue
            if as_json:
                print_json(event.data, compact=True)
            else:
                text = event.text if event.text.endswith("\n") else event.text + "\n"
                sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
                sys.stdout.flush()


@job.command()
def wait(
    job_id: JobId,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", "--wait", metavar="TIME", help="Stop waiting after this; the job goes on."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole job, not only the output.")
    ] = False,
    url: Url = None,
) -> None:
    """Wait for a job's end and print its output.

    The exit code is the job's, 6 where time is over.
    """
    timeout_s = parse_duration(timeout, "--timeout")
    with open_client(url) as client, time_limit(timeout_s, job_id):
        print_result(client.job(job_id), as_json=as_json)


@job.command()
def cancel(
    job_id: JobId,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Why; the job keeps it.")] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Cancel a job; a running one ends a little later."""
    with open_client(url) as client:
        document = client.cancel(job_id, reason)
    if as_json:
        return print_json(document)
    ended = document.ended
    print(f"job {document.id} {'is cancelled' if ended else 'is being cancelled'}")


@job.command()
def retry(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Run an ended job again, under the same id."""
    with open_client(url) as client:
        document = client.retry(job_id)
    if as_json:
        return print_json(document)
    print(f"job {document.id} is queued again")


@job.command()
def rm(
    job_ids: Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of jobs.", show_default=False)],
    url: Url = None,
) -> None:
    """Remove jobs that do not run, with their events and files."""
    with open_client(url) as client:
        for job_id in job_ids:
            client.delete(job_id)
            print(f"job {job_id} is removed")
