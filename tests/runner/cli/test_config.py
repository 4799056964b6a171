"""Effect: `runner config show` as people use it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest

from runner.cli.config import format_value
from runner.cli.serve import serve
from runner.cli.serve_flags import FLAG_FIELDS
from runner.settings.settings import Settings
from tests.runner.cli.cli_process import runner


def test_it_takes_the_flags_of_serve_and_shows_where_settings_come_from(tmp_path: Path) -> None:
    (tmp_path / "runner.toml").write_text(
        'grace = "10s"\n[handlers.paint]\nvram = "9GiB"\n[tenants.acme]\nweight = 2\n'
    )
    ended = runner("config", "show", "--origin", "--port", "99", cwd=tmp_path)
    lines = {line.split()[0]: line.split()[1:] for line in ended.stdout.splitlines()}
    assert lines["port"] == ["99", "--port"]
    assert lines["grace"] == ["10s", "runner.toml:", "grace"]
    assert lines["handlers.paint.vram"] == ["9GiB", "runner.toml:", "handlers.paint.vram"]
    assert lines["tenants.acme.weight"] == ["2.0", "runner.toml:", "tenants.acme.weight"]
    assert lines["limits.body_bytes"] == ["16MiB", "default"]


def test_as_json_it_is_one_object(tmp_path: Path) -> None:
    shown = json.loads(runner("config", "show", "--json", cwd=tmp_path).stdout)
    assert (shown["port"], shown["limits.depth"], shown["token"]) == (8484, 64, None)
    shown = json.loads(runner("config", "show", "--json", "--origin", "--gpus", "none", cwd=tmp_path).stdout)
    assert shown["gpus"] == {"value": "none", "origin": "--gpus"}


def test_a_mistake_in_the_config_is_said_as_serve_says_it(tmp_path: Path) -> None:
    (tmp_path / "runner.toml").write_text('[handlers.paint]\nvram = "much"\n')
    ended = runner("config", "show", cwd=tmp_path)
    assert ended.returncode == 2 and ended.stdout == ""
    assert f"{tmp_path}/runner.toml: [handlers.paint] vram: 'much' is not a size" in ended.stderr


def test_every_flag_of_serve_is_a_setting() -> None:
    names = {FLAG_FIELDS.get(name, name) for name in inspect.signature(serve).parameters}
    assert names - set(Settings.model_fields) == set()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("token_file", None, "-"),
        ("sources", [], "-"),
        ("sources", ["a.py", "b"], "a.py, b"),
        ("entry_points", False, "false"),
        ("grace", 0.5, "0.5s"),
        ("limits.body_bytes", 1 << 20, "1MiB"),
        ("limits.body_bytes", 1001, "1001"),
        ("limits.events", 1024, "1024"),
        ("handlers.paint.backoff", {"base_s": 2}, '{"base_s": 2}'),
    ],
)
def test_values_are_written_as_in_the_config(name: str, value: Any, said: str) -> None:
    assert format_value(name, value) == said
