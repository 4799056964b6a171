"""Pure: reads what pydantic-settings can't from `RUNNER_*` variables, and finds misspelt ones."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

PREFIX = "RUNNER_"
#: Options of a handler: `RUNNER_HANDLERS__NAME__OPTION`.
OVERRIDE_PREFIX = "RUNNER_HANDLERS__"
#: Variables of clients, which a server does not read.
CLIENT_VARIABLES = ("URL", "READ_TOKEN")
#: Similarity from 0 to 1 above which a variable is taken for a misspelt setting. Other programs use the
#: prefix too, such as RUNNER_OS and RUNNER_TEMP of CI systems.
SIMILAR = 0.75


def handler_overrides(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Return the option tables of `RUNNER_HANDLERS__NAME__OPTION` variables, as the config file has them.

    NAME keeps its case, but a name in capitals only is lowered. A value is JSON where it can be read as
    JSON (`3`, `true`, `[1, 5]`), else text (`5m`).
    """
    tables: dict[str, dict[str, Any]] = {}
    for variable, text in environ.items():
        name, found, option = variable.removeprefix(OVERRIDE_PREFIX).rpartition("__")
        if variable.startswith(OVERRIDE_PREFIX) and found and name and option:
            handler = name.lower() if name.isupper() else name
            tables.setdefault(handler, {})[option.lower()] = _value(text)
    return tables


def misspelt_variables(environ: Iterable[str], settings: Iterable[str]) -> list[tuple[str, str]]:
    """Return (variable, the variable that is probably meant) for variables that resemble a setting.

    `settings` are the names of the top-level settings. A variable that resembles none belongs to another
    program, and a nested one (`RUNNER_TABLE__KEY`) is judged by its table.
    """
    known = {name.upper() for name in (*settings, *CLIENT_VARIABLES)}
    found: list[tuple[str, str]] = []
    for variable in sorted(environ):
        name, separator, key = variable.removeprefix(PREFIX).partition("__")
        if not variable.startswith(PREFIX) or name in known:
            continue
        near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=SIMILAR)
        if near:
            found.append((variable, f"{PREFIX}{near[0]}{separator}{key}"))
    return found


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
