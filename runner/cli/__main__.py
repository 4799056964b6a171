"""Effect: entry point of the command line: selects the command and maps errors to one line and an exit code.

Results go to stdout, progress and errors to stderr, so that stdout can be piped.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

import typer
from typer.main import get_command

from runner.cli import config, doctor, executors, handlers, init, jobs, serve, server_status, store, submit
from runner.errors import JobEnded, RunnerError, Unauthorized

#: Exit codes without an error class.
TIMEOUT, INTERRUPTED, USAGE = 6, 130, 2


def build_app() -> typer.Typer:
    """Return the typer app with all commands.

    Modules of commands are imported lazily by the commands themselves: building the app must stay cheap,
    because every call of `runner` pays for it.
    """
    app = typer.Typer(
        name="runner",
        epilog="Exit codes: 0 ok, 1 job failed, 2 usage or refused start, 3 not found, or another server "
        "took over, 4 no server, 5 refused by the server, 6 timeout, 7 cancelled, 75 no room on the disk, "
        "130 interrupted. "
        "The server is --url, else RUNNER_URL, else http://127.0.0.1:8484; its token is RUNNER_TOKEN.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(root)
    commands: tuple[Callable[..., None], ...] = (
        serve.serve,
        init.init,
        doctor.doctor,
        submit.run,
        submit.submit,
        jobs.jobs,
        jobs.explain,
        jobs.logs,
        jobs.cancel,
        server_status.ps,
        server_status.devices,
        server_status.queues,
        server_status.stats,
        executors.load,
        executors.unload,
    )
    for command in commands:
        app.command()(command)
    app.add_typer(jobs.job, name="job")
    app.add_typer(handlers.handlers, name="handlers")
    app.add_typer(config.config, name="config")
    app.add_typer(store.store, name="store")
    return app


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        try:
            print(metadata.version("gpu-job-runner"))
        except metadata.PackageNotFoundError:
            print("unknown (runner is not installed as a package)")
        raise typer.Exit


def root(
    version: bool = typer.Option(
        False, "--version", help="Print the version and exit.", is_eager=True, callback=_version
    ),
) -> None:
    """Run jobs on this machine's GPUs, scheduled by memory, streamed live and stored durably."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command; return the exit code.

    `arguments` are those after the program's name; None takes them from `sys.argv`. No error propagates:
    a `RunnerError` gives its own exit code, a usage error `USAGE`, a timeout `TIMEOUT`, Ctrl-C `INTERRUPTED`.
    """
    try:
        code = get_command(build_app()).main(args=arguments, prog_name="runner", standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except typer.TyperException as error:
        _print_usage_error(error)
        return USAGE
    except TimeoutError as error:
        _print_error(str(error))
        return TIMEOUT
    except JobEnded as error:
        _print_error(f"{error.message}; see `runner job show {error.job_id}`")
        return error.exit_code
    except Unauthorized as error:
        has_token = bool(os.environ.get("RUNNER_TOKEN"))
        _print_error(
            "RUNNER_TOKEN is not the server's token" if has_token else f"{error.message}; set RUNNER_TOKEN"
        )
        return error.exit_code
    except RunnerError as error:
        _print_error(error.message)
        return error.exit_code
    except BrokenPipeError:
        # The reader of the pipe (such as `head`) has exited: a flush at exit would raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return code if isinstance(code, int) else 0


def _print_error(text: str) -> None:
    """Print one line on stderr; texts of the server may hold control characters, which are removed."""
    from runner.formats.printable import printable

    print(f"runner: {printable(text)}", file=sys.stderr)


def _print_usage_error(error: typer.TyperException) -> None:
    """Print a usage error with the command whose help to read; without any command, print the help itself."""
    if error.message.startswith("Usage:"):
        # No command was given: print the help.
        print(error.message, file=sys.stderr)
        return
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "runner"
    text = error.format_message().rstrip(".").replace("Value error, ", "")
    _print_error(f"{text[:1].lower()}{text[1:]}; see `{path} --help`")


if __name__ == "__main__":
    sys.exit(main())
