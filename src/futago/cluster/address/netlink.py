"""Addresses of an interface, straight through the kernel's route netlink: add, remove, look.

A few dozen lines instead of a library, because the guard and a controller that was just killed must be there within
milliseconds (importing pyroute2 takes 0.2 to 0.3 s), and because removing an address must need nothing but the
kernel. All calls take well under a millisecond and never wait for the network. IPv4 and IPv6.

An IPv6 address is added without duplicate address detection, which would keep it unusable for a second or more: the
vote has decided already who has it. It is also added as deprecated, so that the kernel never chooses it for what this
machine itself begins. One that is there but has not passed detection (somebody else added it) does not count as held.

Source: rtnetlink(7), netlink(7), linux/if_addr.h, linux/rtnetlink.h; RFC 4862 sections 5.4 and 5.5.4.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import socket
import struct
from dataclasses import dataclass

from futago.runtime.faults import Refused

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, interface
_ATTRIBUTE = struct.Struct("=HH")
_CACHE_INFO = struct.Struct("=IIII")  # ifa_cacheinfo: preferred, valid, created, updated
NLMSG_ERROR, NLMSG_DONE = 2, 3
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_EXCL, NLM_F_CREATE = 1, 4, 0x300, 0x200, 0x400
IFA_ADDRESS, IFA_LOCAL, IFA_CACHEINFO, IFA_FLAGS = 1, 2, 6, 8
IFA_F_NODAD, IFA_F_OPTIMISTIC, IFA_F_DADFAILED, IFA_F_TENTATIVE, IFA_F_NOPREFIXROUTE = 0x02, 0x04, 0x08, 0x40, 0x200
RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR = 1, 0x10, 0x100
FOREVER = 0xFFFFFFFF
WAIT_S_MAX = 1.0
READ_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Found:
    """One address of an interface. `is_usable`: it has passed, or needs no, duplicate address detection."""

    address: str
    prefix: int
    is_usable: bool = True


def add(interface: str, address: str) -> None:
    """Give the interface this address alone (/32 or /128); nothing happens if it has it. Raises Refused."""
    if any(f.address == _plain(address) and not f.is_usable for f in find(interface)):
        remove(interface, address)
    _change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, interface, address, fine=errno.EEXIST)


def remove(interface: str, address: str) -> None:
    """Take this address from the interface; nothing happens if it has not got it. Raises Refused."""
    for prefix in sorted({f.prefix for f in find(interface) if f.address == _plain(address)}):
        _change(RTM_DELADDR, 0, interface, address, prefix=prefix, fine=errno.EADDRNOTAVAIL)


def addresses(interface: str) -> list[tuple[str, int]]:
    """Return the addresses of an interface with their prefix lengths, but for its link-local ones. Raises Refused."""
    return [(f.address, f.prefix) for f in find(interface) if not ipaddress.ip_address(f.address).is_link_local]


def find(interface: str) -> list[Found]:
    """Return every address of an interface. Raises Refused."""
    index = _index(interface)
    found: list[Found] = []
    for family in (socket.AF_INET, socket.AF_INET6):
        with _open() as s:
            _send(s, RTM_GETADDR, NLM_F_DUMP, _IFADDR.pack(family, 0, 0, 0, 0))
            found += [f for f in _dump(s, index)]
    return found


def holds(interface: str, address: str) -> bool:
    """Has the interface this address, and may it use it? Raises Refused."""
    return any(f.address == _plain(address) and f.is_usable for f in find(interface))


def watch() -> socket.socket:
    """Return a socket that becomes readable whenever an address or a link of this machine changes."""
    s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, 0)
    s.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
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


def _plain(address: str) -> str:
    return str(ipaddress.ip_address(address))


def _dump(s: socket.socket, index: int) -> list[Found]:
    found: list[Found] = []
    while True:
        for kind, body in _messages(_receive(s)):
            if kind == NLMSG_DONE:
                return found
            if kind == NLMSG_ERROR:
                raise Refused(f"netlink: {os.strerror(-struct.unpack_from('=i', body)[0])}")
            if kind == RTM_NEWADDR and _IFADDR.unpack_from(body)[4] == index:
                found += _one(body)


def _one(body: bytes) -> list[Found]:
    _family, prefix, flags, _scope, _owner = _IFADDR.unpack_from(body)
    said = _attributes(body[_IFADDR.size :])
    raw = said.get(IFA_LOCAL) or said.get(IFA_ADDRESS)
    if raw is None:
        return []
    if IFA_FLAGS in said:
        (flags,) = struct.unpack("=I", said[IFA_FLAGS])
    is_waiting = flags & IFA_F_TENTATIVE and not flags & IFA_F_OPTIMISTIC
    return [Found(str(ipaddress.ip_address(raw)), prefix, not is_waiting and not flags & IFA_F_DADFAILED)]


def _change(kind: int, flags: int, interface: str, address: str, *, prefix: int | None = None, fine: int) -> None:
    ip = ipaddress.ip_address(address)
    family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
    body = _IFADDR.pack(family, ip.max_prefixlen if prefix is None else prefix, 0, 0, _index(interface))
    body += _attribute(IFA_LOCAL, ip.packed) + _attribute(IFA_ADDRESS, ip.packed)
    if family == socket.AF_INET6 and kind == RTM_NEWADDR:
        body += _attribute(IFA_FLAGS, struct.pack("=I", IFA_F_NODAD | IFA_F_NOPREFIXROUTE))
        body += _attribute(IFA_CACHEINFO, _CACHE_INFO.pack(0, FOREVER, 0, 0))
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
    try:
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    except OSError as e:  # no descriptor or memory left: whoever asks has more to do than this
        raise Refused(f"netlink: {e}") from e
    try:
        s.settimeout(WAIT_S_MAX)
        s.bind((0, 0))
    except OSError as e:
        s.close()
        raise Refused(f"netlink: {e}") from e
    return s


def _send(s: socket.socket, kind: int, flags: int, body: bytes) -> None:
    try:
        s.send(_HEADER.pack(_HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
    except OSError as e:
        raise Refused(f"netlink: {e}") from e


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
