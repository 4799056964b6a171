"""Pure: the panel of `runner serve`."""

from __future__ import annotations

from typing import Any

from runner.cli.startup_banner import format_banner

DOCUMENT: dict[str, Any] = {
    "url": "http://127.0.0.1:8484",
    "version": "1.2.3",
    "devices": [
        {"id": "gpu0", "name": "NVIDIA H100", "total_bytes": 80 << 30, "free_bytes": 79 << 30},
        {"id": "cpu", "name": "x86_64", "total_bytes": 16 << 30, "free_bytes": 12 << 30},
    ],
    "handlers": {"ok": 3, "broken": ["train"], "describing": True},
    "store": "SQLite at /var/lib/" + "long/" * 20 + "runner.db",
    "notes": ["no driver\x1b[2J: jobs run on the CPU"],
    "exposure": "this machine only, no token",
}


def test_it_names_address_devices_handlers_and_store() -> None:
    text = format_banner(DOCUMENT)
    for part in ("http://127.0.0.1:8484", "79 GiB free of 80 GiB", "3 ok, 1 broken", "train", "SQLite"):
        assert part in text
    assert "\x1b" not in text


def test_in_a_frame_it_fits_80_columns_and_all_lines_are_of_one_width() -> None:
    widths = {len(line) for line in format_banner(DOCUMENT, terminal=True).splitlines()}
    assert len(widths) == 1
    assert widths.pop() <= 80


def test_plain_text_keeps_a_long_path_whole() -> None:
    assert DOCUMENT["store"] in format_banner(DOCUMENT)


def test_a_server_without_anything_has_a_panel_too() -> None:
    text = format_banner({"url": "http://[::1]:1", "version": "0"}, terminal=True)
    assert "none found yet" in text and "none; add some: runner serve --handlers FILE" in text
