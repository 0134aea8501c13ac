"""The texts that PostgreSQL reads: its settings, who may enter (pg_hba), who is whom (pg_ident), and how a standby
connects.

Pure: settings in, text out. The files belong to the controller and lie on the system disk, outside the data
directory, so that a base backup or a rewind never brings the other member's settings along. The reasons stand beside
the lines; the figures are in docs/internals/cluster.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from futago.cluster.pgwire import identifier
from futago.setup import paths
from futago.setup.settings import MemberSettings, Settings

REPLICATION_ROLE = "futago_repl"  # streams, takes base backups, reads files for a rewind; by client certificate only
APP_ROLE = "futago"
APP_DATABASE = "futago"
MB = 1 << 20


@dataclass(frozen=True, slots=True)
class Layout:
    """Where PostgreSQL's things are. Tests put them elsewhere."""

    data: Path = paths.PGDATA
    volume: Path = paths.PG_VOLUME
    conf: Path = paths.PG_CONF
    hba: Path = paths.GATE_HBA
    ident: Path = paths.PG_IDENT
    tls: Path = paths.CLUSTER / "pg-tls"
    socket_dir: Path = paths.PG_SOCKET_DIR
    bin: Path = paths.PG_BIN
    port: int = paths.PORT_POSTGRES

    @property
    def unfinished(self) -> Path:
        """While this file exists, the data directory is half made and must not be started."""
        return self.volume / "data.unfinished"


def slot_name(member: str) -> str:
    """Return the replication slot of a member: slot names have no hyphens."""
    return "futago_" + member.replace("-", "_")


def quoted(text: str) -> str:
    """Return `text` as a value in postgresql.conf."""
    return "'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def addresses(member: MemberSettings, *, avoid: str = "") -> tuple[str, ...]:
    """Return a member's addresses for WAL, the heartbeat network first: it carries nothing else.

    Args:
        avoid: the name of the link that comes last, because it does not work.
    """
    order = (member.service, member.heartbeat) if avoid == "heartbeat" else (member.heartbeat, member.service)
    return tuple(dict.fromkeys(order))


def conninfo(own: str, peer: MemberSettings, layout: Layout, *, database: str = "", avoid: str = "") -> str:
    """Return how this member reaches the other's PostgreSQL, over whichever network answers."""
    words = {
        "host": ",".join(addresses(peer, avoid=avoid)),
        "port": str(layout.port),
        "user": REPLICATION_ROLE,
        "application_name": own,  # what synchronous_standby_names of the other names
        "sslmode": "verify-ca",
        "sslrootcert": str(layout.tls / "ca.crt"),
        "sslcert": str(layout.tls / "own.crt"),
        "sslkey": str(layout.tls / "own.key"),
        "connect_timeout": "2",
        "keepalives_idle": "2",
        "keepalives_interval": "1",
        "keepalives_count": "3",
        "tcp_user_timeout": "3000",
    }
    if database:
        words["dbname"] = database
    return " ".join(f"{key}={value}" for key, value in words.items())


def settings_text(
    settings: Settings,
    layout: Layout,
    *,
    enforced: bool,
    wal_bytes_max: int = 4096 * MB,
    avoid: str = "",
    syncs_whole: bool = False,
) -> str:
    """Return the include file.

    Args:
        enforced: do commits wait for the other member, named explicitly?
        wal_bytes_max: how much WAL may be kept for a member that is away; beyond it a base backup is needed.
        avoid: the link that the stream should not take.
        syncs_whole: before it recovers, the server syncs the file system at once and not file by file (wholesync.py).
    """
    own, peer = settings.own, settings.peer
    standby = f"FIRST 1 ({identifier(peer.name)})" if enforced and peer is not None else ""
    lines = [
        "# Written by futago-controller before every start and change. Do not edit: it will be overwritten.",
        f"listen_addresses = {quoted(','.join(addresses(own)))}",
        f"port = {layout.port}",
        f"unix_socket_directories = {quoted(str(layout.socket_dir))}",
        f"hba_file = {quoted(str(layout.hba))}",
        f"ident_file = {quoted(str(layout.ident))}",
        "ssl = on",
        "ssl_min_protocol_version = 'TLSv1.3'",
        f"ssl_ca_file = {quoted(str(layout.tls / 'ca.crt'))}",
        f"ssl_cert_file = {quoted(str(layout.tls / 'own.crt'))}",
        f"ssl_key_file = {quoted(str(layout.tls / 'own.key'))}",
        f"synchronous_standby_names = {quoted(standby)}",
        f"max_slot_wal_keep_size = {max(wal_bytes_max // MB, 64)}MB  # a member that is away cannot fill the disk",
        f"wal_keep_size = {min(512, max(wal_bytes_max // MB // 4, 64))}MB  # on both: what a rewind needs",
        f"recovery_init_sync_method = {'syncfs' if syncs_whole else 'fsync'}",
        _FIXED,
    ]
    if peer is not None:
        lines += [
            f"primary_conninfo = {quoted(conninfo(own.name, peer, layout, avoid=avoid))}",
            f"primary_slot_name = {quoted(slot_name(own.name))}",
        ]
    return "\n".join(lines) + "\n"


_FIXED = """\
synchronous_commit = on
fsync = on
full_page_writes = on
data_sync_retry = off  # after a failed fsync nothing is known any more: stop
restart_after_crash = off  # only the controller starts it, behind a closed gate
wal_level = replica
max_wal_senders = 10
max_replication_slots = 10
max_connections = 200
superuser_reserved_connections = 6
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_receiver_status_interval = 1s
wal_retrieve_retry_interval = 500ms
hot_standby = on
hot_standby_feedback = on
max_standby_streaming_delay = 1s
max_standby_archive_delay = 1s
recovery_min_apply_delay = 0
recovery_target_timeline = 'latest'
archive_mode = off
max_wal_size = 1GB  # bounds crash recovery
min_wal_size = 128MB
checkpoint_completion_target = 0.9
tcp_keepalives_idle = 2
tcp_keepalives_interval = 1
tcp_keepalives_count = 3
tcp_user_timeout = 3000
client_connection_check_interval = 1s
password_encryption = 'scram-sha-256'
logging_collector = off  # to the journal of systemd
log_destination = 'stderr'
log_line_prefix = '%m [%p] %q%u@%d/%a '
lc_messages = 'C'  # some texts are read by programs
timezone = 'UTC'
log_timezone = 'UTC'
datestyle = 'iso, ymd'"""


def hba_text(settings: Settings, *, gate_open: bool) -> str:
    """Return who may enter. Closed, every application role is refused; the controller and the other member never
    are."""
    lines = [
        f"# The gate of futago, written by its controller: {'open' if gate_open else 'closed'}. Do not edit.",
        "local  all          postgres                       peer map=super",
    ]
    if settings.peer is not None:
        for address in addresses(settings.peer):
            mask = "/128" if ":" in address else "/32"
            for database in ("replication", "postgres"):
                lines.append(f"hostssl {database:12} {REPLICATION_ROLE} {address}{mask} cert clientname=DN map=members")
    if gate_open:
        lines.append(f"local  {APP_DATABASE:12} {APP_ROLE}                         peer map=app")
    lines += ["local  all          all                            reject"]
    lines += ["host   all          all          all               reject"]
    return "\n".join(lines) + "\n"


def ident_text(settings: Settings) -> str:
    """Return who is whom: system users by name, the other member by the subject of its certificate."""
    lines = ["# Written by futago-controller. Do not edit.", "super  root      postgres", "super  postgres  postgres"]
    lines += [f"app    {APP_ROLE}    {APP_ROLE}", f"app    root      {APP_ROLE}"]
    if settings.peer is not None:
        # RFC 2253 order differs with how the certificate was made; all three parts must be there, nothing else.
        parts = (f"CN={settings.peer.name}", "OU=member", f"O={settings.pair.id}")
        orders = (parts, tuple(reversed(parts)))
        lines += [f'members "{",".join(order)}" {REPLICATION_ROLE}' for order in orders]
    return "\n".join(lines) + "\n"


MAIN_CONF = "# Everything is in the controller's file; this line is the same on both members.\ninclude '{conf}'\n"

FOUND_SQL = f"""\
CREATE ROLE {REPLICATION_ROLE} LOGIN REPLICATION;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_ls_dir(text, boolean, boolean) TO {REPLICATION_ROLE};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_stat_file(text, boolean) TO {REPLICATION_ROLE};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text) TO {REPLICATION_ROLE};
GRANT EXECUTE ON FUNCTION pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean) TO {REPLICATION_ROLE};
CREATE ROLE {APP_ROLE} LOGIN;
ALTER ROLE {APP_ROLE} SET synchronous_commit = 'on';
CREATE DATABASE {APP_DATABASE} OWNER {APP_ROLE};
"""
"""What a new database starts with. Source of the grants: PostgreSQL 15 documentation, pg_rewind, Notes."""
