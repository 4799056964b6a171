"""Effect: the program as people use it: a real server, a terminal, Ctrl-C."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.testing import ServedClient, running
from tests.runner.cli.cli_process import runner
from tests.runner.cli.terminal import Terminal
from tests.runner.served_handlers import Walk, boom, echo


@pytest.fixture(scope="module")
def client() -> Iterator[ServedClient]:
    with running(handlers=[echo, Walk, boom]) as client:
        yield client


def test_run_shows_plain_lines_where_there_is_no_terminal(client: ServedClient) -> None:
    ended = runner("run", "walk", "count:=3", url=client.url)
    assert json.loads(ended.stdout) == {"steps": 3}
    assert "did 1" in ended.stderr and "100%  3/3  step 3" in ended.stderr and "\x1b" not in ended.stderr


def test_run_draws_a_bar_on_a_terminal_and_what_is_printed_scrolls_above(client: ServedClient) -> None:
    with Terminal("run", "walk", "count:=4", "pause_s:=0.1", url=client.url) as terminal:
        assert terminal.end() == 0
    assert "━" in terminal.text and "100%" in terminal.text and "did 4" in terminal.text
    assert json.loads(terminal.text[terminal.text.rindex("{") :]) == {"steps": 4}


def test_ctrl_c_cancels_the_job_that_run_follows(client: ServedClient) -> None:
    with Terminal("run", "walk", "count:=1000", "pause_s:=0.05", url=client.url) as terminal:
        terminal.until("did 2")
        begun = time.monotonic()
        terminal.interrupt()
        assert terminal.end() == 130
    assert time.monotonic() - begun < 6
    newest = client.jobs(limit=1)[0]
    assert newest.state == "cancelled" and newest.id in terminal.text


def test_ctrl_c_leaves_a_job_alone_that_is_only_followed(client: ServedClient) -> None:
    handle = client.submit(Walk, {"count": 1000, "pause_s": 0.05})
    with Terminal("job", "follow", handle.id, url=client.url) as terminal:
        terminal.until("did 2")
        terminal.interrupt()
        assert terminal.end() == 130
    assert handle.status().state == "running"
    handle.cancel()


def test_run_gives_up_waiting_and_the_job_goes_on(client: ServedClient) -> None:
    ended = runner("run", "walk", "count:=1000", "pause_s:=0.05", "--wait", "500ms", url=client.url)
    assert ended.returncode == 6
    newest = client.jobs(limit=1)[0]
    assert newest.id in ended.stderr and newest.state in ("queued", "running")
    newest_handle = client.job(newest.id)
    newest_handle.cancel()
    newest_handle.wait(10)


def test_a_job_is_shown_with_its_traceback_and_attempts(client: ServedClient) -> None:
    job_id = client.submit(boom, {}, tags=["odd"]).wait(20).id
    ended = runner("job", "show", job_id, url=client.url)
    for part in (job_id, "handler_error", "ValueError: no luck", "odd", "ATTEMPT"):
        assert part in ended.stdout
    assert runner("job", "wait", job_id, url=client.url).returncode == 1
    assert runner("job", "cancel", job_id, url=client.url).returncode == 5


def test_tables_name_what_the_server_has(client: ServedClient) -> None:
    client.run(echo, 1)
    assert "echo" in runner("ps", url=client.url).stdout
    assert "GiB" in runner("devices", url=client.url).stdout
    assert "default" in runner("queues", url=client.url).stdout
    handlers = runner("handlers", url=client.url).stdout
    assert re.search(r"^walk +ok +cpu", handlers, re.MULTILINE)


def test_a_broken_handler_is_listed_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "torn.py").write_text("import nowhere_to_be_found\n")
    with running(handlers=[echo, str(tmp_path / "torn.py")]) as client:
        assert client.run(echo, 1) == 1
        deadline = time.monotonic() + 20
        while "nowhere_to_be_found" not in (ended := runner("handlers", url=client.url)).stdout:
            assert time.monotonic() < deadline, ended.stdout
    assert "broken" in ended.stdout


def test_serve_shows_its_panel_and_ends_with_0_at_ctrl_c(tmp_path: Path) -> None:
    words = ("serve", "--port", "0", "--gpus", "none", "--data-dir", str(tmp_path), "--no-entry-points")
    with Terminal(*words, url="") as terminal:
        terminal.until("╰")
        found = re.search(r"http://127\.0\.0\.1:\d+", terminal.text)
        assert found is not None
        assert runner("devices", url=found[0]).returncode == 0
        terminal.interrupt()
        assert terminal.end() == 0


@pytest.mark.slow
def test_a_port_that_is_taken_refuses_the_start(client: ServedClient, tmp_path: Path) -> None:
    port = client.url.rpartition(":")[2]
    ended = runner("serve", "--port", port, "--data-dir", str(tmp_path), "--gpus", "none")
    assert ended.returncode == 2
    assert port in ended.stderr and "--port" in ended.stderr and "Traceback" not in ended.stderr
