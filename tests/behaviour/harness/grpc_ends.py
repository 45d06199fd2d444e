"""gRPC at both ends of weir: grpcio's client and server without generated code, so that messages
are bytes, and a client of python3-h2 whose every frame the test decides.

    with GrpcEnds(stage) as ends:
        ends.serve(Echo=unary(lambda message, context: message))
        assert ends.unary("Echo")(b"hello") == b"hello"

The server listens on the stage's port `@grpc`, from `serve` on.
"""

import contextlib
import re
import threading
from concurrent import futures

import grpc
import h2.events

from .h2_end import H2End
from .wait import PATIENCE

THREADS = 256
OPTIONS = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1),
           ("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0),
           ("grpc.use_local_subchannel_pool", 1)]

unary = grpc.unary_unary_rpc_method_handler
server_stream = grpc.unary_stream_rpc_method_handler
client_stream = grpc.stream_unary_rpc_method_handler
both_stream = grpc.stream_stream_rpc_method_handler


def path_of(method):
    return f"/test.Service/{method}"


class _Methods(grpc.GenericRpcHandler):
    def __init__(self, methods):
        self.methods = {path_of(name): handler for name, handler in methods.items()}

    def service(self, handler_call_details):
        return self.methods.get(handler_call_details.method)


class Watched:
    """A method (server_stream) that waits until its call is over, however that comes about."""

    def __init__(self, first=None):
        self.first = first
        self.begun, self.over = threading.Event(), threading.Event()
        self.left_s = None

    def __call__(self, message, context):
        context.add_callback(self.over.set)
        self.left_s = context.time_remaining()
        self.begun.set()
        if self.first is not None:
            yield self.first
        self.over.wait(PATIENCE * 2)


class GrpcEnds:
    def __init__(self, stage, client_name=None, server_name=None):
        """With names: over TLS, with certificates of harness/tls.py for them."""
        self.stage = stage
        self.server = None
        self.channels = contextlib.ExitStack()
        self.client_name, self.server_name = client_name, server_name

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channels.close()
        self.stop()

    def serve(self, **methods):
        port = self.stage.things["grpc"]
        pool = futures.ThreadPoolExecutor(THREADS)
        self.server = grpc.server(pool, [_Methods(methods)],
                                  options=[*OPTIONS, ("grpc.so_reuseport", 1)])
        if self.server_name:
            pem = self._read(f"{self.server_name}.pem")
            parts = re.findall(rb"-----BEGIN [^-]+-----.+?-----END [^-]+-----\n", pem, re.S)
            (key,) = [part for part in parts if b"PRIVATE KEY" in part]
            (certificate,) = [part for part in parts if b"CERTIFICATE" in part]
            credentials = grpc.ssl_server_credentials([(key, certificate)])
            assert self.server.add_secure_port(port.address, credentials) == port.number
        else:
            assert self.server.add_insecure_port(port.address) == port.number
        self.server.start()

    def stop(self):
        """Calls that are still there are cancelled."""
        if self.server:
            self.server.stop(None).wait(PATIENCE)
        self.server = None

    def channel(self, name="web", **more):
        """A connection of its own; name "grpc" is the server itself, past weir."""
        address, options = self.stage.address(name), list(OPTIONS)
        if not self.client_name:
            return self.channels.enter_context(
                grpc.insecure_channel(address, options=options, **more))
        options.append(("grpc.ssl_target_name_override", self.client_name))
        credentials = grpc.ssl_channel_credentials(self._read("ca.pem"))
        return self.channels.enter_context(
            grpc.secure_channel(address, credentials, options=options, **more))

    def _read(self, file):
        with open(f"{self.stage.directory}/{file}", "rb") as pem:
            return pem.read()

    def unary(self, method, name="web"):
        return self.channel(name).unary_unary(path_of(method))

    def server_stream(self, method, name="web"):
        return self.channel(name).unary_stream(path_of(method))

    def client_stream(self, method, name="web"):
        return self.channel(name).stream_unary(path_of(method))

    def both_stream(self, method, name="web"):
        return self.channel(name).stream_stream(path_of(method))


def answer_together(count):
    """A method (unary) that answers nobody before all `count` calls are there."""
    barrier = threading.Barrier(count)

    def wait(message, context):
        barrier.wait(PATIENCE * 2)
        return message

    return unary(wait)


def calls_at_once(ends, method, count):
    """So many calls side by side, over two connections: their answers."""
    call = [ends.unary(method), ends.unary(method)]
    calls = [call[i % 2].future(b"%d" % i, timeout=PATIENCE * 3) for i in range(count)]
    return [one.result() for one in calls]


def failure(call):
    """The grpc.RpcError that `call` ends with."""
    try:
        got = call()
    except grpc.RpcError as error:
        return error
    raise AssertionError(f"the call went well: {got!r}")


def frame_of(message, compressed=0):
    """A message as it stands in the body."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Call:
    """What has come back for one call of an H2Caller."""

    def __init__(self, caller, stream):
        self.caller = caller
        self.id = stream
        self.head = None          # the fields of the answer
        self.head_ended = False   # the head was all of it: trailers-only
        self.body = bytearray()
        self.trailers = None
        self.ended = False
        self.reset = None         # the error code of weir's RST_STREAM

    def until(self, condition, what):
        return self.caller.until(lambda: condition(self), f"{what}: {vars(self)}")

    def wait(self):
        """The whole answer, or its reset."""
        self.until(lambda call: call.ended or call.reset is not None, "an end")
        return self

    @property
    def status(self):
        """grpc-status, wherever it stands."""
        return (self.trailers or self.head).get("grpc-status")


class H2Caller(H2End):
    """A client connection that speaks HTTP/2 by prior knowledge."""

    def __init__(self, client, each_byte=False):
        super().__init__(client, client_side=True)
        self.send_bytes = client.send_each_byte if each_byte else client.send
        self.stingy = False       # what arrives opens no window
        self.unread = 0
        self.calls = {}
        self.h2.initiate_connection()
        self.flush()

    def request(self, *fields, path=path_of("Any")):
        """The head of a POST."""
        stream = self.h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test")]
        self.h2.send_headers(stream, [*head, *fields])
        self.flush()
        self.calls[stream] = Call(self, stream)
        return self.calls[stream]

    def call(self, *fields, message=b"\0\0\0\0\2hi", end=True):
        call = self.request(("te", "trailers"), ("content-type", "application/grpc"), *fields)
        self.data(call, message, end)
        return call

    def data(self, call, data, end=False):
        self.h2.send_data(call.id, data, end_stream=end)
        self.flush()

    def read_on(self, call):
        """What has arrived is read: the windows open."""
        self.stingy = False
        if self.unread:
            self.h2.acknowledge_received_data(self.unread, call.id)
        self.unread = 0
        self.flush()

    def cancel(self, call, code=8):
        self.h2.reset_stream(call.id, code)
        self.flush()

    def on_event(self, event):
        call = self.calls.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            call.head = dict(event.headers)
            call.head_ended = event.stream_ended is not None
        elif isinstance(event, h2.events.DataReceived):
            call.body += event.data
            self.unread += event.flow_controlled_length
            if not self.stingy:
                self.read_on(call)
        elif isinstance(event, h2.events.TrailersReceived):
            call.trailers = dict(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            call.ended = True
        elif isinstance(event, h2.events.StreamReset):
            call.reset = event.error_code
