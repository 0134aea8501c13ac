"""Where everything lives on a machine. Tests may point the whole tree elsewhere with FUTAGO_ROOT."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(os.environ.get("FUTAGO_ROOT", "/"))

ETC = ROOT / "etc/futago"
SETTINGS = ETC / "futago.toml"
PKI = ETC / "pki"
CA_CERT = PKI / "ca.crt"
CA_KEY = PKI / "ca.key"  # root only, on both members
OWN_CERT = PKI / "own.crt"  # this member's or this agent's certificate
OWN_KEY = PKI / "own.key"
SECRETS = ETC / "secrets"
HEARTBEAT_KEY = SECRETS / "heartbeat.key"  # 32 raw bytes, root:futago 0640
TOKEN_KEY = SECRETS / "token.key"  # 32 raw bytes, root only: signs join and enrol tokens
ADMIN_TOKEN = SECRETS / "admin.token"  # API token of the local root user, root only
AGENT_SETTINGS = ETC / "agent.toml"

VAR = ROOT / "var/lib/futago"
CLUSTER = VAR / "cluster"  # view slots: system disk
VIEW_SLOTS = CLUSTER / "view.slots"
GATE_HBA = CLUSTER / "pg_hba.conf"
PG_IDENT = CLUSTER / "pg_ident.conf"
PG_CONF = CLUSTER / "postgresql.futago.conf"  # settings owned by the controller, included by PGDATA/postgresql.conf
JOURNAL_OWN = VAR / "journal/own"
JOURNAL_PEER = VAR / "journal/peer"
PG_VOLUME = VAR / "pg"  # the database's volume
PGDATA = PG_VOLUME / "data"
AGENT_VAR = ROOT / "var/lib/futago-agent"  # run records, output, acceptor file

RUN = ROOT / "run/futago"
CONTROLLER_SOCKET = RUN / "controller.sock"
MANAGER_SOCKET = RUN / "manager.sock"
RECEIVER_SOCKET = RUN / "receiver.sock"
GUARD_SOCKET = RUN / "guard.sock"
PG_SOCKET_DIR = RUN / "pg"

PG_BIN = Path("/usr/lib/postgresql/15/bin")

PORT_HEARTBEAT = 7710  # UDP, both networks
PORT_CONTROL = 7711  # TLS: members, enrolment
PORT_JOURNAL = 7712  # TLS: receiver to receiver
PORT_AGENT = 7713  # TLS: agents to managers
PORT_JUROR = 7714  # TLS: controllers to jurors
PORT_POSTGRES = 5432
PORT_WEB = 443
