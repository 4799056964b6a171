"""Effect: entry of the process that runs a handler's code (`python -P -m runner.executor`)."""

from __future__ import annotations

import os

from runner.executor import bootstrap
from runner.executor.main_loop import MainLoop
from runner.executor.shared_page import SharedPage


def main() -> None:
    """Become an executor, or a template of which executors are forked; does not return."""
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
        # Not to be left to the interpreter, which would wait for threads that user code has started.
        bootstrap.exit_failed(error)


if __name__ == "__main__":
    main()
