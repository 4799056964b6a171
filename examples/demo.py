"""Effect: `make demo`: a fresh server, a real training watched through the command line, everything stopped.

With `--page` it serves `watch.html` instead, until Ctrl-C.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import FrameType

from runner.testing import Server, serving

HERE = Path(__file__).resolve().parent
OUT = HERE.parent / ".demo"
RUNNER = [sys.executable, "-P", "-m", "runner"]


def main(words: list[str]) -> int:
    """Exit code of what was run; 130 after Ctrl-C. The server has ended on return, whatever happened."""
    signal.signal(signal.SIGTERM, _interrupt)
    OUT.mkdir(exist_ok=True)
    try:
        with serving([HERE / "train_digits.py"], gpus="all", grace_s=2) as server:
            print(panel(server), flush=True)
            return page(server) if words == ["--page"] else train(server, words)
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        return 130


def panel(server: Server) -> str:
    """Return the server's banner, once it says how many handlers there are: importing torch takes seconds."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        counts = [line for line in server.log.splitlines() if line.startswith("handlers ")]
        if counts and "importing" not in counts[-1]:
            break
        time.sleep(0.05)
    return server.log


def train(server: Server, words: list[str]) -> int:
    """Run the training, show its output, and fetch the picture that it made."""
    command = ["run", "train_digits", *(words or ["epochs:=30"])]
    print("$ runner", *command, flush=True)
    environment = os.environ | {"RUNNER_URL": server.url}
    process = subprocess.run([*RUNNER, *command], env=environment, stdout=subprocess.PIPE, check=False)
    sys.stdout.write(process.stdout.decode())
    if process.returncode:
        return process.returncode
    reference = json.loads(process.stdout)["confusion_matrix"]
    target = OUT / reference["name"]
    with urllib.request.urlopen(server.url + reference["url"], timeout=10) as answer:
        target.write_bytes(answer.read())
    print(f"\nconfusion matrix saved to {target}")
    return 0


def page(server: Server) -> int:
    """Serve the page until Ctrl-C."""
    port = os.environ.get("PORT", "8000")
    print(f"open http://127.0.0.1:{port} in a browser; Ctrl-C stops everything", flush=True)
    environment = os.environ | {"RUNNER_URL": server.url, "PORT": port}
    process = subprocess.Popen([sys.executable, str(HERE / "app.py")], env=environment)
    try:
        return process.wait()
    finally:
        process.terminate()
        process.wait(10)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """A TERM ends the demo as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
