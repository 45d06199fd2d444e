"""Bodies that pass inside the kernel end as others do: broken off, late, drained."""

import signal
import time

import pytest

from harness.bulk import (ENDLESS, INI, MB, MUCH, SHORT_S, Sending, download, held, tunnel,
                          upload)
from harness.http1 import answer, answer_head, get, post


@pytest.mark.parametrize("way", ["reset", "close"])
def test_an_origin_that_breaks_off_leaves_a_cut_answer(stage, client, way):
    upstream, sending = download(stage, client, MUCH[:4 * MB], size=len(MUCH))
    got = client.read_exactly(4 * MB)
    sending.done()
    getattr(upstream, way)()
    assert got == MUCH[:4 * MB]
    client.expect_close()
    _, other = stage.exchange(get("/next"), answer(200, b"next"))
    assert other.body == b"next"


def test_what_an_origin_sent_before_it_broke_off_arrives(stage):
    client = stage.connect("narrow", recv_buffer=4096)
    upstream, sending = download(stage, client, MUCH[:MB], size=len(MUCH))
    sending.done()
    held(stage)
    upstream.close()
    assert client.read_to_end() == MUCH[:MB]


def test_a_close_delimited_body_that_breaks_off_is_reset(stage, client):
    upstream, sending = download(stage, client, MUCH[:4 * MB], version="1.0")
    client.read_exactly(4 * MB)
    sending.done()
    upstream.reset()
    client.expect_reset()


@pytest.mark.parametrize("when", ["moving", "held"])
@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_client_that_goes_resets_the_origin(stage, way, when):
    client = stage.connect("narrow", recv_buffer=4096 if when == "held" else 0)
    upstream, sending = download(stage, client, MUCH)
    if when == "held":
        held(stage)
    else:
        client.read_exactly(MB)
    getattr(client, way)()
    sending.wait()
    upstream.expect_end()


@pytest.mark.parametrize("when", ["moving", "held"])
@pytest.mark.parametrize("way", ["reset", "close"])
def test_a_client_that_breaks_off_its_upload_resets_the_origin(stage, client, origin, way, when):
    upstream = upload(stage, client, ENDLESS)
    if when == "held":
        client.send_until_stuck(MUCH)
        held(stage)
    else:
        client.send(MUCH[:2 * MB])
        upstream.expect(MUCH[:2 * MB])
    getattr(client, way)()
    upstream.expect_reset()


@pytest.mark.parametrize("when", ["moving", "held"])
def test_an_origin_that_breaks_off_an_upload_is_a_502(stage, client, origin, when):
    upstream = upload(stage, client, ENDLESS, method="PUT")
    if when == "held":
        client.send_until_stuck(MUCH)
        held(stage)
    else:
        client.send(MUCH[:2 * MB])
        upstream.expect(MUCH[:2 * MB])
    upstream.reset()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_reset")
    client.expect_end()


def test_an_upload_that_has_begun_to_pass_is_not_sent_again(stage, client, origin):
    """A reused connection dies when a part of the body is on its way: it exists nowhere else."""
    _, got = stage.exchange(get(), client=client)
    upstream = upload(stage, client, len(MUCH), method="PUT")
    sending = Sending(client, MUCH)
    held(stage)
    upstream.reset()
    got = client.read_response()
    assert (got.status, got.reason) == (502, "server_reset")
    client.expect_end()
    sending.wait()
    assert len(origin.connections) == 1


@pytest.mark.parametrize("way", ["reset", "close"])
@pytest.mark.parametrize("who", ["client", "upstream"])
def test_a_tunnel_ends_while_it_holds_bytes(stage, client, who, way):
    upstream = tunnel(stage, client)
    upstream.send_until_stuck(MUCH)
    held(stage)
    getattr(client if who == "client" else upstream, way)()
    if who == "client":
        upstream.expect_end()
    else:
        client.expect_end()


# Time.

def ended(stage, reason):
    """Whether an exchange of this test's own weir ended so."""
    stage.weir.eventually_metric(1, "weir_http_exchanges_ended_total", reason=reason)


def test_a_client_that_stops_reading_is_ended_by_its_own_timeout(new_stage):
    """Though the server's would pass first: its bytes are what the client does not take."""
    stage = new_stage(INI)
    client = stage.connect("impatient", recv_buffer=4096)
    upstream, sending = download(stage, client, MUCH)
    ended(stage, "client_timeout")
    sending.wait()
    upstream.expect_end()


def test_a_client_that_reads_slowly_is_not_late(stage):
    client = stage.connect("impatient", recv_buffer=65536)
    _, sending = download(stage, client, MUCH)
    got = b""
    for _ in range(20):
        got += client.read_exactly(50000)
        time.sleep(SHORT_S / 4)
    assert got + client.read_exactly(len(MUCH) - len(got)) == MUCH
    sending.done()


def test_an_origin_that_stops_midway_is_late(new_stage):
    stage = new_stage(INI)
    client = stage.connect("impatient")
    upstream, _ = download(stage, client, MUCH[:4 * MB], size=len(MUCH))
    assert client.read_to_end() == MUCH[:4 * MB]
    upstream.expect_end()
    ended(stage, "server_timeout")


def test_a_client_that_stops_midway_is_late(new_stage):
    stage = new_stage(INI)
    client = stage.connect("impatient")
    upstream = stage.origin.asked_by(client, post("/", MUCH)[:4 * MB], whole=False)
    got = client.read_response()
    assert (got.status, got.reason) == (408, "client_timeout")
    client.expect_end()
    upstream.expect_end()


def test_an_origin_that_stops_reading_is_late(new_stage):
    stage = new_stage(INI)
    client = stage.connect("impatient")
    upload(stage, client, ENDLESS)
    client.send_until_stuck(MUCH, stuck_s=0.1)
    got = client.read_response()
    assert (got.status, got.reason) == (504, "server_timeout")
    client.expect_end()


def test_a_client_is_not_late_while_its_origin_does_not_read(stage, origin):
    client = stage.connect("patient")
    upstream = upload(stage, client, len(MUCH))
    sending = Sending(client, MUCH)
    held(stage)
    time.sleep(3 * SHORT_S)
    upstream.expect(MUCH)
    sending.done()
    upstream.send(answer(200, b"all"))
    assert client.read_response().body == b"all"


def test_a_slow_origin_does_not_make_the_client_too_slow(stage):
    """min_read_rate counts the time in which there was room to read."""
    client = stage.connect("rate")
    upstream = upload(stage, client, 6 * MB, stage.origins["originunix"])
    sending = Sending(client, MUCH[:6 * MB])
    held(stage)
    time.sleep(3)
    upstream.expect(MUCH[:6 * MB])
    sending.done()
    upstream.send(answer(200, b"all"))
    assert client.read_response().body == b"all"


def test_a_server_is_not_late_while_the_answer_before_is_not_read(stage, origin):
    """The second answer passes behind the first, which is still queued: nothing of it is read."""
    client = stage.connect("impatient", recv_buffer=4096)
    client.send(get("/first") + get("/second"))
    upstream = origin.next()
    assert upstream.read_request().target == "/first"
    first = MUCH[:60000]
    answers = stage.counter("weir_upstream_requests_total")
    upstream.send(answer(200, first))
    assert upstream.read_request().target == "/second"
    upstream.send(answer_head(200, f"Content-Length: {len(MUCH)}"))
    answers.grows(2)
    sending = Sending(upstream, MUCH)
    time.sleep(1.5 * SHORT_S)
    assert client.read_response().body == first
    assert client.read_response().body == MUCH
    sending.done()


def test_a_tunnel_without_a_byte_is_ended(new_stage):
    stage = new_stage(INI)
    client = stage.connect("impatient")
    upstream = tunnel(stage, client)
    sending = Sending(upstream, MUCH[:4 * MB])
    client.expect(MUCH[:4 * MB])
    sending.done()
    client.expect_end()
    upstream.expect_end()
    ended(stage, "tunnel_timeout")


def test_a_tunnel_whose_reader_stands_still_is_ended(new_stage):
    stage = new_stage(INI)
    client = stage.connect("impatient", recv_buffer=4096)
    upstream = tunnel(stage, client)
    sending = Sending(upstream, MUCH)
    ended(stage, "tunnel_timeout")
    sending.wait()


def test_a_tunnel_whose_reader_is_slow_goes_on(stage):
    """Nothing is read from the sender for longer than the timeout, but bytes move."""
    client = stage.connect("wide", recv_buffer=65536)
    upstream = tunnel(stage, client)
    sending = Sending(upstream, MUCH)
    held(stage)
    got = b""
    for _ in range(20):
        got += client.read_exactly(20000)
        time.sleep(SHORT_S / 4)
    assert got + client.read_exactly(len(MUCH) - len(got)) == MUCH
    sending.done()


def test_a_drain_lets_long_bodies_end(new_stage):
    stage = new_stage(INI, drain_timeout="60s")
    down, up = stage.connect("narrow", recv_buffer=4096), stage.connect()
    _, sending_down = download(stage, down, MUCH)
    upstream_up = upload(stage, up, len(MUCH))
    sending_up = Sending(up, MUCH)
    held(stage, 2)
    stage.weir.drain()
    assert down.read_exactly(len(MUCH)) == MUCH
    upstream_up.expect(MUCH)
    upstream_up.send(answer(200, b"all"))
    assert up.read_response().body == b"all"
    sending_down.done()
    sending_up.done()
    stage.weir.drained()


@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_a_drain_that_runs_out_cuts_a_stream_visibly(new_stage, version):
    stage = new_stage(INI, drain_timeout="300ms")
    client = stage.connect("narrow", recv_buffer=4096)
    upstream, sending = download(stage, client, MUCH, version=version)
    if version == "1.1":
        held(stage)  # the other one waits behind what proved it to be a stream
    stage.weir.signal(signal.SIGTERM)
    stage.weir.drained(cut=1)
    assert client.expect_end() == ("fin" if version == "1.1" else "reset")
    sending.wait()
    upstream.expect_end()
