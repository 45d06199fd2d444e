"""The websockets library on both sides: what real ends do passes, raw and checked."""

import asyncio

import pytest

from harness.tls import TO_ORIGIN, client_context, make_certificates, server_context

websockets = pytest.importorskip("websockets")

INI = f"""
[listener raw]
bind = @raw
upstream = app
[listener checked]
bind = @checked
upstream = app
websocket = checked
websocket_ping = 400ms
websocket_max_message = 2m
[listener wss]
bind = @wss
upstream = app
tls = site
[listener wss_checked]
bind = @wss_checked
upstream = app
websocket = checked
websocket_ping = 400ms
websocket_max_message = 2m
tls = site
[listener wss_to_wss]
bind = @wss_to_wss
upstream = app_tls
tls = site
[tls site]
certificate = weir.test.pem
[upstream app]
server = @backend
[upstream app_tls]
server = @backend_tls
{TO_ORIGIN}
"""
NAMES = ("raw", "checked", "wss", "wss_checked", "wss_to_wss")


def talk(stage, name, talker):
    """Runs an echo server and `talker` with a client that has reached it through weir."""
    backend, of_server, of_client, scheme = "backend", None, {}, "ws"
    if name.startswith("wss"):
        of_client = {"ssl": client_context(stage.directory), "server_hostname": "weir.test"}
        scheme = "wss"
    if name == "wss_to_wss":
        make_certificates(stage.directory, "origin.test.pem")
        backend, of_server = "backend_tls", server_context(stage.directory)

    async def echo(socket):
        async for message in socket:
            await socket.send(message)

    async def both():
        host, port = stage.address(backend).rsplit(":", 1)
        async with websockets.serve(echo, host, int(port), max_size=2 << 20, ssl=of_server):
            async with websockets.connect(f"{scheme}://{stage.address(name)}/", max_size=2 << 20,
                                          **of_client) as it:
                await asyncio.wait_for(talker(it), 30)

    asyncio.run(both())


@pytest.mark.parametrize("name", NAMES)
def test_messages_of_all_kinds_come_back(stage, name):
    async def talker(socket):
        for message in ("", "x", "H\u00e4ll\u00f6 \U0001f600" * 1000, b"", b"\xff\xfe",
                        bytes(range(256)) * 4000, "y" * 126, "z" * 65536):
            await socket.send(message)
            assert await socket.recv() == message

    talk(stage, name, talker)


@pytest.mark.parametrize("name", NAMES)
def test_fragments_and_pings_of_the_client_are_answered(stage, name):
    async def talker(socket):
        await socket.send(["frag", "men", "", "ts \u20ac"])
        assert await socket.recv() == "fragments \u20ac"
        await (await socket.ping(b"hello"))

    talk(stage, name, talker)


@pytest.mark.parametrize("name", NAMES)
def test_both_ends_close_in_order(stage, name):
    async def talker(socket):
        await socket.send("x")
        await socket.recv()
        await socket.close(4001, "done")
        assert socket.close_code == 4001

    talk(stage, name, talker)


@pytest.mark.parametrize("name", ["checked", "wss_checked"])
def test_pings_of_weir_are_answered_by_both_ends(stage, name):
    async def talker(socket):
        await asyncio.sleep(1.3)  # idle for several pings: the peers play a pause
        await socket.send("still here")
        assert await socket.recv() == "still here"

    talk(stage, name, talker)


@pytest.mark.parametrize("name", ["checked", "wss_checked"])
def test_a_message_over_the_limit_closes_with_1009(stage, name):
    async def talker(socket):
        try:
            await socket.send(b"x" * ((2 << 20) + 1))
            await socket.recv()
        except websockets.ConnectionClosed:
            pass
        await socket.wait_closed()
        assert socket.close_code == 1009

    talk(stage, name, talker)
