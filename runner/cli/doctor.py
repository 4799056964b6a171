"""Effect: `runner doctor`: looks at all that a server needs here, and says what to mend."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from runner.cli.common_options import AsJson, Url, print_json
from runner.cli.serve_flags import fields, taking_flags

if TYPE_CHECKING:
    from runner.cli.doctor_findings import Finding

#: Columns of the state and of the subject, and of all where there is no terminal.
STATE, SUBJECT, WIDE = 6, 10, 80
WIDEST = 110
COLORS = {"ok": "32", "warn": "33", "fail": "31"}


@taking_flags()
def doctor(as_json: AsJson = False, url: Url = None, **flags: Any) -> None:
    """Look at what a server needs here and say what to mend.

    The flags are those of `runner serve`. Exit code 1 if something is in the way.
    """
    from runner.cli.doctor_findings import worst

    found: list[Finding] = []
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = min(shutil.get_terminal_size((WIDE, 24)).columns, WIDEST) if sys.stdout.isatty() else WIDE
    for one in _look(fields(flags), url):
        found.append(one)
        if not as_json:
            # Each as it comes: some take seconds.
            print(words(one, width, color=color), flush=True)
    state = worst(found)
    if as_json:
        print_json({"state": state, "findings": [one._asdict() for one in found]})
    else:
        counts = {word: sum(one.state == word for one in found) for word in ("ok", "warn", "fail")}
        print(f"\n{counts['ok']} ok, {counts['warn']} to look at, {counts['fail']} in the way")
    raise typer.Exit(1 if state == "fail" else 0)


def _look(flags: dict[str, Any], url: str | None) -> Iterator[Finding]:
    from runner.cli import doctor_checks
    from runner.cli.doctor_findings import Finding
    from runner.errors import RefusedStart
    from runner.settings.settings import merge_layers, read_layers

    yield from doctor_checks.machine()
    try:
        settings = merge_layers(read_layers(flags))
    except RefusedStart as refused:
        fix = "mend it there; until then nothing that depends on it is looked at"
        yield Finding("settings", "fail", refused.message, fix)
        return
    yield Finding("settings", "ok", str(settings.config or "no config file"))
    yield from doctor_checks.server(settings, url)


def words(finding: Finding, width: int, *, color: bool = False) -> str:
    """A finding in lines of at most `width` columns, where no word of it is longer."""
    from runner.cli.formatting import line

    room = width - STATE - SUBJECT
    lines = textwrap.wrap(line(finding.text), room, break_long_words=False, break_on_hyphens=False)
    if finding.fix and finding.state != "ok":
        fix = textwrap.wrap(
            f"-> {finding.fix}", room, subsequent_indent="   ", break_long_words=False, break_on_hyphens=False
        )
        lines += fix
    head = f"{finding.state:<{STATE}}"
    if color:
        head = f"\x1b[{COLORS[finding.state]}m{head}\x1b[0m"
    first, *others = lines or [""]
    blank = " " * (STATE + SUBJECT)
    return "\n".join([f"{head}{finding.subject:<{SUBJECT}}{first}", *(blank + each for each in others)])
