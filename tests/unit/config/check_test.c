#include "config/check.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

#include "unit/config/load.h"

/* Tests add lines to its end. Eight lines; the ninth belongs to no section that takes anything. */
#define GOOD                                                                                       \
    "[listener web]\n"                                                                             \
    "bind = 127.0.0.1:8080\n"                                                                      \
    "upstream = app\n"                                                                             \
    "[upstream app]\n"                                                                             \
    "server = 127.0.0.1:9000\n"                                                                    \
    "[service one]\n"                                                                              \
    "type = respond\n"                                                                             \
    "[defaults]\n"

/* `lines` begin with a section in line 9; what they have wrong begins in line 10. */
struct bad {
    const char *lines;
    const char *expected;
};

static void assert_all_bad(const struct bad *rows, size_t count) {
    for (size_t i = 0; i < count; i++) {
        char text[2048];
        (void)snprintf(text, sizeof text, "%s%s", GOOD, rows[i].lines);
        assert_errors(text, rows[i].expected);
    }
}

#define ASSERT_ALL_BAD(rows) assert_all_bad(rows, sizeof(rows) / sizeof((rows)[0]))

static void bad_globals_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[global]\nworkers = 0\n",
         "10: global.workers: \"0\" is not auto or a number from 1 to 256\n"},
        {"[global]\nworkers = all\n",
         "10: global.workers: \"all\" is not auto or a number from 1 to 256\n"},
        {"[global]\ncpu_affinity = yes\n",
         "10: global.cpu_affinity: \"yes\" is not auto, off, a CPU or a range of CPUs\n"},
        {"[global]\ncpu_affinity = 3-1\n",
         "10: global.cpu_affinity: \"3-1\" is not auto, off, a CPU or a range of CPUs\n"},
        {"[global]\ncpu_affinity = 1023\n",
         "10: global.cpu_affinity: CPU 1023 is none this process may use\n"},
        {"[global]\nmax_connections = 0\n",
         "10: global.max_connections: \"0\" is out of range, it must be 1 to 10000000\n"},
        {"[global]\nmax_handshakes = 0\n",
         "10: global.max_handshakes: \"0\" is out of range, it must be 1 to 10000000\n"},
        {"[global]\ndrain_timeout = 30\n",
         "10: global.drain_timeout: \"30\" is not a duration with "
         "a unit (500ms 10s 5m 1h)\n"},
        {"[global]\nlog_level = warning\n", "10: global.log_level: \"warning\" is none of debug "
                                            "info warn error\n"},
        {"[global]\nuser = no.such.user\n", "10: global.user: there is no user \"no.such.user\"\n"},
        {"[global]\nuser = root\nuser = root\n",
         "11: global.user: duplicate key, the first is in line 10\n"},
        {"[global]\nbind = 127.0.0.1:1\n",
         "10: global.bind: does not belong here but in [admin] or [listener NAME]\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void bad_listeners_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nupstream = app\n",
         "9: listener a.bind: missing (addresses: 0.0.0.0:8080 [::]:8080 unix:/path)\n"},
        {"[admin]\n", "9: admin.bind: missing (addresses: 0.0.0.0:8080 [::]:8080 unix:/path)\n"},
        {"[listener a]\nbind = 127.0.0.1:1 127.0.0.1:99999\nservice = one\n",
         "10: listener a.bind: \"99999\" is no port, it must be 1 to 65535\n"},
        {"[listener a]\nbind = 127.0.0.1:1\n",
         "9: listener a: needs upstream = NAME or service = NAME, or a route\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nupstream = ap\n",
         "11: listener a.upstream: there is no [upstream ap] (did you mean \"app\"?)\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = nowhere\n",
         "11: listener a.service: there is no [service nowhere]\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nupstream = app\nservice = one\n",
         "12: listener a.service: upstream is given too (line 11), it must be one of both\n"},
        {"[listener a]\nbind = 127.0.0.1:8080\nservice = one\n",
         "10: listener a.bind: 127.0.0.1:8080 is bound already by listener web in line 1\n"},
        {"[admin]\nbind = unix:/a unix:/a\n",
         "10: admin.bind: unix:/a is bound already by listener admin in line 9\n"},
        {"[listener admin]\nbind = 127.0.0.1:1\nservice = one\n",
         "9: listener admin: this name is the one of [admin]\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\nmode = udp\n",
         "12: listener a.mode: \"udp\" is none of http tcp\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\ntls = site\nalpn = h2\n",
         "12: listener a.tls: there is no [tls site]\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\nmax_connections_per_ip = -1\n"
         "max_connection_rate = 10k/s\n",
         "12: listener a.max_connections_per_ip: \"-1\" is not a whole number\n"
         "13: listener a.max_connection_rate: \"10k/s\" is not a number for each second (as in "
         "100 or 100/s)\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\nttl = 256\nbacklog = 0\n",
         "12: listener a.ttl: \"256\" is out of range, it must be 0 to 255\n"
         "13: listener a.backlog: \"0\" is out of range, it must be 1 to 1048576\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\nforwarded = on\nvia = yes\n",
         "12: listener a.forwarded: \"on\" is none of x_forwarded rfc7239 off\n"
         "13: listener a.via: \"yes\" is not on or off\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\nproxy_protocol = any\n",
         "12: listener a.proxy_protocol: needs trusted_proxies, the addresses of the proxies that "
         "send the header (0.0.0.0/0 ::/0 trusts all)\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\ntrusted_proxies = ::1 10.1.0.0/8 x\n"
         "trusted_proxies = fe80::1/10\n",
         "12: listener a.trusted_proxies: \"10.1.0.0/8\" has bits behind its prefix (did you mean "
         "\"10.0.0.0/8\"?)\n"
         "12: listener a.trusted_proxies: \"x\" is no network: 10.0.0.0/8, 2001:db8::/32, an "
         "address, or unix:\n"
         "13: listener a.trusted_proxies: \"fe80::1/10\" has bits behind its prefix (did you mean "
         "\"fe80::/10\"?)\n"},
        {"[listener a]\nbind = 127.0.0.1:1\nservice = one\ntimeout_connect = 1s\n",
         "12: listener a.timeout_connect: does not belong here but in [defaults] or [upstream "
         "NAME]\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void listeners_that_collide_and_void_keys_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nbind = 0.0.0.0:8080 [::]:8080 [::1]:8080\nservice = one\n"
         "[listener b]\nbind = 0.0.0.0:8081\nbind = 127.0.0.1:8081 0.0.0.0:8082\n"
         "service = one\n",
         "10: listener a.bind: 0.0.0.0:8080 covers 127.0.0.1:8080, which is bound already by "
         "listener web in line 1\n"
         "10: listener a.bind: [::1]:8080 is part of [::]:8080, which is bound already by "
         "listener a in line 9\n"
         "14: listener b.bind: 127.0.0.1:8081 is part of 0.0.0.0:8081, which is bound already by "
         "listener b in line 12\n"},
        {"[listener a]\nbind = unix:/a\nupstream = app\nalpn = http/1.1\nh2_max_streams = 5\n"
         "[listener b]\nbind = unix:/b\nupstream = app\nalpn = http/1.1 h2\nh2_max_pings = 5\n"
         "[listener c]\nbind = unix:/c\nupstream = app\nmode = tcp\nh2_max_stalled = 5\n",
         "13: listener a.h2_max_streams: has no effect without h2 in alpn\n"
         "23: listener c.h2_max_stalled: has no effect with mode = tcp\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void what_unix_sockets_do_not_have_is_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nbind = unix:/a\nupstream = app\nttl = 3\nnodelay = off\n"
         "recv_buffer = 8k\nsend_buffer = 8k\nmax_connections_per_ip = 1\n"
         "[listener b]\nbind = unix:/b 127.0.0.1:1\nupstream = app\nttl = 3\n"
         "max_connections_per_ip = 1\n"
         "[listener c]\nbind = unix:/c\nupstream = app\nproxy_protocol = v1\n"
         "trusted_proxies = unix:\nmax_connections_per_ip = 1\nttl = 3\n",
         "12: listener a.ttl: has no effect on unix sockets\n"
         "13: listener a.nodelay: has no effect on unix sockets\n"
         "14: listener a.recv_buffer: has no effect on unix sockets\n"
         "15: listener a.send_buffer: has no effect on unix sockets\n"
         "16: listener a.max_connections_per_ip: has no effect on unix sockets\n"
         "28: listener c.ttl: has no effect on unix sockets\n"},
        /* An address that is wrong may be meant for another one. */
        {"[listener a]\nbind = unix:a\nupstream = app\nttl = 3\n",
         "10: listener a.bind: \"unix:a\" needs an absolute path\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void what_only_checked_websockets_use_is_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nbind = unix:/a\nupstream = app\nwebsocket_ping = 30s\n"
         "[listener b]\nbind = unix:/b\nupstream = app\nwebsocket = checked\n"
         "websocket_ping = 30s\nwebsocket_max_message = 64k\n"
         "[route r]\nupstream = app\nwebsocket_ping = 30s\n"
         "[route s]\nupstream = app\nwebsocket = off\nwebsocket_max_message = 0\n",
         "12: listener a.websocket_ping: has no effect without websocket = checked\n"
         "25: route s.websocket_max_message: has no effect without websocket = checked\n"},
        {"[listener a]\nbind = unix:/a\nupstream = app\nwebsocket = cheked\n",
         "12: listener a.websocket: \"cheked\" is none of off raw checked (did you mean "
         "\"checked\"?)\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void services_fit_one_mode(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nmode = tcp\nbind = unix:/a\nservice = one\n",
         "12: listener a.service: one is of type respond, which needs a listener with mode = "
         "http\n"},
        {"[listener a]\nbind = unix:/a\nservice = back\n[service back]\ntype = echo\n",
         "11: listener a.service: back is of type echo, which needs a listener with mode = tcp\n"},
        {"[route r]\nservice = back\n[service back]\ntype = echo\n",
         "10: route r.service: back is of type echo, which needs a listener with mode = tcp\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void what_tcp_has_no_use_for_is_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nmode = tcp\nbind = unix:/a\nupstream = app\ntimeout_request = 1s\n"
         "timeout_client = 1s\ntimeout_keepalive = 1s\nmin_read_rate = 1\nmax_header_size = 2k\n"
         "max_headers = 9\nmax_target = 1k\nmax_body_size = 0\nvia = off\nforwarded = off\n"
         "h2_max_streams = 1\nh2_max_resets = 1\nh2_max_made_resets = 1\nh2_max_continuations = 1\n"
         "h2_max_settings = 1\nh2_max_pings = 1\nh2_max_empty_data = 1\n"
         "h2_max_priority = 1\nh2_max_window_updates = 1\nh2_max_stalled = 1\n"
         "h2_max_closed = 1\n"
         "websocket = raw\nwebsocket_max_message = 1k\nwebsocket_ping = 1s\n",
         "13: listener a.timeout_request: has no effect with mode = tcp\n"
         "14: listener a.timeout_client: has no effect with mode = tcp\n"
         "15: listener a.timeout_keepalive: has no effect with mode = tcp\n"
         "16: listener a.min_read_rate: has no effect with mode = tcp\n"
         "17: listener a.max_header_size: has no effect with mode = tcp\n"
         "18: listener a.max_headers: has no effect with mode = tcp\n"
         "19: listener a.max_target: has no effect with mode = tcp\n"
         "20: listener a.max_body_size: has no effect with mode = tcp\n"
         "21: listener a.via: has no effect with mode = tcp\n"
         "22: listener a.forwarded: has no effect with mode = tcp\n"
         "23: listener a.h2_max_streams: has no effect with mode = tcp\n"
         "24: listener a.h2_max_resets: has no effect with mode = tcp\n"
         "25: listener a.h2_max_made_resets: has no effect with mode = tcp\n"
         "26: listener a.h2_max_continuations: has no effect with mode = tcp\n"
         "27: listener a.h2_max_settings: has no effect with mode = tcp\n"
         "28: listener a.h2_max_pings: has no effect with mode = tcp\n"
         "29: listener a.h2_max_empty_data: has no effect with mode = tcp\n"
         "30: listener a.h2_max_priority: has no effect with mode = tcp\n"
         "31: listener a.h2_max_window_updates: has no effect with mode = tcp\n"
         "32: listener a.h2_max_stalled: has no effect with mode = tcp\n"
         "33: listener a.h2_max_closed: has no effect with mode = tcp\n"
         "34: listener a.websocket: has no effect with mode = tcp\n"
         "35: listener a.websocket_max_message: has no effect with mode = tcp\n"
         "36: listener a.websocket_ping: has no effect with mode = tcp\n"},
        {"[upstream b]\nserver = unix:/b\nh2_max_pings = 1\nh2_max_closed = 1\n",
         "11: upstream b.h2_max_pings: has no effect with protocol = h1\n"
         "12: upstream b.h2_max_closed: has no effect with protocol = h1\n"},
        {"[listener a]\nmode = tcp\nbind = unix:/a\nupstream = app\ntrusted_proxies = ::1\n"
         "[listener b]\nmode = tcp\nbind = unix:/b\nupstream = app\ntrusted_proxies = ::1\n"
         "proxy_protocol = any\n",
         "13: listener a.trusted_proxies: has no effect with mode = tcp and without "
         "proxy_protocol\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void what_tcp_leads_to_is_checked(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener a]\nmode = tcp\nbind = unix:/a\n",
         "9: listener a: needs upstream = NAME or service = NAME, or a route by sni\n"},
        /* A route for all listeners is none for this one. */
        {"[listener a]\nmode = tcp\nbind = unix:/a\n[route r]\nrespond = 200 x\n",
         "9: listener a: needs upstream = NAME or service = NAME, or a route by sni\n"},
        {"[listener a]\nmode = tcp\nbind = unix:/a\nupstream = app\n"
         "[route r]\nlistener = web a\nrespond = 200 x\n",
         "14: route r.listener: listener a has mode = tcp, which knows routes by sni only\n"},
        {"[route r]\nlistener = a\nrespond = 200 x\n"
         "[listener a]\nmode = tcp\nbind = unix:/a\nupstream = app\n",
         "10: route r.listener: listener a has mode = tcp, which knows routes by sni only\n"},
        {"[listener a]\nmode = tcp\nbind = unix:/a\nupstream = keyed\n"
         "[upstream keyed]\nserver = unix:/s\nbalance = maglev\nhash_key = path\n",
         "16: upstream keyed.hash_key: must be client_ip: listener a in line 9 has mode = tcp\n"},
        {"[upstream keyed]\nserver = unix:/s\nbalance = maglev\nhash_key = header:X-User\n"
         "[listener a]\nmode = tcp\nbind = unix:/a\nupstream = keyed\n",
         "12: upstream keyed.hash_key: must be client_ip: listener a in line 13 has mode = tcp\n"},
        /* What is not known does not make more errors. */
        {"[listener a]\nmode = tpc\nbind = unix:/a\nservice = back\n[service back]\ntype = echo\n",
         "10: listener a.mode: \"tpc\" is none of http tcp (did you mean \"tcp\"?)\n"},
        {"[listener a]\nmode = tcp\nbind = unix:/a\nservice = back\n[service back]\ntype = eco\n",
         "14: service back.type: \"eco\" is none of respond echo (did you mean \"echo\"?)\n"},
        {"[admin]\nbind = unix:/a\nmode = tcp\n",
         "11: admin.mode: does not belong here but in [listener NAME]\n"},
    };
    ASSERT_ALL_BAD(rows);
    assert_errors("[listener a]\nmode = tcp\nbind = unix:/a\nupstream = app\n"
                  "[upstream app]\nserver = unix:/s\n[route r]\nrespond = 200 x\n",
                  "7: route r: there is no listener with mode = http\n");
}

static void bad_matches_of_routes_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[route a]\nlistener = web wbe\nrespond = 404\n",
         "10: route a.listener: there is no [listener wbe] (did you mean \"web\"?)\n"},
        {"[admin]\nbind = unix:/a\n[route a]\nlistener = admin\nrespond = 404\n",
         "12: route a.listener: there is no [listener admin]\n"},
        {"[route a]\nhost = a:80, *\nrespond = 404\n",
         "10: route a.host: \"a:80\" is not a host without a port, or \"*.\" and a host\n"
         "10: route a.host: \"*\" is not a host without a port, or \"*.\" and a host\n"},
        {"[route a]\npath = v1\nrespond = 404\n",
         "10: route a.path: \"v1\" is not a path: it begins with \"/\" and has no \"?\", \"#\" or "
         "blank\n"},
        {"[route a]\npath = = /a b\nrespond = 404\n",
         "10: route a.path: \"/a b\" is not a path: it begins with \"/\" and has no \"?\", \"#\" "
         "or "
         "blank\n"},
        {"[route a]\npath = ~ ^/a(b\nrespond = 404\n",
         "10: route a.path: bad expression at offset 5: missing closing parenthesis\n"},
        {"[route a]\npath = ~\nrespond = 404\n", "10: route a.path: the expression is empty\n"},
        {"[route a]\nmethod = get G(T\nrespond = 404\n",
         "10: route a.method: \"get\" is not how the method is written (did you mean \"GET\"?)\n"
         "10: route a.method: \"G(T\" is not a method\n"},
        {"[route a]\nheader = X A: b\nrespond = 404\n",
         "10: route a.header: \"X A\" is not the name of a header field\n"},
        {"[route a]\nheader = : b\nrespond = 404\n",
         "10: route a.header: \"\" is not the name of a header field\n"},
        {"[route a]\nheader = host: b\nrespond = 404\n",
         "10: route a.header: a host is matched by host = NAME\n"},
        {"[route a]\nheader = upgrade\nrespond = 404\n",
         "10: route a.header: Upgrade belongs to the connection and is weir's own\n"},
        {"[route a]\ncontent_type = json */*\nrespond = 404\n",
         "10: route a.content_type: \"json\" is not a media type (type/subtype or type/*)\n"
         "10: route a.content_type: \"*/*\" is not a media type (type/subtype or type/*)\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void bad_actions_of_routes_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[route a]\nmethod = GET\n",
         "9: route a: needs one of upstream, service, redirect, respond\n"},
        {"[route a]\nrespond = 404\nservice = one\n",
         "10: route a.respond: service is given too (line 11), it must be one of both\n"},
        {"[route a]\nupstream = app 95, apq 5\n",
         "10: route a.upstream: there is no [upstream apq] (did you mean \"app\"?)\n"},
        {"[route a]\nupstream = app 95, app 5\n", "10: route a.upstream: \"app\" is named twice\n"},
        {"[route a]\nupstream = app 1001\n",
         "10: route a.upstream: \"app 1001\" is not the name of an upstream and a weight from 0 to "
         "1000\n"},
        {"[route a]\nupstream = app 95 app\n",
         "10: route a.upstream: \"app 95 app\" is not the name of an upstream and a weight from 0 "
         "to 1000\n"},
        {"[route a]\nupstream = app 0\n", "10: route a.upstream: all weights are 0\n"},
        {"[route a]\nupstream = app 95, b\n[upstream b]\nserver = unix:/b\n",
         "10: route a.upstream: with several upstreams each needs a weight: app 95, canary 5\n"},
        {"[route a]\nservice = two\n", "10: route a.service: there is no [service two]\n"},
        {"[route a]\nredirect = 300 /\n",
         "10: route a.redirect: expected 301, 302, 303, 307 or 308, then a URL\n"},
        {"[route a]\nredirect = https://$host/\n",
         "10: route a.redirect: expected 301, 302, 303, 307 or 308, then a URL\n"},
        {"[route a]\nredirect = 301\n", "10: route a.redirect: the URL is missing\n"},
        {"[route a]\nredirect = 301 /a b\n", "10: route a.redirect: the URL has a blank\n"},
        {"[route a]\nredirect = 301 /$pth\n",
         "10: route a.redirect: unknown variable \"$pth\" (did you mean \"$path\"?)\n"},
        {"[route a]\nredirect = 301 /$server\n",
         "10: route a.redirect: it has a variable that is not known here yet\n"},
        {"[route a]\nrespond = 99 text\n",
         "10: route a.respond: expected a status from 200 to 599, then a text or nothing\n"},
        {"[route a]\nrespond = 100\n",
         "10: route a.respond: expected a status from 200 to 599, then a text or nothing\n"},
        {"[route a]\nrespond = 304 text\n",
         "10: route a.respond: an answer with status 304 has no body\n"},
        {"[route a]\nrespond = 404\nconnect = on\n",
         "11: route a.connect: needs upstream = NAME in the same route\n"},
        {"[route a]\nupstream = app\npath = /x\nconnect = on\n",
         "12: route a.connect: a request with CONNECT has no path: leave out path\n"},
        {"[route a]\nupstream = app\nstrip_prefix = v1\n",
         "11: route a.strip_prefix: \"v1\" is not a path to strip, as in /v1\n"},
        {"[route a]\nrespond = 404\nstrip_prefix = /v1\n",
         "11: route a.strip_prefix: has no effect in a route with redirect or respond\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void bad_edits_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[route a]\nupstream = app\nset_request_header = X-A\n",
         "11: route a.set_request_header: expected NAME: VALUE\n"},
        {"[route a]\nupstream = app\nset_request_header = X A: b\n",
         "11: route a.set_request_header: \"X A\" is not the name of a header field\n"},
        {"[route a]\nupstream = app\nset_request_header = content-length: 5\n",
         "11: route a.set_request_header: Content-Length belongs to the connection and is weir's "
         "own\n"},
        {"[route a]\nupstream = app\nadd_response_header = Transfer-Encoding: chunked\n",
         "11: route a.add_response_header: Transfer-Encoding belongs to the connection and is "
         "weir's own\n"},
        {"[route a]\nupstream = app\nadd_request_header = Host: b\n",
         "11: route a.add_request_header: Host can only be set (set_request_header)\n"},
        {"[route a]\nupstream = app\nremove_request_header = X-A, host TE\n",
         "11: route a.remove_request_header: Host can only be set (set_request_header)\n"
         "11: route a.remove_request_header: TE belongs to the connection and is weir's own\n"},
        {"[route a]\nupstream = app\nset_request_header = X-A: $status\n",
         "11: route a.set_request_header: it has a variable that is not known here yet\n"},
        {"[route a]\nupstream = app\nset_response_header = X-A: $\n",
         "11: route a.set_response_header: \"$\" without the name of a variable (\"$$\" is a "
         "dollar "
         "sign)\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void bad_upstreams_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[upstream a]\n",
         "9: upstream a.server: missing (ADDRESS, then weight=N max_connections=N backup)\n"},
        {"[upstream a]\nserver = unix:/a wieght=2\n",
         "10: upstream a.server: unknown parameter \"wieght\" (did you mean \"weight\"?)\n"},
        {"[upstream a]\nserver = unix:/a weight\n",
         "10: upstream a.server: \"weight\" needs a value, as in weight=2\n"},
        {"[upstream a]\nserver = unix:/a weight=0\n",
         "10: upstream a.server: \"weight=0\" needs a number from 1 to 1000\n"},
        {"[upstream a]\nserver = unix:/a max_connections=-1\n",
         "10: upstream a.server: \"max_connections=-1\" needs a number from 0 to 1000000\n"},
        {"[upstream a]\nserver = 127.0.0.1:1 127.0.0.1:2\n",
         "10: upstream a.server: \"127.0.0.1:2\" belongs in a line of its own, one server a "
         "line\n"},
        {"[upstream a]\nserver = 127.0.0.1\n",
         "10: upstream a.server: \"127.0.0.1\" has no port (ADDRESS:PORT)\n"},
        {"[upstream a]\nserver = [::1]:1\nserver = [0::1]:1 backup\n",
         "11: upstream a.server: duplicate server \"[0::1]:1\"\n"},
        {"[upstream a]\nserver = unix:/a\nbalance = p2\n",
         "11: upstream a.balance: \"p2\" is none of round_robin least_conn p2c random maglev "
         "source_ip first (did you mean \"p2c\"?)\n"},
        {"[upstream a]\nserver = unix:/a\nprotocol = http2\n",
         "11: upstream a.protocol: \"http2\" is none of h1 h2\n"},
        {"[upstream a]\nserver = unix:/a\nhash_key = path\n",
         "11: upstream a.hash_key: needs balance = maglev\n"},
        {"[upstream a]\nserver = unix:/a\nbalance = maglev\nhash_key = header\n",
         "12: upstream a.hash_key: \"header\" is none of client_ip, header:NAME, cookie:NAME, "
         "path\n"},
        {"[upstream a]\nserver = unix:/a\nbalance = maglev\nhash_key = path:x\n",
         "12: upstream a.hash_key: \"path:x\" is none of client_ip, header:NAME, cookie:NAME, "
         "path\n"},
        {"[upstream a]\nserver = unix:/a\nretries = 2\nsticky = off\n"
         "healthcheck = x\n",
         "11: upstream a.retries: not supported by this version\n"
         "12: upstream a.sticky: not supported by this version\n"
         "13: upstream a.healthcheck: not supported by this version\n"},
        {"[upstream a]\nserver = unix:/a\nsend_proxy = v1\nkeepalive = 1\n",
         "12: upstream a.keepalive: with send_proxy a connection is one client's and cannot be "
         "kept: it must be 0, or left out\n"},
        {"[upstream a]\nserver = unix:/a\nqueue = -1\ntimeout_queue = 0s\n",
         "11: upstream a.queue: \"-1\" is not a whole number\n"
         "12: upstream a.timeout_queue: \"0s\" is out of range, it must be 1ms to 720h\n"},
        {"[listener a]\nbind = unix:/a\nservice = one\ntimeout_queue = 1s\n",
         "12: listener a.timeout_queue: does not belong here but in [defaults] or [upstream "
         "NAME]\n"},
        {"[upstream a]\nserver = unix:/a weight=2 backup weight=2\nserver = unix:/b backup "
         "backup\n",
         "10: upstream a.server: \"weight\" is given twice\n"
         "11: upstream a.server: \"backup\" is given twice\n"},
        {"[upstream a]\nserver = unix:/a\nmax_connections = 3\nweight = 2\nbackup = on\n",
         "11: upstream a.max_connections: belongs in the line of each server: server = ADDRESS "
         "max_connections=N\n"
         "12: upstream a.weight: belongs in the line of each server: server = ADDRESS weight=N\n"
         "13: upstream a.backup: belongs in the line of each server: server = ADDRESS backup\n"},
        {"[upstream a]\nserver = unix:/a\nmax_body_size = 1k\n",
         "11: upstream a.max_body_size: does not belong here but in [defaults] or [listener "
         "NAME]\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void keys_of_requests_where_none_comes_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[listener raw]\nbind = unix:/a\nmode = tcp\nupstream = raw\n"
         "[upstream raw]\nserver = unix:/b\ntimeout_server = 5s\nkeepalive = 4\n"
         "keepalive_timeout = 5s\ntimeout_tunnel = 5s\ntimeout_connect = 1s\n",
         "15: upstream raw.timeout_server: has no effect: only connections of mode = tcp come here "
         "(see timeout_tunnel)\n"
         "16: upstream raw.keepalive: has no effect: only connections of mode = tcp come here\n"
         "17: upstream raw.keepalive_timeout: has no effect: only connections of mode = tcp come "
         "here\n"},
        {"[listener raw]\nbind = unix:/a\nmode = tcp\nupstream = app\n"
         "[route named]\nlistener = raw\nsni = a.example\nupstream = named\n"
         "[upstream named]\nserver = unix:/b\nkeepalive = 4\n"
         "[upstream both]\nserver = unix:/b\nkeepalive = 4\n"
         "[route a]\npath = /a\nupstream = both 1, app 1\n"
         "[route b]\nlistener = raw\nsni = b.example\nupstream = both\n"
         "[upstream unused]\nserver = unix:/b\ntimeout_server = 5s\n",
         "19: upstream named.keepalive: has no effect: only connections of mode = tcp come here\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void bad_services_are_named(void **state) {
    (void)state;
    static const struct bad rows[] = {
        {"[service a]\n", "9: service a.type: missing (which built-in origin it is)\n"},
        {"[service a]\ntype = static\n",
         "10: service a.type: \"static\" is not supported by this version\n"},
        {"[service a]\ntype = echo\nstatus = 200\nheader = A: b\nbody = x\n",
         "11: service a.status: has no effect with type = echo\n"
         "12: service a.header: has no effect with type = echo\n"
         "13: service a.body: has no effect with type = echo\n"},
        {"[service a]\ntype = respond\nstatus = 100\n",
         "11: service a.status: \"100\" is out of range, it must be 200 to 599\n"},
        {"[service a]\ntype = respond\nheader = Connection: close\n",
         "11: service a.header: Connection belongs to the connection and is weir's own\n"},
        {"[service a]\ntype = respond\nstatus = 204\nbody = x\n",
         "12: service a.body: an answer with status 204 has no body\n"},
    };
    ASSERT_ALL_BAD(rows);
}

static void bad_defaults_are_named_once(void **state) {
    (void)state;
    /* Two listeners and an upstream take their limits from there. */
    assert_errors(GOOD "timeout_request = 1x\nqueue = 5\n[listener b]\n"
                       "bind = unix:/b\nservice = one\n",
                  "9: defaults.timeout_request: \"1x\" is not a duration with a unit (500ms 10s 5m "
                  "1h)\n"
                  "10: defaults.queue: does not belong here but in [upstream NAME]\n");
}

static void all_errors_come_at_once_in_file_order(void **state) {
    (void)state;
    assert_errors("[upstream a]\n"
                  "[listener w]\n"
                  "upstream = b\n"
                  "bnd = x\n"
                  "nonsense\n"
                  "[route r]\n"
                  "redirect = 301 $x\n"
                  "[global]\n"
                  "workers = x\n",
                  "1: upstream a.server: missing (ADDRESS, then weight=N max_connections=N "
                  "backup)\n"
                  "2: listener w.bind: missing (addresses: 0.0.0.0:8080 [::]:8080 unix:/path)\n"
                  "3: listener w.upstream: there is no [upstream b]\n"
                  "4: listener w.bnd: unknown key (did you mean \"bind\"?)\n"
                  "5: listener w: expected \"key = value\" or \"[section]\"\n"
                  "7: route r.redirect: unknown variable \"$x\"\n"
                  "9: global.workers: \"x\" is not auto or a number from 1 to 256\n");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_globals_are_named),
        cmocka_unit_test(bad_listeners_are_named),
        cmocka_unit_test(listeners_that_collide_and_void_keys_are_named),
        cmocka_unit_test(what_unix_sockets_do_not_have_is_named),
        cmocka_unit_test(what_only_checked_websockets_use_is_named),
        cmocka_unit_test(services_fit_one_mode),
        cmocka_unit_test(what_tcp_leads_to_is_checked),
        cmocka_unit_test(what_tcp_has_no_use_for_is_named),
        cmocka_unit_test(bad_matches_of_routes_are_named),
        cmocka_unit_test(bad_actions_of_routes_are_named),
        cmocka_unit_test(bad_edits_are_named),
        cmocka_unit_test(bad_upstreams_are_named),
        cmocka_unit_test(keys_of_requests_where_none_comes_are_named),
        cmocka_unit_test(bad_services_are_named),
        cmocka_unit_test(bad_defaults_are_named_once),
        cmocka_unit_test(all_errors_come_at_once_in_file_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
