"""Effect: every command's words and exit codes, by the real program against a scripted server."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.runner.cli.cli_process import environment, runner
from tests.runner.cli.terminal import Terminal
from tests.runner.client.fake_server import ID, CannedReply, Script, fake_server, frame, job, problem, stream

SUBMITTED = CannedReply(202, job("queued"))
Routes = dict[tuple[str, str], Script]


def _ended(state: str, **fields: Any) -> Routes:
    done = frame("done", 2, state=state, output=fields.get("output"), error=fields.get("error"))
    return {
        ("POST", "/v1/jobs"): SUBMITTED,
        ("GET", f"/v1/jobs/{ID}"): CannedReply(200, job(state, **fields)),
        ("GET", f"/v1/jobs/{ID}/events"): stream(
            frame("progress", 1, done=1, total=2, fraction=0.5, message="half"), done
        ),
    }


FAILED = {"code": "handler_error", "message": "no luck", "retryable": True}
CANCELLED = {"code": "cancelled", "message": "enough", "retryable": False}

CODES: list[tuple[Routes, tuple[str, ...], int, str]] = [
    (_ended("succeeded", output=7), ("run", "echo"), 0, "50%"),
    (_ended("failed", error=FAILED), ("run", "echo"), 1, "handler_error: no luck; see `runner job show"),
    (_ended("cancelled", error=CANCELLED), ("run", "echo"), 7, "enough"),
    ({}, ("run",), 2, "missing argument 'HANDLER'"),
    ({}, ("frobnicate",), 2, "no such command 'frobnicate'"),
    ({}, ("jobs", "--frob"), 2, "no such option: --frob"),
    ({}, ("run", "echo", "word"), 2, "expected key=text, key:=JSON, @file.json or -"),
    ({}, ("run", "echo", "--wait", "soon"), 2, "not a duration"),
    ({}, ("submit", "echo", "--vram", "much"), 2, "vram: 'much' is not a size"),
    ({}, ("submit", "echo", "--timeout", "5x"), 2, "timeout: '5x' is not a duration"),
    ({}, ("queues", "pause"), 2, "needs the name"),
    ({}, ("devices", "drain"), 2, "needs the id"),
    ({}, ("devices", "set", "gpu0"), 2, "is required by"),
    ({}, ("devices", "drain", "gpu0", "--max-executors", "2"), 2, "only valid there"),
    ({}, ("ps", "--url", "localhost:8484"), 2, "invalid URL"),
    ({}, ("job", "show", ID), 3, "there is no"),
    (
        {("POST", "/v1/jobs"): problem(404, "unknown_handler", "there is no handler 'nope'")},
        ("submit", "nope"),
        3,
        "nope",
    ),
    (
        {("POST", "/v1/jobs"): problem(422, "validation_error", "/input/n: too large")},
        ("submit", "echo", "n:=7"),
        5,
        "/input/n: too large",
    ),
    ({("GET", "/v1/jobs"): problem(401, "unauthorized", "a token is needed")}, ("jobs",), 5, "RUNNER_TOKEN"),
    ({("GET", "/v1/queues"): CannedReply(200, b"<html>")}, ("queues",), 5, "not from a runner server"),
]


@pytest.mark.parametrize(
    ("routes", "words", "code", "said"), CODES, ids=[" ".join(entry[1]) + f" {entry[2]}" for entry in CODES]
)
def test_each_end_has_its_exit_code_and_says_one_thing(
    routes: Routes, words: tuple[str, ...], code: int, said: str
) -> None:
    with fake_server(routes) as server:
        ended = runner(*words, url=server.url)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stderr
    assert "Traceback" not in ended.stderr
    if code not in (0, 1, 7):
        assert ended.stdout == "" and len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("words", [("jobs",), ("run", "echo"), ("job", "follow", ID), ("handlers",)])
def test_without_a_server_it_says_how_to_start_one(words: tuple[str, ...]) -> None:
    ended = runner(*words)
    assert ended.returncode == 4
    assert "runner serve" in ended.stderr and len(ended.stderr.splitlines()) == 1


def test_a_wait_that_is_too_long_exits_6() -> None:
    def hold(_: object) -> CannedReply:
        return CannedReply(200, job("running"))

    with fake_server({("GET", f"/v1/jobs/{ID}"): hold}) as server:
        ended = runner("job", "wait", ID, "--timeout", "300ms", url=server.url)
    assert ended.returncode == 6
    assert "it continues" in ended.stderr


def test_run_prints_the_output_alone_on_stdout() -> None:
    with fake_server(_ended("succeeded", output={"ä": [1, 2]})) as server:
        ended = runner("run", "echo", "text=hi", "n:=2", "--tag", "a", "--tenant", "acme", url=server.url)
    assert json.loads(ended.stdout) == {"ä": [1, 2]}
    assert server.asked[0].body == {
        "handler": "echo",
        "input": {"text": "hi", "n": 2},
        "tags": ["a"],
        "tenant": "acme",
    }


def test_input_may_come_from_standard_input() -> None:
    with fake_server(_ended("succeeded", output=1)) as server:
        ended = runner("submit", "echo", "-", url=server.url, stdin="[1]")
    assert ended.stdout == f"{ID}\n"
    assert server.asked[0].body["input"] == [1]


@pytest.mark.parametrize(
    ("words", "path"),
    [
        (("jobs",), "/v1/jobs"),
        (("ps",), "/v1/devices"),
        (("devices",), "/v1/devices"),
        (("queues",), "/v1/queues"),
        (("handlers",), "/v1/handlers"),
    ],
)
def test_every_list_can_be_json(words: tuple[str, ...], path: str) -> None:
    data = [{"id": "x", "name": "x", "state": "ok"}]
    with fake_server({("GET", path): CannedReply(200, {"data": data, "next_cursor": None})}) as server:
        ended = runner(*words, "--json", url=server.url)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout) == data


def test_an_empty_list_of_jobs_says_how_to_submit_one() -> None:
    page = CannedReply(200, {"data": [], "next_cursor": None})
    with fake_server({("GET", "/v1/jobs"): page}) as server:
        assert runner("jobs", url=server.url).stdout == "no jobs yet; try: runner run HANDLER\n"
        assert runner("jobs", "--state", "failed", url=server.url).stdout == "no matching jobs\n"


def test_explain_says_why_a_job_waits() -> None:
    place = {"device": "gpu0", "free_bytes": 1 << 30, "needed_bytes": 6 << 30, "reason": "drained"}
    found = {"message": "it waits for [bold] bytes", "devices": [place]}
    with fake_server({("GET", f"/v1/jobs/{ID}/explain"): CannedReply(200, found)}) as server:
        shown = runner("explain", ID, url=server.url)
        told = runner("explain", ID, "--json", url=server.url)
    assert "it waits for [bold] bytes" in shown.stdout and "6 GiB" in shown.stdout
    assert json.loads(told.stdout) == found


def test_follow_as_json_prints_an_event_a_line() -> None:
    with fake_server(_ended("succeeded", output=7)) as server:
        ended = runner("job", "follow", ID, "--json", url=server.url)
    kinds = [json.loads(line)["type"] for line in ended.stdout.splitlines()]
    assert kinds == ["snapshot", "progress", "done"]


def test_logs_print_what_was_written() -> None:
    log = frame("log", 1, stream="stdout", level=None, text="hello\n")
    routes: Routes = {("GET", f"/v1/jobs/{ID}/events"): stream(log, frame("done", 2, state="succeeded"))}
    with fake_server(routes) as server:
        ended = runner("job", "logs", ID, url=server.url)
    assert ended.stdout == "hello\n"


def test_logs_and_cancel_are_commands_of_their_own_and_take_the_newest_job() -> None:
    log = frame("log", 1, stream="stdout", level=None, text="hello\n")
    routes: Routes = {
        ("GET", "/v1/jobs"): CannedReply(200, {"data": [job("running")], "next_cursor": None}),
        ("GET", f"/v1/jobs/{ID}/events"): stream(log, frame("done", 2, state="succeeded")),
        ("POST", f"/v1/jobs/{ID}/cancel"): CannedReply(202, job("running", reason="cancelling")),
    }
    with fake_server(routes) as server:
        assert runner("logs", "@last", url=server.url).stdout == "hello\n"
        assert f"job {ID} is being cancelled" in runner("cancel", ID[:15], url=server.url).stdout


def test_a_job_that_is_named_twice_is_removed_once() -> None:
    routes: Routes = {
        ("GET", "/v1/jobs"): CannedReply(200, {"data": [job()], "next_cursor": None}),
        ("DELETE", f"/v1/jobs/{ID}"): CannedReply(204, b""),
    }
    with fake_server(routes) as server:
        ended = runner("job", "rm", "@last", ID, url=server.url)
    assert ended.stdout == f"job {ID} removed\n", ended.stderr


def test_a_handler_is_shown_with_its_inputs_and_a_command_that_runs_it() -> None:
    schema = {
        "properties": {"name": {"type": "string"}, "times": {"type": "integer", "default": 3}},
        "required": ["name"],
    }
    document = {
        "name": "greet",
        "state": "ok",
        "description": "Greets.",
        "input_schema": schema,
        "options": None,
    }
    with fake_server({("GET", "/v1/handlers/greet"): CannedReply(200, document)}) as server:
        shown = runner("handlers", "show", "greet", url=server.url)
        told = runner("handlers", "show", "greet", "--json", url=server.url)
        missing = runner("handlers", "show", "gret", url=server.url)
    assert shown.stdout.splitlines()[-1] == "runner run greet name=TEXT"
    assert ["times", "integer", "3"] in [line.split() for line in shown.stdout.splitlines()]
    assert json.loads(told.stdout) == document
    assert missing.returncode == 3


def test_a_wrong_token_is_told_from_none() -> None:
    with fake_server({("GET", "/v1/jobs"): problem(401, "unauthorized", "send the token")}) as server:
        without = runner("jobs", url=server.url)
        wrong = runner("jobs", url=server.url, env={"RUNNER_TOKEN": "old"})
    assert without.stderr == "runner: send the token; set RUNNER_TOKEN\n"
    assert wrong.stderr == "runner: RUNNER_TOKEN is not the server's token\n"
    assert without.returncode == wrong.returncode == 5


@pytest.mark.parametrize(("word", "sent"), [("high", "high"), ("80", 80), ("-1", "-1")])
def test_a_priority_is_a_number_or_a_word_of_the_server(word: str, sent: int | str) -> None:
    with fake_server({("POST", "/v1/jobs"): SUBMITTED}) as server:
        assert runner("submit", "echo", "--priority", word, url=server.url).returncode == 0
        assert server.asked[0].body["priority"] == sent


@pytest.mark.parametrize("words", [(), ("job",), ("handlers",), ("config",)])
def test_no_command_is_cut_short_in_a_list_of_commands(words: tuple[str, ...]) -> None:
    listed = runner(*words, "--help").stdout.split("Commands:")[1]
    assert "..." not in listed


@pytest.mark.parametrize(
    ("words", "method", "path", "said"),
    [
        (("job", "cancel", ID, "--reason", "enough"), "POST", f"/v1/jobs/{ID}/cancel", "is being cancelled"),
        (("job", "retry", ID), "POST", f"/v1/jobs/{ID}/retry", "queued again"),
        (("job", "rm", ID), "DELETE", f"/v1/jobs/{ID}", "removed"),
        (("queues", "pause", "slow"), "POST", "/v1/queues/slow/pause", "slow"),
        (("devices", "drain", "gpu0"), "POST", "/v1/devices/gpu0/drain", "DEVICE"),
        (("devices", "resume", "gpu0"), "POST", "/v1/devices/gpu0/resume", "DEVICE"),
        (("devices", "set", "gpu0", "--max-executors", "2"), "PATCH", "/v1/devices/gpu0", "DEVICE"),
    ],
)
def test_acts_reach_the_server(words: tuple[str, ...], method: str, path: str, said: str) -> None:
    with fake_server({(method, path): CannedReply(200, job("running", name="slow"))}) as server:
        ended = runner(*words, url=server.url)
    assert ended.returncode == 0, ended.stderr
    assert said in ended.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--host", "0.0.0.0"), "set a token"),
        (("--config", "missing.toml"), "cannot read the config file"),
        (("--store", "redis://x"), "store"),
        (("--token-file", "missing"), "token file"),
        (("--grace", "soon"), "grace: "),
        (("--port", "many"), "--port"),
    ],
)
def test_a_server_that_must_not_start_exits_2_with_one_sentence(
    tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    ended = runner("serve", "--data-dir", str(tmp_path / "data"), *words, cwd=tmp_path)
    assert ended.returncode == 2
    assert said in ended.stderr and len(ended.stderr.splitlines()) == 1
    assert not (tmp_path / "data").exists()


def test_an_unknown_key_in_a_config_file_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "runner.toml").write_text("prot = 1\n")
    ended = runner("serve", cwd=tmp_path, env={"RUNNER_DATA_DIR": str(tmp_path / "data")})
    assert ended.returncode == 2
    assert "prot: no such setting" in ended.stderr and "runner.toml" in ended.stderr


def test_output_into_a_closed_pipe_is_no_traceback() -> None:
    many = CannedReply(200, {"data": [job()] * 2000, "next_cursor": None})
    with fake_server({("GET", "/v1/jobs"): many}) as server:
        ended = subprocess.run(
            ["bash", "-c", f"{sys.executable} -P -m runner jobs --limit 2000 --json | head -c 10"],
            env=environment(server.url),
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert "Traceback" not in ended.stderr and "Exception" not in ended.stderr


PICTURE = {
    "$file": "f",
    "id": "f",
    "name": "a.png",
    "size": 3,
    "sha256": hashlib.sha256(b"png").hexdigest(),
    "content_type": "image/png",
}
FILES: Routes = {
    ("GET", f"/v1/jobs/{ID}/files"): CannedReply(200, {"data": [PICTURE]}),
    ("GET", f"/v1/jobs/{ID}/files/a.png"): CannedReply(200, [b"png"]),
}


def test_files_of_a_job_are_listed_and_fetched(tmp_path: Path) -> None:
    with fake_server(FILES) as server:
        assert runner("job", "files", ID, url=server.url).stdout == "a.png  3 B  image/png\n"
        assert json.loads(runner("job", "files", ID, "--json", url=server.url).stdout) == [PICTURE]
        fetched = runner("job", "files", ID, "-o", str(tmp_path), url=server.url)
    assert (fetched.returncode, fetched.stdout) == (0, "")
    assert fetched.stderr == f"saved {tmp_path}/a.png (3 B)\n"
    assert (tmp_path / "a.png").read_bytes() == b"png"


def test_run_fetches_the_files_of_its_job(tmp_path: Path) -> None:
    with fake_server({**_ended("succeeded", output=PICTURE), **FILES}) as server:
        ended = runner("run", "echo", "-o", str(tmp_path / "new"), url=server.url)
        refused = runner("run", "echo", "-o", "/dev/null/x", url=server.url)
    assert ended.returncode == 0 and f"saved {tmp_path}/new/a.png (3 B)" in ended.stderr
    assert json.loads(ended.stdout) == PICTURE
    assert refused.returncode == 2 and "cannot write to /dev/null/x" in refused.stderr


def test_streamed_text_is_shown_once_on_a_terminal() -> None:
    pieces = ["Hel", "lo ", "world"]
    chunks = [frame("output", 1 + at, chunk=piece) for at, piece in enumerate(pieces)]
    done = frame("done", 4, state="succeeded", output=pieces, error=None)
    routes: Routes = {
        **_ended("succeeded", output=pieces),
        ("GET", f"/v1/jobs/{ID}/events"): stream(*chunks, done),
    }
    with fake_server(routes) as server:
        with Terminal("run", "chat", url=server.url) as terminal:
            assert terminal.end() == 0
        assert json.loads(runner("run", "chat", url=server.url).stdout) == pieces
    assert terminal.text.count("Hello world") == 1
    assert '"lo "' not in terminal.text


def test_a_cancel_may_be_forced() -> None:
    with fake_server({("POST", f"/v1/jobs/{ID}/cancel"): CannedReply(202, job("running"))}) as server:
        assert runner("job", "cancel", ID, "--force", "--reason", "now", url=server.url).returncode == 0
        assert runner("job", "cancel", ID, url=server.url).returncode == 0
        assert [one.body for one in server.asked if one.method == "POST"] == [
            {"reason": "now", "force": True},
            {},
        ]
