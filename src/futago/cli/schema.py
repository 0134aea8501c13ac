"""`futago schema`: JSON schemas of the definitions, for editors that complete and check YAML while it is written."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from futago.inventory.definitions import schema_of
from futago.inventory.model import Kind


def schema(
    kind: Annotated[
        Kind | None, typer.Argument(help="Only this kind; not named: every kind, told by its `kind:`.")
    ] = None,
) -> None:
    """Print the JSON schema of what `futago apply` reads.

    For an editor with the YAML language server: write the schema to a file, and begin definitions with
    `# yaml-language-server: $schema=futago.schema.json`.
    """
    print(json.dumps(schema_of(kind), indent=2, ensure_ascii=False))
