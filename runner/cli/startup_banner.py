"""Pure: formats the banner that `runner serve` prints once it accepts jobs."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping
from typing import Any

from runner.cli.formatting import format_size, one_line

#: Columns of the frame's content: the frame fits into a terminal of 80 columns.
WIDTH = 76
LABEL = 10


def format_banner(document: Mapping[str, Any], *, terminal: bool = False, color: bool = False) -> str:
    """Return the banner: framed for a terminal, plain `label  text` lines otherwise.

    `document`: `{"url", "other_urls"?: [url], "version", "store", "notes": [text], "exposure",
    "devices": [{"id", "name", "total_bytes", "free_bytes", "note"?}],
    "handlers": {"ok", "broken": [name], "describing"}}`.
    """
    rows = [*_rows(document)]
    if not terminal:
        return "\n".join([f"runner {document['version']}", *_plain_lines(rows)]) + "\n"
    return _frame_lines(f"runner {document['version']}", [*_plain_lines(rows, WIDTH - 4)], color) + "\n"


def _rows(document: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield (label, text) for every line; an empty label continues the one before."""
    yield "address", str(document["url"])
    yield from (("", str(url)) for url in document.get("other_urls") or ())
    yield "open to", str(document.get("exposure") or "this machine only")
    devices = document.get("devices") or []
    id_width = max((len(str(device["id"])) for device in devices), default=0)
    yield from zip(_labels("devices"), (_device(device, id_width) for device in devices), strict=False)
    if not devices:
        yield "devices", "none found yet"
    yield from _handler_rows(document.get("handlers") or {})
    yield "store", str(document.get("store") or "")
    yield from zip(_labels("note"), (one_line(note) for note in document.get("notes") or ()), strict=False)


def format_handlers(document: Mapping[str, Any]) -> str:
    """Return the banner's lines about handlers alone; `document` as for `format_banner`."""
    return "\n".join(_plain_lines(_handler_rows(document.get("handlers") or {}))) + "\n"


def _handler_rows(handlers: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield the rows about handlers: their number, then the broken ones."""
    yield "handlers", _handlers(handlers)
    for name in handlers.get("broken") or ():
        yield "", f"broken: {one_line(name)} (see `runner handlers`)"


def _labels(first: str) -> Iterable[str]:
    """Yield `first` once, then empty labels."""
    yield first
    while True:
        yield ""


def _device(device: Mapping[str, Any], id_width: int) -> str:
    """Return one device's line: id, free and total memory, name and note."""
    total, free = int(device.get("total_bytes") or 0), int(device.get("free_bytes") or 0)
    text = f"{device['id']!s:<{id_width}}  {format_size(free)} free of {format_size(total)}"
    name, note = one_line(device.get("name") or ""), one_line(device.get("note") or "")
    return "  ".join(part for part in (text, name, note and f"({note})") if part)


def _handlers(handlers: Mapping[str, Any]) -> str:
    """Return the counts of usable and broken handlers."""
    broken = handlers.get("broken") or ()
    parts = [f"{handlers.get('ok', 0)} ok"]
    if broken:
        parts.append(f"{len(broken)} broken")
    if handlers.get("describing"):
        parts.append("importing sources ...")
    elif not handlers.get("ok") and not broken:
        return "none; add some: runner serve --handlers FILE"
    return ", ".join(parts)


def _plain_lines(rows: Iterable[tuple[str, str]], width: int = 0) -> Iterable[str]:
    """Yield `label  text` lines, wrapped to `width` columns (0: not wrapped)."""
    for label, text in rows:
        parts = textwrap.wrap(text, width - LABEL, subsequent_indent="  ") if width else [text]
        yield f"{label:<{LABEL}}{parts[0] if parts else ''}".rstrip()
        yield from (" " * LABEL + part for part in parts[1:])


def _frame_lines(title: str, lines: list[str], color: bool) -> str:
    """Return the lines inside a box with a title; `color` dims the box and highlights the title."""
    inner = max(len(text) for text in [*lines, title])
    dim, bold, end = ("\x1b[2m", "\x1b[1m", "\x1b[0m") if color else ("", "", "")
    top = f"{dim}╭─{end} {bold}{title}{end} {dim}{'─' * (inner - len(title))}╮{end}"
    body = []
    for text in lines:
        label, rest = text[:LABEL], text[LABEL:]
        body.append(f"{dim}│{end} {dim}{label}{end}{rest}{' ' * (inner - len(text))}  {dim}│{end}")
    return "\n".join([top, *body, f"{dim}╰{'─' * (inner + 3)}╯{end}"])
