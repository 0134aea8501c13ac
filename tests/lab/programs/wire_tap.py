"""Runs on a sending host of the lab: records what its network carries to and from the members' syslog port over TCP.

argv: FILE. One JSON array a segment: ["out", member, own port, sequence number, whether it is the first of its connection,
data as latin-1] or ["in", member, own port, acknowledged sequence number]. Says "ready" on standard output, ends on
SIGTERM. Standard library only.
"""

import ctypes
import json
import socket
import struct
import sys

PORT = 514
ALL_PROTOCOLS = 3
OUTGOING = 4
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
BUFFER_BYTES = 16 << 20
SYN, ACK = 2, 16

# code, jump if true, jump if not, number: packets to or from the port over TCP. They begin with their IP heads.
FILTER = (
    (0x30, 0, 0, 9),  # the protocol
    (0x15, 0, 6, 6),  # is TCP, else nothing
    (0xB1, 0, 0, 0),  # length of the IP head
    (0x48, 0, 0, 0),  # source port
    (0x15, 2, 0, PORT),
    (0x48, 0, 0, 2),  # destination port
    (0x15, 0, 1, PORT),
    (0x06, 0, 0, 1 << 18),
    (0x06, 0, 0, 0),
)


def tap():
    """Return a socket that sees what FILTER lets through, with room for a busy machine."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in FILTER))
    found = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ALL_PROTOCOLS))
    found.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HL", len(FILTER), ctypes.addressof(code)))
    found.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES)
    return found


def segment(packet, is_outgoing):
    """Return what one packet says, or None if that is nothing."""
    ip_bytes = (packet[0] & 15) * 4
    length = struct.unpack_from("!H", packet, 2)[0] or len(packet)
    source, target, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", packet, ip_bytes)
    if is_outgoing:
        data = packet[ip_bytes + (offset >> 4) * 4 : length]
        if not data and not flags & SYN:
            return None
        return ["out", socket.inet_ntoa(packet[16:20]), source, sequence, bool(flags & SYN), data.decode("latin-1")]
    if not flags & ACK:
        return None
    return ["in", socket.inet_ntoa(packet[12:16]), target, acknowledged]


def main():
    watched = tap()
    with open(sys.argv[1], "w", buffering=1) as out:
        print("ready", flush=True)
        while True:
            packet, (_, _, kind, *_) = watched.recvfrom(1 << 18)
            found = segment(packet, kind == OUTGOING)
            if found is not None:
                out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
