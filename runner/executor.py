"""Effect: entry of the process that runs a handler's code (`python -P -m runner.executor`)."""

from __future__ import annotations

import os

from runner.execution import process
from runner.execution.executor import Executor
from runner.execution.page import Page


def main() -> None:
    """Become an executor, or a template of which executors are forked; does not return."""
    if "JOB_RUNNER_TEMPLATE_FD" in os.environ:
        from runner.execution import template

        process.bind_to_parent()
        template.serve()
    process.bind_to_parent()
    process.settle_signals()
    descriptors = process.take_descriptors()
    executor = Executor(descriptors, Page(process.take_page()))
    try:
        executor.run()
    except BaseException as error:
        # Not to be left to the interpreter, which would wait for threads that user code has started.
        process.fail(error)


if __name__ == "__main__":
    main()
