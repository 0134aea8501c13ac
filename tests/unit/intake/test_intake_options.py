"""The intake's own settings file: what it says, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from futago.intake.options import Options, OptionsWatch, SyslogTls, load, parse
from futago.runtime.faults import OperatorFault

WHERE = Path("/etc/futago/intake.toml")


def test_without_a_file_any_community_is_taken_and_nothing_more_is_served(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == Options()
    assert Options().snmp.communities is None


def test_a_whole_file_is_read() -> None:
    text = """
[snmp]
communities = ["public"]
[[snmp.users]]
name = "ops"
auth = "sha256"
auth_password = "12345678"
priv = "aes128"
priv_password = "87654321"
[syslog_tls]
client_ca = "/etc/futago/senders.crt"
clients = ["web1"]
[relp]
tls = true
"""
    found = parse(text, where=WHERE)
    assert found.syslog_tls == SyslogTls(client_ca="/etc/futago/senders.crt", clients=["web1"])
    assert found.snmp.users[0].priv == "aes128"
    assert found.relp is not None
    assert (found.relp.port, found.relp.is_tls) == (2514, True)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[snmp", "TOML|Expected"),
        ("[snmp]\ncommunity = 'x'", "community"),
        ("[[snmp.users]]\nname = ''", "1 to 32"),
        ("[connections]\nmax = 0", "max and per_sender"),
        ("[connections]\nper_sender = 20000", "max and per_sender"),
        ("[connections]\nidle_s = 5", "idle_s is from 60 to 2678400 .0: never"),
        ("[connections]\nunfinished_s = 0", "unfinished_s is from 10"),
        ("[connections]\nhandshake_s = 61", "handshake_s is from 1 to 60"),
        ("[connections]\nidle = 60", "idle"),
        ("[[snmp.users]]\nname = 'a'\nauth = 'md5'\nauth_password = '12345678'", "md5"),
        ("[[snmp.users]]\nname = 'a'\nauth = 'sha1'\nauth_password = 'short'", "8 characters"),
        ("[[snmp.users]]\nname = 'a'\npriv = 'aes128'\npriv_password = '12345678'", "needs auth"),
        ("[[snmp.users]]\nname = 'a'\n[[snmp.users]]\nname = 'a'", "differ"),
        ("[syslog_tls]\nport = 0", "not a port"),
        ("[syslog_tls]\ncert = 'x'", "belong together"),
        ("[syslog_tls]\nclients = ['x']", "client_ca"),
        ("[relp]\ntls = true", "syslog_tls"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(text: str, what: str) -> None:
    with pytest.raises(OperatorFault, match=what) as refused:
        parse(text, where=WHERE)
    assert str(WHERE) in str(refused.value)
    assert "short" not in str(refused.value)


def test_a_file_that_others_can_read_is_refused_and_what_was_stays(tmp_path: Path) -> None:
    path = tmp_path / "intake.toml"
    path.touch(0o600)
    path.write_text("[snmp]\ncommunities = ['one']")
    watch = OptionsWatch(path)
    assert watch.look()
    assert not watch.look()
    path.chmod(0o604)
    assert watch.look()
    assert "others can read" in watch.fault
    assert watch.current.snmp.communities == ["one"]
    path.chmod(0o640)
    assert watch.look()
    assert watch.fault == ""
    path.unlink()
    assert watch.look()
    assert watch.current == Options()
