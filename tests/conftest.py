"""Effect: what holds for all tests, before any of them is imported."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile

import pytest
from coverage import Coverage
from hypothesis import settings

from tests.policy import other_modules

# A slow machine is no fault of the code under test, and what failed once must fail again.
settings.register_profile("steady", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("steady")

#: The file beside which each process of the suite writes its coverage; tests/run_suite.py sets it.
COVERAGE_FILE = "SUITE_COVERAGE_FILE"


class PolicyCoverage:
    """Measures the policy in this process; servers that tests start are not measured."""

    def __init__(self, data_file: str) -> None:
        # To measure more would make the tests of all else slower.
        self._coverage = Coverage(data_file=data_file, data_suffix=True, omit=other_modules())
        self._coverage.start()

    def pytest_unconfigure(self) -> None:
        """Write what was measured."""
        self._coverage.stop()
        self._coverage.save()


def pytest_configure(config: pytest.Config) -> None:
    """Forget the settings of a server that this shell may hold: tests name all that they need."""
    for name in [name for name in os.environ if name.startswith(("RUNNER_", "JOB_RUNNER_"))]:
        del os.environ[name]
    # Without its compiled modules every process that a test starts would start several times slower.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    # Torch's threads would spin on the cores that other tests need; what is trained here is small.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # A shell starts what it runs in the background deaf to Ctrl-C, and every child inherits that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Servers that are killed leave the folder of their sockets to the next start, which never comes here.
    # Its path stays short: a socket's may have 107 characters.
    os.environ["XDG_RUNTIME_DIR"] = tempfile.mkdtemp(prefix="runner-tests-")
    if COVERAGE_FILE in os.environ and _runs_tests(config):
        config.pluginmanager.register(PolicyCoverage(os.environ.pop(COVERAGE_FILE)))


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(os.environ.pop("XDG_RUNTIME_DIR"), ignore_errors=True)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Hand out together the tests that share a server."""
    # Not needed, and not everywhere installed, where tests run in one process.
    from tests.scheduling import ByFile

    return ByFile(config, log)


def _runs_tests(config: pytest.Config) -> bool:
    """Not so the process of pytest-xdist that only hands tests out to others."""
    return hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
