"""Effect: entry point of an executor process (`python -P -m runner.executor`)."""

from __future__ import annotations

import os

from runner.executor import bootstrap
from runner.executor.main_loop import MainLoop
from runner.executor.shared_page import SharedPage


def main() -> None:
    """Run an executor, or a fork server from which executors are forked; does not return."""
    if "JOB_RUNNER_TEMPLATE_FD" in os.environ:
        from runner.executor import fork_server

        bootstrap.bind_to_parent()
        fork_server.serve()
    bootstrap.bind_to_parent()
    bootstrap.set_signals()
    descriptors = bootstrap.take_descriptors()
    executor = MainLoop(descriptors, SharedPage(bootstrap.map_page()))
    try:
        executor.run()
    except BaseException as error:
        # Exit here: the interpreter would first wait for threads that user code has started.
        bootstrap.exit_failed(error)


if __name__ == "__main__":
    main()
