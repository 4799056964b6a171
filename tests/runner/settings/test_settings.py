"""Effect: settings from all their sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.errors import RefusedStart
from runner.settings.settings import load_settings, require_platform


@pytest.fixture(autouse=True)
def no_settings_around(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RUNNER_TOKEN", "RUNNER_URL", "RUNNER_CONFIG", "RUNNER_DATA_DIR", "RUNNER_PORT"):
        monkeypatch.delenv(name, raising=False)


def _file(folder: Path, text: str, name: str = "runner.toml") -> Path:
    (folder / name).write_text(text)
    return folder


def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_FRONTS", "2")
    monkeypatch.setenv("RUNNER_PORT", "2")
    _file(tmp_path, 'port = 1\nfronts = 1\ngpus = "none"')
    settings = load_settings({"port": 3, "gpus": None}, folder=tmp_path)
    assert (settings.port, settings.fronts, settings.gpus, settings.host) == (3, 2, "none", "127.0.0.1")


def test_tables_are_merged_key_by_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_LIMITS__DEPTH", "9")
    monkeypatch.setenv("RUNNER_EXECUTORS__ENV__HF_HOME", "/models")
    settings = load_settings(folder=_file(tmp_path, '[limits]\nbody_bytes = "1MiB"\ndepth = 5'))
    assert (settings.limits.body_bytes, settings.limits.depth) == (1 << 20, 9)
    assert settings.executors.env == {"HF_HOME": "/models"}


def test_pyproject_is_read_where_there_is_no_file_of_ours(tmp_path: Path) -> None:
    _file(tmp_path, '[tool.runner]\ngrace = "1m"', "pyproject.toml")
    assert load_settings(folder=tmp_path).grace_s == 60.0
    _file(tmp_path, "")
    assert load_settings(folder=tmp_path).grace_s == 30.0


def test_paths_in_a_file_count_from_its_folder(tmp_path: Path) -> None:
    _file(tmp_path, 'data_dir = "data"\nhandlers = ["paint.py", "package.module"]')
    settings = load_settings({"config": tmp_path / "runner.toml"}, folder=Path("/"))
    assert settings.data_dir == tmp_path / "data"
    assert settings.handlers == [str(tmp_path / "paint.py"), "package.module"]
    assert settings.config == tmp_path / "runner.toml"


def test_tables_named_handlers_are_the_operators_overrides(tmp_path: Path) -> None:
    _file(tmp_path, 'sources = ["paint.py"]\n[handlers.paint]\nvram = "3GiB"')
    settings = load_settings(folder=tmp_path)
    assert settings.overrides == {"paint": {"vram": "3GiB"}}
    assert settings.handlers == [str(tmp_path / "paint.py")]


def test_tenants_have_weights(tmp_path: Path) -> None:
    settings = load_settings(folder=_file(tmp_path, "[tenants.acme]\nweight = 2.5\n[tenants.b]"))
    assert {name: each.weight for name, each in settings.tenants.items()} == {"acme": 2.5, "b": 1.0}


def test_lists_in_the_environment_are_parted_by_commas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_HANDLERS", "a.py, b.py")
    monkeypatch.setenv("RUNNER_ALLOW_HOST", "gpu.lan")
    settings = load_settings(folder=tmp_path)
    assert (settings.handlers, settings.allow_hosts) == (["a.py", "b.py"], ["gpu.lan"])


@pytest.mark.parametrize(
    ("text", "flags", "said"),
    [
        ("prot = 1", {}, r"prot: no such setting \(in .*runner.toml\)"),
        (
            '[limits]\noutput_bytes = "65MiB"',
            {},
            r"limits\.output_bytes: must be less than or equal to 67108864",
        ),
        ("[limits]\nbody = 1", {}, r"limits\.body: no such setting \(in .*runner.toml\)"),
        ("grace = 1e18", {}, r"^grace: a duration is at most ten years.*runner.toml"),
        ('grace = "soon"', {}, r"^grace: .*soon.*runner.toml"),
        ("port = ", {}, "not valid TOML"),
        ('[handlers.a]\nvram = "much"', {}, r"runner\.toml: \[handlers\.a\] vram: 'much' is not a size"),
        ("[tenants.a]\nweight = 0", {}, r"tenants\.a\.weight: must be greater than .*runner.toml"),
        ("[tenants.a]\nwait = 1", {}, r"tenants\.a\.wait: no such setting"),
        ('[tenants."a b"]\nweight = 1', {}, r"tenants\.a b: .*match pattern.*runner.toml"),
        ("[handlers.a]\nvrom = 1", {}, r"runner\.toml: \[handlers\.a\] there is no option 'vrom'"),
        ("[handlers]\na = 3", {}, r"runner\.toml: \[handlers\.a\] must be a table"),
        ("", {"port": 70_000}, r"port: must be less than .*\(in the command line\)"),
        ("", {"store": "redis://x"}, r"store: must be sqlite:///PATH or memory: \(in"),
        ("", {"config": "missing.toml"}, "cannot read the config file"),
        ("", {"token_file": "missing"}, "cannot read the token file"),
        ("", {"host": "0.0.0.0"}, "set a token"),
        ("", {"host": "::"}, "set a token"),
        ("", {"host": ""}, "set a token"),
    ],
)
def test_a_mistake_is_refused_with_its_name_and_place(
    tmp_path: Path, text: str, flags: dict[str, Any], said: str
) -> None:
    with pytest.raises(RefusedStart, match=said) as caught:
        load_settings(flags, folder=_file(tmp_path, text))
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1"])
def test_loopback_needs_no_token(tmp_path: Path, host: str) -> None:
    assert load_settings({"host": host}, folder=tmp_path).token is None


def test_who_can_reach_the_server_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(folder=tmp_path).exposure == "this machine only, no token"
    monkeypatch.setenv("RUNNER_TOKEN", "t")
    assert load_settings({"host": "0.0.0.0"}, folder=tmp_path).exposure == "other machines too, token needed"


def test_the_token_comes_from_the_nearest_source_and_is_never_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNNER_TOKEN", "from-environment")
    (tmp_path / "token").write_text("from-file\n")
    by_environment = load_settings({"host": "0.0.0.0"}, folder=_file(tmp_path, 'token_file = "token"'))
    by_flag = load_settings({"host": "0.0.0.0", "token_file": str(tmp_path / "token")}, folder=tmp_path)
    found = [settings.token.get_secret_value() for settings in (by_environment, by_flag) if settings.token]
    assert found == ["from-environment", "from-file"]
    assert "from-file" not in repr(by_flag)


@pytest.mark.parametrize("text", ["", "two words", "two\nlines"])
def test_a_token_file_holds_one_token(tmp_path: Path, text: str) -> None:
    (tmp_path / "token").write_text(text)
    with pytest.raises(RefusedStart, match="one token"):
        load_settings({"token_file": str(tmp_path / "token")}, folder=tmp_path)


@pytest.mark.parametrize(
    ("system", "machine", "fits"),
    [
        ("linux", "x86_64", True),
        ("linux", "aarch64", True),
        ("darwin", "arm64", False),
        ("linux", "riscv64", False),
        ("win32", "AMD64", False),
    ],
)
def test_other_platforms_are_refused_in_one_sentence(system: str, machine: str, fits: bool) -> None:
    if fits:
        require_platform(system, machine)
        return
    with pytest.raises(RefusedStart, match=system):
        require_platform(system, machine)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mps", "devices.enforcement: mps is not supported: it requires NVIDIA's MPS daemon"),
        ("cgroup", "devices.enforcement: cgroup is not supported: it requires device memory limits"),
        ("hope", "devices.enforcement: must be 'fraction', 'watchdog' or 'none'"),
    ],
)
def test_an_enforcement_that_is_not_there_is_refused_with_what_it_would_need(
    tmp_path: Path, name: str, words: str
) -> None:
    with pytest.raises(RefusedStart) as refused:
        load_settings(folder=_file(tmp_path, f'[devices]\nenforcement = "{name}"'))
    assert refused.value.message.startswith(words)


def test_headroom_and_enforcement_are_settings_of_the_devices(tmp_path: Path) -> None:
    settings = load_settings(folder=_file(tmp_path, '[devices]\nenforcement = "watchdog"\nheadroom = "1GiB"'))
    assert (settings.devices.enforcement, settings.devices.headroom) == ("watchdog", 1 << 30)
    assert load_settings(folder=tmp_path / "none").devices.enforcement == "fraction"
