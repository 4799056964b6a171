"""Effect: `runner ps`, `devices`, `stats` and `queues`: shows the server's resources and controls them."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from runner.cli.arguments import CommandUsageError
from runner.cli.common_options import AsJson, Url, open_client, open_console, print_json


class QueueAction(StrEnum):
    """Actions on a queue."""

    pause = "pause"
    resume = "resume"


class DeviceAction(StrEnum):
    """Actions on a device."""

    drain = "drain"
    resume = "resume"
    set = "set"


Wide = Annotated[bool, typer.Option("--wide", help="Show every column.")]


def ps(wide: Wide = False, as_json: AsJson = False, url: Url = None) -> None:
    """Show loaded handlers and their jobs, by device.

    `runner devices` shows the memory of the devices.
    """
    with open_client(url) as client:
        found = client.devices()
    if as_json:
        return print_json(found)
    from runner.cli import tables

    open_console().print(tables.executors(found, wide=wide))


def devices(
    verb: Annotated[
        DeviceAction | None, typer.Argument(help="Action on a device.", show_default=False)
    ] = None,
    device: Annotated[
        str | None, typer.Argument(metavar="ID", help="The device's id or uuid.", show_default=False)
    ] = None,
    max_executors: Annotated[
        int | None,
        typer.Option(metavar="COUNT", min=0, help="set: concurrent executors; 0: as configured."),
    ] = None,
    wide: Wide = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the devices with their memory, or drain, resume or set one."""
    if verb is not None and device is None:
        raise CommandUsageError(f"devices {verb} needs the id of a device")
    if (verb is DeviceAction.set) != (max_executors is not None):
        raise CommandUsageError("--max-executors is required by `devices set ID` and only valid there")
    with open_client(url) as client:
        match verb, device:
            case (DeviceAction.drain, str(name)):
                found = [client.drain_device(name)]
            case (DeviceAction.resume, str(name)):
                found = [client.resume_device(name)]
            case (DeviceAction.set, str(name)):
                found = [client.set_device(name, max_executors=max_executors or None)]
            case _:
                found = client.devices()
    if as_json:
        return print_json(found if verb is None else found[0])
    from runner.cli import tables

    open_console().print(tables.devices(found, wide=wide))


def stats(as_json: AsJson = False, url: Url = None) -> None:
    """Show throughput, run times and device usage."""
    with open_client(url) as client:
        found = client.stats()
    if as_json:
        return print_json(found)
    from runner.cli import stats_tables

    out = open_console()
    for table in stats_tables.stats_tables(found):
        out.print(table)
        out.print()


def queues(
    verb: Annotated[QueueAction | None, typer.Argument(help="Action on a queue.", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(help="Name of the queue.", show_default=False)] = None,
    create: Annotated[
        bool, typer.Option("--create", help="pause: also pause a queue that does not exist yet.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the queues, or pause or resume one."""
    if verb is not None and name is None:
        raise CommandUsageError(f"queues {verb} needs the name of a queue")
    with open_client(url) as client:
        if verb is None or name is None:
            found = client.queues()
        else:
            found = [client.pause(name, create=create) if verb is QueueAction.pause else client.resume(name)]
    if as_json:
        return print_json(found if verb is None else found[0])
    from runner.cli import tables

    open_console().print(tables.queues(found))
