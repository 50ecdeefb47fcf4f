"""The entry point: which commands there are, loaded only when they are used, and what an error looks like."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import Any, Final, override

import typer
from typer.core import TyperGroup

_STDOUT: Final = 1
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

# Command -> the module of this package that defines it, in the order of `paracle --help`.
COMMANDS: Final = {
    "up": "stack_commands",
    "down": "stack_commands",
    "status": "stack_commands",
    "provision": "stack_commands",
    "apply": "spec_commands",
    "delete": "spec_commands",
    "get": "spec_commands",
    "import": "import_commands",
    "explain": "spec_commands",
    "run": "run_commands",
    "invoke": "run_commands",
    "chat": "chat",
    "sessions": "sessions_commands",
    "runs": "runs_commands",
    "events": "look_commands",
    "cancel": "runs_commands",
    "approvals": "approvals_commands",
    "effects": "effects_commands",
    "pools": "pools_commands",
    "triggers": "triggers_commands",
    "dlq": "dlq_commands",
    "demo": "demo",
}


class LazyGroup(TyperGroup):
    """Imports a command's module when the command is asked for: most of the start time lies in them."""

    @override
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    @override
    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        commands = import_module(f"paracle_client.cli.{module}").app
        return typer.main.get_group(commands).commands[cmd_name]


app = typer.Typer(
    cls=LazyGroup,
    name="paracle",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root() -> None:
    """Run AI agents and workflows of agents.

    `paracle up` starts everything on this machine; `paracle demo` shows it at work.
    Every command takes --help, and most take -o json.
    """


def main() -> None:
    """Run the command line; errors are one clear message on standard error, and exit code 1."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        say_error("interrupted")
        raise SystemExit(EXIT_INTERRUPTED) from None
    except BrokenPipeError:
        # the reader (`| head`) has gone: nothing more can be said, and the interpreter must not try at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), _STDOUT)
        raise SystemExit(EXIT_FAILED) from None
    except Exception as error:  # what is expected is told in a line; the rest is raised
        if not _is_expected(error):
            raise
        for line in _lines(error):
            say_error(line)
        raise SystemExit(EXIT_FAILED) from None


def say_error(message: str) -> None:
    """`error: …` on standard error; it may quote what a file or a server says."""
    from paracle_client.plain import safe  # noqa: PLC0415 - only errors pay for loading it

    sys.stderr.write(f"error: {safe(message, lines=True)}\n")


def _is_expected(error: Exception) -> bool:
    """Whether the message of `error` is meant for users; anything else is a bug, and its trace is wanted."""
    from paracle_client.stack import StackFailed  # noqa: PLC0415 - only errors pay for loading these
    from paracle_domain.errors import ParacleError  # noqa: PLC0415
    from paracle_embedded import ServerFailed  # noqa: PLC0415

    return isinstance(error, ParacleError | StackFailed | ServerFailed)


def _lines(error: Exception) -> list[str]:
    problems = getattr(error, "problems", ())
    if len(problems) < 2:
        return [str(error)]
    return [f"{problem.path}: {problem.message}" if problem.path else problem.message for problem in problems]
