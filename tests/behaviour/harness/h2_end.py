"""One end of an HTTP/2 connection, played by python3-h2: what H2Server, H2TunnelClient and H2Caller
have in common.

python3-h2 checks what weir sends: a frame or a header that RFC 9113 forbids fails the test.
"""

import h2.config
import h2.connection
import h2.events

from .peer import Silent


class H2End:
    def __init__(self, peer, client_side):
        self.peer = peer
        config = h2.config.H2Configuration(client_side=client_side, header_encoding="utf-8")
        self.h2 = h2.connection.H2Connection(config=config)
        self.goaway = None      # the event of weir's GOAWAY
        self.ended = False

    def __repr__(self):
        return f"<ended={self.ended} {self.goaway}>"

    def flush(self):
        """Everything that python3-h2 has to say."""
        data = self.h2.data_to_send()
        if data:
            self.send_bytes(data)

    def send_bytes(self, data):
        self.peer.send(data)

    def fill(self):
        """What weir sends next; False at the end of the connection."""
        if self.ended or not self.peer.fill():
            self.ended = True
            return False
        self.feed(self.peer.take(len(self.peer.buffered)))
        return True

    def feed(self, data):
        events = self.h2.receive_data(data)
        for event in events:
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goaway = event  # behind it python3-h2 sends nothing more
        for event in events:
            self.on_event(event)
        self.flush()

    def on_event(self, event):
        raise NotImplementedError

    def until(self, condition, what):
        """Takes what comes until condition() is true; returns its value."""
        while not (value := condition()):
            try:
                more = self.fill()
            except Silent:
                raise AssertionError(f"never came: {what}; {self}") from None
            assert more, f"weir ended the connection before {what}; {self}"
        return value
