"""Effect: runs the commands and the Python of every page, in order, against servers of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

pytestmark = pytest.mark.timeout(180)

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("examples/*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: First line of a block that is a file: `# name.py` or `<!-- name.html -->`.
FILE_NAME = re.compile(r"^(?:# |<!-- )([\w.-]+\.(?:py|toml|html))(?: -->)?$")
#: What is run here. `sh` are commands that no test can run: they need root, a network or another terminal.
RUN = {"bash", "python", "toml", "html"}
NOT_RUN = {"sh", "js", "jsx", "json", "text"}

#: `runner serve` goes to the background and is ready on return, on a free port, which `curl` then speaks to.
PRELUDE = r"""
set -euo pipefail
server=
stop() { [ -z "$server" ] || { kill "$server"; wait "$server"; server=; }; }
trap stop EXIT
runner() {
  [ "${1-}" = serve ] || { command runner "$@"; return; }
  stop
  rm -f ready && mkfifo ready && exec 8<>ready
  JOB_RUNNER_READY_FD=9 command runner "$@" 9>ready 8<&- &
  server=$!
  read -r -t 60 line <&8
  exec 8<&-
  RUNNER_URL=$(python -c 'import json, sys; print(json.loads(sys.argv[1])["url"])' "$line")
  export RUNNER_URL
}
curl() { command curl --fail --silent --show-error "${@//http:\/\/127.0.0.1:8484/$RUNNER_URL}"; }
"""


class Block(NamedTuple):
    language: str
    text: str

    @property
    def file_name(self) -> str | None:
        found = FILE_NAME.match(self.text.partition("\n")[0])
        return found[1] if found else None


def blocks_of(page: Path) -> list[Block]:
    return [Block(*found) for found in FENCE.findall(page.read_text())]


def script_of(blocks: list[Block], folder: Path) -> str:
    """One bash script for a page; the files that it shows are written by it, in order."""
    parts = [PRELUDE]
    for number, block in enumerate(blocks):
        source = folder / f"block_{number}"
        source.write_text(block.text)
        if block.language == "bash":
            parts.append(block.text)
        elif name := block.file_name:
            parts.append(f"cp {source} {name}")
            if block.language == "toml":
                parts.append(f"runner config show --config {name} > config.txt")
        elif block.language == "python":
            parts.append(f"python {source}")
    return "\n".join(parts)


def is_run(page: Path) -> bool:
    return any(block.language in RUN for block in blocks_of(page))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_says_what_it_is(page: Path) -> None:
    for block in blocks_of(page):
        assert block.language in RUN | NOT_RUN, block.text
        assert block.language not in ("toml", "html") or block.file_name, block.text


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
@pytest.mark.parametrize(
    "page",
    [
        # The first page that a user meets is tried with every change, the others before one lands.
        pytest.param(page, marks=[] if page == PAGES[0] else pytest.mark.slow)
        for page in PAGES
        if is_run(page)
    ],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_commands_of_the_page_work(page: Path, tmp_path: Path) -> None:
    folder, blocks = tmp_path / "work", tmp_path / "blocks"
    folder.mkdir()
    blocks.mkdir()
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    # Flags of the page win over these; the port and the data folder are in the way of nobody.
    environment = {name: text for name, text in os.environ.items() if not name.startswith("RUNNER_")} | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "NO_PROXY": "*",
        "RUNNER_PORT": "0",
        "RUNNER_GPUS": "none",
        "RUNNER_DATA_DIR": str(tmp_path / "data"),
    }
    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(
            ["bash", "-c", script_of(blocks_of(page), blocks)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            status = process.wait(150)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        assert status == 0, log.read()
