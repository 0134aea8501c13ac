"""The choice of language: a cookie, nothing else."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import APIRouter
from starlette.responses import RedirectResponse, Response

from futago.web.render import LANGUAGE_COOKIE
from futago.web.texts import Language

router = APIRouter()

YEAR_S = 365 * 24 * 3600


@router.get("/language/{language}")
async def choose(language: Language) -> Response:
    """Remember the language and go to the overview (or, without a login, from there to the login)."""
    answer = RedirectResponse("/", status_code=HTTPStatus.SEE_OTHER)
    answer.set_cookie(
        LANGUAGE_COOKIE, language.value, max_age=YEAR_S, path="/", secure=True, httponly=True, samesite="strict"
    )
    return answer
