"""Effect: `runner ps`, `devices` and `queues`: what the server has and does."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from runner.cli.arguments import Usage
from runner.cli.options import AsJson, Url, client, console, emit


class Verb(StrEnum):
    """What can be done to a queue."""

    pause = "pause"
    resume = "resume"


def ps(as_json: AsJson = False, url: Url = None) -> None:
    """Show what is loaded and running, per device."""
    with client(url) as link:
        found = link.devices()
    if as_json:
        return emit(found)
    from runner.cli import tables

    console().print(tables.executors(found))


def devices(as_json: AsJson = False, url: Url = None) -> None:
    """Show the devices and their memory."""
    with client(url) as link:
        found = link.devices()
    if as_json:
        return emit(found)
    from runner.cli import tables

    console().print(tables.devices(found))


def queues(
    verb: Annotated[Verb | None, typer.Argument(help="What to do with a queue.", show_default=False)] = None,
    name: Annotated[str | None, typer.Argument(help="The queue.", show_default=False)] = None,
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """List the queues, or pause or resume one."""
    if verb is not None and name is None:
        raise Usage(f"queues {verb} needs the name of a queue")
    with client(url) as link:
        if verb is None or name is None:
            found = link.queues()
        else:
            found = [link.pause(name) if verb is Verb.pause else link.resume(name)]
    if as_json:
        return emit(found if verb is None else found[0])
    from runner.cli import tables

    console().print(tables.queues(found))
