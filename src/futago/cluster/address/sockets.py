"""Reset the TCP connections of an address that is given up, so that whoever is connected learns of it at once.

A connection whose address moves away falls silent: its packets go to a machine that does not know it, or that no longer has the address, and a client
waits for its own patience to end. Source: sock_diag(7); the request to destroy a socket is SOCK_DESTROY of linux/sock_diag.h, in kernels built with
INET_DIAG_DESTROY (Debian's are). The kernel sends the reset, so this has to happen before the address goes.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Iterator

from futago.runtime.faults import Refused

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY, _SOCK_DESTROY = 20, 21
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
_HEADER = struct.Struct("=IHHII")
_WANTED = struct.Struct("=BBBxI")
_ID_BYTES = 48  # struct inet_diag_sockid: ports, source at 4, destination at 20, interface, cookie
_ID_AT = 4  # in struct inet_diag_msg
_LISTEN = 10
_ALL_BUT_LISTENING = 0xFFF & ~(1 << _LISTEN)
_ANSWER_S = 0.2
_RECEIVE_BYTES = 1 << 16


def reset_connections(address: str) -> int:
    """Reset every TCP connection whose own end is `address`; return how many there were.

    Raises:
        Refused: the kernel does not let us, or cannot.
    """
    wanted = _forms(address)
    count = 0
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as s:
            s.settimeout(_ANSWER_S)
            for family in (socket.AF_INET, socket.AF_INET6):
                for identity in [i for i in _connections(s, family) if i[4:20] in wanted]:
                    count += _destroy(s, family, identity)
    except OSError as e:
        raise Refused(f"the connections of {address} cannot be reset: {e}") from e
    return count


def _forms(address: str) -> set[bytes]:
    """Return how the kernel may write the address: as itself, or mapped into IPv6 by a socket that takes both."""
    packed = ipaddress.ip_address(address).packed
    return {packed.ljust(16, b"\0"), bytes(10) + b"\xff\xff" + packed} if len(packed) == 4 else {packed}


def _connections(s: socket.socket, family: int) -> Iterator[bytes]:
    body = _WANTED.pack(family, socket.IPPROTO_TCP, 0, _ALL_BUT_LISTENING) + bytes(_ID_BYTES)
    s.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST | _DUMP, 1, 0) + body)
    while True:
        for kind, message in _messages(s.recv(_RECEIVE_BYTES)):
            if kind in (_NLMSG_DONE, _NLMSG_ERROR):
                return
            yield message[_ID_AT : _ID_AT + _ID_BYTES]


def _destroy(s: socket.socket, family: int, identity: bytes) -> int:
    body = _WANTED.pack(family, socket.IPPROTO_TCP, 0, _ALL_BUT_LISTENING) + identity
    s.send(_HEADER.pack(_HEADER.size + len(body), _SOCK_DESTROY, _REQUEST | _ACK, 2, 0) + body)
    for kind, message in _messages(s.recv(_RECEIVE_BYTES)):
        if kind == _NLMSG_ERROR:
            code = -struct.unpack_from("=i", message)[0]
            if code not in (0, errno.ENOENT):  # gone by itself meanwhile
                raise OSError(code, "the kernel refuses to destroy a socket")
            return int(code == 0)
    return 0


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        size, kind, *_ = _HEADER.unpack_from(data)
        if not _HEADER.size <= size <= len(data):
            return
        yield kind, data[_HEADER.size : size]
        data = data[(size + 3) & ~3 :]
