"""Whoever is connected to an address that is given up learns of it at once: with real sockets and the real kernel."""

from __future__ import annotations

import os
import socket

import pytest

from futago.cluster.address.sockets import reset_connections

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="destroying sockets needs root")


@pytest.mark.parametrize("listens_on", ["127.0.0.77", "::"])
def test_connections_of_the_address_are_reset_and_no_others(listens_on: str) -> None:
    family = socket.AF_INET6 if ":" in listens_on else socket.AF_INET
    with socket.create_server((listens_on, 0), family=family, dualstack_ipv6=family is socket.AF_INET6) as server:
        port = server.getsockname()[1]
        given_up = socket.create_connection(("127.0.0.77", port), timeout=5)
        held, _ = server.accept()
        other_server = socket.create_server(("127.0.0.78", 0))
        other = socket.create_connection(other_server.getsockname(), timeout=5)
        other_held, _ = other_server.accept()
        assert reset_connections("127.0.0.77") == 1
        with pytest.raises(ConnectionResetError):
            given_up.recv(1)
        other_held.sendall(b"x")
        assert other.recv(1) == b"x"
        again = socket.create_connection(("127.0.0.77", port), timeout=5)  # the listening socket lives
        for s in (given_up, held, other, other_held, other_server, again):
            s.close()


def test_an_address_without_connections_is_no_fault() -> None:
    assert reset_connections("192.0.2.1") == 0
