"""The entry point: which commands there are, loaded only when they are used, and what an error looks like."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from typing import Annotated, Any, Final, override

import typer

from paracle_client.cli.groups import Group

_STDOUT: Final = 1
EXIT_FAILED: Final = 1
EXIT_INTERRUPTED: Final = 130

# Command -> the module of this package that defines it, by section and in the order of `paracle --help`.
SECTIONS: Final = {
    "On this machine": {
        "demo": "demo",
        "up": "stack_commands",
        "down": "stack_commands",
        "status": "stack_commands",
        "provision": "stack_commands",
        "pools": "pools_commands",
    },
    "Manifests": {
        "apply": "spec_commands",
        "get": "spec_commands",
        "explain": "spec_commands",
        "delete": "spec_commands",
        "import": "import_commands",
        "triggers": "triggers_commands",
    },
    "Runs": {
        "run": "run_commands",
        "runs": "runs_commands",
        "events": "look_commands",
        "cancel": "runs_commands",
        "invoke": "run_commands",
        "chat": "chat",
        "sessions": "sessions_commands",
    },
    "Models and money": {
        "models": "models_commands",
        "embed": "models_commands",
        "deployments": "deployments_commands",
        "usage": "usage_commands",
        "budget": "budget_commands",
        "cache": "cache_commands",
    },
    "What waits for people": {
        "approvals": "approvals_commands",
        "effects": "effects_commands",
        "dlq": "dlq_commands",
    },
}
COMMANDS: Final = {name: module for section in SECTIONS.values() for name, module in section.items()}
_WIDEST: Final = 100
_ANY_LENGTH: Final = 10_000


class LazyGroup(Group):
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
        commands.rich_markup_mode = None  # help as plain text, like that of the whole
        return _told_whole(typer.main.get_group(commands).commands[cmd_name])

    @override
    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for section, names in SECTIONS.items():
            told = [(name, self.get_command(ctx, name).short_help) for name in names]
            with formatter.section(section):
                formatter.write_dl(told)


def _told_whole(command: Any) -> Any:
    """Overviews say the first sentence of each command to its end, over several lines if need be."""
    for one in (command, *getattr(command, "commands", {}).values()):
        one.short_help = one.get_short_help_str(_ANY_LENGTH)
    return command


app = typer.Typer(
    cls=LazyGroup,
    name="paracle",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": _WIDEST},
)


def _say_version(wanted: bool) -> None:
    if wanted:
        sys.stdout.write(f"paracle {version('paracle-client')}\n")
        raise typer.Exit


@app.callback()
def _root(
    _version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_say_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """Run AI agents and workflows of agents.

    `paracle up` starts everything on this machine; `paracle demo` shows it at work. Every command takes --help;
    those that print something take -o json, or --json for short. Exit codes: 0 done, 1 refused or failed, 2 wrongly
    asked, 130 interrupted.
    """


def main() -> None:
    """Run the command line; errors are one clear message on standard error, and exit code 1."""
    try:
        _require_text(sys.argv[1:])
        app(spelled_out(sys.argv[1:]), standalone_mode=True)
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
        for line in lines_of(error):
            say_error(line)
        raise SystemExit(EXIT_FAILED) from None


def _require_text(arguments: Sequence[str]) -> None:
    """Refuse bytes that are no text, such as names of files from long ago: nothing could be sent of them.

    Raises
    ------
    InvalidInput
    """
    for one in arguments:
        try:
            one.encode()
        except UnicodeEncodeError as error:
            from paracle_domain.errors import InvalidInput, quote  # noqa: PLC0415 - only errors pay for loading it

            raise InvalidInput(f"{quote(one)} is not UTF-8; write it in UTF-8", path="arguments") from error


def spelled_out(arguments: Sequence[str]) -> list[str]:
    """`--json` is `--output json`, up to `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return ["--output=json" if one == "--json" else one for one in arguments[:end]] + [*arguments[end:]]


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


def lines_of(error: Exception) -> list[str]:
    """What `error` says, a line for each finding."""
    problems = getattr(error, "problems", ())
    if len(problems) < 2:
        return [str(error)]
    from paracle_domain.errors import located  # noqa: PLC0415 - only errors pay for loading it

    return [located(problem.path, problem.message) for problem in problems]
