"""The receiver: `futago run receiver`, on both members, always, whatever the role and the database do.

It listens, journals, streams its journal to the other member and keeps a copy of the other's. Nothing is parsed or
decided beyond what answering an acknowledged protocol needs. It imports only the standard library, uvloop and msgspec, so that it is there first.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Coroutine
from dataclasses import asdict
from typing import Any

import msgspec

from futago.intake.consumed import Consumed
from futago.intake.copy import JournalCopy
from futago.intake.custom_traps import CustomTrapDesk
from futago.intake.guests import Door, Guests
from futago.intake.journal import Repaired, is_disk_short, new_incarnation, prune, repair, tail
from futago.intake.listen import Addresses, Counters, UdpPort, tcp_socket
from futago.intake.local import LINE_BYTES_MAX, LocalDoor
from futago.intake.model import NO_SOURCE, Mark, Protocol, Record
from futago.intake.notices import Notice, Notices
from futago.intake.options import OptionsWatch
from futago.intake.own import OwnJournal
from futago.intake.receiver_config import ReceiverConfig, config_of, follow_settings
from futago.intake.relp_server import RelpConnection, RelpDesk
from futago.intake.servers import OptionServers
from futago.intake.snmp_port import InformDesk, SnmpPort
from futago.intake.sync import Downstream, Peer, Upstream
from futago.intake.tcp_syslog import TcpSyslog
from futago.intake.turns import Turns
from futago.intake.usm_desk import UsmDesk
from futago.intake.writer import JournalWriter
from futago.link import tls
from futago.runtime import service
from futago.runtime.faults import OperatorFault
from futago.runtime.log import Log
from futago.runtime.role import RoleKind, RoleWatch
from futago.setup import settings as settings_file

TURN_S = 0.1
MARK_S = 1.0
HOUSEKEEPING_S = 2.0
OPTIONS_S = 1.0
UNSERVED_S = 10.0  # ports that could not be opened are tried again, and certificates looked at
INFORMS_TAIL_BYTES = 16 << 20  # of the own journal is read at the start, for INFORMs that will be repeated
JOURNAL_BYTES_MAX = 16 << 30  # both journals together
NICE = -15
EXIT_SETTINGS = 2


class Receiver:
    """The parts of the program, and how they hang together. `run` until `stop` is set."""

    def __init__(self, config: ReceiverConfig, *, log: Log) -> None:
        self._config = config
        self._log = log
        self.counters = Counters()
        self.consumed = Consumed(me=config.me)
        self.repaired = Repaired()
        self._addresses = Addresses()
        self._opened: set[TcpSyslog] = set()
        self._udp: list[UdpPort] = []
        self._turns = Turns(self.counters, self._udp, lambda: (*self._opened, *self.relp.opened))
        self._servers: list[asyncio.Server | Door] = []
        self._unbound: list[str] = []
        self._is_paused = False
        self._notices = Notices(config.me)
        self._journal_bytes = 0
        self._damage_met = 0  # by the intake of this member
        self._damage_sent = self._damage_to_tell = (
            0  # places passed over in sending; those that no intake here tells of
        )
        self._told_alone = 0  # up to here senders were told so while only this disk counted
        self._role = RoleWatch(config.controller)
        self.options = OptionsWatch(config.options)
        self.guests = Guests(self.counters, lambda: self.options.current.connections)
        self._option_servers = OptionServers(
            hosts=config.hosts,
            cert=config.cert,
            key=config.key,
            guests=self.guests,
            addresses=self._addresses,
            make_syslog=lambda names: self._syslog_connection(is_tls=True, names=names),
            make_relp=lambda names: RelpConnection(self.relp, names),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Receive until `stop`; then make durable what was taken."""
        self.options.look()
        self._open_journals()
        try:
            await self._listen()
            self.journal.mark(Mark(wall_ahead_ns=self.journal.clock.wall_ahead_ns()), self.journal.clock.now_ns())
            service.notify_ready(f"incarnation {self.journal.incarnation.id}")
            if self.repaired.damaged:
                self._note(self._notices.damaged(self.repaired.damaged), self.journal.clock.now_ns())
            self._log.event("receiver.started", incarnation=self.journal.incarnation.id, unbound=self._unbound)
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one) for one in self._loops()]
                await stop.wait()
                for task in tasks:
                    task.cancel()
        finally:
            self._close()

    def set_peer(self, peer: Peer | None) -> None:
        """The pair's settings changed: another member, or other addresses."""
        self.upstream.peer = peer
        self.downstream.peer = peer

    def _open_journals(self) -> None:
        config, loop = self._config, asyncio.get_running_loop()
        self.repaired = repair(config.own_root, are_all_ended=True)
        if self.repaired.damaged:
            self._log.warning("journal.damaged", places=self.repaired.damaged)

        def synced() -> None:  # in the writing thread
            with contextlib.suppress(RuntimeError):  # the loop ended meanwhile
                loop.call_soon_threadsafe(self._synced)

        recent = tail(config.own_root, bytes_max=INFORMS_TAIL_BYTES)
        incarnation = new_incarnation(self.repaired.newest)
        self.journal = OwnJournal(JournalWriter(config.own_root, on_synced=synced), incarnation)
        self.copy = JournalCopy.open(config.copy_root)
        self.upstream = Upstream(
            journal=self.journal,
            root=config.own_root,
            pair_id=config.pair_id,
            context=tls.client_context(cert=config.cert, key=config.key, ca=config.ca),
            consumed=self.consumed,
            log=self._log,
        )
        self.downstream = Downstream(
            copy=self.copy, own=self.journal, pair_id=config.pair_id, consumed=self.consumed, log=self._log
        )
        self.set_peer(config.peer)
        self._watch_acknowledged(*recent)

    def _watch_acknowledged(self, incarnation: str, recent: list[Record]) -> None:
        """Make the desks of the protocols that are acknowledged, and tell them what was received before."""
        self.relp = RelpDesk(
            journal=self.journal,
            turns=self._turns,
            addresses=self._addresses,
            counters=self.counters,
            durable=self.safe_sequence,
        )
        self.relp.note(recent, incarnation=incarnation)
        self.informs = InformDesk(
            journal=self.journal,
            watch=self.options,
            usm=UsmDesk(self.options, self._config.pair_id, log=self._log),
            counters=self.counters,
            has_copy=self.copy.has,
            durable=self.safe_sequence,
        )
        self.informs.note(recent, incarnation=incarnation, is_own=True)
        self.traps = CustomTrapDesk(
            journal=self.journal, addresses=self._addresses, has_copy=self.copy.has, durable=self.safe_sequence
        )
        self.traps.note(recent, incarnation=incarnation, is_own=True)
        self.copy.on_notifications = self._copied
        self.upstream.on_acked = self._release

    def _copied(self, incarnation: str, records: list[Record]) -> None:
        self.informs.note(records, incarnation=incarnation, is_own=False)
        self.traps.note(records, incarnation=incarnation, is_own=False)

    def _synced(self) -> None:
        self.upstream.synced()
        self._release()

    def _release(self) -> None:
        self.informs.release()
        self.relp.release()
        self.traps.release()

    def safe_sequence(self) -> int:
        """Return our last sequence that is where it must be before its sender may be told: on both disks; on this one
        while the other member is known to be out, or does not exist.
        """
        own = self.journal.synced_sequence
        if self._is_alone:
            self._told_alone = own
            return own
        return min(own, self._peer_has)

    @property
    def _is_alone(self) -> bool:
        role = self._role.role
        return self.upstream.peer is None or (role.role is RoleKind.PRIMARY and role.solo)

    @property
    def _peer_has(self) -> int:
        """Our last sequence that the other member has on its disk."""
        acked = self.upstream.acked
        return acked.sequence if acked is not None and acked.incarnation == self.journal.incarnation.id else 0

    def is_settled(self) -> bool:
        """Return whether the other member has all that a sender was told is safe, and none is told before it has."""
        return not self._is_alone and self.upstream.is_connected and self._peer_has >= self._told_alone

    async def _listen(self) -> None:
        config = self._config
        for host in config.hosts:
            self._listen_udp(host)
            try:
                sock = tcp_socket(host, config.ports.syslog_tcp)
                door = Door(sock, self.guests, self._syslog_connection, packed=self._addresses.packed)
                door.open()
            except OSError as e:
                self._unbound.append(f"tcp {host} {config.ports.syslog_tcp}: {e.strerror}")
                continue
            self._servers.append(door)
        if not self._udp and not self._servers:
            raise OperatorFault(
                f"No port to receive on could be opened: {'; '.join(self._unbound)}.",
                hint="Stop the program that holds them (rsyslog, snmptrapd?), or give the unit CAP_NET_BIND_SERVICE.",
                code="receiver.ports",
            )
        for udp in self._udp:
            udp.start(self._turns)
        await self._serve_others()

    def _syslog_connection(self, *, is_tls: bool = False, names: frozenset[str] = frozenset()) -> TcpSyslog:
        return TcpSyslog(
            journal=self.journal,
            turns=self._turns,
            addresses=self._addresses,
            counters=self.counters,
            opened=self._opened,
            guests=self.guests,
            is_tls=is_tls,
            names=names,
        )

    def _listen_udp(self, host: str) -> None:
        ports = self._config.ports
        for protocol, port in ((Protocol.SYSLOG_UDP, ports.syslog_udp), (Protocol.SNMP_UDP, ports.snmp_udp)):
            try:
                if protocol is Protocol.SNMP_UDP:
                    snmp = SnmpPort(host, port, desk=self.informs, journal=self.journal, addresses=self._addresses)
                    self._udp.append(snmp)
                else:
                    syslog = UdpPort(host, port, protocol, journal=self.journal, addresses=self._addresses)
                    self._udp.append(syslog)
            except OSError as e:
                self._unbound.append(f"udp {host} {port}: {e.strerror}")

    async def _serve_others(self) -> None:
        config = self._config
        context = tls.server_context(cert=config.cert, key=config.key, ca=config.ca)
        sync = await asyncio.start_server(
            self.downstream.serve, config.journal_host, config.journal_port, ssl=context, reuse_address=True
        )
        self._servers.append(sync)
        self.journal_port: int = sync.sockets[0].getsockname()[1]
        config.socket.parent.mkdir(parents=True, exist_ok=True)
        config.socket.unlink(missing_ok=True)
        door = LocalDoor(status=self.status, consumed=self.consumed, traps=self.traps, met_damage=self._note_damage_met)
        local = await asyncio.start_unix_server(door.serve, str(config.socket), limit=LINE_BYTES_MAX)
        os.chmod(config.socket, 0o660)
        self._servers.append(local)

    def _loops(self) -> list[Coroutine[Any, Any, None]]:
        return [
            self._turn(),
            self._mark(),
            self._keep_house(),
            self.upstream.run(),
            self._role.run(),
            self._follow_options(),
            self.informs.usm.run(),
        ]

    async def _follow_options(self) -> None:
        """Serve what the options want; what cannot be served is tried again, and so are certificates that were renewed."""
        loop, tried_at_s, told = asyncio.get_running_loop(), 0.0, list[str]()
        while True:
            is_changed = self.options.look()
            if is_changed and self.options.fault:
                self._log.warning("receiver.options_refused", fault=self.options.fault)
            if is_changed or not tried_at_s or loop.time() - tried_at_s > UNSERVED_S:
                tried_at_s = loop.time()
                await self._option_servers.follow(self.options.current)
                if self._option_servers.faults != told:
                    told = list(self._option_servers.faults)
                    if told:
                        self._log.warning("receiver.not_served", faults=told)
                    else:
                        self._log.event("receiver.served")
            await asyncio.sleep(OPTIONS_S)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._turns.turn(self.journal.clock.now_ns())
            self._turns.reach(self.journal.clock.now_ns(), is_cut=self._role.role.cut)
            self.upstream.note_time(loop.time())
            self._release()  # going solo, too, makes answers safe
            self.relp.forget(self.journal.clock.now_ns())
            self.guests.tend(self.journal.clock.now_ns(), (*self._opened, *self.relp.opened))
            if self.journal.is_congested != self._is_paused:
                self._set_paused(self.journal.is_congested)
            self._turns.settle(self.journal.clock.now_ns())
            if not self._is_paused:
                for port in tuple(self._turns.stalled_ports):
                    port.drain()  # one that nothing is sent to would never tell that it is empty
            await asyncio.sleep(TURN_S)

    def _set_paused(self, is_paused: bool) -> None:
        self._is_paused = is_paused
        self.counters.congested += is_paused
        (self._turns.hold if is_paused else self._turns.flow)(self.journal.clock.now_ns())
        self._log.warning("receiver.congested" if is_paused else "receiver.flowing", fault=self.journal.writer.fault)
        everything: list[UdpPort | TcpSyslog | RelpConnection] = [*self._udp, *self._opened, *self.relp.opened]
        for one in everything:
            if is_paused:
                one.pause()
            else:
                one.resume()

    async def _mark(self) -> None:
        while True:
            await asyncio.sleep(MARK_S)
            clock = self.upstream.clock
            is_measured = self.upstream.is_connected and clock.ahead_ns is not None
            now_ns = self.journal.clock.now_ns()
            self._turns.turn(now_ns)  # we may be the first to run after a stop
            self.journal.mark(
                Mark(
                    wall_ahead_ns=self.journal.clock.wall_ahead_ns(),
                    peer_zero_ns=clock.zero_ns if is_measured else None,
                    peer_ahead_ns=clock.ahead_ns if is_measured else None,
                    open_since_ns=self._turns.open_since_ns,
                    unheard_since_ns=self._turns.unheard_since_ns,
                ),
                now_ns,
            )
            self._tell(now_ns)

    def _tell(self, now_ns: int) -> None:
        """Note in the journal what people should know of this receiver."""
        drops = sum(u.kernel_drops() for u in self._udp)
        refused, why = self.counters.tcp_refused, self.guests.last_refusal
        congestion = self._congestion() if self._is_paused else None
        unbound = (*self._unbound, *self._option_servers.faults)
        for notice in self._notices.look(
            now_ns,
            drops=drops,
            congestion=congestion,
            unbound=unbound,
            damaged=self._damage_untold(),
            refused=refused,
            refusal=why,
        ):
            self._note(notice, now_ns)

    def _note_damage_met(self, places: int) -> None:
        self._damage_met = max(self._damage_met, places)

    def _damage_untold(self) -> int:
        """Damage that only we have met: on the primary the intake reads the same places, and tells of them."""
        more, self._damage_sent = self.upstream.damaged - self._damage_sent, self.upstream.damaged
        if self._role.role.role is not RoleKind.PRIMARY:
            self._damage_to_tell += more
        return self._damage_to_tell

    @property
    def _damaged(self) -> int:
        """Places of both journals on this disk that do not pass their check, as far as anybody has met them."""
        return self.repaired.damaged + self.copy.damaged + max(self.upstream.damaged, self._damage_met)

    def _congestion(self) -> str:
        if self.journal.is_disk_short:
            return "the disk is full, or the journals have reached their limit"
        return self.journal.writer.fault or "the disk does not keep up"

    def _note(self, notice: Notice, now_ns: int) -> None:
        data = msgspec.json.encode(notice)
        self.journal.add(data, protocol=Protocol.NOTICE, source=NO_SOURCE, port=0, time_ns=now_ns)
        self.journal.hand()

    async def _keep_house(self) -> None:
        while True:
            with contextlib.suppress(OSError):  # the disk is away: the writers say so
                await asyncio.to_thread(self._prune)
            await asyncio.sleep(HOUSEKEEPING_S)

    def _prune(self) -> None:
        config = self._config
        is_short = is_disk_short(config.own_root) or self._journal_bytes > JOURNAL_BYTES_MAX
        own = prune(config.own_root, self.consumed.of(config.me), is_short=is_short)
        other = prune(config.copy_root, self.consumed.of_others(), is_short=is_short)
        self._journal_bytes = own + other
        self.journal.is_disk_short = is_disk_short(config.own_root) or self._journal_bytes > JOURNAL_BYTES_MAX

    def status(self) -> dict[str, object]:
        """Return what `futago status` needs (docs/internals/intake.md)."""
        now_s = asyncio.get_running_loop().time()
        self._count()
        position, role = self.copy.position, self._role.role
        return {
            "incarnation": self.journal.incarnation.id,
            "own": {"last": self.journal.sequence, "synced": self.journal.synced_sequence},
            "peer_copy": {
                "incarnation": position.incarnation if position else "",
                "last": position.sequence if position else 0,
            },
            "sync": {
                "connected": self.upstream.is_connected and self.downstream.is_connected,
                "peer_has": self._peer_has,
                "error": self.upstream.last_error or self.downstream.last_error,
                "peer_ahead_ns": self.upstream.clock.ahead_ns,
            },
            "complete": self.upstream.is_complete(now_s) and self.downstream.is_complete(now_s),
            "role": str(role.role),
            "solo": role.solo,
            "settled": self.is_settled(),
            "turn": role.turn,
            "unbound": [*self._unbound, *self._option_servers.faults],
            "options_fault": self.options.fault,
            "fault": self.journal.writer.fault or self.copy.writer.fault,
            "damaged": self._damaged,
            "full": self.journal.is_disk_short,
            "counters": {
                **asdict(self.counters),
                "journal_bytes": self._journal_bytes,
                "syncs": self.journal.writer.syncs,
                "worst_sync_ms": round(self.journal.writer.worst_sync_s * 1000, 1),
                "cut_bytes": self.repaired.cut_bytes,
                "damaged": self._damaged,
                "sync_refused": self.downstream.refused,
                "snmp_v3_lost": self.informs.usm.lost,
                "custom_traps": self.traps.recorded,
                "custom_traps_repeated": self.traps.repeated,
            },
        }

    def _count(self) -> None:
        counters = self.counters
        counters.syslog_udp = sum(u.received for u in self._udp if u.protocol is Protocol.SYSLOG_UDP)
        counters.snmp_udp = sum(u.received for u in self._udp if u.protocol is Protocol.SNMP_UDP)
        counters.udp_errors = sum(u.errors for u in self._udp)
        counters.kernel_drops = sum(u.kernel_drops() for u in self._udp)
        counters.tcp_open = self.guests.count

    def _close(self) -> None:
        for udp in self._udp:
            udp.close()
        self._option_servers.close()
        self.guests.close()
        for server in self._servers:
            server.close()
        everything: list[TcpSyslog | RelpConnection] = [*self._opened, *self.relp.opened]
        for connection in everything:
            if connection.transport is not None:
                connection.transport.close()
        self.journal.hand()
        self.journal.writer.close()
        self.copy.close()
        self._config.socket.unlink(missing_ok=True)


async def _main(stop: asyncio.Event) -> int:
    log = Log(program="receiver")
    try:
        config = config_of(settings_file.load())
        log = log.bind(member=config.me)
        receiver = Receiver(config, log=log)
        async with asyncio.TaskGroup() as group:
            follow = group.create_task(follow_settings(receiver.set_peer, log))
            await receiver.run(stop)
            follow.cancel()
    except OperatorFault as e:
        return _cannot_start(log, e)
    except ExceptionGroup as group_of_faults:
        faults, rest = group_of_faults.split((OperatorFault, OSError))
        if rest is not None or faults is None:
            raise
        return _cannot_start(log, faults.exceptions[0])
    return 0


def _cannot_start(log: Log, fault: Exception) -> int:
    log.error("receiver.cannot_start", error=str(fault))
    return EXIT_SETTINGS


def main() -> int:
    """Run the receiver until it is told to stop."""
    with contextlib.suppress(OSError):
        os.nice(NICE)
    return service.run(_main)
