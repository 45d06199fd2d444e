/* wire_shake.c: the handshake in both roles, what OpenSSL has to say by itself, and the sessions of
 * servers that it may resume. */
#include "base/check.h"
#include "proto/tls_context.h"
#include "session/wire_internal.h"

#include <errno.h>

/* Answers to KeyUpdate and the like that may wait for the other side to read. */
#define WIRE_ANSWERS_MAX (256 * 1024)

static void wire_count_handshake(struct wire *wire) {
    struct tls_facts facts;
    tls_facts(&wire->tls, &facts);
    bool is_13 = strcmp(facts.version, "TLSv1.3") == 0;
    static const enum stat_id ids[2][2][2] = {
        {{STAT_UPSTREAM_TLS_12, STAT_UPSTREAM_TLS_12_RESUMED},
         {STAT_UPSTREAM_TLS_13, STAT_UPSTREAM_TLS_13_RESUMED}},
        {{STAT_TLS_12, STAT_TLS_12_RESUMED}, {STAT_TLS_13, STAT_TLS_13_RESUMED}}};
    stat_add(wire->room->net->stats, ids[wire->gate != NULL][is_13][facts.is_resumed], 1);
}

static void wire_open(struct wire *wire) {
    struct conn *conn = wire->conn;
    const struct wire_gate *gate = wire->gate;
    wire_count_handshake(wire);
    wire_set_state(wire, WIRE_OPEN);
    wire->filter.offers = wire->room->ktls && tls_may_hand_over(&wire->tls);
    if (gate) {
        conn_attach(conn, NULL, NULL);
        conn_deadline(conn, 0);
        gate->on_conn(gate->user, conn);
    } else {
        conn->events->on_open(conn);
    }
}

void wire_shake(struct wire *wire, struct bytes bytes, struct lease *lease) {
    struct conn *conn = wire->conn;
    tls_give(&wire->tls, bytes);
    enum tls_result result = tls_handshake(&wire->tls);
    if (result == TLS_DONE) {
        wire_open(wire);
        if (lease && conn->state == CONN_OPEN) {
            wire_read(wire, lease);
            return;
        }
        tls_give(&wire->tls, BYTES_NONE);
    }
    if (lease) lease_unref(lease);
    if (result == TLS_BAD) wire_fail(wire, wire->tls.failure);
}

static bool wire_put(struct tls *tls, struct bytes bytes) {
    struct conn *conn = wire_of_tls(tls)->conn;
    if (conn->fin_sent) return true; /* an answer to what comes behind our end: nobody hears it */
    return conn->out.queued < WIRE_ANSWERS_MAX && conn_filter_put(conn, bytes);
}

static void wire_on_session(struct tls *tls, SSL_SESSION *session) {
    struct wire_sessions *sessions = wire_of_tls(tls)->sessions;
    if (!sessions || sessions->context != SSL_get_SSL_CTX(tls->ssl)) return;
    if (SSL_SESSION_up_ref(session) != 1) return;
    if (sessions->count == WIRE_SESSIONS_MAX) {
        SSL_SESSION_free(sessions->items[0]);
        memmove(sessions->items, sessions->items + 1,
                (WIRE_SESSIONS_MAX - 1) * sizeof sessions->items[0]);
        sessions->count--;
    }
    sessions->items[sessions->count++] = session;
}

/* Offloaded. Of several that have to wait the last one counts: it says that this is the end. */
static void wire_on_alert(struct tls *tls, struct bytes bytes) {
    struct wire *wire = wire_of_tls(tls);
    CHECK(bytes.len == sizeof wire->alert);
    memcpy(wire->alert, bytes.ptr, bytes.len);
    /* Other errors are the connection's, and show when it is read. */
    wire->alert_waits = conn_filter_say(wire->conn, SSL3_RT_ALERT, bytes) == -EAGAIN;
}

static const struct tls_events wire_tls_events = {
    .put = wire_put, .on_session = wire_on_session, .alert = wire_on_alert};

void wire_sessions_fini(struct wire_sessions *sessions) {
    for (uint32_t i = 0; i < sessions->count; i++)
        SSL_SESSION_free(sessions->items[i]);
    SSL_CTX_free(sessions->context);
    *sessions = (struct wire_sessions){0};
}

/* A ticket of TLS 1.3 is used once, so that connections cannot be told to be of one client (RFC
 * 8446 appendix C.4); with 1.2 one serves all. */
static void wire_resume(struct wire *wire, SSL_CTX *context) {
    struct wire_sessions *sessions = wire->sessions;
    if (!sessions) return;
    if (sessions->context != context) {
        wire_sessions_fini(sessions);
        if (SSL_CTX_up_ref(context) == 1) sessions->context = context;
    }
    if (sessions->count == 0) return;
    SSL_SESSION *session = sessions->items[sessions->count - 1];
    tls_resume(&wire->tls, session);
    if (SSL_SESSION_get_protocol_version(session) < TLS1_3_VERSION) return;
    SSL_SESSION_free(session);
    sessions->count--;
}

bool wire_begin(struct wire *wire) {
    const struct tls_context *context = wire->options->tls;
    SSL_CTX *ssl_context = tls_context_ssl(context);
    wire_set_state(wire, WIRE_SHAKING);
    wire->began_ms = wire->room->net->now_ms;
    if (!tls_init(&wire->tls, ssl_context, wire->gate != NULL, &wire_tls_events)) return false;
    tls_keep_keys(&wire->tls);
    if (wire->gate) return true;
    tls_keep_sessions(ssl_context);
    wire_resume(wire, ssl_context);
    return tls_context_expect(context, wire->tls.ssl, wire->name);
}
