"""`paracle cache …`: the answers of models that are kept for agents which allow it."""

from __future__ import annotations

import typer

from paracle_client.cli.groups import Group
from paracle_client.cli.target import Output, OutputOption, UrlOption, connect, console, print_json

app = typer.Typer()
cache = typer.Typer(
    cls=Group, help="Look after cached answers of models.", no_args_is_help=True, epilog="Example: paracle cache clear"
)
app.add_typer(cache, name="cache")


@cache.command(epilog="Example: paracle cache clear")
def clear(output: OutputOption = Output.TABLE, url: UrlOption = None) -> None:
    """Drop all cached answers: models are asked anew."""
    with connect(url) as client:
        cleared = client.clear_cache()
    if output is Output.JSON:
        print_json(cleared)
    else:
        console().print(f"cached answers dropped: {cleared.answers:,}", markup=False)
