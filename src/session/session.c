#include "session/session.h"

#include "base/check.h"
#include "base/log.h"
#include "net/conn_ends.h"
#include "session/h1_internal.h"
#include "session/h2.h"
#include "session/h2_internal.h"
#include "session/tcp_internal.h"

#include <errno.h>
#include <stdlib.h>

/* Most exchanges fit a small chunk: a request head with its table, the response's, and the fields a
 * proxy adds. */
#define SESSION_ARENA_SMALL 3968

/* A head at its limits with its table, twice for what rewriting adds. */
static size_t session_arena_large(const struct session_room_options *options) {
    return 2 * (size_t)options->max_header_size +
           2 * options->max_headers * sizeof(struct http_field) + 4096;
}

int session_room_init(struct session_room *room, struct net *net,
                      const struct session_room_options *options) {
    *room = (struct session_room){.net = net,
                                  .max_header_size = options->max_header_size,
                                  .max_headers = options->max_headers,
                                  .text_size = 4 * (size_t)options->max_header_size + 65536};
    list_init(&room->clients);
    size_t head_size = sizeof(struct h1_head) + options->max_headers * sizeof(struct h1_span) +
                       options->max_header_size + 1;
    int error = slab_init(&room->sessions, "session", sizeof(struct h1), options->sessions_max);
    if (error == 0)
        error = slab_init(&room->tcp, "session_tcp", sizeof(struct tcp), options->tcp_max);
    if (error == 0)
        error = wire_room_init(&room->wires, net, options->wires_max, options->handshakes_max);
    room->wires.ktls = options->ktls;
    if (error == 0) error = slab_init(&room->heads, "head", head_size, options->sessions_max);
    if (error == 0) {
        error = arena_pool_init(&room->arenas, SESSION_ARENA_SMALL, options->exchanges_max,
                                session_arena_large(options), options->exchanges_max);
    }
    if (error < 0) return error;
    net_add_slab(net, &room->sessions);
    net_add_slab(net, &room->tcp);
    net_add_slab(net, &room->heads);
    net_add_slab(net, &room->arenas.small);
    net_add_slab(net, &room->arenas.large);
    room->parser = malloc(sizeof *room->parser);
    room->spans = malloc(options->max_headers * sizeof *room->spans);
    room->text = malloc(room->text_size);
    if (!room->parser || !room->spans || !room->text) return -ENOMEM;
    return h2_room_init(room, options);
}

void session_room_fini(struct session_room *room) {
    CHECK(list_empty(&room->clients));
    h2_room_fini(room);
    slab_fini(&room->sessions);
    slab_fini(&room->tcp);
    wire_room_fini(&room->wires);
    slab_fini(&room->heads);
    arena_pool_fini(&room->arenas);
    free(room->parser);
    free(room->spans);
    free(room->text);
    *room = (struct session_room){0};
}

void session_room_drain(struct session_room *room) {
    room->draining = true;
    wire_room_drain(&room->wires);
    LIST_FOR_EACH(node, &room->clients) {
        struct session *session = LIST_OWNER(node, struct session, link);
        session->ops->drain(session);
    }
}

uint32_t session_room_cut(struct session_room *room) {
    uint32_t count = 0;
    wire_room_cut(&room->wires);
    LIST_FOR_EACH(node, &room->clients) {
        struct session *session = LIST_OWNER(node, struct session, link);
        count += !session->is_client && !session->closing;
        session->ops->close(session, REASON_DRAIN_CUT);
    }
    return count;
}

void session_room_relieve(struct session_room *room) {
    struct session *greatest = NULL;
    size_t most = 2 * (size_t)room->net->options.queue_mark;
    LIST_FOR_EACH(node, &room->clients) {
        struct session *session = LIST_OWNER(node, struct session, link);
        if (!session->ops->held || !session->is_client || !session->conn) continue;
        size_t held = session->ops->held(session);
        if (held <= most) continue;
        most = held;
        greatest = session;
    }
    if (!greatest) return;
    struct bytes client = session_client_ip(greatest);
    log_warn("the small buffers are used up: client %.*s, for which %zu bytes wait, is reset",
             BYTES_FMT(client), most);
    conn_abandon(greatest->conn, ENOBUFS);
}

uint32_t session_room_used(const struct session_room *room) {
    return room->sessions.used + room->tcp.used + room->h2->sessions.used;
}

void session_room_publish(const struct session_room *room) {
    stat_set(room->net->stats, STAT_SESSION_SLOTS_USED, session_room_used(room));
}

struct bytes session_client_ip(struct session *session) {
    if (session->client_ip_size == 0) {
        union addr address;
        struct writer text = writer_make(session->client_ip, sizeof session->client_ip);
        if (session->conn && conn_source(session->conn, &address)) {
            addr_host(&address.any, &text);
            session->client_port = addr_port(&address.any);
        } else {
            writer_put(&text, BYTES("unknown"));
        }
        session->client_ip_size = (uint8_t)text.len;
    }
    return bytes_make(session->client_ip, session->client_ip_size);
}

bool session_client_ends(const struct session *session, struct addr_pair *ends) {
    return session->conn && conn_source(session->conn, &ends->source) &&
           conn_destination(session->conn, &ends->destination);
}

bool session_add_date(struct session_room *room, struct http_message *response,
                      struct arena *arena) {
    if (http_fields_find(&response->fields, HTTP_FIELD_DATE)) return true;
    /* The text is good for this turn, and heads are written at once. */
    struct bytes now = http_date_now(&room->date, room->net->now_ms);
    struct http_field date = {.name = BYTES("Date"), .value = now, .id = HTTP_FIELD_DATE};
    return http_fields_put(&response->fields, arena, date);
}
