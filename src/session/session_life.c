#include "session/session_life.h"

#include <errno.h>

void session_begin(struct session *session) {
    list_init(&session->link);
    session->opened_ns = session->room->net->now_ns;
    session_room_publish(session->room);
}

void session_attach(struct session *session, struct conn *conn, const struct conn_events *events) {
    session->is_client = true;
    session->conn = conn;
    list_push_back(&session->room->clients, &session->link);
    conn_attach(conn, events, session);
}

static enum reason session_dial_reason(int error) {
    if (error == -ENOMEM || error == -ENOBUFS) return REASON_NO_MEMORY;
    return error == -EMFILE || error == -ENFILE ? REASON_NO_DESCRIPTORS : REASON_CONNECT_FAILED;
}

enum reason session_dial(struct session *session, const struct session_address *to,
                         const struct conn_events *events) {
    struct session_room *room = session->room;
    const struct session_options *options = session->options;
    struct conn_dial_options dial = {.address = to->address,
                                     .address_size = to->size,
                                     .deadline_ms = room->net->now_ms + options->timeout_connect_ms,
                                     .nodelay = true,
                                     .pp_version = options->send_proxy,
                                     .pp_ends = to->client};
    int error = 0;
    session->conn = conn_dial(room->net, &dial, events, session, &error);
    if (!session->conn) return session_dial_reason(error);
    if (!options->tls || wire_dial(&room->wires, session->conn, options, to)) return REASON_NONE;
    session_drop(session);
    return REASON_NO_MEMORY;
}

enum reason session_undialled_reason(struct session *session, int error) {
    session->connect_error = error;
    session->connect_words = wire_lost_words(session->conn);
    return wire_lost_reason(session->conn, error);
}

enum reason session_lost_reason(const struct session *session, int error) {
    if (error == ENOBUFS) return REASON_NO_MEMORY; /* session_room_relieve */
    if (session->is_client) return REASON_CLIENT_RESET;
    return error == ETIMEDOUT ? REASON_SERVER_TIMEOUT : REASON_SERVER_RESET;
}

void session_finish(struct session *session, bool linger) {
    const struct session_options *options = session->options;
    conn_finish(session->conn,
                session->is_client ? options->timeout_client_ms : options->timeout_server_ms,
                linger);
    session->conn = NULL;
}

void session_drop(struct session *session) {
    conn_close(session->conn);
    session->conn = NULL;
}

void session_reset(struct session *session) {
    conn_reset(session->conn);
    session->conn = NULL;
}

void session_release(struct session *session, struct slab *slab, struct net_task *task) {
    struct session_room *room = session->room;
    list_remove(&session->link);
    net_task_cancel(task);
    slab_release_object(slab, session);
    session_room_publish(room);
}
