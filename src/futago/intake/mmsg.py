"""Many datagrams with one system call: recvmmsg(2), which Python's socket module does not offer.

The idea: a tray with many cups, held under the tap once. The tray (buffers, the kernel's descriptors of them) is made
once and used again; what comes out are plain bytes.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket

DATAGRAM_BYTES_MAX = 65_536
BATCH = 128  # buffers are touched, and so take memory, only as far as datagrams fill them
SENDERS_MAX = 20_000
_NAME_BYTES = 28  # struct sockaddr_in6
_MAPPED = bytes(10) + b"\xff\xff"
_libc = ctypes.CDLL(None, use_errno=True)

Received = tuple[bytes, bytes, int]


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("hdr", _MsgHdr), ("len", ctypes.c_uint32))


class BatchReceiver:
    """Takes what waits in a UDP socket.

    Args:
        sock: bound, not blocking; IPv4 or IPv6.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._fd = sock.fileno()
        self._is_v6 = sock.family == socket.AF_INET6
        self._data = (ctypes.c_char * (BATCH * DATAGRAM_BYTES_MAX))()
        self._names = (ctypes.c_char * (BATCH * _NAME_BYTES))()
        self._vectors = (_IoVec * BATCH)()
        self._headers = (_MMsgHdr * BATCH)()
        data, names = ctypes.addressof(self._data), ctypes.addressof(self._names)
        for i in range(BATCH):
            self._vectors[i] = _IoVec(data + i * DATAGRAM_BYTES_MAX, DATAGRAM_BYTES_MAX)
            header = self._headers[i].hdr
            header.name, header.namelen = names + i * _NAME_BYTES, _NAME_BYTES
            header.iov, header.iovlen = ctypes.pointer(self._vectors[i]), 1
        self._view, self._name_view = memoryview(self._data).cast("B"), memoryview(self._names).cast("B")
        raw = memoryview(self._headers).cast("B").cast("I")
        step, at = ctypes.sizeof(_MMsgHdr) // 4, _MMsgHdr.len.offset // 4
        self._lengths = raw[at::step]
        self._senders: dict[bytes, tuple[bytes, int]] = {}

    def receive(self) -> list[Received]:
        """Return (data, source in 16 bytes, port) of what waits, at most BATCH; empty if nothing does.

        Raises:
            OSError: as recvmsg(2).
        """
        count = _libc.recvmmsg(self._fd, self._headers, BATCH, socket.MSG_DONTWAIT, None)
        if count < 0:
            number = ctypes.get_errno()
            if number in (errno.EAGAIN, errno.EINTR):
                return []
            raise OSError(number, os.strerror(number))
        view, names, known = self._view, self._name_view, self._senders
        found: list[Received] = []
        name_bytes = _NAME_BYTES if self._is_v6 else 8
        at, name_at = 0, 0
        for length in self._lengths[:count]:
            name = bytes(names[name_at : name_at + name_bytes])
            sender = known.get(name) or self._sender(name)
            found.append((bytes(view[at : at + length]), *sender))
            at += DATAGRAM_BYTES_MAX
            name_at += _NAME_BYTES
        return found

    def _sender(self, name: bytes) -> tuple[bytes, int]:
        """Return address and port in a struct sockaddr."""
        if len(self._senders) >= SENDERS_MAX:
            self._senders.clear()
        address = name[8:24] if self._is_v6 else _MAPPED + name[4:8]
        sender = self._senders[name] = (address, int.from_bytes(name[2:4], "big"))
        return sender
