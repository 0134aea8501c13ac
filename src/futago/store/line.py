"""Connections to PostgreSQL that can be cut but never cancelled, and a small pool of them.

Why never cancelled: a commit that waits for the other member's disk is already durable here. A cancel request ends
that wait as a *success* on one disk only, and psycopg sends one whenever the task that waits is cancelled. So a
line has a different last resort: `cut` shuts the socket down, as a broken cable would; the server goes on
undisturbed, and the waiter learns that it does not know.

Why an own pool: after a switch the next transaction must find the new server at once. The pool connects on demand,
without any back-off, and looks at an idle line's socket before lending it out. It opens two at a time: everybody who
waited for the switch comes at the same instant, and a dozen connections that are opened at once delay the first of
them by all the others. Nothing here knows what a transaction is; that is commit.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
from collections import deque
from typing import Any

import psycopg

from futago.runtime.faults import Refused

Connection = psycopg.AsyncConnection[tuple[Any, ...]]
CONNECTING_MAX = 2
CONNECTING_S_MAX = 0.25  # a server that lets nobody in is no reason to queue up for that


class _Uncancellable(psycopg.AsyncConnection[tuple[Any, ...]]):
    """A connection of psycopg that never sends a cancel request (tests/unit/store asserts both that the hook exists
    and what the server saw).
    """

    async def _try_cancel(self, *, timeout: float = 5.0) -> None:  # noqa: ASYNC109  its signature
        """Do nothing, where psycopg would ask the server to cancel."""


class Line:
    """One connection. Not shared: it is lent to one transaction at a time."""

    def __init__(self, conn: Connection) -> None:
        self.conn = conn
        self.is_fresh = True  # never lent out before
        self.is_cut = False
        self.doubt = ""  # a warning that came while COMMIT was under way
        self.is_committing = False
        conn.add_notice_handler(self._notice)

    def cut(self) -> None:
        """Break the connection without a word to the server."""
        self.is_cut = True
        if self.conn.closed:
            return
        with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(self.conn.fileno())) as s:
            s.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the connection up. Does not wait."""
        self.conn.pgconn.finish()

    @property
    def is_lendable(self) -> bool:
        """Whether an idle line looks alive: open, no transaction, and nothing to read (a server that ended says so
        there).
        """
        if (
            self.is_cut
            or self.conn.closed
            or self.conn.info.transaction_status is not psycopg.pq.TransactionStatus.IDLE
        ):
            return False
        poll = select.poll()
        poll.register(self.conn.fileno(), select.POLLIN)
        return not poll.poll(0)

    def _notice(self, diagnostic: psycopg.errors.Diagnostic) -> None:
        if self.is_committing and diagnostic.severity_nonlocalized == "WARNING":
            self.doubt = f"{diagnostic.sqlstate}: {diagnostic.message_primary}"


class Lines:
    """A pool of at most `size_max` lines. It holds no connection until one is asked for."""

    def __init__(self, *, conninfo: str, size_max: int, application_name: str) -> None:
        self._conninfo = conninfo
        self._application_name = application_name
        self._free = asyncio.Semaphore(size_max)
        self._idle: deque[Line] = deque()
        self._lent: set[Line] = set()
        self._connecting = 0
        self._news = asyncio.Event()  # a line came back, or an attempt to open one ended

    async def take(self) -> Line:
        """Lend a line, an idle one where it looks alive, else a new one. Waits while `size_max` are lent.

        Raises:
            Refused: the server does not let us in.
        """
        await self._free.acquire()
        try:
            line = await self._find()
        except BaseException:
            self._free.release()
            raise
        self._lent.add(line)
        return line

    def give(self, line: Line) -> None:
        """Take a line back; one that is not lendable any more is closed."""
        self._lent.discard(line)
        self._free.release()
        line.is_fresh = line.is_committing = False
        line.doubt = ""
        if line.is_lendable:
            self._idle.append(line)
        else:
            line.close()
        self._tell()

    def drop_idle(self) -> None:
        """Close the idle lines: one of them has turned out to be dead, so the server has changed."""
        while self._idle:
            self._idle.pop().close()

    def cut_all(self) -> None:
        """Close the idle lines and cut those that are lent."""
        self.drop_idle()
        for line in tuple(self._lent):
            line.cut()

    def _from_idle(self) -> Line | None:
        while self._idle:
            line = self._idle.pop()
            if line.is_lendable:
                return line
            line.close()
        return None

    async def _find(self) -> Line:
        loop = asyncio.get_running_loop()
        ends = loop.time() + CONNECTING_S_MAX
        while True:
            line = self._from_idle()
            if line is not None:
                return line
            if self._connecting < CONNECTING_MAX or loop.time() >= ends:
                self._connecting += 1
                try:
                    return await self._connect()
                finally:
                    self._connecting -= 1
                    self._tell()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(ends):
                    await self._news.wait()

    def _tell(self) -> None:
        """Wake everybody who waits for a line or for a turn to open one."""
        self._news.set()
        self._news = asyncio.Event()

    async def _connect(self) -> Line:
        try:
            conn = await _Uncancellable.connect(
                self._conninfo, autocommit=True, application_name=self._application_name
            )
        except (psycopg.Error, OSError) as e:
            raise Refused(f"no connection to the database: {' '.join(str(e).split())}") from e
        return Line(conn)
