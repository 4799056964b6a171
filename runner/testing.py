"""Effect: a real server for tests and scripts, started in a process of its own and stopped at the end."""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from runner.client import Client
from runner.errors import RefusedStart, RunnerError
from runner.executor.simulated_memory import allocate
from runner.handlers.decorator import definition_of
from runner.settings.settings import SHORT_NAMES, Settings

__all__ = ["ServedClient", "Server", "allocate", "running", "serving"]

#: Variable with the number of the descriptor on which the server reports that it is ready, as a line of JSON.
READY_FD = "JOB_RUNNER_READY_FD"


class Server:
    """One `runner serve` process on a data folder; it can be killed and started again on the same folder.

    Settings are fields of `runner.settings.settings.Settings` (`grace_s="1s"`, `limits={"queued": 10}`, ...).
    They are passed as environment variables, which `env` overrides. The caller's own `RUNNER_*` variables and
    config files in the current folder have no effect. Without `data_dir` a temporary folder is used.
    """

    def __init__(
        self,
        handlers: Sequence[object] = (),
        *,
        gpus: str = "none",
        data_dir: Path | str | None = None,
        env: Mapping[str, str] | None = None,
        start_timeout_s: float = 30.0,
        **settings: object,
    ) -> None:
        unknown = set(settings) - set(Settings.model_fields) - set(SHORT_NAMES)
        if unknown:
            raise TypeError(f"there is no setting {', '.join(sorted(unknown))}")
        self._temporary_dir = None if data_dir else tempfile.mkdtemp(prefix="runner-test-")
        self.data_dir = Path(data_dir or str(self._temporary_dir))
        self.log_path = self.data_dir / "server.log"
        self.settings: dict[str, object] = {"port": 0, "entry_points": False, "gpus": gpus, **settings}
        self.env = dict(env or {})
        self.start_timeout_s = start_timeout_s
        # One file may define several of the handlers: pass it once.
        self._handlers = list(dict.fromkeys(source_of(handler) for handler in handlers))
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """Return the server's process, of the latest start; raises RunnerError before the first."""
        if self._process is None:
            raise RunnerError("the server was not started")
        return self._process

    @property
    def log(self) -> str:
        """Return the server's log output so far."""
        return self.log_path.read_text("utf-8", "replace") if self.log_path.exists() else ""

    def client(self) -> ServedClient:
        """Return a new client of this server."""
        return ServedClient(self)

    def start(self) -> Self:
        """Start the process and wait until it is ready, `start_timeout_s` at most.

        Raises:
            RefusedStart: the server exited or was not ready in time; the text ends with the tail of its log.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        ours, theirs = os.pipe()
        try:
            with self.log_path.open("ab") as output:
                self._process = self._spawn(theirs, output)
            os.close(theirs)
            theirs = -1
            self.url = str(self._wait_until_ready(ours)["url"])
        except BaseException:
            self.kill()
            raise
        finally:
            os.close(ours)
            if theirs >= 0:
                os.close(theirs)
        return self

    def stop(self, timeout_s: float = 15.0) -> int:
        """Stop the server by SIGTERM, or by SIGKILL after `timeout_s`; return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(timeout_s)
            self.kill()
        return self.process.wait()

    def kill(self) -> None:
        """Kill the server by SIGKILL, as a crash would; it is gone on return."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def close(self) -> None:
        """Kill the server if it is running, and remove the data folder if this object created it."""
        self.kill()
        if self._temporary_dir is not None:
            shutil.rmtree(self._temporary_dir, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            early = self.process.poll()
            status = self.stop()
            if error is None and (early is not None or status != 0):
                raise RunnerError(f"the server exited with {status}\n{self._log_tail()}")
        finally:
            self.close()

    def _spawn(self, ready_fd: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """Start the server process in the data folder, with its output in the log file."""
        command = [sys.executable, "-P", "-m", "runner", "serve", "--data-dir", str(self.data_dir)]
        for source in self._handlers:
            command += ["--handlers", source]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=(ready_fd,),
            # A folder without config files: the caller's own must not be read.
            cwd=self.data_dir,
            env=self._environment(ready_fd),
        )

    def _environment(self, ready_fd: int) -> dict[str, str]:
        """Return the server's environment: the caller's without `RUNNER_*`, then the settings, then `env`."""
        inherited = {name: text for name, text in os.environ.items() if not name.startswith("RUNNER_")}
        # Make runner itself and the tests' own modules importable, from where they were imported here.
        inherited["PYTHONPATH"] = os.pathsep.join(_extra_sys_path())
        return inherited | _as_environment(self.settings) | {READY_FD: str(ready_fd)} | self.env

    def _wait_until_ready(self, fd: int) -> dict[str, Any]:
        """Return the document that the server reports when it is ready; raise RefusedStart if it does not."""
        deadline = time.monotonic() + self.start_timeout_s
        text = b""
        while not text.endswith(b"\n"):
            remaining_s = deadline - time.monotonic()
            if remaining_s <= 0 or not select.select([fd], [], [], remaining_s)[0]:
                raise RefusedStart(
                    f"the server was not ready within {self.start_timeout_s:g} s\n{self._log_tail()}"
                )
            chunk = os.read(fd, 4096)
            if not chunk:
                status = self.process.wait()
                raise RefusedStart(f"the server exited with {status} before it was ready\n{self._log_tail()}")
            text += chunk
        document: dict[str, Any] = json.loads(text)
        return document

    def _log_tail(self) -> str:
        """Return the end of the server's log, for errors."""
        return "\n".join(self.log.splitlines()[-40:])


class ServedClient(Client):
    """A client together with its server, which `client.server` controls."""

    def __init__(self, server: Server) -> None:
        """Create a client of a started server."""
        token = server.settings.get("token")
        super().__init__(server.url, str(token) if token else None)
        self.server = server


@contextlib.contextmanager
def serving(handlers: Sequence[object] = (), **options: Any) -> Iterator[Server]:
    """Yield a started `Server` (same arguments) and stop it at the end."""
    with Server(handlers, **options) as server:
        yield server


@contextlib.contextmanager
def running(
    handlers: Sequence[object] = (), *, gpus: str = "none", **settings: Any
) -> Iterator[ServedClient]:
    """Yield a client of a real server on a free port, and stop the server at the end.

    Args:
        handlers: sources as for `--handlers` (paths are relative to the current folder), or decorated classes
            and functions of a module or file that can be imported again.
        gpus: as `--gpus`; "none" runs everything on the CPU, "sim:1x24GiB" simulates a GPU.
        settings: as for `Server`.

    Raises:
        RunnerError: the server did not start, or exited by itself; the text ends with the tail of its log.
    """
    with Server(handlers, gpus=gpus, **settings) as server, server.client() as client:
        yield client


def source_of(handler: object) -> str:
    """Return the `--handlers` argument for a handler: a source unchanged, an object by its module or file.

    Raises:
        TypeError: an object that is not decorated by `@handler`, or that another process can't import.
    """
    if isinstance(handler, (str, Path)):
        text = str(handler)
        return str(Path(text).absolute()) if "/" in text or text.endswith(".py") else text
    definition = definition_of(handler)
    name = getattr(handler, "__qualname__", repr(handler))
    if definition is None:
        raise TypeError(f"{name} is not a handler: decorate it with @handler")
    if "<locals>" in name:
        raise TypeError(f"{name} is defined inside a function: another process cannot import it")
    file = Path(inspect.getfile(handler)).absolute()  # type: ignore[arg-type]
    module = str(getattr(handler, "__module__", "__main__"))
    return f"{module}:{name}" if _is_importable_as(module, file) else str(file)


def _is_importable_as(module: str, file: Path) -> bool:
    """Return whether another process that imports `module` gets this file."""
    if module == "__main__":
        return False
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin is not None and Path(spec.origin).absolute() == file


def _extra_sys_path() -> list[str]:
    """Return the folders of `sys.path` that a fresh interpreter would not have."""
    # Folders below these belong to the interpreter; a checkout or a tests folder does not.
    base = [Path(prefix) / "lib" for prefix in {sys.prefix, sys.base_prefix}]
    folders = [Path(entry or ".").absolute() for entry in sys.path]
    own = [folder for folder in folders if folder.is_dir() and not any(map(folder.is_relative_to, base))]
    return list(dict.fromkeys(map(str, own)))


def _as_environment(settings: Mapping[str, object], prefix: str = "RUNNER_") -> dict[str, str]:
    """Return the settings as `RUNNER_*` variables; names of nested ones are joined by two underscores."""
    found: dict[str, str] = {}
    for name, value in settings.items():
        key = prefix + (name if prefix.endswith("ENV__") else name.upper())
        if value is None:
            continue
        if isinstance(value, Mapping):
            found |= _as_environment(value, f"{key}__")
        elif isinstance(value, (list, tuple)):
            found[key] = ",".join(map(str, value))
        else:
            found[key] = str(value)
    return found
