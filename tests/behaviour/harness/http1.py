"""HTTP/1.x messages: builders for tests, and a parser that forgives nothing.

The parser is stricter than any real peer: weir's output must be well formed to the last byte
(RFC 9112 sections 2 to 7), so every liberty is an assertion error here.
"""

import re

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) ([\t \x21-\x7e\x80-\xff]*)")
_REQUEST_LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.1")
_FIELD = re.compile(rb"(" + TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*"
                    rb"[\x21-\x7e\x80-\xff])?)?)[ \t]*")


class Malformed(AssertionError):
    """The other side sent something that is no HTTP/1.1 message."""


class Message:
    """A parsed message. Names compare without case; message["X"] is the one value of X, or None.

    `trailers` has its names in lower case, `chunks` the data of each chunk as it was framed.
    """

    def __init__(self):
        self.method = None
        self.target = None
        self.status = None
        self.phrase = None
        self.fields = []
        self.body = b""
        self.chunks = []
        self.trailers = []
        self.head = b""

    def all(self, name):
        return [value for have, value in self.fields if have.lower() == name.lower()]

    def __getitem__(self, name):
        values = self.all(name)
        assert len(values) <= 1, f"{name} comes {len(values)} times: {values}"
        return values[0] if values else None

    def __contains__(self, name):
        return bool(self.all(name))

    @property
    def chunked(self):
        return "Transfer-Encoding" in self

    @property
    def reason(self):
        """The reason in weir's own Proxy-Status (RFC 9209); None: it is not weir's answer."""
        value = self["Proxy-Status"]
        if value is None:
            return None
        match = re.fullmatch(r'weir; error=([a-z_]+); details="([a-z_]+)"', value)
        assert match, f"odd Proxy-Status: {value!r}"
        return match.group(2)

    def __repr__(self):
        start = f"{self.method} {self.target}" if self.method else f"{self.status} {self.phrase}"
        return f"<{start} {self.fields} body={len(self.body)}>"


def parse_fields(block):
    """Field lines, each ended by CRLF, to a list of (name, value)."""
    fields = []
    for line in _lines(block):
        match = _FIELD.fullmatch(line)
        if not match:
            raise Malformed(f"bad field line {line!r}")
        fields.append((match.group(1).decode(), match.group(2).decode("latin-1")))
    return fields


def _lines(block):
    if not block:
        return []
    if not block.endswith(b"\r\n"):
        raise Malformed(f"no CRLF at the end of {block!r}")
    lines = block[:-2].split(b"\r\n")
    for line in lines:
        if b"\r" in line or b"\n" in line:
            raise Malformed(f"bare CR or LF in {line!r}")
    return lines


def parse_head(head, kind):
    """`head` ends with the empty line; `kind` is "request" or "response"."""
    message = Message()
    message.head = head
    if not head.endswith(b"\r\n\r\n"):
        raise Malformed(f"head without its empty line: {head!r}")
    start, _, rest = head[:-2].partition(b"\r\n")
    pattern = _REQUEST_LINE if kind == "request" else _STATUS_LINE
    match = pattern.fullmatch(start)
    if not match:
        raise Malformed(f"bad start line {start!r}")
    if kind == "request":
        message.method, message.target = match.group(1).decode(), match.group(2).decode()
    else:
        message.status, message.phrase = int(match.group(1)), match.group(2).decode("latin-1")
    message.fields = parse_fields(rest)
    if kind == "request" and len(message.all("Host")) != 1:
        raise Malformed(f"a request needs one Host: {message}")
    return message


def body_kind(message, request_method=None):
    """("none" | "length" | "chunked" | "until_close", length) of RFC 9112 section 6.3."""
    coding, lengths = message.all("Transfer-Encoding"), message.all("Content-Length")
    if coding and lengths:
        raise Malformed(f"both Transfer-Encoding and Content-Length: {message}")
    if len(lengths) > 1 or (lengths and not re.fullmatch("0|[1-9][0-9]*", lengths[0])):
        raise Malformed(f"bad Content-Length {lengths}")
    if coding and coding != ["chunked"]:
        raise Malformed(f"bad Transfer-Encoding {coding}")
    if message.status is not None:
        if message.status < 200 or message.status == 204:
            if coding or lengths:
                raise Malformed(f"framing fields in a {message.status}: {message}")
            return "none", 0
        if request_method == "HEAD" or message.status == 304:
            return "none", 0
    if coding:
        return "chunked", 0
    if lengths:
        return "length", int(lengths[0])
    return ("none", 0) if message.status is None else ("until_close", 0)


def _block(start, lines, body):
    lines = [line if isinstance(line, bytes) else line.encode("latin-1") for line in lines]
    return b"\r\n".join([start.encode("latin-1"), *lines, b"", b""]) + body


def get(target="/", *lines, method="GET", host="test", version="1.1"):
    """A request without a body. `lines` are more field lines, without CRLF."""
    return _block(f"{method} {target} HTTP/{version}", [f"Host: {host}", *lines], b"")


def post(target="/", body=b"", *lines, method="POST", host="test", version="1.1"):
    """A request with a body of known length."""
    lines = [f"Host: {host}", f"Content-Length: {len(body)}", *lines]
    return _block(f"{method} {target} HTTP/{version}", lines, body)


def post_chunked(target="/", *parts, lines=(), trailers=(), method="POST", host="test"):
    """A request whose body comes in one chunk per part."""
    lines = [f"Host: {host}", "Transfer-Encoding: chunked", *lines]
    return _block(f"{method} {target} HTTP/1.1", lines, chunked(*parts, trailers=trailers))


def answer(status=200, body=b"", *lines, version="1.1", phrase="Fine"):
    """A response with a body of known length."""
    return _block(f"HTTP/{version} {status} {phrase}", [f"Content-Length: {len(body)}", *lines],
                  body)


def answer_head(status=200, *lines, version="1.1", phrase="Fine"):
    """A response's head alone: framing is up to `lines`."""
    return _block(f"HTTP/{version} {status} {phrase}", lines, b"")


def answer_chunked(*parts, lines=(), trailers=(), status=200):
    head = answer_head(status, "Transfer-Encoding: chunked", *lines)
    return head + chunked(*parts, trailers=trailers)


def chunk(part, extension=b""):
    return b"%x%s\r\n%s\r\n" % (len(part), extension, part)


def chunked(*parts, trailers=()):
    """A chunked body: one chunk per part, the last chunk, the trailer section."""
    end = b"".join(line.encode("latin-1") + b"\r\n" for line in trailers)
    return b"".join(chunk(part) for part in parts) + b"0\r\n" + end + b"\r\n"
