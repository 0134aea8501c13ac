"""What the intake is to look for: the monitors' patterns, hosts and scopes, kept as fresh as the rows.

Once a second the version of all that is compared. What changed is read, its patterns are compiled by a program beside
the manager (automaton.py), or taken from the row that the other member left when it was primary; then the new rules are
at work, all at once, and a row says so: `futago apply --wait` waits for it. Until then the work goes on with those that
were; only the first are waited for.
"""

from __future__ import annotations

import asyncio

from futago.intake import store as rows
from futago.intake.automaton import compile_beside
from futago.intake.patterns import Automata, digest
from futago.intake.rules import MessageMonitor, RuleSet
from futago.intake.store import Inventory
from futago.runtime.clock import MS, now_at
from futago.runtime.engine import EngineContext
from futago.runtime.faults import Corrupt, OperatorFault, WorldFault
from futago.store.commit import Connection

KINDS = ("syslog", "snmptrap", "customtrap")
STORE_S = 60.0  # a compiled set of ten thousand patterns has some ten megabytes, which the standby gets, too


class Following:
    """Follows the definitions.

    Args:
        context: the engine's world.
    """

    def __init__(self, context: EngineContext) -> None:
        self._context = context
        self._version: str | None = None
        self._compiling: asyncio.Task[None] | None = None
        self.rules: dict[str, RuleSet] = {}
        self.inventory = Inventory()

    async def look(self) -> None:
        """Take up what changed; return at once if there are rules to go on with.

        Raises:
            WorldFault: the database was not to be asked, or there are no rules yet and none can be had.
        """
        if self._compiling is not None and self._compiling.done():
            self._ended(self._compiling)
        version = await self._context.store.read(rows.rules_version, name="intake.rules_version")
        if version != self._version and self._compiling is None:
            monitors = await self._context.store.read(rows.load_monitors, name="intake.rules")
            self._version = version
            self._compiling = asyncio.create_task(self._take(version, monitors))
        if not self.rules and self._compiling is not None:
            await asyncio.wait({self._compiling})
            self._ended(self._compiling)

    async def read_inventory(self) -> None:
        """Read hosts and scopes again: senders that nobody declared come without a change of the version."""
        self.inventory = await self._context.store.read(rows.load_inventory, name="intake.inventory")

    def close(self) -> None:
        """End what is under way."""
        if self._compiling is not None:
            self._compiling.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._compiling = None
        try:
            task.result()
        except WorldFault as e:
            self._version = None  # again at the next look
            if not self.rules:  # messages must not pass by unseen
                raise
            self._context.log.warning("intake.rules_again", error=str(e))

    async def _take(self, version: str, monitors: list[MessageMonitor]) -> None:
        fresh: dict[str, RuleSet] = {}
        fault, began = "", now_at()
        for kind in KINDS:
            chosen = [monitor for monitor in monitors if monitor.kind == kind]
            if kind in self.rules and self.rules[kind].monitors == tuple(chosen):
                continue
            try:
                fresh[kind] = await self._made(chosen)
            except OperatorFault as e:  # `futago apply` refuses such patterns: keep what we have
                fault = str(e)
                self._context.log.error("intake.rules_refused", error=fault)
        await self.read_inventory()
        self.rules |= fresh

        async def note(conn: Connection) -> None:
            await rows.note_rules(conn, version, fault)

        await self._context.store.commit(note, name="intake.rules_noted")
        if fresh:
            took = round((now_at() - began) / MS, 1)
            self._context.log.event("intake.rules", patterns={k: len(r.patterns) for k, r in fresh.items()}, ms=took)

    async def _made(self, monitors: list[MessageMonitor]) -> RuleSet:
        """Return the rules of one kind, from what was compiled before if there is any."""
        texts = [rule.match for monitor in monitors for rule in monitor.rules]
        if not texts:
            return RuleSet(monitors)
        key = await asyncio.to_thread(digest, texts)

        async def find(conn: Connection) -> bytes | None:
            return await rows.load_automaton(conn, key)

        stored = await self._context.store.read(find, name="intake.automaton", deadline_s=STORE_S)
        if stored is not None:
            try:
                return await asyncio.to_thread(lambda: RuleSet(monitors, Automata.unpack(stored)))
            except Corrupt as e:
                self._context.log.warning("intake.automaton_unfit", error=str(e))
        automata = await compile_beside(texts, is_urgent=not self.rules)
        made = await asyncio.to_thread(RuleSet, monitors, automata)
        content = await asyncio.to_thread(automata.pack)

        async def keep(conn: Connection) -> None:
            await rows.save_automaton(conn, key, content)

        try:
            await self._context.store.commit(keep, name="intake.automaton_kept", deadline_s=STORE_S)
        except WorldFault as e:  # the rules are there all the same; who needs them next makes them again
            self._context.log.warning("intake.automaton_not_kept", error=str(e))
        return made
