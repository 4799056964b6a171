"""Effect: `runner handlers check`, on real files, without a server; and `reload` with one."""

from __future__ import annotations

import json
import re
from pathlib import Path

from runner.testing import Server
from tests.runner.cli.cli_process import runner

HEAD = "from runner import handler\n"
GOOD = HEAD + "@handler('good', vram='2GiB')\ndef good(data):\n    '''Does it.'''\n    return data\n"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)


def test_what_is_fine_is_listed_and_exits_0(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD)
    ended = runner("handlers", "check", "good.py", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert re.search(r"^good +ok +1 GPU, 2 GiB +\S+/good.py +Does it\.", ended.stdout, re.MULTILINE)
    assert ended.stdout.endswith("\n1 ok, 0 broken\n")


def test_what_is_broken_is_shown_with_its_traceback_and_exits_1(tmp_path: Path) -> None:
    write(
        tmp_path, good=GOOD, torn="import nowhere_to_be_found\n", odd=HEAD + "@handler('o', vram='much')\n..."
    )
    ended = runner("handlers", "check", ".", cwd=tmp_path)
    assert ended.returncode == 1
    assert "torn is broken:\nTraceback" in ended.stdout and "'nowhere_to_be_found'" in ended.stdout
    assert ended.stdout.endswith("\n1 ok, 2 broken\n")


def test_as_json_it_gives_options_and_errors(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD, torn="1 / 0\n")
    ended = runner("handlers", "check", "good.py", "torn.py", "--json", cwd=tmp_path)
    good, torn = json.loads(ended.stdout)
    assert ended.returncode == 1
    assert (good["state"], good["options"]["vram_bytes"], good["error"]) == ("ok", 2 << 30, None)
    assert (torn["state"], torn["options"]) == ("broken", None) and "ZeroDivisionError" in torn["error"]


def test_without_sources_it_takes_the_config_with_its_overrides(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD)
    config = 'sources = ["good.py"]\n[handlers.good]\nvram = "5GiB"\n[handlers.absent]\nretries = 1\n'
    (tmp_path / "runner.toml").write_text(config)
    ended = runner("handlers", "check", "--no-entry-points", cwd=tmp_path)
    assert ended.returncode == 0
    assert "5 GiB" in ended.stdout
    assert "warning: [handlers.absent] has no effect" in ended.stdout


def test_what_a_server_would_not_start_with_is_refused(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD, again=GOOD)
    twice = runner("handlers", "check", "good.py", "again.py", cwd=tmp_path)
    missing = runner("handlers", "check", "missing.py", cwd=tmp_path)
    assert (twice.returncode, missing.returncode) == (2, 2)
    assert "two handlers are called 'good'" in twice.stderr and "there is no file" in missing.stderr


def test_a_reload_tells_what_has_changed_and_exits_1_while_something_is_broken(tmp_path: Path) -> None:
    write(tmp_path, good=GOOD, other=GOOD.replace("good", "other"))
    with Server([tmp_path]) as server:
        url = ("--url", server.url)
        write(tmp_path, good=GOOD + "# more\n", third=GOOD.replace("good", "third"))
        ended = runner("handlers", "reload", *url)
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout == "added     third\nchanged   good\nunchanged 1\n"
        write(tmp_path, good="1 / 0\n")
        ended = runner("handlers", "reload", *url)
        assert ended.returncode == 1
        assert ended.stdout.startswith("broken    good\nunchanged 2\n\ngood is broken:\nTraceback")
        (tmp_path / "good.py").unlink()
        ended = runner("handlers", "reload", "--json", *url)
        assert ended.returncode == 0
        assert json.loads(ended.stdout)["removed"] == ["good"]
        write(tmp_path, twin=GOOD.replace("good", "third"))
        ended = runner("handlers", "reload", *url)
        assert ended.returncode == 5 and "two handlers are called 'third'" in ended.stderr
        write(tmp_path, twin="")


def test_no_handlers_at_all_say_how_to_name_some(tmp_path: Path) -> None:
    ended = runner("handlers", "check", "--no-entry-points", cwd=tmp_path)
    assert ended.returncode == 0 and "runner.toml" in ended.stdout
