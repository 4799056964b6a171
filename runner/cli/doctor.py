"""Effect: `runner doctor`: checks everything that a server needs on this machine and suggests fixes."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from runner.cli.common_options import AsJson, Url, print_json
from runner.cli.serve_flags import settings_fields, with_serve_flags

if TYPE_CHECKING:
    from runner.cli.doctor_findings import CheckResult

#: Columns of the state and of the subject; columns of a whole line without a terminal.
STATE_WIDTH, SUBJECT_WIDTH, DEFAULT_WIDTH = 6, 10, 80
#: Longest line on a wide terminal: longer ones are hard to read.
MAX_WIDTH = 110
COLORS = {"ok": "32", "warn": "33", "fail": "31"}


@with_serve_flags()
def doctor(as_json: AsJson = False, url: Url = None, **flags: Any) -> None:
    """Check this machine and suggest fixes.

    Takes the flags of `runner serve`. Exit code: 0 no errors, 1 at least one error.
    """
    from runner.cli.doctor_findings import worst_state

    results: list[CheckResult] = []
    color = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    width = (
        min(shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns, MAX_WIDTH)
        if sys.stdout.isatty()
        else DEFAULT_WIDTH
    )
    for one in _run_checks(settings_fields(flags), url):
        results.append(one)
        if not as_json:
            # Print each result as it comes: some checks take seconds.
            print(format_result(one, width, color=color), flush=True)
    state = worst_state(results)
    if as_json:
        print_json({"state": state, "findings": [one._asdict() for one in results]})
    else:
        counts = {word: sum(one.state == word for one in results) for word in ("ok", "warn", "fail")}
        print(f"\n{format_counts(counts['ok'], counts['warn'], counts['fail'])}")
    raise typer.Exit(1 if state == "fail" else 0)


def _run_checks(flags: dict[str, Any], url: str | None) -> Iterator[CheckResult]:
    """Yield the results in the order in which they are printed; stop after settings that can't be loaded."""
    from runner.cli import doctor_checks
    from runner.cli.doctor_findings import CheckResult
    from runner.errors import RefusedStart
    from runner.settings.settings import merge_layers, read_layers

    yield from doctor_checks.check_machine()
    try:
        settings = merge_layers(read_layers(flags))
    except RefusedStart as refused:
        fix = "fix it there; checks that depend on the settings were skipped"
        yield CheckResult("settings", "fail", refused.message, fix)
        return
    yield CheckResult("settings", "ok", str(settings.config or "no config file"))
    yield from doctor_checks.check_server(settings, url)


def format_counts(ok: int, warnings: int, errors: int) -> str:
    """Return the headline: `11 ok, 2 warnings, 0 errors`."""
    plurals = ["" if count == 1 else "s" for count in (warnings, errors)]
    return f"{ok} ok, {warnings} warning{plurals[0]}, {errors} error{plurals[1]}"


def format_result(result: CheckResult, width: int, *, color: bool = False) -> str:
    """Return one result as text: state, subject and finding, and the suggested fix below.

    Lines have at most `width` columns, unless a single word is longer. `color` adds ANSI colours.
    """
    from runner.cli.formatting import one_line

    text_width = width - STATE_WIDTH - SUBJECT_WIDTH
    lines = textwrap.wrap(one_line(result.text), text_width, break_long_words=False, break_on_hyphens=False)
    if result.fix and result.state != "ok":
        fix = textwrap.wrap(
            f"-> {result.fix}",
            text_width,
            subsequent_indent="   ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        lines += fix
    state_text = f"{result.state:<{STATE_WIDTH}}"
    if color:
        state_text = f"\x1b[{COLORS[result.state]}m{state_text}\x1b[0m"
    first, *others = lines or [""]
    blank = " " * (STATE_WIDTH + SUBJECT_WIDTH)
    return "\n".join(
        [f"{state_text}{result.subject:<{SUBJECT_WIDTH}}{first}", *(blank + each for each in others)]
    )
