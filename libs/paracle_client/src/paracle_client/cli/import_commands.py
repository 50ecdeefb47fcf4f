"""Commands that make manifests out of what describes them elsewhere: `paracle import …`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from paracle_client.cli.app import EXIT_FAILED
from paracle_client.cli.groups import Group
from paracle_client.cli.inputs import STDIN, read_text
from paracle_client.openapi import convert
from paracle_client.plain import safe
from paracle_domain.errors import InvalidInput, NotFound, PayloadTooLarge, SpecInvalid, Unavailable
from paracle_domain.wording import count

MAX_BYTES: Final = 32 << 20
MAX_PARTS: Final = 3_000_000
_TIMEOUT_S: Final = 30.0

app = typer.Typer()
imports = typer.Typer(
    cls=Group,
    help="Make manifests out of other descriptions.",
    no_args_is_help=True,
    epilog="Example: paracle import openapi petstore.yaml --out tools.yaml",
)
app.add_typer(imports, name="import")


@imports.callback()
def _group() -> None:
    """Make manifests out of other descriptions."""


@imports.command(epilog="Example: paracle import openapi https://api.example/openapi.json | paracle apply -f -")
def openapi(
    source: Annotated[str, typer.Argument(metavar="FILE|URL", help="an OpenAPI 3 document in JSON or YAML; or -")],
    out: Annotated[Path | None, typer.Option("--out", help="where to write; else to standard output")] = None,
    server: Annotated[str | None, typer.Option(help="the API's address, instead of what the document says")] = None,
    prefix: Annotated[str, typer.Option(help="what the tools' names begin with")] = "",
) -> None:
    """Make a Tool of each operation of an OpenAPI document. What cannot be said in a manifest is listed as notes."""
    if server is not None and not server.startswith(("http://", "https://")):
        raise InvalidInput("give an address that begins with http:// or https://", path="--server")
    found = convert(parse(_read(source), source), source, server=server, prefix=prefix)
    for finding in found.findings:
        sys.stderr.write(f"note: {safe(finding.path)}: {safe(finding.message)}\n")
    if not found.manifests:
        sys.stderr.write(f"error: {safe(source)}: no operation became a tool\n")
        raise typer.Exit(EXIT_FAILED)
    from paracle_client.yaml_text import dump  # noqa: PLC0415 - only these commands pay for loading it

    text = dump(found.manifests)
    if out is None:
        typer.echo(text, nl=False)
    else:
        _write(out, text)
    sys.stderr.write(f"{count(len(found.manifests), 'tool')}, {count(len(found.findings), 'note')}\n")


@imports.command(epilog="Example: paracle import mcp files -- npx -y @modelcontextprotocol/server-filesystem /data")
def mcp(
    server: Annotated[str, typer.Argument(metavar="NAME", help="what PARACLE_MCP_SERVERS calls the server")],
    command: Annotated[list[str] | None, typer.Argument(help="after --: how to start it here, to look at it")] = None,
    url: Annotated[str | None, typer.Option(help="or where it is")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="where to write; else to standard output")] = None,
) -> None:
    """Make a Tool of each tool that an MCP server offers, with its schemas pinned: later ones are refused."""
    import asyncio  # noqa: PLC0415 - only this command pays for loading them

    from paracle_client.mcp import discover, manifests  # noqa: PLC0415
    from paracle_client.yaml_text import dump  # noqa: PLC0415

    if bool(command) == bool(url):
        raise InvalidInput("give either a command after -- or --url", path="COMMAND")
    made = manifests(server, asyncio.run(discover(command or [], url)))
    if not made:
        sys.stderr.write(f"error: {safe(server)}: it offers no tools\n")
        raise typer.Exit(EXIT_FAILED)
    if out is None:
        typer.echo(dump(made), nl=False)
    else:
        _write(out, dump(made))
    sys.stderr.write(f"{count(len(made), 'tool')}\n")


def parse(text: str, source: str) -> Any:
    """The value that `text`, YAML (and so JSON), describes. Scalars are those of JSON: `on`, `no` and dates are text.

    Raises
    ------
    SpecInvalid
        If it is no YAML.
    """
    import yaml  # noqa: PLC0415 - only this command pays for loading it

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # one of two
        pass

    Loader.yaml_implicit_resolvers = {
        first: [
            (tag, pattern) for tag, pattern in found if not tag.endswith((":timestamp", ":bool", ":merge", ":value"))
        ]
        for first, found in Loader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
    try:
        return _Plain(source).of(yaml.load(text, Loader))  # noqa: S506  # a safe loader, with fewer types
    except yaml.YAMLError as error:
        raise SpecInvalid(f"no YAML: {' '.join(str(error).split())}", path=source) from None
    except RecursionError:
        raise SpecInvalid("it nests too deep", path=source) from None


class _Plain:
    """Turns what YAML gives into what JSON has: keys are texts (YAML reads `200:` as a number), aliases are copies."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._parts = 0

    def of(self, value: Any) -> Any:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise SpecInvalid(f"its aliases make more than {MAX_PARTS:,} parts of it", path=self._source)
        match value:
            case dict():
                return {str(key): self.of(item) for key, item in value.items()}
            case list():
                return [self.of(item) for item in value]
            case str() | int() | float() | None:
                return value
            case _:  # what a tag made of it
                return str(value)


def _read(source: str) -> str:
    if source == STDIN:
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    if not source.startswith(("http://", "https://")):
        return read_text(Path(source))
    return _fetch(source)


def _fetch(url: str) -> str:
    import httpx2  # noqa: PLC0415 - only addresses need it

    body = b""
    try:
        with httpx2.stream("GET", url, timeout=_TIMEOUT_S, follow_redirects=True) as response:
            if response.status_code >= 400:
                raise NotFound(f"answered {response.status_code}", path=url)
            for part in response.iter_bytes():
                body += part
                if len(body) > MAX_BYTES:
                    raise PayloadTooLarge(f"has more than {MAX_BYTES:,} bytes", path=url)
    except (httpx2.RequestError, httpx2.InvalidURL) as error:
        raise Unavailable(f"cannot be fetched: {type(error).__name__}: {error}", path=url) from error
    return body.decode("utf-8", "replace")


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InvalidInput(f"cannot be written: {error.strerror}", path=str(path)) from error
