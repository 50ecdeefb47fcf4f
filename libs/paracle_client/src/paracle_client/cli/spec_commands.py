"""Commands about manifests: apply, delete, get, explain."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from paracle_client.calls.manifests import PLURALS, Plural
from paracle_client.cli.inputs import Bundle, bundle
from paracle_client.cli.target import (
    Output,
    OutputOption,
    UrlOption,
    brief,
    connect,
    console,
    moment,
    print_json,
    print_page,
    print_table,
)
from paracle_client.client import Client
from paracle_client.plain import safe
from paracle_domain.errors import InvalidInput, ParacleError
from paracle_domain.names import suggest
from paracle_domain.registry import Applied, Explanation

app = typer.Typer()


@app.command(epilog="Example: paracle apply -f examples/triage")
def apply(
    files: Annotated[
        list[str], typer.Option("--file", "-f", help="a file, a folder, or - for standard input; may be repeated")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Put manifests in (agents, tools, workflows, …): all that is given, or nothing if anything of it is wrong."""
    with connect(url) as client:
        applied = apply_bundle(client, bundle(files), dry_run=dry_run)
    if output is Output.JSON:
        print_json(applied)
    else:
        show_applied(applied)


def apply_bundle(client: Client, manifests: Bundle, *, dry_run: bool = False) -> Applied:
    """Apply `manifests`; errors name the files that they are in."""
    try:
        return client.apply(manifests.text, manifests.source, dry_run=dry_run)
    except ParacleError as error:
        raise manifests.localize(error) from error


def show_applied(applied: Applied) -> None:
    """One row for each manifest."""
    rows = [
        (
            one.kind.lower(),
            one.name,
            one.revision,
            one.change + (" (dry run)" if applied.dry_run else ""),
            ", ".join(f"{other.kind.lower()} {other.name}" for other in one.touches),
        )
        for one in applied.results
    ]
    print_table(["KIND", "NAME", "REVISION", "CHANGE", "ALSO CHANGES"], rows, empty="nothing")


@app.command(epilog="Example: paracle delete trigger nightly   |   paracle delete -f examples/triage")
def delete(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="agent, tool, workflow, trigger, provider or model")
    ] = None,
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="which one")] = None,
    files: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", help="what these manifests name: a file, a folder, or -; may be repeated"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say what would be done")] = False,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Take manifests out, all or nothing; what others use is refused. Revisions and runs that began are kept."""
    if bool(files) == (kind is not None):
        raise InvalidInput("say what to delete: KIND and NAME, or --file", path="KIND")
    with connect(url) as client:
        if files:
            deleted = _delete_bundle(client, bundle(files), dry_run=dry_run)
        elif kind is not None and name is not None:
            deleted = client.delete(plural_of(kind), name, dry_run=dry_run)
        else:
            raise InvalidInput("say which one to delete", path="NAME")
    if output is Output.JSON:
        print_json(deleted)
    else:
        show_applied(deleted)


def _delete_bundle(client: Client, manifests: Bundle, *, dry_run: bool) -> Applied:
    try:
        return client.delete_manifests(manifests.text, manifests.source, dry_run=dry_run)
    except ParacleError as error:
        raise manifests.localize(error) from error


@app.command(epilog="Example: paracle get agents   |   paracle get workflow triage --revision 2 -o json")
def get(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="agents, tools, workflows, triggers, providers or models")
    ],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="one of them; all if absent")] = None,
    revision: Annotated[int | None, typer.Option(min=1, help="the newest if absent")] = None,
    history: Annotated[bool, typer.Option("--history", help="list its revisions instead")] = False,
    cursor: Annotated[str | None, typer.Option(help="of a list: `next_cursor` of the page before")] = None,
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show manifests: all of a kind, one of them (as YAML that can be applied), or its history."""
    plural = plural_of(kind)
    with connect(url) as client:
        if name is None:
            _list(client, plural, cursor, output)
        elif history:
            _history(client, plural, name, output)
        else:
            view = client.get(plural, name, revision=revision)
            if output is Output.JSON:
                print_json(view)
            else:
                _print_manifest(view.manifest)


def _print_manifest(manifest: Mapping[str, Any]) -> None:
    """As YAML that can be applied; as JSON, where a terminal needs characters escaped."""
    from paracle_client.yaml_text import dump  # noqa: PLC0415 - only this command pays for loading it

    text = dump([manifest], start=False)
    if safe(text, lines=True) == text:
        typer.echo(text, nl=False)
    else:
        print_json(manifest)


def plural_of(kind: str) -> Plural:
    """`agent`, `Agents`, … as the API calls it."""
    wanted = kind.lower().rstrip("s") + "s"
    for plural in PLURALS:
        if plural == wanted:
            return plural
    raise InvalidInput(f"there is no kind {kind!r}{suggest(kind.lower(), PLURALS)}", path="KIND")


def _list(client: Client, plural: Plural, cursor: str | None, output: Output) -> None:
    page = client.list(plural, cursor=cursor)
    rows = [(one.name, one.revision, brief(one.created_at), one.description) for one in page.specs]
    print_page(
        page,
        ["NAME", "REVISION", "CHANGED", "DESCRIPTION"],
        rows,
        output,
        empty=f"no {plural} yet: paracle apply -f FILE",
    )


def _history(client: Client, plural: Plural, name: str, output: Output) -> None:
    found = client.revisions(plural, name)
    if output is Output.JSON:
        print_json(found)
        return
    for one in found.revisions:
        heading = f"revision {one.revision}  {moment(one.created_at)}  {safe(one.author)}"
        console().print(heading, style="bold", markup=False, soft_wrap=True)
        console().print(safe(one.diff, lines=True), markup=False, soft_wrap=True)


@app.command(epilog="Example: paracle explain support-base")
def explain(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="name of an agent")],
    output: OutputOption = Output.TABLE,
    url: UrlOption = None,
) -> None:
    """Show an agent with its inheritance resolved, and which ancestor set each field."""
    with connect(url) as client:
        found = client.explain(agent)
    if output is Output.JSON:
        print_json(found)
        return
    lineage = " ← ".join(f"{one.name} (revision {one.revision})" for one in found.lineage)
    console().print(lineage, style="bold", markup=False, soft_wrap=True)
    print_table(["FIELD", "SET BY", "VALUE"], explained_rows(found), empty="every field has its default")


def explained_rows(found: Explanation) -> list[tuple[str, str, str]]:
    """Each field that somebody set, who did, and its value."""
    spec = found.spec.model_dump(mode="json")
    return [
        (path, f"{origin.name} (revision {origin.revision})", _shown(_at(spec, path)))
        for path, origin in sorted(found.origins.items())
    ]


def _at(value: object, path: str) -> object:
    """What stands at `path` (`model.name`, `tools[search]`); the path's own key for an entry of a list."""
    for part in path.replace("[", ".[").split("."):
        if part.startswith("["):
            value = value.get(part[1:-1], part[1:-1]) if isinstance(value, dict) else part[1:-1]
        elif isinstance(value, dict):
            value = value.get(part)
    return value


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]}…"
