"""Effect: `runner handlers`: list the server's handlers, reload them, or check sources without a server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli.common_options import AsJson, Url, open_client, open_console, print_json
from runner.cli.serve_flags import settings_fields, with_serve_flags

if TYPE_CHECKING:
    from runner.handlers.spec import HandlerSpec
    from runner.settings.settings import Settings

handlers = typer.Typer(help="List, check or reload handlers.", rich_markup_mode=None)


@handlers.callback(invoke_without_command=True)
def list_handlers(context: typer.Context, as_json: AsJson = False, url: Url = None) -> None:
    """List the handlers; broken ones with their traceback.

    `runner handlers check` works without a server.
    """
    if context.invoked_subcommand is not None:
        return None
    with open_client(url) as client:
        found = client.handlers()
        importing = [] if as_json else client.importing()
    if as_json:
        return print_json(found)
    if not found and not importing:
        print("no handlers; add some with `runner serve --handlers FILE`")
        return None
    from runner.cli import tables
    from runner.cli.formatting import one_line

    if found:
        open_console().print(tables.handlers(found))
    for source in importing:
        print(f"importing {one_line(source)} ...")
    _print_broken(found)
    return None


Sources = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE",
        help="Sources as for --handlers.  [default: those of the config file and of installed packages]",
        show_default=False,
    ),
]


@handlers.command()
@with_serve_flags("config", "entry_points")
def check(sources: Sources = None, as_json: AsJson = False, **flags: Any) -> None:
    """Import and describe handlers without a server.

    Exit code: 0 all handlers are usable, 1 at least one is broken.
    """
    from runner.handlers.overrides import Overrides
    from runner.settings.settings import load_settings

    named = {"handlers": sources, "entry_points": False if sources else None}
    settings = load_settings(
        settings_fields(named | {name: value for name, value in flags.items() if value is not None})
    )
    overrides = Overrides(settings.overrides)
    specs = describe_handlers(settings)
    found = [_document(overrides.apply_to(spec)) for spec in specs]
    broken = sum(one["state"] != "ok" for one in found)
    if as_json:
        print_json(found)
    else:
        # If only some sources are checked, override tables of other handlers are not unused.
        _print_checked(found, [] if sources else overrides.unused_tables(spec.name for spec in specs))
    raise typer.Exit(1 if broken else 0)


@handlers.command()
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The handler's name.", show_default=False)],
    as_json: AsJson = False,
    url: Url = None,
) -> None:
    """Show a handler's inputs, its needs and a command that runs it."""
    with open_client(url) as client:
        document = client.handler(name)
    if as_json:
        return print_json(document)
    from runner.cli import handler_page

    out = open_console()
    out.print(handler_page.summary(document))
    if rows := handler_page.input_fields(document.get("input_schema") or {}):
        out.print()
        out.print(handler_page.inputs(rows))
    if document["state"] == "ok":
        print(f"\nrunner {handler_page.example_arguments(document)}")
    _print_broken([document])


@handlers.command()
def reload(as_json: AsJson = False, url: Url = None) -> None:
    """Reload handlers whose files have changed.

    Running jobs finish on the old code, queued ones run on the new. Exit code: 1 if any handler is broken.
    """
    with open_client(url) as client:
        changes = client.reload_handlers()
        if as_json:
            print_json(changes)
        else:
            _print_changes(changes)
            _print_broken([one for one in client.handlers() if one["name"] in changes["broken"]])
    raise typer.Exit(1 if changes["broken"] else 0)


def describe_handlers(settings: Settings) -> list[HandlerSpec]:
    """Return all handlers that a server with these settings would have, sorted by name.

    Every source is imported in a child process, as the server does; cached descriptions are not used.
    Overrides of the settings are applied. Raises RefusedStart for a missing source or a duplicate name.
    """
    import asyncio
    from pathlib import Path

    from runner.coordinator.processes.child_configs import ChildConfigs
    from runner.discovery.handler_registry import HandlerRegistry

    briefing = ChildConfigs(settings, data_dir=settings.data_dir, port=settings.port, version="")

    async def describe() -> list[HandlerSpec]:
        handler_registry = HandlerRegistry(
            settings.handlers,
            entry_points=settings.entry_points,
            env=briefing.executor_env(),
            cwd=Path.cwd(),
            # No cached descriptions: a source may be broken by now.
            cache={},
            on_change=lambda: None,
        )
        await handler_registry.describe_all()
        return [handler_registry.specs[name] for name in sorted(handler_registry.specs)]

    return asyncio.run(describe())


def _document(spec: HandlerSpec) -> dict[str, Any]:
    """Return the JSON document of a checked handler."""
    from msgspec import to_builtins
    from msgspec.structs import asdict

    own = spec.options
    options = asdict(own) | {"backoff": asdict(own.backoff), "batch": own.batch and asdict(own.batch)}
    return {
        "name": spec.name,
        "state": spec.state,
        "kind": spec.kind,
        "description": spec.description,
        "source": spec.source.target,
        "error": spec.error or None,
        "options": to_builtins(options) if spec.state == "ok" else None,
    }


def _print_checked(found: list[dict[str, Any]], unused: list[str]) -> None:
    """Print the table of checked handlers, their errors, and warnings about unused override tables."""
    if not found:
        print("no handlers; add some: runner handlers check FILE, or sources = [...] in runner.toml")
    else:
        from runner.cli import tables

        open_console().print(tables.checked_handlers(found))
        _print_broken(found)
    for name in unused:
        print(f"\nwarning: [handlers.{name}] has no effect: there is no handler of this name")
    broken = sum(one["state"] != "ok" for one in found)
    if found:
        print(f"\n{len(found) - broken} ok, {broken} broken")


def _print_changes(changes: Mapping[str, Any]) -> None:
    """Print which handlers a reload has added, changed or removed."""
    from runner.cli.formatting import one_line

    if changes["describing"]:
        print("still importing handlers; `runner handlers` shows them when they are active")
        return
    for kind in ("added", "changed", "removed", "broken"):
        if changes[kind]:
            print(f"{kind:<10}{one_line(', '.join(changes[kind]))}")
    print(f"{'unchanged':<10}{len(changes['unchanged'])}")


def _print_broken(found: list[dict[str, Any]]) -> None:
    """Print the traceback of every broken handler."""
    out = open_console()
    for one in found:
        if one.get("error"):
            out.print(_broken_text(one), style="red", soft_wrap=True)


def _broken_text(document: Mapping[str, Any]) -> str:
    from runner.cli.formatting import one_line
    from runner.formats.printable import printable

    return f"\n{one_line(document['name'])} is broken:\n{printable(document['error']).rstrip()}"
