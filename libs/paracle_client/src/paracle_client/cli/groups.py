"""Groups of commands: names that are nearly right are told apart, and what lists does so without being told to."""

from __future__ import annotations

from typing import Any, Final, override

from typer import BadParameter
from typer.core import TyperGroup

_LIST: Final = "ls"


class Group(TyperGroup):
    """Says which command was probably meant, and what is wrong with an option."""

    @override
    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = self.list_commands(ctx)
        if args and args[0] not in known:
            from paracle_domain.names import suggest  # noqa: PLC0415 - only errors pay for loading it

            ctx.fail(f"there is no command {args[0]!r}{suggest(args[0], known)}")
        return super().resolve_command(ctx, args)

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # which is pydantic's, and says nothing
            raise


class ListGroup(Group):
    """Lists, where no command is named: `paracle runs --stuck` is `paracle runs ls --stuck`."""

    @override
    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        is_named = bool(args) and (not args[0].startswith("-") or args[0] in ctx.help_option_names)
        if not (is_named or ctx.resilient_parsing):  # which is how completion looks for what may follow
            args = [_LIST, *args]
        return super().parse_args(ctx, args)
