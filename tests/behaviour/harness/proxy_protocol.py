"""PROXY protocol headers: builders for tests, and a reader that forgives nothing."""

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6, UNIX, UNSPEC, UDP4 = 0x11, 0x21, 0x31, 0x00, 0x12
CRC32C, NOOP, SSL = 0x03, 0x04, 0x20


def v1(source="203.0.113.9", destination="198.51.100.1", source_port=4711, destination_port=443,
       family=None):
    family = family or ("TCP6" if ":" in source else "TCP4")
    return f"PROXY {family} {source} {destination} {source_port} {destination_port}\r\n".encode()


def addresses(source, destination, source_port, destination_port):
    packed = [ipaddress.ip_address(one).packed for one in (source, destination)]
    return b"".join(packed) + struct.pack("!HH", source_port, destination_port)


def v2_raw(command, family, block):
    return SIGNATURE + bytes([command, family]) + struct.pack("!H", len(block)) + block


def v2(source="203.0.113.9", destination="198.51.100.1", source_port=4711, destination_port=443,
       tlvs=b""):
    block = addresses(source, destination, source_port, destination_port)
    return v2_raw(PROXY, TCP6 if ":" in source else TCP4, block + tlvs)


def tlv(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def crc32c(data):
    crc = 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def with_crc(before=b"", after=b"", wrong=0, **ends):
    """A version 2 header with a checksum among its TLVs; `wrong` is added to it."""
    header = v2(tlvs=before + tlv(CRC32C, bytes(4)) + after, **ends)
    at = len(header) - len(after) - 4
    value = (crc32c(header) + wrong) & 0xffffffff
    return header[:at] + struct.pack("!I", value) + header[at + 4:]


class Told:
    """What a header said. `kind` is TCP4, TCP6, UNKNOWN or LOCAL."""

    def __init__(self, kind, source=None, destination=None):
        self.kind, self.source, self.destination = kind, source, destination

    def __eq__(self, other):
        return vars(self) == vars(other)

    def __repr__(self):
        return f"Told({self.kind}, {self.source}, {self.destination})"


def read_v1(peer):
    """Takes a version 1 header off a peer's bytes."""
    line = peer.read_until(b"\r\n")
    if line == b"PROXY UNKNOWN\r\n":
        return Told("UNKNOWN")
    assert len(line) <= 107, line
    word, kind, *texts = line[:-2].decode("ascii").split(" ")
    assert (word, len(texts)) == ("PROXY", 4) and kind in ("TCP4", "TCP6"), line
    family = ipaddress.IPv4Address if kind == "TCP4" else ipaddress.IPv6Address
    for port in texts[2:]:
        assert str(int(port)) == port and int(port) < 65536, line
    hosts = [str(family(text)) for text in texts[:2]]
    return Told(kind, (hosts[0], int(texts[2])), (hosts[1], int(texts[3])))


def read_v2(peer):
    """Takes a version 2 header off a peer's bytes."""
    head = peer.read_exactly(16)
    assert head[:12] == SIGNATURE, head
    command, kind, size = struct.unpack("!BBH", head[12:])
    block = peer.read_exactly(size)
    if command == LOCAL:
        assert (kind, block) == (UNSPEC, b""), (kind, block)
        return Told("LOCAL")
    assert command == PROXY and (kind, size) in ((TCP4, 12), (TCP6, 36)), (head, block)
    width = 4 if kind == TCP4 else 16
    source, destination = (str(ipaddress.ip_address(block[at:at + width])) for at in (0, width))
    ports = struct.unpack("!HH", block[2 * width:])
    return Told("TCP4" if width == 4 else "TCP6", (source, ports[0]), (destination, ports[1]))
