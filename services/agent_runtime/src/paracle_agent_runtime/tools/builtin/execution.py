"""Builtin functions that run commands: a shell script, a Python program. Both in the sandbox."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import Field, JsonValue, StringConstraints

from paracle_agent_runtime.tools.builtin.acting import Acting, Call
from paracle_agent_runtime.tools.builtin.arguments import Arguments
from paracle_agent_runtime.tools.permissions import redact
from paracle_agent_runtime.tools.sandbox.bubblewrap import PYTHON
from paracle_agent_runtime.tools.sandbox.commands import Command, Commands

_SHELL: Final = ("/bin/sh",)
_PYTHON: Final = (str(PYTHON), "-I", "-B")
_Argument = Annotated[str, StringConstraints(max_length=10_000, pattern=r"^[^\x00]*$")]


class _Run(Arguments):
    args: list[_Argument] = Field(default=[], max_length=100, description="$1, $2, … or sys.argv[1:]")
    stdin: str = Field(default="", max_length=1_000_000)


class _Shell(_Run):
    command: str = Field(min_length=1, max_length=100_000, description="a script for sh")


class _Python(_Run):
    code: str = Field(min_length=1, max_length=100_000, description="a Python program")


class Execution:
    """The functions, over what runs commands."""

    def __init__(self, commands: Commands, environment: Mapping[str, str]) -> None:
        self._commands = commands
        self._environment = environment

    @property
    def functions(self) -> Mapping[str, Acting]:
        """By name."""
        return {"shell": self.shell, "python": self.python}

    async def shell(self, call: Call) -> JsonValue:
        """Exit code and output of a shell script. Arguments reach it as `$1`, `$2`, …, never as a part of its text."""
        asked = _Shell.take(call.arguments)
        return await self._run(Command(_SHELL, asked.command, tuple(asked.args), asked.stdin), call)

    async def python(self, call: Call) -> JsonValue:
        """Exit code and output of a Python program, which has the standard library and nothing else."""
        asked = _Python.take(call.arguments)
        return await self._run(Command(_PYTHON, asked.code, tuple(asked.args), asked.stdin), call)

    async def _run(self, command: Command, call: Call) -> JsonValue:
        ended = await self._commands.run(command, call.grants)
        return {
            "exit_code": ended.exit_code,
            "stdout": redact(ended.stdout.decode("utf-8", "replace"), self._environment),
            "stderr": redact(ended.stderr.decode("utf-8", "replace"), self._environment),
        }
