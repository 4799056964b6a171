"""Effect: what holds for all tests, before any of them is imported."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

from hypothesis import settings

# A slow machine is no fault of the code under test, and what failed once must fail again.
settings.register_profile("steady", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("steady")


def pytest_configure() -> None:
    """Forget the settings of a server that this shell may hold: tests name all that they need."""
    for name in [name for name in os.environ if name.startswith(("RUNNER_", "JOB_RUNNER_"))]:
        del os.environ[name]
    # Without its compiled modules every process that a test starts would start several times slower.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # A shell starts what it runs in the background deaf to Ctrl-C, and every child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Servers that are killed leave the folder of their sockets to the next start, which never comes here.
    # Its path stays short: a socket's may have 107 characters.
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="runner-tests-")


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ.pop("XDG_RUNTIME_DIR"), ignore_errors=True)
