"""Effect: where each setting comes from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from runner.settings.origins import STARS, SettingValue, list_settings
from runner.settings.settings import Settings, merge_layers, read_layers


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("RUNNER_")]:
        monkeypatch.delenv(name)


def found(folder: Path, **flags: Any) -> dict[str, SettingValue]:
    told = read_layers(flags, folder=folder)
    return {one.name: one for one in list_settings(merge_layers(told), told, os.environ)}


def test_each_layer_is_named_as_its_author_knows_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runner.toml").write_text(
        'grace = "10s"\nfronts = 2\nport = 1\n[limits]\ndepth = 5\nevents = 6'
    )
    monkeypatch.setenv("RUNNER_FRONTS", "3")
    monkeypatch.setenv("RUNNER_LIMITS__DEPTH", "9")
    monkeypatch.setenv("RUNNER_ALLOW_HOST", "gpu.lan")
    shown = found(tmp_path, port=4, entry_points=False, log_level=None)
    file = tmp_path / "runner.toml"
    expected = {
        "port": (4, "--port"),
        "entry_points": (False, "--no-entry-points"),
        "fronts": (3, "RUNNER_FRONTS"),
        "limits.depth": (9, "RUNNER_LIMITS__DEPTH"),
        "allow_hosts": (["gpu.lan"], "RUNNER_ALLOW_HOST"),
        "grace": (10.0, f"{file}: grace"),
        "limits.events": (6, f"{file}: limits.events"),
        "log_level": ("info", "default"),
        "config": (str(file), "found in the current folder"),
    }
    assert {name: shown[name][1:] for name in expected} == expected


def test_every_setting_is_shown_once(tmp_path: Path) -> None:
    told = read_layers({}, folder=tmp_path)
    names = [one.name for one in list_settings(merge_layers(told), told, {})]
    assert len(names) == len(set(names))
    renamed = {"handlers": "sources", "grace_s": "grace"}
    tops = {name.split(".")[0] for name in names}
    # Overrides are shown one by one, and there are none.
    assert tops == {renamed.get(name, name) for name in Settings.model_fields} - {"overrides"}


def test_keys_are_given_as_they_stand_in_the_file(tmp_path: Path) -> None:
    text = "[tool.runner]\ngrace_s = 3\nsources = []\n[tool.runner.handlers.paint]\nbackoff = {base_s = 2}\n"
    (tmp_path / "pyproject.toml").write_text(text)
    shown = found(tmp_path)
    head = f"{tmp_path / 'pyproject.toml'}: tool.runner."
    assert shown["grace"].origin == head + "grace_s"
    assert shown["sources"].origin == head + "sources"
    assert shown["handlers.paint.backoff"][1:] == ({"base_s": 2}, head + "handlers.paint.backoff")


def test_secrets_are_stars_and_only_the_way_that_counts_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text("hush")
    config = 'token_file = "secret"\n[executors.env]\nHF_TOKEN = "hush"\nOMP_NUM_THREADS = "2"'
    (tmp_path / "runner.toml").write_text(config)
    shown = found(tmp_path)
    assert shown["token"][1:] == (STARS, f"{tmp_path / 'runner.toml'}: token_file")
    assert (shown["executors.env.HF_TOKEN"].value, shown["executors.env.OMP_NUM_THREADS"].value) == (
        STARS,
        "2",
    )
    monkeypatch.setenv("RUNNER_TOKEN", "hush")
    shown = found(tmp_path)
    assert shown["token"][1:] == (STARS, "RUNNER_TOKEN")
    assert shown["token_file"][1:] == (None, "default")
    assert "hush" not in str(shown)
