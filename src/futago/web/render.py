"""Templates to answers: the one Jinja environment, and who looks in which language.

Escaping is on everywhere. A page's script and style come from files only (see the content security policy), so
templates hold no inline ones.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from fastapi import Request
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.responses import HTMLResponse

from futago.web.texts import Language, Texts

HERE = Path(__file__).parent
STATIC = HERE / "static"
LANGUAGE_COOKIE = "futago-language"


def _static_version() -> str:
    digest = hashlib.sha256()
    for file in sorted(STATIC.iterdir()):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def iso(instant: datetime | None) -> str:
    """Return an instant for the attribute that the script reads."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds") if instant else ""


def clock(instant: datetime | None) -> str:
    """Return an instant for people, in UTC; the script turns it into local time."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S") if instant else "–"


def number(value: float | None) -> str:
    """Return a number with thin groups of three."""
    return "–" if value is None else f"{value:,.0f}".replace(",", "\u202f")


def figure_of_bytes(value: int | None) -> str:
    """Return an amount of bytes for people."""
    if value is None:
        return "–"
    amount, unit = float(value), "B"
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000 or unit == "GB":
            break
        amount /= 1000
    return f"{amount:.0f} {unit}" if amount >= 10 or unit == "B" else f"{amount:.1f} {unit}"


def took(begin: datetime | None, end: datetime | None) -> str:
    """Return the time between two instants for people; empty if either is missing."""
    if begin is None or end is None:
        return ""
    seconds = (end - begin).total_seconds()
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters.update(iso=iso, clock=clock, number=number, bytes=figure_of_bytes)
_ENVIRONMENT.globals.update(static_version=_static_version(), took=took)


def language_of(request: Request) -> Language:
    """Return the language that was chosen, else the one that the browser prefers."""
    chosen = request.cookies.get(LANGUAGE_COOKIE, "")
    if chosen in set(Language):
        return Language(chosen)
    return Language.preferred(request.headers.get("accept-language", ""))


def render(request: Request, template: str, *, status: int = 200, **values: object) -> HTMLResponse:
    """Return a template as an answer in the language of the request."""
    texts = Texts(language_of(request))
    html = _ENVIRONMENT.get_template(template).render(t=texts, here=request.url.path, **values)
    return HTMLResponse(html, status_code=status)
