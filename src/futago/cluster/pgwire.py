"""The controller's own small client of PostgreSQL: simple queries over the unix socket, as a trusted local user.

Lives here: start-up, simple query, errors and notices. Must not live here: what is asked. The idea: a telephone, not a
conversation partner. It does not cancel: a cancelled commit *commits*. When the deadline passes the socket is closed,
and what the server still does is Unknown. The big driver is not used because the controller must start fast, stay
small and never block.

Source: PostgreSQL 15 documentation, chapter 55 (Frontend/Backend Protocol), sections 55.2.1, 55.2.2 and 55.7.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from pathlib import Path

from futago.runtime.faults import Refused, RemoteProtocolFault, Unknown, WorldFault
from futago.setup import paths

PROTOCOL = 196608  # 3.0
MESSAGE_BYTES_MAX = 16 << 20
_HEAD = struct.Struct("!cI")

EMPTY_COMMIT = "SELECT pg_logical_emit_message(true, 'futago', '')"
"""A transaction that commits, with WAL and all, without a table and without a lock that a waiting one would hold."""

Row = tuple[str | None, ...]


class ServerError(Refused):
    """The server refused a statement: it certainly has no effect.

    Args:
        fields: the error's fields by their one-letter codes.
    """

    def __init__(self, fields: dict[str, str]) -> None:
        super().__init__(fields.get("M", "no message"))
        self.sqlstate = fields.get("C", "")
        self.severity = fields.get("V", fields.get("S", ""))


@dataclass(frozen=True, slots=True)
class Result:
    """What a query gave: the rows of all its statements, and the notices of the server."""

    rows: tuple[Row, ...]
    notices: tuple[str, ...]

    def one(self) -> Row:
        """Return the only row.

        Raises:
            RemoteProtocolFault: there is not exactly one.
        """
        if len(self.rows) != 1:
            raise RemoteProtocolFault(f"expected one row, got {len(self.rows)}")
        return self.rows[0]


class PgConnection:
    """One session. Use `open`, then `query`; `close` at any time, from anywhere."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._is_busy = False
        self.is_closed = False
        self.pid = 0  # of the server process, as pg_stat_activity shows it

    @classmethod
    async def open(
        cls,
        *,
        database: str = "postgres",
        user: str = "postgres",
        name: str = "futago-controller",
        deadline_s: float = 2.0,
        socket_dir: Path | None = None,
        port: int = paths.PORT_POSTGRES,
    ) -> PgConnection:
        """Return a session that is ready for queries.

        Raises:
            ServerError: the server answered and refused (starting up, shutting down, no such role).
            Refused: nobody listens.
            Unknown: no answer in time: it hangs.
        """
        where = (socket_dir or paths.PG_SOCKET_DIR) / f".s.PGSQL.{port}"
        connection: PgConnection | None = None
        try:
            async with asyncio.timeout(deadline_s):
                connection = cls(*await asyncio.open_unix_connection(str(where)))
                await connection._start_up({"user": user, "database": database, "application_name": name})
        except TimeoutError as e:
            _close(connection)
            raise Unknown(f"PostgreSQL did not answer a new connection within {deadline_s:g} s") from e
        except OSError as e:
            _close(connection)
            raise Refused(f"PostgreSQL cannot be reached: {e}") from e
        except BaseException:
            _close(connection)
            raise
        return connection

    async def query(self, sql: str, *, deadline_s: float = 2.0) -> Result:
        """Send one or more statements; return all their rows as text.

        Raises:
            ServerError: the server refused; the session can be used on.
            Unknown: no answer in time, or the session was lost: the statements may have been carried out. The session
            is
                closed.
        """
        if self.is_closed or self._is_busy:
            raise Refused("the session is closed or busy")
        self._is_busy = True
        try:
            async with asyncio.timeout(deadline_s):
                self._send(b"Q", sql.encode() + b"\0")
                await self._writer.drain()
                result = await self._collect()
        except TimeoutError as e:
            self.close()
            raise Unknown(f"PostgreSQL did not answer within {deadline_s:g} s: {sql[:80]}") from e
        except OSError as e:
            self.close()
            raise Unknown(f"the session with PostgreSQL was lost: {e}") from e
        except ServerError:
            self._is_busy = False
            raise
        except BaseException:  # a cancelled caller leaves an answer in the pipe: this session cannot be used on
            self.close()
            raise
        self._is_busy = False
        return result

    def close(self) -> None:
        """Close the socket at once, without a word to the server."""
        self.is_closed = True
        self._writer.transport.abort()

    def _send(self, kind: bytes, body: bytes) -> None:
        self._writer.write(kind + struct.pack("!I", len(body) + 4) + body)

    async def _start_up(self, parameters: dict[str, str]) -> None:
        pairs = b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items())
        self._send(b"", struct.pack("!I", PROTOCOL) + pairs + b"\0")
        await self._writer.drain()
        while True:
            kind, body = await self._receive()
            if kind == b"R" and body[:4] != b"\0\0\0\0":
                raise Refused("PostgreSQL wants a password from the controller: pg_hba.conf is not ours")
            if kind == b"K":
                (self.pid,) = struct.unpack_from("!I", body)
            elif kind == b"E":
                raise ServerError(_fields(body))
            elif kind == b"Z":
                return

    async def _collect(self) -> Result:
        rows: list[Row] = []
        notices: list[str] = []
        error: ServerError | None = None
        while True:
            kind, body = await self._receive()
            if kind == b"D":
                rows.append(_row(body))
            elif kind == b"N":
                notices.append(_fields(body).get("M", ""))
            elif kind == b"E":
                error = ServerError(_fields(body))
                if error.severity in ("FATAL", "PANIC"):
                    raise OSError(str(error))
            elif kind == b"Z":
                if error is not None:
                    raise error
                return Result(tuple(rows), tuple(notices))

    async def _receive(self) -> tuple[bytes, bytes]:
        try:
            kind, length = _HEAD.unpack(await self._reader.readexactly(5))
            if not 4 <= length <= MESSAGE_BYTES_MAX:
                raise RemoteProtocolFault(f"message of {length} bytes")
            return kind, await self._reader.readexactly(length - 4)
        except asyncio.IncompleteReadError as e:
            raise OSError("the server closed the session") from e


def _close(connection: PgConnection | None) -> None:
    if connection is not None:
        connection.close()


def _fields(body: bytes) -> dict[str, str]:
    parts = body.rstrip(b"\0").split(b"\0")
    return {p[:1].decode("ascii", "replace"): p[1:].decode("utf-8", "replace") for p in parts if p}


def _row(body: bytes) -> Row:
    (count,) = struct.unpack_from("!H", body)
    at = 2
    cells: list[str | None] = []
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        if length < 0:
            cells.append(None)
        else:
            cells.append(body[at : at + length].decode())
            at += length
    return tuple(cells)


async def ask(
    sql: str,
    *,
    deadline_s: float = 2.0,
    database: str = "postgres",
    socket_dir: Path | None = None,
    port: int = paths.PORT_POSTGRES,
) -> Result:
    """Ask over a new connection, which shares the deadline.

    Raises:
        WorldFault: as `PgConnection.open` and `query`; a connection that failed before the query was sent is Refused.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + deadline_s
    connection = await PgConnection.open(database=database, deadline_s=deadline_s, socket_dir=socket_dir, port=port)
    try:
        return await connection.query(sql, deadline_s=max(0.001, ends - loop.time()))
    finally:
        connection.close()


def literal(text: str) -> str:
    """Return `text` as an SQL string constant."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return `name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def lsn(text: str | None) -> int:
    """Return a WAL position given as text, such as ``0/30001A8``, in bytes; 0 for none."""
    if not text:
        return 0
    high, _, low = text.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def lsn_text(position: int) -> str:
    """Return a WAL position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


__all__ = [
    "PgConnection",
    "Result",
    "Row",
    "ServerError",
    "WorldFault",
    "ask",
    "identifier",
    "literal",
    "lsn",
    "lsn_text",
]
