"""Which server of an upstream takes a request, policy by policy."""

from collections import Counter

import pytest

from harness.http1 import answer, get
from harness.wait import eventually

SERVERS = """
server = @origin_a
server = @origin_b
server = @origin_c
"""
INI = "".join(f"""
[listener {name}]
bind = @{name}
upstream = {name}
[upstream {name}]
{keys}
""" for name, keys in {
    "even": "balance = round_robin" + SERVERS,
    "weighted": "server = @origin_a weight=3\nserver = @origin_b\nserver = @origin_c weight=2",
    "least": "balance = least_conn" + SERVERS,
    "p2c": "balance = p2c" + SERVERS,
    "random": "balance = random" + SERVERS,
    "random_weighted": "balance = random\nserver = @origin_a weight=8\n"
                       "server = @origin_b\nserver = @origin_c",
    "source": "balance = source_ip" + SERVERS,
    "by_ip": "balance = maglev\nhash_key = client_ip" + SERVERS,
    "by_header": "balance = maglev\nhash_key = header:X-User" + SERVERS,
    "by_cookie": "balance = maglev\nhash_key = cookie:user" + SERVERS,
    "by_path": "balance = maglev\nhash_key = path" + SERVERS,
    "first": "balance = first\nserver = @origin_a max_connections=1\n"
             "server = @origin_b max_connections=1\nserver = @origin_c",
    "backup": "server = @origin_a max_connections=1\nserver = @origin_b backup",
}.items())

A, B, C = "origin_a", "origin_b", "origin_c"


@pytest.fixture
def served(stage):
    """The stage with all origins answering their names."""
    for origin in stage.origins.values():
        origin.serve()
    return stage


def taken(client, *lines, target="/"):
    got = client.ask(get(target, *lines))
    assert got.status == 200, got
    return got.body.decode()


def take(stage, name, count):
    client = stage.connect(name)
    return [taken(client) for _ in range(count)]


def hold(stage, name):
    """A request that its origin does not answer yet: (origin name, client, upstream)."""
    client = stage.connect(name)
    client.send(get())

    def arrived():
        for origin_name, origin in stage.origins.items():
            origin.open_connections()
            for upstream in origin.connections:
                if upstream.buffered:
                    return origin_name, upstream
        return None

    origin_name, upstream = eventually(arrived, "a server got the request")
    upstream.read_request()
    return origin_name, client, upstream


def finish(client, upstream):
    upstream.send(answer(200, b"done"))
    assert client.read_response().body == b"done"


def test_round_robin_takes_turns(served):
    names = take(served, "even", 30)
    assert Counter(names) == {A: 10, B: 10, C: 10}
    assert all(len(set(names[at:at + 3])) == 3 for at in range(0, 30, 3))


def test_round_robin_goes_on_across_connections(served):
    names = [taken(served.connect("even")) for _ in range(30)]
    assert Counter(names) == {A: 10, B: 10, C: 10}


def test_round_robin_follows_weights_smoothly(served):
    names = take(served, "weighted", 60)
    assert Counter(names) == {A: 30, B: 10, C: 20}
    # Smooth: no server has all its turns in one go.
    assert all(set(names[at:at + 3]) != {A} for at in range(0, 58))


def test_least_conn_takes_the_server_with_the_fewest_in_flight(stage):
    held = [hold(stage, "least") for _ in range(3)]
    assert sorted(name for name, _, _ in held) == [A, B, C]
    name, client, upstream = held.pop()
    finish(client, upstream)
    again = hold(stage, "least")
    assert again[0] == name
    for _, client, upstream in [*held, again]:
        finish(client, upstream)


@pytest.mark.parametrize("policy", ["random", "p2c"])
def test_random_policies_use_every_server(served, policy):
    assert set(take(served, policy, 200)) == {A, B, C}


def test_p2c_avoids_the_busiest(stage):
    """Of two servers the less busy wins, so the one that all others beat gets nothing."""
    held, counts = [], Counter({A: 0, B: 0, C: 0})
    for _ in range(30):
        held.append(hold(stage, "p2c"))
        counts[held[-1][0]] += 1
        most, next_most, _ = sorted(counts.values(), reverse=True)
        assert most - next_most <= 1, counts
    for _, client, upstream in held:
        finish(client, upstream)


def test_random_follows_weights(served):
    counts = Counter(take(served, "random_weighted", 400))
    assert 270 <= counts[A] <= 370 and counts[B] > 10 and counts[C] > 10


@pytest.mark.parametrize("policy", ["source", "by_ip"])
def test_an_address_stays_with_its_server_and_addresses_spread(served, policy):
    def of(source):
        return taken(served.connect(policy, source=source))

    first = {f"127.0.1.{number}": of(f"127.0.1.{number}") for number in range(1, 41)}
    assert set(first.values()) == {A, B, C}
    assert all(of(source) == name for source, name in first.items())


@pytest.mark.parametrize("policy, line",
                         [("by_header", "X-User: {}"), ("by_cookie", "Cookie: a=b; user={}; c=d")])
def test_a_key_stays_with_its_server_and_keys_spread(served, policy, line):
    client = served.connect(policy)
    first = {key: taken(client, line.format(key)) for key in range(60)}
    assert min(Counter(first.values()).values()) >= 5 and len(set(first.values())) == 3
    other = served.connect(policy, source="127.0.0.9")
    assert all(taken(other, line.format(key)) == name for key, name in first.items())


def test_a_path_stays_with_its_server(served):
    client = served.connect("by_path")
    first = {path: taken(client, target=path) for path in (f"/{number}" for number in range(60))}
    assert set(first.values()) == {A, B, C}
    assert all(taken(client, target=f"{path}?query") == name for path, name in first.items())


def test_first_fills_servers_in_order(stage):
    held = [hold(stage, "first") for _ in range(4)]
    assert [name for name, _, _ in held] == [A, B, C, C]
    for _, client, upstream in held[1:]:
        finish(client, upstream)
    finish(*held[0][1:])
    again = hold(stage, "first")
    assert again[0] == A
    finish(*again[1:])


def test_backup_serves_only_when_no_other_can(stage):
    held = hold(stage, "backup")
    assert held[0] == A
    second = hold(stage, "backup")
    assert second[0] == B
    finish(*second[1:])
    finish(*held[1:])
    third = hold(stage, "backup")
    assert third[0] == A
    finish(*third[1:])
