#include "base/check.h"
#include "base/reason.h"
#include "control/command.h"
#include "control/tls_files.h"
#include "proto/h1_parse.h"
#include "proto/h1_write.h"
#include "proxy/balance.h"
#include "proxy/hash_key.h"
#include "proxy/rewrite.h"
#include "proxy/route.h"
#include "proxy/upstream.h"

#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>

#define HEADERS_MAX 64
#define HEAD_SIZE_MAX 262144 /* twice max_header_size would do; the parser's limits decide */
#define ARENA_CHUNK_SIZE 1048576
#define CLEAR BYTES("http://")
#define SECURE BYTES("https://")

/* A question, as asked on the command line. */
struct question {
    struct bytes method;
    struct bytes authority; /* of the URL; ptr NULL when it is a path only */
    struct bytes target;    /* path and query */
    bool is_secure;         /* "https:" */
    bool is_tunnel;         /* CONNECT: the authority is that of the other end */
    const char *headers[HEADERS_MAX];
    uint32_t header_count;
    const char *listener; /* NULL: by the port of the URL */
    const char *client;
};

/* What an answer is made from. */
struct explain {
    const struct question *question;
    const struct config *config;
    const struct config_listener *listener;
    struct arena *arena;
    struct http_message received;
    struct http_message sent; /* the same once more, for rewriting */
    struct rewrite_facts facts;
    struct h1_framing framing;
};

static int usage(const char *wrong) {
    (void)fprintf(
        stderr,
        "weir explain: %s\n"
        "usage: weir [-c FILE] explain METHOD URL [-H 'Name: value']... [--listener NAME] "
        "[--client ADDRESS]\n",
        wrong);
    return 2;
}

/* "http://host:port/path?query", the same with https, "/path?query", or "host:port" with CONNECT; a
 * fragment is never sent (RFC 9110 section 4.2.5). */
static bool read_url(struct bytes url, struct question *question) {
    question->is_tunnel = http_method_of(question->method) == HTTP_CONNECT;
    if (question->is_tunnel) {
        question->target = question->authority = url;
        return url.len != 0;
    }
    url = bytes_slice(url, 0, bytes_find(url, '#'));
    question->target = url;
    question->is_secure = bytes_starts_with(url, SECURE);
    if (question->is_secure || bytes_starts_with(url, CLEAR)) {
        url = bytes_slice(url, question->is_secure ? SECURE.len : CLEAR.len, url.len);
        size_t end = 0;
        while (end < url.len && url.ptr[end] != '/' && url.ptr[end] != '?')
            end++;
        question->authority = bytes_slice(url, 0, end);
        question->target = bytes_slice(url, end, url.len);
        return question->authority.len != 0;
    }
    return bytes_equal(url, BYTES("*")) || bytes_starts_with(url, BYTES("/"));
}

/* 0, or the exit status after a message. */
static int read_arguments(int argc, char **argv, struct question *question) {
    static const struct option options[] = {
        {"header", required_argument, NULL, 'H'},
        {"listener", required_argument, NULL, 'l'},
        {"client", required_argument, NULL, 'a'},
        {NULL, 0, NULL, 0},
    };
    *question = (struct question){.client = "127.0.0.1"};
    const char *words[2];
    int word_count = 0;
    /* getopt(3) begins behind the name of a program: the word explain, which stands before argv.
     * "-" hands out the words in order, so that options may stand anywhere. 0: starts afresh, main
     * has used it before. */
    optind = 0;
    for (int c; (c = getopt_long(argc + 1, argv - 1, "-H:", options, NULL)) != -1;) {
        if (c == 1 && word_count < 2) {
            words[word_count++] = optarg;
        } else if (c == 'H' && question->header_count < HEADERS_MAX) {
            question->headers[question->header_count++] = optarg;
        } else if (c == 'l') {
            question->listener = optarg;
        } else if (c == 'a') {
            question->client = optarg;
        } else {
            return usage(c == 1 ? "more than a METHOD and a URL" : "bad option");
        }
    }
    if (word_count < 2) return usage("a METHOD and a URL are needed");
    question->method = bytes_of(words[0]);
    if (!read_url(bytes_of(words[1]), question)) {
        return usage("the URL must begin with http://, https:// or / (CONNECT: HOST:PORT)");
    }
    return 0;
}

static uint16_t port_of(const struct config_address *address) {
    if (address->storage.ss_family == AF_INET) {
        struct sockaddr_in in;
        memcpy(&in, &address->storage, sizeof in);
        return ntohs(in.sin_port);
    }
    if (address->storage.ss_family == AF_INET6) {
        struct sockaddr_in6 in6;
        memcpy(&in6, &address->storage, sizeof in6);
        return ntohs(in6.sin6_port);
    }
    return 0;
}

/* The port of an authority, `usual` when it names none, 0 when what it names is none. */
static uint64_t authority_port(struct bytes authority, uint64_t usual) {
    size_t colon = authority.len;
    while (colon > 0 && authority.ptr[colon - 1] != ':' && authority.ptr[colon - 1] != ']')
        colon--;
    if (colon == 0 || authority.ptr[colon - 1] == ']') return usual;
    uint64_t port;
    return bytes_to_u64(bytes_slice(authority, colon, authority.len), &port) ? port : 0;
}

static bool listens_on(const struct config_listener *listener, uint64_t port) {
    for (uint32_t i = 0; i < listener->bind_count; i++) {
        if (port_of(&listener->binds[i]) == port) return true;
    }
    return false;
}

/* The first that speaks what the URL does, TLS or not; the first when none does. */
static const struct config_listener *first_listener(const struct config *config,
                                                    const struct question *question) {
    bool has_scheme = question->authority.ptr && !question->is_tunnel;
    for (uint32_t i = 0; has_scheme && i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        bool speaks_tls = listener->tls != NULL;
        if (!listener->is_admin && listener->mode == CONFIG_MODE_HTTP &&
            speaks_tls == question->is_secure)
            return listener;
    }
    return &config->listeners[0];
}

/* The listener asked for, else one that has the port of the URL, else the first that speaks its
 * scheme. NULL: no such name. */
static const struct config_listener *
find_listener(const struct config *config, const struct question *question, const char **by) {
    uint64_t port = authority_port(question->authority, question->is_secure ? 443 : 80);
    bool has_port = question->authority.ptr && !question->is_tunnel;
    for (uint32_t i = 0; i < config->listener_count; i++) {
        const struct config_listener *listener = &config->listeners[i];
        *by = question->listener ? "as asked for" : "by the port of the URL";
        bool is_it = question->listener ? strcmp(listener->name, question->listener) == 0
                                        : has_port && listens_on(listener, port);
        if (is_it) return listener;
    }
    *by = has_port ? "no listener has the port of the URL; --listener NAME takes another"
                   : "the first; --listener NAME takes another";
    return question->listener ? NULL : first_listener(config, question);
}

/* The request as a client would send it. */
static struct bytes write_head(const struct question *question, struct writer *w) {
    bool has_host = false;
    for (uint32_t i = 0; i < question->header_count; i++) {
        struct bytes header = bytes_of(question->headers[i]);
        has_host |= bytes_equal_nocase(bytes_slice(header, 0, 5), BYTES("host:"));
    }
    struct bytes target = question->target;
    writer_put(w, question->method);
    writer_put(w, target.len == 0 || target.ptr[0] == '?' ? BYTES(" /") : BYTES(" "));
    writer_put(w, target);
    writer_put(w, BYTES(" HTTP/1.1\r\n"));
    if (!has_host) {
        writer_put(w, BYTES("Host: "));
        writer_put(w, question->authority.ptr ? question->authority : BYTES("localhost"));
        writer_put(w, BYTES("\r\n"));
    }
    for (uint32_t i = 0; i < question->header_count; i++) {
        writer_put(w, bytes_of(question->headers[i]));
        writer_put(w, BYTES("\r\n"));
    }
    writer_put(w, BYTES("\r\n"));
    return writer_bytes(w);
}

static bool refuse(enum reason reason) {
    const struct reason_entry *entry = reason_entry(reason);
    printf("refused   %d %s: %s\n", entry->status, entry->name, entry->text);
    return false;
}

/* Reads the head as the listener would, twice. false: it would be refused, and that is said. */
static bool parse_head(struct explain *explain, struct bytes head) {
    const struct config_limits *limits = &explain->listener->limits;
    struct h1_limits h1 = {(uint32_t)limits->max_header_size, (uint32_t)limits->max_headers,
                           (uint32_t)limits->max_target};
    struct h1_span *spans = calloc(limits->max_headers, sizeof *spans);
    struct h1_parser parser;
    CHECK(spans != NULL); /* a command for a person, not a server: nothing to save */
    h1_parser_init(&parser, H1_REQUEST, HTTP_GET, &h1, spans);
    enum h1_result result = h1_parse(&parser, head);
    bool is_large = result == H1_DONE && parser.body_kind == H1_BODY_LENGTH &&
                    limits->max_body_size != 0 && parser.body_length > limits->max_body_size;
    if (result != H1_DONE || is_large) {
        /* MORE: an argument with line ends in it shifted what is a line. */
        if (result == H1_MORE) printf("refused   the head has no end\n");
        if (result == H1_BAD) (void)refuse(parser.reason);
        free(spans);
        return is_large ? refuse(REASON_BODY_TOO_LARGE) : false;
    }
    struct bytes scheme = explain->listener->tls ? BYTES("https") : BYTES("http");
    bool is_copied = h1_message(&parser, head, scheme, explain->arena, &explain->received) &&
                     h1_message(&parser, head, scheme, explain->arena, &explain->sent);
    CHECK(is_copied); /* the arena holds many heads of the largest size */
    /* As exchange_on_request does. */
    if (bytes_equal_nocase(explain->received.upgrade, BYTES("h2c")))
        explain->received.upgrade = explain->sent.upgrade = BYTES_NONE;
    explain->framing = (struct h1_framing){.body_kind = parser.body_kind,
                                           .body_length = parser.body_length,
                                           .keep_alive = true,
                                           .upgrade = explain->sent.upgrade.len != 0};
    free(spans);
    return true;
}

/* Asks the policy itself, with every server up and idle, as in a worker that has just started. */
static const struct config_server *pick_server(struct explain *explain,
                                               const struct config_upstream *upstream) {
    const struct balance_ops *ops = upstream_policy(upstream->balance);
    struct balance_server *servers = calloc(upstream->server_count, sizeof *servers);
    const char **names = calloc(upstream->server_count, sizeof *names);
    CHECK(servers && names); /* as above */
    for (uint32_t i = 0; i < upstream->server_count; i++) {
        const struct config_server *server = &upstream->servers[i];
        servers[i] = (struct balance_server){
            .weight = server->weight, .backup = server->backup, .available = true};
        names[i] = server->name;
    }
    struct balance balance;
    CHECK(balance_init(&balance, ops, servers, names, upstream->server_count) == 0);
    struct balance_pick pick = {
        .hash = hash_key(upstream, &explain->received, explain->facts.client_ip)};
    uint32_t index = balance_pick(&balance, &pick);
    CHECK(index < upstream->server_count); /* all are available */
    balance_fini(&balance);
    free(servers);
    free(names);
    printf("server    %s (%s of %u by %s)\n", upstream->servers[index].name,
           ops->uses_hash ? "always this one" : "one", upstream->server_count, ops->name);
    const char *name = upstream->servers[index].tls_name;
    if (upstream->tls.on)
        printf("          over TLS, as %s%s\n", name ? name : "nobody in particular",
               upstream->tls.verify ? "" : ", unverified");
    if (upstream->send_proxy != 0)
        printf("          behind a PROXY header of version %u\n", upstream->send_proxy);
    return &upstream->servers[index];
}

static void print_head(struct explain *explain) {
    size_t size = h1_head_size_max(&explain->sent);
    struct writer w = writer_make(arena_alloc(explain->arena, size), size);
    CHECK(w.ptr != NULL); /* as in parse_head */
    h1_write_request(&w, &explain->sent, &explain->framing);
    struct bytes rest = writer_bytes(&w);
    struct bytes line;
    const char *label = "sends";
    while (bytes_split(&rest, '\n', &line) && line.len > 1) {
        printf("%-10s%.*s\n", label, (int)line.len - 1, line.ptr);
        label = "";
    }
}

/* What becomes of a WebSocket: with its frames checked it is offered without extensions. */
static void explain_websocket(struct explain *explain, const struct config_route *route) {
    if (!http_is_websocket(&explain->sent)) return;
    bool is_checked = route_websocket(explain->listener, route).mode == CONFIG_WEBSOCKET_CHECKED;
    printf("websocket %s\n", is_checked ? "checked" : "raw");
    if (is_checked)
        (void)http_fields_remove(&explain->sent.fields, BYTES("Sec-WebSocket-Extensions")); /* if
                                                                                               any
                                                                                             */
}

/* The memory of a request is bounded, here as in a worker. */
static void explain_no_memory(void) {
    const struct reason_entry *entry = reason_entry(REASON_NO_MEMORY);
    printf("answer    %d %s: the variables of the route expand to too much\n", entry->status,
           entry->name);
}

static bool has_tls_variable(const struct template *template) {
    for (uint32_t i = 0; i < template->count; i++) {
        enum template_variable variable = template->parts[i].variable;
        if (variable >= TEMPLATE_TLS_VERSION && variable <= TEMPLATE_TLS_CLIENT_VERIFY) return true;
    }
    return false;
}

/* What is not among the fields that were printed, or not whole: there is no handshake to ask. */
static void explain_tls_fields(const struct explain *explain, const struct config_route *route) {
    bool is_first = true;
    if (!explain->listener->tls || !route) return;
    for (uint32_t i = 0; i < route->request_edits.count; i++) {
        const struct config_edit *edit = &route->request_edits.items[i];
        if (edit->kind == CONFIG_EDIT_REMOVE || !has_tls_variable(&edit->value)) continue;
        printf("%s%s", is_first ? "          by the client's handshake: " : ", ", edit->name);
        is_first = false;
    }
    if (!is_first) printf("\n");
}

static void explain_upstream(struct explain *explain, const struct config_route *route,
                             const struct config_action *action) {
    uint32_t draw = 0;
    const struct config_upstream *upstream = route_split(action, draw);
    printf("action    upstream\nupstream  %s", upstream->name);
    for (uint32_t i = 0; action->split_count > 1 && i < action->split_count; i++) {
        printf("%s%s %u", i == 0 ? " (of " : ", ", action->splits[i].upstream->name,
               action->splits[i].weight);
    }
    printf("%s\n", action->split_count > 1 ? ")" : "");
    explain->facts.upstream = upstream->name;
    explain->facts.server = pick_server(explain, upstream)->name;
    if (upstream->protocol == CONFIG_PROTOCOL_H2)
        printf("protocol  h2: frames of what HTTP/1.1 would say like this\n");
    explain_websocket(explain, route);
    if (rewrite_request(&explain->sent, explain->listener, route, &explain->facts,
                        explain->arena)) {
        print_head(explain);
        explain_tls_fields(explain, route);
    } else {
        explain_no_memory();
    }
}

static void explain_text(struct explain *explain, const struct config_action *action,
                         const char *label) {
    struct bytes text;
    if (!rewrite_expand(&action->text, &explain->facts, explain->arena, &text)) {
        explain_no_memory();
        return;
    }
    printf("answer    %u %.*s\n", action->status, BYTES_FMT(http_reason_phrase(action->status)));
    if (text.len != 0) printf("%-10s%.*s\n", label, BYTES_FMT(text));
}

static void explain_action(struct explain *explain, const struct config_route *route) {
    const struct config_action *action = route ? &route->action : &explain->listener->action;
    switch (action->kind) {
    case CONFIG_ACTION_NONE:
        printf("action    none\nanswer    404 %.*s\n", BYTES_FMT(http_reason_phrase(404)));
        break;
    case CONFIG_ACTION_UPSTREAM:
        explain_upstream(explain, route, action);
        break;
    case CONFIG_ACTION_SERVICE:
        printf("action    service\nservice   %s (respond)\nanswer    %u %.*s\n",
               action->service->name, action->service->status,
               BYTES_FMT(http_reason_phrase(action->service->status)));
        break;
    case CONFIG_ACTION_REDIRECT:
        printf("action    redirect\n");
        explain_text(explain, action, "location");
        break;
    case CONFIG_ACTION_RESPOND:
        printf("action    respond\n");
        explain_text(explain, action, "body");
        break;
    }
}

/* The host of the URL as text, NULL without one. */
static const char *host_of(const struct question *question, char memory[256]) {
    struct bytes host = http_authority_host(question->authority);
    if (host.len == 0 || host.len > 255 || host.ptr[0] == '[') return NULL;
    memcpy(memory, host.ptr, host.len);
    memory[host.len] = '\0';
    return memory;
}

/* What comes before the request, and before TLS. */
static void explain_proxy_header(const struct explain *explain) {
    static const char *const versions[] = {NULL, "1", "2", "1 or 2"};
    uint8_t wanted = explain->listener->proxy_protocol;
    CHECK(wanted < sizeof versions / sizeof versions[0]);
    if (wanted == 0) return;
    printf("          begins with a PROXY header of version %s from trusted_proxies; the client is "
           "who stands in it\n",
           versions[wanted]);
}

/* Which certificate it would be shown. false: it would be refused, and that is said. */
static bool explain_tls(const struct explain *explain) {
    const struct config_tls *tls = explain->listener->tls;
    const struct question *question = explain->question;
    bool is_http = explain->listener->mode == CONFIG_MODE_HTTP;
    if (question->is_secure && !tls && is_http) {
        printf("refused   the listener speaks no TLS\n");
        return false;
    }
    if (!tls) return true;
    bool is_clear = !question->is_secure && question->authority.ptr && !question->is_tunnel;
    if (is_clear && is_http) return refuse(REASON_TLS_PLAIN_HTTP);
    if (is_clear) {
        printf("refused   tls_plain_http: the connection is reset\n");
        return false;
    }
    struct tls_subject subject = tls_subject_of_section(tls);
    struct tls_fault fault;
    char memory[256];
    const char *host = host_of(question, memory);
    uint32_t index = 0;
    struct tls_context *context = tls_subject_context(&subject, &fault);
    bool is_shown = context && tls_context_pick(context, host, &index);
    if (is_shown) {
        printf("tls       %s (%s)\n", tls->name, tls->certificates[index].file.text);
        if (tls->client_auth != CONFIG_CLIENT_AUTH_OFF)
            printf("          the client %s show a certificate signed by %s\n",
                   tls->client_auth == CONFIG_CLIENT_AUTH_REQUIRE ? "must" : "may", tls->ca.text);
    } else if (context) {
        printf("refused   no certificate of tls %s has the name (strict_sni)\n", tls->name);
    } else {
        printf("refused   tls %s: %s\n", tls->name, fault.text);
    }
    tls_context_free(context);
    return is_shown;
}

/* What a ClientHello with the host of the URL would choose. */
static const struct config_action *explain_sni(const struct explain *explain) {
    const struct config_action *action = &explain->listener->action;
    struct router router;
    CHECK(router_init(&router, explain->config) == 0); /* as in parse_head */
    if (router_wants_sni(&router, explain->listener)) {
        char memory[256];
        const char *host = explain->question->is_secure ? host_of(explain->question, memory) : NULL;
        const struct config_route *route =
            router_match_sni(&router, explain->listener, bytes_of(host));
        if (route) {
            printf("route     %s (%s:%u), by sni\n", route->name, explain->config->file,
                   route->line);
            action = &route->action;
        } else {
            printf("route     none matches: the listener's own action\n");
        }
    }
    router_fini(&router);
    return action;
}

/* Nothing of a request is looked at: each connection goes where this one would. */
static int explain_connection(struct explain *explain) {
    printf("mode      tcp: bytes are carried as they come, requests and routes do not matter\n");
    const struct config_action *action = explain_sni(explain);
    if (action->kind == CONFIG_ACTION_NONE) {
        printf("action    none\nrefused   the connection is reset\n");
        return 1;
    }
    if (action->kind == CONFIG_ACTION_SERVICE) {
        printf("action    service\nservice   %s (echo)\n", action->service->name);
        return 0;
    }
    printf("action    upstream\nupstream  %s\n", action->splits[0].upstream->name);
    explain->facts.client_ip = bytes_of(explain->question->client);
    (void)pick_server(explain, action->splits[0].upstream); /* it has been printed */
    return 0;
}

static int explain_request(struct explain *explain, struct bytes head) {
    if (!parse_head(explain, head)) return 1;
    struct router router;
    CHECK(router_init(&router, explain->config) == 0); /* as in parse_head */
    const struct config_route *route = router_match(&router, explain->listener, &explain->received);
    if (route) {
        printf("route     %s (%s:%u)\n", route->name, explain->config->file, route->line);
    } else {
        printf("route     none matches: the listener's own action\n");
    }
    explain->facts = (struct rewrite_facts){
        .request = &explain->received,
        .client_ip = bytes_of(explain->question->client),
        .original_path = explain->received.path,
        .listener = explain->listener->name,
        .route = route ? route->name : "",
        .upstream = "",
        .server = "",
    };
    enum reason refusal = route_refusal(explain->listener, route, &explain->received);
    if (refusal == REASON_NONE) {
        explain_action(explain, route);
    } else {
        (void)refuse(refusal); /* it has been said */
    }
    router_fini(&router);
    return refusal == REASON_NONE ? 0 : 1;
}

static int explain_in_arena(struct explain *explain) {
    static char memory[HEAD_SIZE_MAX];
    struct writer w = writer_make(memory, sizeof memory);
    struct bytes head = write_head(explain->question, &w);
    if (w.full) return usage("the request is too long");
    struct arena_pool pool;
    struct arena arena;
    CHECK(arena_pool_init(&pool, ARENA_CHUNK_SIZE, 1, ARENA_CHUNK_SIZE, ARENA_CHUNKS_MAX) == 0);
    arena_init(&arena, &pool);
    explain->arena = &arena;
    int status = explain_request(explain, head);
    arena_reset(&arena);
    arena_pool_fini(&pool);
    return status;
}

static bool is_address(const char *text) {
    struct in6_addr unused;
    return inet_pton(AF_INET, text, &unused) == 1 || inet_pton(AF_INET6, text, &unused) == 1;
}

int command_explain(const char *file, int argc, char **argv) {
    struct question question;
    int status = read_arguments(argc, argv, &question);
    if (status != 0) return status;
    if (!is_address(question.client)) return usage("--client needs an IP address without a port");
    struct config *config = command_load(file);
    if (!config) return 1;
    const char *by = "";
    struct explain explain = {.question = &question, .config = config};
    explain.listener = find_listener(config, &question, &by);
    if (!explain.listener) {
        (void)fprintf(stderr, "weir explain: there is no listener %s\n", question.listener);
        status = 2;
    } else {
        printf("listener  %s (%s)\n", explain.listener->name, by);
        explain_proxy_header(&explain);
        bool is_tcp = explain.listener->mode == CONFIG_MODE_TCP;
        if (explain.listener->is_admin) {
            printf("action    metrics and health: routes do not matter\n");
        } else {
            status = !explain_tls(&explain) ? 1
                     : is_tcp               ? explain_connection(&explain)
                                            : explain_in_arena(&explain);
        }
    }
    config_free(config);
    return status;
}
