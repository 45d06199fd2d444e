/* load_tls.c: handshakes, and downloads through TLS 1.3.
 *
 * `full` and `resumed` open a connection for each request, and end it by close_notify and a reset;
 * `keep` sends the next request on the same one. A full handshake offers nothing of an earlier one.
 * A resumed one offers the last ticket that its slot was given (psk_dhe_ke): every slot gets its
 * first one before the load is ready, and from then on a handshake that is not resumed is an error.
 *
 * A client's share of a full handshake is larger than a server's: it verifies a signature where the
 * server makes one. So it is this program that is the limit, and CPU per handshake that counts. The
 * suite is fixed, so that each server does the same work; certificates are not looked at.
 */
#include "load.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD_SIZE 1024
#define READ_SIZE (64 * 1024)
#define SUITE "TLS_AES_128_GCM_SHA256"
#define GROUP "X25519"
#define READY_NS 15000000000ull

enum conn_state {
    CONN_HANDSHAKE,
    CONN_SEND, /* the request is on its way */
    CONN_HEAD, /* the answer's head is awaited, or a part of it has come */
    CONN_BODY  /* `left` bytes of its body are to come */
};

struct conn {
    int fd; /* -1: failed; counted, and not tried again */
    enum conn_state state;
    bool is_writing; /* EPOLLOUT is watched for, and nothing else */
    SSL *ssl;
    SSL_SESSION *session; /* what the next handshake offers; NULL: nothing yet */
    uint64_t begin_ns;
    uint64_t left;
    uint64_t body_size; /* of the answer */
    size_t head_size;
    char head[HEAD_SIZE];
};

static struct conn *conns;
static SSL_CTX *tls;
static char request[512];
static int request_size;
static char sink[READ_SIZE];
static bool is_resumed; /* handshakes are */
static bool is_kept;    /* connections are */
static bool is_ready;
static uint32_t missing; /* slots without a ticket */

static void conn_open(struct conn *conn);

/* Of TLS 1.3: it comes after the handshake, before the answer. Returning 1 keeps the session. */
static int on_ticket(SSL *ssl, SSL_SESSION *session) {
    struct conn *conn = SSL_get_app_data(ssl);
    load_figures.tickets++;
    if (!is_resumed) {
        return 0;
    }
    if (conn->session == NULL) {
        missing--;
    }
    SSL_SESSION_free(conn->session);
    conn->session = session;
    return 1;
}

static void conn_drop(struct conn *conn) {
    SSL_free(conn->ssl);
    conn->ssl = NULL;
    load_reset(conn->fd);
    conn->fd = -1;
}

/* One error makes the row invalid: no other connection takes this one's place. */
static void conn_fail(struct conn *conn, uint64_t *counter) {
    if (load_figures.handshake_errors + load_figures.read_errors == 0) {
        ERR_print_errors_fp(stderr);
    }
    ERR_clear_error();
    (*counter)++;
    conn_drop(conn);
}

static void conn_want_write(struct conn *conn, bool is_writing) {
    if (conn->is_writing != is_writing) {
        conn->is_writing = is_writing;
        load_rewatch(conn->fd, is_writing ? EPOLLOUT : EPOLLIN, (uint32_t)(conn - conns));
    }
}

/* After a call that did not do it all. False: it never will, and the connection is gone. */
static bool conn_wait(struct conn *conn, int result, uint64_t *counter) {
    int error = SSL_get_error(conn->ssl, result);
    if (error != SSL_ERROR_WANT_READ && error != SSL_ERROR_WANT_WRITE) {
        conn_fail(conn, counter);
        return false;
    }
    conn_want_write(conn, error == SSL_ERROR_WANT_WRITE);
    return false;
}

static bool conn_handshake(struct conn *conn) {
    int result = SSL_do_handshake(conn->ssl);
    if (result != 1) {
        return conn_wait(conn, result, &load_figures.handshake_errors);
    }
    if (is_ready && is_resumed && SSL_session_reused(conn->ssl) != 1) {
        conn_fail(conn, &load_figures.handshake_errors);
        return false;
    }
    conn->state = CONN_SEND;
    return true;
}

static bool conn_send(struct conn *conn) {
    int result = SSL_write(conn->ssl, request, request_size);
    if (result <= 0) {
        return conn_wait(conn, result, &load_figures.write_errors);
    }
    conn->state = CONN_HEAD;
    conn->head_size = 0;
    return true;
}

static bool conn_read_head(struct conn *conn) {
    int room = (int)(HEAD_SIZE - 1 - conn->head_size);
    int size = SSL_read(conn->ssl, conn->head + conn->head_size, room);
    if (size <= 0) {
        return conn_wait(conn, size, &load_figures.read_errors);
    }
    conn->head_size += (size_t)size;
    conn->head[conn->head_size] = '\0';
    const char *blank = strstr(conn->head, "\r\n\r\n");
    if (blank == NULL && conn->head_size < HEAD_SIZE - 1) {
        return true;
    }
    if (blank == NULL || !load_head_read(conn->head, &conn->body_size)) {
        conn_fail(conn, &load_figures.status_errors);
        return false;
    }
    uint64_t extra = conn->head_size - (uint64_t)(blank + 4 - conn->head);
    if (extra > conn->body_size) {
        conn_fail(conn, &load_figures.read_errors);
        return false;
    }
    conn->left = conn->body_size - extra;
    conn->state = CONN_BODY;
    return true;
}

/* False, too, when it was the last answer of the connection: another one has begun by then. */
static bool conn_read_body(struct conn *conn) {
    if (conn->left > 0) {
        int room = conn->left < READ_SIZE ? (int)conn->left : READ_SIZE;
        int size = SSL_read(conn->ssl, sink, room);
        if (size <= 0) {
            return conn_wait(conn, size, &load_figures.read_errors);
        }
        conn->left -= (uint64_t)size;
        return true;
    }
    load_count(conn->begin_ns, conn->body_size);
    if (is_kept) {
        conn->begin_ns = load_now_ns();
        conn->state = CONN_SEND;
        return true;
    }
    (void)SSL_shutdown(conn->ssl); /* the close_notify is all that is wanted of it */
    conn_drop(conn);
    conn_open(conn);
    return false;
}

static void conn_go_on(struct conn *conn) {
    static bool (*const steps[])(struct conn *) = {[CONN_HANDSHAKE] = conn_handshake,
                                                   [CONN_SEND] = conn_send,
                                                   [CONN_HEAD] = conn_read_head,
                                                   [CONN_BODY] = conn_read_body};
    conn_want_write(conn, false);
    while (steps[conn->state](conn)) {
    }
}

/* What is sent first goes at the next event: EPOLLOUT comes at once, and this never nests. */
static void conn_open(struct conn *conn) {
    conn->begin_ns = load_now_ns();
    conn->state = CONN_HANDSHAKE;
    conn->fd = load_connect();
    if (conn->fd < 0) {
        return;
    }
    conn->ssl = SSL_new(tls);
    if (conn->ssl == NULL || SSL_set_fd(conn->ssl, conn->fd) != 1) {
        load_die("SSL_new");
    }
    SSL_set_app_data(conn->ssl, conn);
    SSL_set_connect_state(conn->ssl);
    if (conn->session != NULL) {
        /* A copy: OpenSSL offers a ticket once, and not every server gives a new one each time. */
        SSL_SESSION *offered = SSL_SESSION_dup(conn->session);
        if (offered == NULL || SSL_set_session(conn->ssl, offered) != 1) {
            load_die("SSL_set_session");
        }
        SSL_SESSION_free(offered);
    }
    conn->is_writing = true;
    load_watch(conn->fd, EPOLLOUT, (uint32_t)(conn - conns));
}

static void tls_init(void) {
    tls = SSL_CTX_new(TLS_client_method());
    if (tls == NULL || SSL_CTX_set_min_proto_version(tls, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_ciphersuites(tls, SUITE) != 1 || SSL_CTX_set1_groups_list(tls, GROUP) != 1) {
        load_die("SSL_CTX_new");
    }
    SSL_CTX_set_verify(tls, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(tls, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(tls, on_ticket);
    /* Whole records in one read, and many: this side has to be the cheaper one. */
    SSL_CTX_set_read_ahead(tls, 1);
    SSL_CTX_set_default_read_buffer_len(tls, READ_SIZE);
    SSL_CTX_set_mode(tls, SSL_MODE_ENABLE_PARTIAL_WRITE);
}

static void turn(void) {
    static struct epoll_event events[LOAD_EVENTS_MAX];
    int count = epoll_wait(load_poller, events, LOAD_EVENTS_MAX, 100);
    for (int i = 0; i < count; i++) {
        conn_go_on(&conns[events[i].data.u32]);
    }
}

void load_run_tls(void) {
    is_resumed = strcmp(load_options.session, "resumed") == 0;
    is_kept = strcmp(load_options.session, "keep") == 0;
    if (!is_resumed && !is_kept && strcmp(load_options.session, "full") != 0) {
        fprintf(stderr, "load: tls is full, resumed or keep, not %s\n", load_options.session);
        exit(2);
    }
    request_size =
        snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%u\r\n\r\n",
                 load_options.path, load_options.port);
    conns = calloc(load_options.connections, sizeof *conns);
    if (conns == NULL || request_size >= (int)sizeof request) {
        load_die("start");
    }
    tls_init();
    missing = is_resumed ? load_options.connections : 0;
    for (uint32_t i = 0; i < load_options.connections; i++) {
        conn_open(&conns[i]);
    }
    uint64_t begin_ns = load_now_ns();
    while (missing > 0 && load_goes_on()) {
        turn();
        if (load_now_ns() - begin_ns > READY_NS) {
            fprintf(stderr, "load: %u connections were given no ticket\n", missing);
            exit(1);
        }
    }
    is_ready = true;
    load_ready();
    while (load_goes_on()) {
        turn();
    }
    for (uint32_t i = 0; i < load_options.connections; i++) {
        if (conns[i].fd >= 0) {
            load_count_left(conns[i].begin_ns);
        }
    }
}
