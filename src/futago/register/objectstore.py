"""The cell in an S3-compatible object store: one object, written with conditions.

Lives here: what is sent to the store and what its answers mean. The object's ETag is the mark: every content holds a
nonce, so no two have the same one. `If-None-Match: *` writes only where there is no object, `If-Match` only over that
content. A store that ignores these conditions must not be used, so seating tries both first (`prove`).

Source: Amazon S3 user guide, "How to prevent object overwrites with conditional writes": 412 when the condition does not
hold, 409 when a competing request got in between, 404 when If-Match finds no object.
"""

from __future__ import annotations

import contextlib
import re

from futago.register import sigv4
from futago.register.http import Answer, HttpPlace
from futago.register.sigv4 import Key
from futago.runtime.clock import now_at, now_utc
from futago.runtime.faults import Refused, Unknown

CHANGED = frozenset({404, 409, 412})
TURNED_AWAY = frozenset({400, 401, 403, 405, 411, 413, 501})  # not carried out; 408, 429, 5xx: nobody promises that
WARM_S_MAX = 2.0
_CODE = re.compile(rb"<Code>([A-Za-z0-9]{1,60})</Code>")


class ObjectCell:
    """One object.

    Args:
        place: the store, such as https://s3.eu-central-1.amazonaws.com, without the bucket.
        bucket, name: of the object.
        key: the account that may read and write it.
    """

    def __init__(self, place: HttpPlace, *, bucket: str, name: str, key: Key) -> None:
        self._place, self._bucket, self._name, self._key = place, bucket, name, key
        self._path = sigv4.path_of(bucket, name)
        self._label = f"{place.authority}/{bucket}"
        self._ok_at: int | None = None
        self._error = "not asked yet"

    async def get(self, *, deadline_s: float) -> tuple[str, bytes | None]:
        """Read the object. Raises Refused or Unknown."""
        answer = await self._ask("GET", {}, b"", deadline_s=deadline_s)
        if answer.status == 200 and answer.headers.get("etag"):
            self._note("")
            return answer.headers["etag"], answer.body
        if answer.status == 404 and _code(answer) == "NoSuchKey":
            self._note("")
            return "", None
        raise self._refused(answer)

    async def swap(self, mark: str, content: bytes, *, deadline_s: float) -> bool:
        """Write the object if its ETag is still `mark`. Raises Refused or Unknown."""
        headers = {"Content-Type": "application/json", **({"If-Match": mark} if mark else {"If-None-Match": "*"})}
        answer = await self._ask("PUT", headers, content, deadline_s=deadline_s)
        if answer.status in (200, 201, 204):
            self._note("")
            return True
        if answer.status in CHANGED and _code(answer) != "NoSuchBucket":
            self._note("")
            return False
        raise self._refused(answer)

    async def prove(self, *, deadline_s: float) -> None:
        """Find out whether the store honours conditions, on an object beside the register's.

        Raises:
            Refused: it does not, or did not answer.
        """
        beside = ObjectCell(self._place, bucket=self._bucket, name=f"{self._name}.probe", key=self._key)
        try:
            mark, content = await beside.get(deadline_s=deadline_s)
            if content is None:
                await beside.swap("", b"first", deadline_s=deadline_s)
                mark, _ = await beside.get(deadline_s=deadline_s)
            has_created = await beside.swap("", b"second", deadline_s=deadline_s)
            has_overwritten = await beside.swap('"00000000000000000000000000000000"', b"third", deadline_s=deadline_s)
            after, _ = await beside.get(deadline_s=deadline_s)
        except Unknown as e:
            raise Refused(str(e)) from e
        if has_created or has_overwritten or after != mark:
            raise Refused(f"{self._label} ignores the conditions If-None-Match and If-Match, so it cannot hold a vote")

    def parts(self) -> list[tuple[str, int | None, str]]:
        """Return the store's place, when it last answered, and what is wrong."""
        return [(self._label, self._ok_at, self._error)]

    async def warm(self) -> None:
        """There is one endpoint, which the reads keep warm; only its first answer is fetched here."""
        if self._ok_at is None:
            with contextlib.suppress(Refused, Unknown):
                await self.get(deadline_s=WARM_S_MAX)

    def close(self) -> None:
        """Drop the connection."""
        self._place.close()

    async def _ask(self, method: str, headers: dict[str, str], body: bytes, *, deadline_s: float) -> Answer:
        place = self._place
        proven = sigv4.signed(
            self._key, method, authority=place.authority, path=self._path, headers=headers, body=body, now_utc=now_utc()
        )
        try:
            return await place.ask(method, self._path, headers=proven, body=body, deadline_s=deadline_s)
        except (Refused, Unknown) as e:
            self._error = str(e)
            raise

    def _note(self, error: str) -> None:
        self._error = error
        if not error:
            self._ok_at = now_at()

    def _refused(self, answer: Answer) -> Refused | Unknown:
        why = f"{self._label}: {_code(answer) or 'HTTP'} ({answer.status})"
        self._note(why)
        return Refused(why) if answer.status in TURNED_AWAY | CHANGED else Unknown(why)


def _code(answer: Answer) -> str:
    found = _CODE.search(answer.body)
    return found.group(1).decode("ascii") if found else ""
