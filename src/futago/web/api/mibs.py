"""MIB modules: load files, show what is loaded, remove."""

from __future__ import annotations

from fastapi import APIRouter

from futago.access import store as rows
from futago.intake import mib_store
from futago.intake.mib_compile import compile_files
from futago.intake.mib_names import Module
from futago.runtime.faults import OperatorFault
from futago.store.commit import Connection
from futago.web.allow import SCHEMES, Definer, Reader
from futago.web.faults import not_found
from futago.web.mib_model import Mib, MibFiles, MibName, MibNode, Mibs, MibShown
from futago.web.rooms import InRooms

router = APIRouter(tags=["mibs"], dependencies=SCHEMES)

LOAD_S_MAX = 30.0


@router.post("/mibs")
async def load(files: MibFiles, rooms: InRooms, who: Definer) -> Mibs:
    """Compile MIB files and load their modules, all or none; modules that are loaded already are replaced."""
    store = rooms.serving.require().store
    texts = {file.name: file.text for file in files.files}
    if len(texts) != len(files.files):
        raise OperatorFault("Two files have one name.", hint="Name each file once.", code="mib.invalid")
    known = await store.read(mib_store.sources, name="web.mib_sources", deadline_s=LOAD_S_MAX)
    made = await compile_files(texts, known)

    async def work(conn: Connection) -> list[mib_store.Loaded]:
        await mib_store.save(conn, made, texts, who=who.account)
        names = [one.module.name for one in made]
        await rows.record(conn, who, rows.Deed("mib-load", ", ".join(names)[:1000]))
        return [one for one in await mib_store.every(conn) if one.name in names]

    return _shown(await store.commit(work, name="web.mib_load", deadline_s=LOAD_S_MAX))


@router.get("/mibs")
async def every(rooms: InRooms, who: Reader) -> Mibs:
    """Return the loaded MIB modules."""
    return _shown(await rooms.serving.require().store.read(mib_store.every, name="web.mibs"))


@router.get("/mibs/{name}")
async def show(name: MibName, rooms: InRooms, who: Reader) -> MibShown:
    """Return what a loaded MIB module names."""

    async def work(conn: Connection) -> Module | None:
        return await mib_store.module(conn, name)

    found = await rooms.serving.require().store.read(work, name="web.mib")
    if found is None:
        raise not_found(f"No MIB module {name} is loaded.")
    nodes = [
        MibNode(
            oid=node.oid,
            name=node.name,
            is_notification=node.is_notification,
            values={str(number): word for number, word in sorted(node.values.items())},
            hint=node.hint,
            objects=node.objects,
        )
        for node in found.nodes
    ]
    return MibShown(mib_name=found.name, imports=found.imports, nodes=nodes)


@router.post("/mibs/{name}/remove")
async def remove(name: MibName, rooms: InRooms, who: Definer) -> Mibs:
    """Remove a MIB module that no other imports; return what is left."""

    async def work(conn: Connection) -> list[mib_store.Loaded]:
        if not await mib_store.remove(conn, name):
            raise not_found(f"No MIB module {name} is loaded.")
        await rows.record(conn, who, rows.Deed("mib-remove", name))
        return await mib_store.every(conn)

    return _shown(await rooms.serving.require().store.commit(work, name="web.mib_remove"))


def _shown(found: list[mib_store.Loaded]) -> Mibs:
    return Mibs(
        mibs=[
            Mib(
                mib_name=one.name,
                file_name=one.file,
                imports=one.imports,
                names=one.names,
                notifications=one.notifications,
                loaded_by=one.loaded_by,
                loaded_utc=one.loaded_utc,
            )
            for one in found
        ]
    )
