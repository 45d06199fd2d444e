"""WebSocket frames (RFC 6455 section 5), byte by byte, and the handshake over HTTP/1.1."""

import base64
import hashlib
import os
import struct

from .http1 import answer_head, get

TEXT, BINARY, CONTINUATION, CLOSE, PING, PONG = 1, 2, 0, 8, 9, 10
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
MASK = b"\x37\xfa\x21\x3d"


def accept_of(key):
    text = key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    return base64.b64encode(hashlib.sha1(text.encode()).digest()).decode()


def upgrade(target="/ws", *lines, key=KEY):
    return get(target, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
               f"Sec-WebSocket-Key: {key}", *lines)


def switch(key=KEY, *lines):
    return answer_head(101, "Connection: Upgrade", "Upgrade: websocket",
                       f"Sec-WebSocket-Accept: {accept_of(key)}", *lines,
                       phrase="Switching Protocols")


def masked(payload, mask):
    return bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def frame(opcode, payload=b"", mask=None, fin=True, rsv=0):
    """As a server sends it, or with `mask` as a client does."""
    size, bit = len(payload), 0x80 if mask else 0
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += bytes([bit | 126]) + struct.pack(">H", size)
    else:
        head += bytes([bit | 127]) + struct.pack(">Q", size)
    return head + (mask + masked(payload, mask) if mask else payload)


def close(code, text=b"", mask=None):
    return frame(CLOSE, struct.pack(">H", code) + text, mask)


def read_frame(peer):
    """The next frame that reached this peer: (opcode, payload, whether it was masked)."""
    first, second = peer.read_exactly(2)
    assert first & 0x70 == 0, f"reserved bits are set: {first:#x}"
    size = second & 0x7f
    if size == 126:
        size = struct.unpack(">H", peer.read_exactly(2))[0]
    elif size == 127:
        size = struct.unpack(">Q", peer.read_exactly(8))[0]
    mask = peer.read_exactly(4) if second & 0x80 else None
    payload = peer.read_exactly(size)
    return first & 0x0f, masked(payload, mask) if mask else payload, mask is not None


def expect_close(peer, code, is_masked):
    """A Close with that code, masked if it goes to a server."""
    opcode, payload, was_masked = read_frame(peer)
    assert (opcode, payload[:2], was_masked) == (CLOSE, struct.pack(">H", code), is_masked)


def open_tunnel(client, origin, target="/ws", *lines):
    """(client, upstream), switched."""
    upstream = origin.asked_by(client, upgrade(target, *lines))
    upstream.send(switch())
    assert client.read_response().status == 101
    return client, upstream


def random_text(size):
    return base64.b64encode(os.urandom(size))[:size]
