"""Effect: installed packages offer handlers whose import hangs, ends the process or finds nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.mutate import mutated, value
from tests.faults.server_fixture import Document, LiveServer, ServerFixture, until

#: Entry point -> its module's text, and what must be told of it.
PLUGINS: dict[str, tuple[str, str]] = {
    "sleeper": ("import time\ntime.sleep(600)\n", "timed out after 2 s"),
    "leaver": ("import os\nos._exit(0)\n", "exited with exit code 0"),
    "crasher": ("import ctypes\nctypes.string_at(0)\n", "SIGSEGV"),
    "importer": ("import no_such_module_anywhere\n", "no_such_module_anywhere"),
    "empty": ("", "nothing_here"),
    "good": (
        "from runner import handler\n@handler('offered')\ndef nothing_here(d): return d\n",
        "",
    ),
}
#: An import may take two minutes; a test has no such time.
SOONER = value("describe-limit", "2.0")


def install(folder: Path) -> None:
    """A distribution with all of them, as an installer leaves it."""
    facts = folder / "plugins-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: plugins\nVersion: 1.0\n")
    points = "".join(f"{name} = plugin_{name}:nothing_here\n" for name in PLUGINS)
    (facts / "entry_points.txt").write_text(f"[runner.handlers]\n{points}")
    for name, (text, _) in PLUGINS.items():
        (folder / f"plugin_{name}.py").write_text(text)


def handlers(server: LiveServer) -> dict[str, Document]:
    found = server.http.get("/v1/handlers").json()
    return {} if found["describing"] else {each["name"]: each for each in found["data"]}


@pytest.mark.slow
def test_plugins_that_hang_leave_or_crash_are_told_of_and_stop_nothing_else(tmp_path: Path) -> None:
    server_fixture = ServerFixture(tmp_path, tree=mutated(tmp_path, [SOONER]))
    install(tmp_path / "site")
    try:
        path = f"{server_fixture.tree}:{tmp_path / 'site'}"
        server = server_fixture.start("--entry-points", env={"PYTHONPATH": path})
        # Not held up by the one that sleeps.
        assert server.wait_for_end(server.submit("echo", {"a": 1}))["output"] == {"a": 1}
        found = until(lambda: handlers(server), "all are described", within_s=8)
        for name, (_, said) in PLUGINS.items():
            if not said:
                continue
            assert found[name]["state"] == "broken" and said in found[name]["error"], found[name]
            answer = server.http.post("/v1/jobs", json={"handler": name, "input": {}})
            assert (answer.status_code, answer.json()["code"]) == (422, "handler_broken")
        assert server.wait_for_end(server.submit("offered", {"b": 2}))["output"] == {"b": 2}
    finally:
        server_fixture.close()
