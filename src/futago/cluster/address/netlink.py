"""Addresses of an interface, straight through the kernel's route netlink: add, remove, look.

A few dozen lines instead of a library, because the guard and a controller that was just killed must be there within
milliseconds (importing pyroute2 takes 0.2 to 0.3 s), and because removing an address must need nothing but the
kernel. All calls take well under a millisecond and never wait for the network. IPv4.

Source: rtnetlink(7), netlink(7), linux/if_addr.h, linux/rtnetlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct

from futago.runtime.faults import Refused

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, interface
_ATTRIBUTE = struct.Struct("=HH")
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x300, 0x200, 0x400
IFA_ADDRESS, IFA_LOCAL = 1, 2
RTMGRP_LINK, RTMGRP_IPV4_IFADDR = 1, 0x10
WAIT_S_MAX = 1.0
READ_BYTES = 65536


def add(interface: str, address: str) -> None:
    """Give the interface this address as a /32; nothing happens if it has it. Raises Refused."""
    _change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, interface, address, fine=errno.EEXIST)


def remove(interface: str, address: str) -> None:
    """Take this address from the interface; nothing happens if it has not got it. Raises Refused."""
    for prefix in sorted({p for a, p in addresses(interface) if a == address}):
        _change(RTM_DELADDR, 0, interface, address, prefix=prefix, fine=errno.EADDRNOTAVAIL)


def addresses(interface: str) -> list[tuple[str, int]]:
    """Return the IPv4 addresses of an interface with their prefix lengths. Raises Refused."""
    index = _index(interface)
    with _open() as s:
        _send(s, RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(socket.AF_INET, 0, 0, 0, 0))
        found: list[tuple[str, int]] = []
        while True:
            for kind, body in _messages(_receive(s)):
                if kind == NLMSG_DONE:
                    return found
                if kind == NLMSG_ERROR:
                    raise Refused(f"netlink: {os.strerror(-struct.unpack_from('=i', body)[0])}")
                if kind == RTM_NEWADDR:
                    _family, prefix, _flags, _scope, owner = _IFADDR.unpack_from(body)
                    local = _attributes(body[_IFADDR.size :]).get(IFA_LOCAL)
                    if owner == index and local is not None:
                        found.append((socket.inet_ntoa(local), prefix))


def holds(interface: str, address: str) -> bool:
    """Does the interface have this address? Raises Refused."""
    return any(a == address for a, _ in addresses(interface))


def watch() -> socket.socket:
    """Return a socket that becomes readable whenever an address or a link of this machine changes."""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    s.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR))
    return s


def drain(s: socket.socket) -> None:
    """Empty a socket of `watch`; what it said does not matter, since its reader looks for itself."""
    with contextlib.suppress(BlockingIOError):
        while True:
            try:
                s.recv(READ_BYTES)
            except OSError as e:
                if e.errno != errno.ENOBUFS:  # it could not keep up: that is news as well
                    raise


def _change(kind: int, flags: int, interface: str, address: str, *, prefix: int = 32, fine: int) -> None:
    raw = socket.inet_aton(address)
    body = _IFADDR.pack(socket.AF_INET, prefix, 0, 0, _index(interface))
    body += _attribute(IFA_LOCAL, raw) + _attribute(IFA_ADDRESS, raw)
    with _open() as s:
        _send(s, kind, flags | NLM_F_ACK, body)
        for answer, said in _messages(_receive(s)):
            code = -struct.unpack_from("=i", said)[0] if answer == NLMSG_ERROR else 0
            if code not in (0, fine):
                raise Refused(f"{interface} {address}: {os.strerror(code)}")


def _index(interface: str) -> int:
    try:
        return socket.if_nametoindex(interface)
    except OSError as e:
        raise Refused(f"there is no interface {interface}") from e


def _open() -> socket.socket:
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    s.settimeout(WAIT_S_MAX)
    s.bind((0, 0))
    return s


def _send(s: socket.socket, kind: int, flags: int, body: bytes) -> None:
    s.send(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)


def _receive(s: socket.socket) -> bytes:
    try:
        return s.recv(READ_BYTES)
    except OSError as e:
        raise Refused(f"netlink: {e}") from e


def _messages(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            break
        found.append((kind, data[at + _HEADER.size : at + length]))
        at += (length + 3) & ~3
    return found


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
    return found
