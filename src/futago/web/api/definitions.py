"""Definitions in YAML: checked and applied together, or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request
from pydantic import ValidationError

from futago.access import store as rows
from futago.inventory.apply import Summary
from futago.inventory.apply import apply as apply_definitions
from futago.inventory.definitions import Definable, Definition, complaint, parse
from futago.inventory.export import export as export_definitions
from futago.inventory.model import Kind
from futago.inventory.text import as_yaml
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web.allow import SCHEMES, Definer, Reader
from futago.web.faults import HttpFault, bad_request
from futago.web.model import Applied, AppliedChange, DefinitionFile, DefinitionFiles, Exported, ExportedObject
from futago.web.owners import visible
from futago.web.rooms import InRooms

router = APIRouter(tags=["definitions"], dependencies=SCHEMES)

APPLY_S_MAX = 60
_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "text/yaml": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/DefinitionFiles"}},
        },
    }
}


class _DryRun(Exception):
    """Ends the transaction of a dry run, so that nothing of it stays."""

    def __init__(self, summary: Summary) -> None:
        super().__init__()
        self.summary = summary


@router.post("/apply", openapi_extra=_BODY)
async def apply(
    request: Request,
    rooms: InRooms,
    who: Definer,
    dry_run: bool = False,
    name: Annotated[str, Query(max_length=1000, description="With text/yaml: the file's name, for messages.")] = "body",
) -> Applied:
    """Apply a multi-document YAML text, or several files as JSON. The same text again changes nothing."""
    files = await _files(request, name)
    definitions = await asyncio.to_thread(_parse, files)
    serve = rooms.serving.require()

    async def work(conn: Connection) -> Summary:
        summary = await apply_definitions(conn, definitions)
        if dry_run:
            raise _DryRun(summary)
        await rows.record(conn, who, _deed(summary, files))
        return summary

    try:
        summary = await serve.store.commit(work, name="web.apply", deadline_s=APPLY_S_MAX)
    except _DryRun as dry:
        summary = dry.summary
    return Applied(dry_run=dry_run, changes=_changes(summary))


@router.get("/definitions")
async def export(
    rooms: InRooms,
    who: Reader,
    kinds: Annotated[str | None, Query(max_length=500, description="Only these, with commas between.")] = None,
    names: Annotated[str | None, Query(max_length=10_000, description="Only these, with commas between.")] = None,
) -> Exported:
    """Return the definitions, each as YAML that can be applied again."""
    unknown = [k for k in _words(kinds) if k not in set(Kind)]
    if unknown:
        raise bad_request(f"There is no kind `{unknown[0]}`; kinds are {', '.join(Kind)}.")
    chosen, named = [Kind(k) for k in _words(kinds)], _words(names)

    async def work(conn: Connection) -> list[tuple[Kind, Definable]]:
        return await visible(conn, who, await export_definitions(conn, kinds=chosen, names=named))

    found = await rooms.serving.require().store.read(work, name="web.export", deadline_s=APPLY_S_MAX)
    texts = await asyncio.to_thread(lambda: [as_yaml([one]) for one in found])
    objects = [
        ExportedObject(kind=str(kind), name=one.name, text=text) for (kind, one), text in zip(found, texts, strict=True)
    ]
    return Exported(objects=objects)


def _words(text: str | None) -> list[str]:
    return [word.strip() for word in (text or "").split(",") if word.strip()]


async def _files(request: Request, name: str) -> list[DefinitionFile]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if kind == "application/json":
        try:
            return list(DefinitionFiles.model_validate_json(body).files)
        except ValidationError as e:
            first = e.errors(include_url=False)[0]
            raise bad_request(f"body.{'.'.join(map(str, first['loc']))}: {first['msg']}.") from e
    if kind not in {"text/yaml", "application/yaml", "application/x-yaml", "text/plain"}:
        raise HttpFault(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"Definitions come as text/yaml or application/json, not as `{kind}`.",
            hint="Set Content-Type: text/yaml.",
            code="apply.media-type",
        )
    try:
        return [DefinitionFile(name=name or "body", text=body.decode())]
    except UnicodeDecodeError as e:
        raise bad_request(f"{name}: not UTF-8 at byte {e.start}.", code="apply.invalid") from e


def _parse(files: Sequence[DefinitionFile]) -> list[Definition]:
    """Return the definitions of all files; gather the complaints of all of them."""
    found: list[Definition] = []
    complaints: list[str] = []
    for file in files:
        try:
            found += parse(file.text, file=file.name)
        except OperatorFault as fault:
            complaints += fault.what.splitlines()
    first: dict[tuple[object, str], Definition] = {}
    for definition in found:
        known = first.setdefault((definition.kind, definition.name), definition)
        if known.file != definition.file:
            complaints.append(f"{definition.place()} is defined twice (first in {known.place()})")
    if not found and not complaints:
        complaints.append(f"{files[0].name}: there is no object in it")
    if complaints:
        raise complaint(complaints)
    return found


def _changes(summary: Summary) -> list[AppliedChange]:
    named = {"created": summary.created, "changed": summary.changed, "unchanged": summary.unchanged}
    return [
        AppliedChange(kind=kind, name=name, change=change)
        for change, objects in named.items()
        for kind, _, name in (label.partition(" ") for label in objects)
    ]


def _deed(summary: Summary, files: Sequence[DefinitionFile]) -> rows.Deed:
    counts: dict[str, str | int | bool | None] = {
        "created": len(summary.created),
        "changed": len(summary.changed),
        "unchanged": len(summary.unchanged),
    }
    return rows.Deed("definitions.apply", ", ".join(f.name for f in files)[:1000], counts)
