"""Effect: `runner jobs` and `runner job ...`: lists, shows and controls jobs."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from runner.cli.common_options import AsJson, JobId, Url, open_client, open_console, print_json
from runner.cli.downloads import OutputFolder, fetch_files, print_files
from runner.cli.job_ids import resolve_job_id
from runner.cli.submit import parse_duration, print_result, time_limit
from runner.cli.submit import show_events as follow_job

job = typer.Typer(help="Show, follow or control one job.", no_args_is_help=True, rich_markup_mode=None)


def jobs(
    state: Annotated[
        list[str] | None, typer.Option(metavar="STATE", help="queued, running, succeeded, failed, cancelled.")
    ] = None,
    reason: Annotated[
        list[str] | None, typer.Option(metavar="REASON", help="Such as waiting_for_memory or timeout.")
    ] = None,
    handler: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this handler. Repeat it for more.")
    ] = None,
    queue: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this queue. Repeat it for more.")
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option(metavar="TAG", help="Only with this tag. Repeat it for more.")
    ] = None,
    tenant: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this tenant. Repeat it for more.")
    ] = None,
    count: Annotated[
        int, typer.Option("--limit", "-n", metavar="COUNT", min=1, help="Largest number of jobs to list.")
    ] = 20,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List jobs, newest first.

    Filters combine: a job must match all of them, and one of the values of each.
    """
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
        print("no matching jobs" if any(filters.values()) else "no jobs yet; try: runner run HANDLER")


def explain(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Explain why a job waits: what it needs and what each device has."""
    with open_client(url) as client:
        found = client.explain(resolve_job_id(client, job_id))
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
    """Show all details of a job and its attempts."""
    with open_client(url) as client:
        job_id = resolve_job_id(client, job_id)
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
    """Follow a job live to its end; the exit code is the job's. Ctrl-C does not cancel the job."""
    with open_client(url) as client:
        handle = client.job(resolve_job_id(client, job_id))
        if not as_json:
            screen = follow_job(handle, client.get(handle.id).handler)
            return print_result(handle, as_json=False, screen=screen)
        for event in handle.events():
            print_json({"type": event.type, **event.data}, compact=True)
        handle.result()


@job.command()
def logs(
    job_id: JobId,
    as_json: Annotated[bool, typer.Option("--json", help="Print every entry as one line of JSON.")] = False,
    url: Url = None,
) -> None:
    """Print a job's log output and follow it until the job has ended. Ctrl-C does not cancel the job."""
    from runner.client.events import LogEvent
    from runner.formats.printable import printable

    with open_client(url) as client:
        for event in client.events(resolve_job_id(client, job_id), types=("log", "done")):
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
        typer.Option(
            "--timeout", "--wait", metavar="TIME", help="Stop waiting after this time; the job continues."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole job, not only the output.")
    ] = False,
    url: Url = None,
) -> None:
    """Wait until a job has ended and print its output.

    The exit code is the job's, or 6 if --timeout is reached first.
    """
    timeout_s = parse_duration(timeout, "--timeout")
    with open_client(url) as client:
        job_id = resolve_job_id(client, job_id)
        with time_limit(timeout_s, job_id):
            print_result(client.job(job_id), as_json=as_json)


@job.command()
def cancel(
    job_id: JobId,
    reason: Annotated[
        str | None, typer.Option(metavar="TEXT", help="The reason, stored with the job.")
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Kill a running job at once instead of asking it to stop.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Cancel a job; a running one takes a moment to stop."""
    with open_client(url) as client:
        document = client.cancel(resolve_job_id(client, job_id), reason, force=force)
    if as_json:
        return print_json(document)
    ended = document.ended
    print(f"job {document.id} {'cancelled' if ended else 'is being cancelled'}")


@job.command()
def files(job_id: JobId, output: OutputFolder = None, as_json: AsJson = False, url: Url = None) -> None:
    """List the files that a job has saved, or write them to a folder."""
    with open_client(url) as client:
        job_id = resolve_job_id(client, job_id)
        if output is not None:
            fetch_files(client, job_id, output)
        references = client.files(job_id) if as_json or output is None else []
    if as_json:
        print_json(references)
    elif output is None:
        print_files(references)


@job.command()
def retry(job_id: JobId, as_json: AsJson = False, url: Url = None) -> None:
    """Run an ended job again under the same id."""
    with open_client(url) as client:
        document = client.retry(resolve_job_id(client, job_id))
    if as_json:
        return print_json(document)
    print(f"job {document.id} is queued again")


@job.command()
def rm(
    job_ids: Annotated[
        list[str],
        typer.Argument(metavar="ID...", help="Ids of jobs, unique prefixes, or @last.", show_default=False),
    ],
    url: Url = None,
) -> None:
    """Remove jobs that are not running, with their events and files."""
    with open_client(url) as client:
        # @last means the newest job before the command, also where it stands twice.
        for job_id in dict.fromkeys([resolve_job_id(client, job_id) for job_id in job_ids]):
            client.delete(job_id)
            print(f"job {job_id} removed")
