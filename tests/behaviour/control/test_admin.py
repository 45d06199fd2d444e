"""The admin's listener: /metrics is exact, and says the same in every way one can ask."""

import re
import time

import pytest

from harness.http1 import answer, answer_chunked, answer_head, get, post
from harness.wait import eventually

INI = """
[listener web]
bind = @web
upstream = app
[listener side]
bind = @side
upstream = app
[listener refused]
bind = @refused
upstream = refused
[route hello]
listener = web
path = /hello
respond = 200 hello
[route gone]
path = /gone
respond = 410 gone
[upstream app]
server = @origin
server = @origin_b
keepalive = 0
[upstream refused]
server = @dead
[listener narrow]
bind = @narrow
upstream = narrow
[upstream narrow]
server = @origin_narrow max_connections=1
"""

# VOCABULARY, as far as this version has what is counted: name -> (type, labels).
METRICS = {
    "weir_build_info": ("gauge", {"version"}),
    "weir_start_time_seconds": ("gauge", set()),
    "weir_log_dropped_total": ("counter", set()),
    "weir_listener_connections_active": ("gauge", {"listener"}),
    "weir_listener_connections_total": ("counter", {"listener"}),
    "weir_listener_connections_rejected_total": ("counter", {"reason"}),
    "weir_http_requests_total": ("counter", {"listener", "route", "method", "code", "proto"}),
    "weir_http_requests_in_flight": ("gauge", set()),
    "weir_http_request_duration_seconds": ("histogram", set()),
    "weir_http_time_to_first_byte_seconds": ("histogram", set()),
    "weir_http_aborts_total": ("counter", {"side"}),
    "weir_http_parse_errors_total": ("counter", {"reason"}),
    "weir_http_exchanges_ended_total": ("counter", {"reason"}),
    "weir_upstream_up": ("gauge", {"upstream", "server"}),
    "weir_upstream_requests_total": ("counter", {"upstream", "server", "code"}),
    "weir_upstream_queue_length": ("gauge", {"upstream"}),
    "weir_upstream_queue_seconds": ("histogram", set()),
    "weir_upstream_connect_seconds": ("histogram", set()),
    "weir_upstream_response_seconds": ("histogram", set()),
    "weir_upstream_connections": ("gauge", {"state"}),
    "weir_upstream_connects_total": ("counter", set()),
    "weir_upstream_connect_failures_total": ("counter", {"reason"}),
    "weir_upstream_reuses_total": ("counter", set()),
    "weir_upstream_retries_total": ("counter", {"reason"}),
    "weir_tunnel_bytes_total": ("counter", {"direction"}),
    "weir_uring_enter_total": ("counter", set()),
    "weir_uring_sqe_total": ("counter", set()),
    "weir_uring_cqe_total": ("counter", set()),
    "weir_uring_cqe_per_wake": ("histogram", set()),
    "weir_uring_cq_overflow_total": ("counter", set()),
    "weir_uring_enobufs_total": ("counter", set()),
    "weir_uring_buffers": ("gauge", {"state"}),
    "weir_worker_connections": ("gauge", {"worker"}),
    "weir_worker_busy_ratio": ("gauge", {"worker"}),
    "weir_heap_allocated_bytes_total": ("counter", set()),
    "weir_memory_bytes": ("gauge", {"pool"}),
    "weir_memory_resident_bytes": ("gauge", set()),
    "weir_memory_used_bytes": ("gauge", {"pool"}),
    "weir_memory_capacity_bytes": ("gauge", {"pool"}),
    "weir_buffers_capacity": ("gauge", set()),
    "weir_client_bytes_received_total": ("counter", set()),
    "weir_client_bytes_sent_total": ("counter", set()),
}
SECONDS = "0.0001 0.00025 0.0005 0.001 0.0025 0.005 0.01 0.025 0.05 0.1 0.25 0.5 1 2.5 5 10".split()

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_VALUE = r'"(?:[^"\\\n]|\\[\\"n])*"'
_LABELS = rf"\{{{_NAME}={_VALUE}(?:,{_NAME}={_VALUE})*\}}"
_LINE = re.compile(rf"({_NAME})({_LABELS})? (-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?|\+Inf|NaN)")


class Strict:
    """The text format by the letter: each metric's HELP, TYPE and samples once and side by side."""

    def __init__(self, text):
        self.types = {}
        self.samples = {}
        self.labels = {}
        assert text.endswith("\n") and "\n\n" not in text
        open_metric = None
        helped = None
        for line in text[:-1].split("\n"):
            if line.startswith("# HELP "):
                _, _, helped, about = line.split(" ", 3)
                assert about and helped not in self.types, line
                continue
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                assert name == helped and kind in ("counter", "gauge", "histogram"), line
                assert name not in self.types, f"{name} comes in two places"
                self.types[name] = kind
                open_metric = name
                continue
            self._sample(line, open_metric)
        assert set(self.types) >= {self._metric_of(name) for name, _ in self.samples}

    def _metric_of(self, name):
        base = re.sub(r"_(bucket|sum|count)$", "", name)
        return base if self.types.get(base) == "histogram" else name

    def _sample(self, line, open_metric):
        match = _LINE.fullmatch(line)
        assert match, f"bad line {line!r}"
        name, labels, value = match.groups()
        assert self._metric_of(name) == open_metric, f"{line!r} stands under {open_metric}"
        key = (name, labels or "")
        assert key not in self.samples, f"{key} comes twice"
        self.samples[key] = float(value)
        names = set(re.findall(rf"[{{,]({_NAME})=\"", labels or ""))
        assert self.labels.setdefault(name, names) == names, f"{name} has other labels in {line!r}"


def scrape(stage):
    response = stage.weir.admin_get("/metrics")
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    return Strict(response.body.decode())


def traffic(stage):
    """Something of everything; returns when it has ended."""
    for origin in stage.origins.values():
        origin.serve(lambda request: answer_chunked(b"a", b"b") if request.method == "GET"
                     else answer(404, b"no"))
    client = stage.connect()
    for _ in range(5):
        assert client.ask(get("/hello")).status == 200
        assert client.ask(get("/")).status == 200
        assert client.ask(post("/", b"x" * 1000)).status == 404
    side = stage.connect("side")
    assert side.ask(get("/gone")).status == 410
    assert side.ask(get("/hello")).status == 200
    assert side.ask(get("/", method="BREW")).status == 404
    assert stage.connect().ask(b"GET / HTTP/1.1\r\n\r\n").status == 400
    assert stage.connect("refused").ask(get()).status == 503


def test_metrics_is_well_formed_at_rest_and_after_traffic(stage):
    scrape(stage)
    traffic(stage)
    scrape(stage)


def test_every_metric_is_there_from_the_start(new_stage):
    stage = new_stage(INI)
    strict = scrape(stage)
    assert {name: strict.types.get(name) for name in METRICS} == {
        name: kind for name, (kind, _) in METRICS.items()}


def test_metrics_have_their_labels(stage):
    traffic(stage)
    strict = scrape(stage)
    for name, (kind, labels) in METRICS.items():
        if kind == "histogram":
            assert strict.labels[f"{name}_bucket"] == {"le"}
            assert strict.labels[f"{name}_count"] == strict.labels[f"{name}_sum"] == set()
        elif name in strict.labels:
            assert strict.labels[name] == labels, name


def moved(before, after, name, **labels):
    return after.sum(name, **labels) - before.sum(name, **labels)


def test_requests_are_counted_exactly(stage):
    before = stage.metrics()
    traffic(stage)
    stage.weir.eventually_metric(before.sum("weir_upstream_requests_total") + 12,
                                 "weir_upstream_requests_total")
    after = stage.metrics()

    def requests(**labels):
        return moved(before, after, "weir_http_requests_total", proto="h1", **labels)

    assert requests(listener="web", route="hello", method="GET", code="2xx") == 5
    assert requests(listener="web", route="", method="GET", code="2xx") == 5
    assert requests(listener="web", route="", method="POST", code="4xx") == 5
    assert requests(listener="side", route="gone", method="GET", code="4xx") == 1
    assert requests(listener="side", route="", method="GET", code="2xx") == 1
    assert requests(listener="side", route="", method="_OTHER", code="4xx") == 1
    assert requests(listener="refused", route="", method="GET", code="5xx") == 1
    assert requests(listener="web", method="_OTHER", code="4xx") == 1
    assert requests(listener="web") == 16
    assert requests(listener="side") == 3
    assert moved(before, after, "weir_http_parse_errors_total", reason="bad_host") == 1
    assert moved(before, after, "weir_http_parse_errors_total") == 1
    assert moved(before, after, "weir_listener_connections_total", listener="web") == 2
    assert moved(before, after, "weir_listener_connections_total", listener="side") == 1
    assert moved(before, after, "weir_listener_connections_total", listener="refused") == 1


def test_upstreams_are_counted_exactly(stage):
    before = stage.metrics()
    traffic(stage)
    after = stage.metrics()
    by_server = [moved(before, after, "weir_upstream_requests_total", upstream="app",
                       server=stage.address(name)) for name in ("origin", "origin_b")]
    assert by_server == [6, 6]
    assert moved(before, after, "weir_upstream_requests_total", code="2xx") == 6
    assert moved(before, after, "weir_upstream_requests_total", code="4xx") == 6
    assert moved(before, after, "weir_upstream_connects_total") == 12
    assert moved(before, after, "weir_upstream_reuses_total") == 0
    assert moved(before, after, "weir_upstream_connect_failures_total",
                 reason="connect_failed") == 1
    assert moved(before, after, "weir_upstream_connect_seconds_count") == 12
    assert moved(before, after, "weir_upstream_response_seconds_count") == 12
    assert after.sum("weir_upstream_up") == 4


def test_bytes_are_counted_exactly(stage):
    """The difference of two scrapes is one scrape of the admin's own, and what was sent between."""
    first, second = stage.metrics(), stage.metrics()
    request, response = get("/hello", "X-Fill: " + "x" * 777), None
    client = stage.connect()
    for _ in range(10):
        response = client.ask(request)
    third = stage.metrics()
    received, sent = "weir_client_bytes_received_total", "weir_client_bytes_sent_total"
    assert moved(second, third, received) == moved(first, second, received) + 10 * len(request)
    answered = len(response.head) + len(response.body)
    # What the scrapes say themselves changes in length with the numbers in it.
    drift = moved(second, third, sent) - moved(first, second, sent) - 10 * answered
    assert abs(drift) < 100


def test_in_flight_and_active_are_what_they_are_now(stage, origin):
    clients = [stage.connect() for _ in range(3)]
    for client in clients:
        client.send(get("/", "X: y"))
    both = stage.origins.values()
    eventually(lambda: sum(len(one.open_connections()) for one in both) == 3, "three connects")
    metrics = stage.metrics()
    assert metrics.need("weir_http_requests_in_flight") == 3 + 1  # and the scrape
    assert metrics.need("weir_listener_connections_active", listener="web") == 3
    assert metrics.need("weir_worker_connections", worker=0) == 3 + 1
    assert metrics.need("weir_upstream_connections", state="active") == 3
    for one in both:
        for upstream in one.connections:
            upstream.read_request()
            upstream.send(answer())
    for client in clients:
        assert client.read_response().status == 200
    stage.weir.eventually_metric(1, "weir_http_requests_in_flight")
    for client in clients:
        client.close()
    stage.weir.eventually_metric(0, "weir_listener_connections_active", listener="web")


def whichever_is_asked(stage):
    """The connection on which one of the origins has been asked."""
    both = stage.origins.values()
    eventually(lambda: any(one.open_connections() for one in both), "a connect")
    upstream = next(one.connections[-1] for one in both if one.connections)
    upstream.read_request()
    return upstream


def test_aborts_are_counted_by_the_side_that_left(stage):
    before = stage.metrics()
    client = stage.connect("side")
    client.send(get())
    whichever_is_asked(stage)
    client.reset()
    stage.weir.eventually_metric(before.sum("weir_http_aborts_total", side="client") + 1,
                                 "weir_http_aborts_total", side="client")
    stage.clear()
    client = stage.connect("side")
    client.send(get())
    whichever_is_asked(stage).close()
    assert client.read_response().status == 502
    stage.weir.eventually_metric(before.sum("weir_http_aborts_total", side="upstream") + 1,
                                 "weir_http_aborts_total", side="upstream")


def test_totals_agree_with_each_other(stage):
    traffic(stage)
    metrics = stage.metrics()
    requests = metrics.need("weir_http_requests_total")
    refused = metrics.need("weir_http_parse_errors_total")
    assert requests == metrics.need("weir_http_exchanges_ended_total")
    assert metrics.need("weir_http_request_duration_seconds_count") == requests - refused
    # The page that says it has been answered just now, and begins to be counted when it has ended.
    unanswered = metrics.sum("weir_http_requests_total", code="none")
    first_bytes = metrics.need("weir_http_time_to_first_byte_seconds_count")
    assert first_bytes == requests - refused - unanswered
    connections = metrics.need("weir_listener_connections_active")
    assert metrics.need("weir_worker_connections") == connections
    assert metrics.need("weir_uring_buffers") == metrics.need("weir_buffers_capacity")
    assert metrics.need("weir_uring_cqe_per_wake_sum") == metrics.need("weir_uring_cqe_total")
    assert metrics.need("weir_uring_cq_overflow_total") == 0


def one_waits_for_the_other(stage):
    clients = [stage.connect("narrow") for _ in range(2)]
    origin = stage.origins["origin_narrow"]
    clients[0].send(get())
    upstream = origin.next()
    clients[1].send(get())
    stage.weir.eventually_metric(1, "weir_upstream_queue_length", upstream="narrow")
    for client in clients:
        upstream.read_request()
        upstream.send(answer())
        assert client.read_response().status == 200
    stage.clear()


def test_operations_are_counted(stage):
    """What is submitted shows in the kernel's calls and completions, and is no less than them."""
    before = stage.metrics()
    client = stage.connect()
    for _ in range(20):
        assert client.ask(get("/hello")).status == 200
    after = stage.metrics()
    assert moved(before, after, "weir_uring_sqe_total") >= 20  # a send for each answer
    assert moved(before, after, "weir_uring_cqe_total") >= 40  # and what was received
    assert moved(before, after, "weir_uring_enter_total") >= 20


def test_requests_take_nothing_from_the_heap(stage):
    """The difference of two scrapes is what a page takes, whatever was served between."""
    client = stage.connect()
    assert client.ask(get("/hello")).status == 200
    pages = [stage.metrics() for _ in range(3)]
    for _ in range(200):
        assert client.ask(get("/hello")).status == 200
    pages.append(stage.metrics())
    name = "weir_heap_allocated_bytes_total"
    assert moved(pages[2], pages[3], name) == moved(pages[1], pages[2], name)


def test_histograms_are_consistent(stage):
    one_waits_for_the_other(stage)
    traffic(stage)
    metrics = stage.metrics()
    for name, (kind, _) in METRICS.items():
        if kind != "histogram":
            continue
        buckets = metrics.series(f"{name}_bucket")
        bounds = [labels["le"] for labels, _ in buckets]
        counts = [value for _, value in buckets]
        assert bounds[-1] == "+Inf"
        assert [float(bound) for bound in bounds] == sorted(float(bound) for bound in bounds)
        assert counts == sorted(counts), f"{name} is not cumulative"
        assert counts[-1] == metrics.need(f"{name}_count") > 0, name
        assert metrics.need(f"{name}_sum") >= 0
        if name.endswith("_seconds"):
            assert bounds[:-1] == SECONDS


def test_a_slow_answer_is_in_the_right_bucket(stage):
    name = "weir_http_request_duration_seconds"
    before = stage.metrics()
    client = stage.connect("side")
    client.send(get())
    upstream = whichever_is_asked(stage)
    time.sleep(0.12)
    upstream.send(answer_head(200, "Content-Length: 1"))
    client.read_response_head()
    time.sleep(0.15)
    upstream.send(b"x")
    client.expect(b"x")
    after = stage.metrics()
    assert moved(before, after, f"{name}_bucket", le="10") >= 1
    slow = moved(before, after, f"{name}_bucket", le="+Inf") - moved(
        before, after, f"{name}_bucket", le="0.25")
    assert slow == 1
    first = "weir_http_time_to_first_byte_seconds_bucket"
    late = moved(before, after, first, le="+Inf") - moved(before, after, first, le="0.1")
    assert late == 1
    assert moved(before, after, f"{name}_sum") >= 0.27


def test_workers_are_told_apart(new_stage):
    stage = new_stage(INI, workers=2)
    clients = [stage.connect() for _ in range(40)]
    for client in clients:
        assert client.ask(get("/hello")).body == b"hello"
    metrics = stage.metrics()
    assert metrics.need("weir_worker_connections") == 41
    # Forty connections all on one side of the kernel's hash: one in 2^39.
    assert metrics.need("weir_worker_connections", worker=0) > 1
    assert metrics.need("weir_worker_connections", worker=1) > 0
    assert metrics.need("weir_http_requests_total", route="hello") == 40
    for worker in (0, 1):
        assert 0 <= metrics.need("weir_worker_busy_ratio", worker=worker) <= 1


def test_build_and_start(stage):
    metrics = stage.metrics()
    ((labels, value),) = metrics.series("weir_build_info")
    assert value == 1 and labels["version"]
    started = metrics.need("weir_start_time_seconds")
    assert time.time() - 3600 < started <= time.time()


@pytest.mark.parametrize("path, status", [
    ("/", 200), ("/metrics", 200), ("/healthz", 200), ("/readyz", 200),
    ("/nothing", 404), ("/metrics/", 404), ("/healthz/x", 404), ("/METRICS", 404),
])
def test_paths(stage, path, status):
    assert stage.weir.admin_get(path).status == status


@pytest.mark.parametrize("path", ["/metrics?x=1", "/healthz?", "/readyz?verbose"])
def test_a_query_changes_nothing(stage, path):
    assert stage.weir.admin_get(path).status == 200


@pytest.mark.parametrize("path", ["/", "/metrics", "/healthz", "/readyz"])
def test_only_get_and_head(stage, path):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "BREW"):
        admin = stage.weir.connect_admin()
        got = admin.ask(post(path, b"body", method=method), method)
        admin.close()
        assert got.status == 405 and got["Allow"] == "GET, HEAD"


def test_head_is_get_without_the_body(stage):
    for path in ("/metrics", "/healthz", "/readyz", "/nothing"):
        admin = stage.weir.connect_admin()
        head = admin.ask(get(path, method="HEAD"), "HEAD")
        got = admin.ask(get(path))
        admin.close()
        assert (head.status, head["Content-Type"]) == (got.status, got["Content-Type"])
        if path != "/metrics":
            assert head["Content-Length"] == got["Content-Length"]


def test_admin_connections_are_kept(stage):
    admin = stage.weir.connect_admin()
    for _ in range(20):
        assert admin.ask(get("/healthz")).status == 200
        assert admin.ask(get("/metrics")).status == 200
    admin.close()


def test_pipelined_scrapes(stage):
    admin = stage.weir.connect_admin()
    admin.send(get("/metrics") * 20 + get("/healthz"))
    for _ in range(20):
        Strict(admin.read_response().body.decode())
    assert admin.read_response().body == b"ok\n"
    admin.close()


def test_a_scraper_that_does_not_read_takes_nothing_from_others(stage):
    admin = stage.weir.connect_admin()
    admin.send(get("/metrics") * 500)
    for _ in range(50):
        assert stage.connect().ask(get("/hello")).body == b"hello"
    assert stage.weir.admin_get("/healthz").status == 200
    admin.close()


def test_a_scraper_that_leaves_in_the_middle(stage):
    for _ in range(5):
        admin = stage.weir.connect_admin()
        admin.send(get("/metrics") * 100)
        admin.read_exactly(1000)
        admin.reset()


def test_routes_do_not_apply_to_the_admin(stage):
    assert stage.weir.admin_get("/hello").status == 404
    assert stage.weir.admin_get("/gone").status == 404


def test_the_admin_may_listen_on_unix_and_ipv6(new_stage):
    stage = new_stage("""
        bind = @port6 @unix
        [listener web]
        bind = @web
        upstream = app
        [upstream app]
        server = @origin
        """)
    for name in ("port6", "unix"):
        admin = stage.connect(name)
        assert admin.ask(get("/healthz")).body == b"ok\n"


def test_timeouts_of_the_public_are_not_those_of_a_scrape(new_stage):
    stage = new_stage(INI + "[defaults]\ntimeout_request = 20ms\ntimeout_keepalive = 20ms\n")
    scrape = stage.weir.connect_admin()
    scrape.send(b"GET /metrics HTTP/1.1\r\nHost: admin\r\n")
    for _ in range(3):  # one behind the other, each begun after the scrape
        client = stage.connect()
        client.send(b"GET / HTTP/1.1\r\n")
        assert client.read_response().reason == "request_timeout"
        client.close()
    scrape.send(b"\r\n")
    assert scrape.read_response().status == 200
    scrape.close()
