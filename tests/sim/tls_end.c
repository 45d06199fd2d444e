#include "sim/tls_end.h"

#include "base/check.h"
#include "sim/actors.h"
#include "sim/kernel_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>

#define RECORD_MAX 16384
/* Where bytes take long, what a record adds to them may not be most of it. */
#define RECORD_SLOW 300
#define GARBAGE_SIZE 300
/* A breach comes within the handshake mostly. */
#define BREACH_AT_MAX 3000

struct tls_end {
    /* Fixed after init. */
    struct sock *sock;
    SSL *ssl;
    struct tls_end_options options;
    enum breach breach;
    uint64_t breach_at; /* bytes sent before it */
    uint32_t record_max;
    /* Changes in routine work. */
    struct text out; /* made, and not yet taken by the socket */
    size_t out_at;
    uint64_t sent;
    bool in_line;  /* a line in clear is still to come */
    bool ready;    /* the handshake is done */
    bool breached; /* it has done it */
    bool stuck;    /* and sends nothing any more */
    bool failed;
    bool fin_wanted;
    bool closing; /* the actor has gone */
};

bool tls_end_is_stuck(const struct sock *sock) { return sock->tls && sock->tls->stuck; }

static bool may_fail(const struct tls_end *end) {
    bool breaks = sim_has(FAULT_CLIENT_TLS) || sim_has(FAULT_SERVER_TLS);
    return end->breached || sim_has(FAULT_FEW_SLOTS) || (world.tls_passes && breaks);
}

/* What OpenSSL has made. */
static void collect(struct tls_end *end) {
    char *bytes;
    BIO *made = SSL_get_wbio(end->ssl);
    long size = BIO_get_mem_data(made, &bytes);
    if (size > 0) text_add(&end->out, bytes, (size_t)size);
    CHECK(BIO_reset(made) == 1);
}

static void put_instead(struct tls_end *end, const char *bytes, size_t size) {
    end->out.len = end->out_at;
    text_add(&end->out, bytes, size);
}

static void breach(struct tls_end *end) {
    char garbage[GARBAGE_SIZE];
    end->breached = true;
    sim_note("tls breach", sock_number(end->sock), end->breach, (int64_t)end->sent);
    switch (end->breach) {
    case BREACH_NONE:
        return;
    case BREACH_PLAIN:
        put_instead(end, "GET / HTTP/1.1\r\nHost: sim\r\n\r\n", 29);
        break;
    case BREACH_GARBAGE:
        for (size_t i = 0; i < sizeof garbage; i++)
            garbage[i] = (char)sim_below(256);
        put_instead(end, garbage, sizeof garbage);
        break;
    case BREACH_FLIP:
        end->out.bytes[end->out_at] ^= (char)(1 << sim_below(8));
        return;
    case BREACH_ALERT:
        put_instead(end, "\x15\x03\x03\0\2\2\x28", 7);
        break;
    case BREACH_STOPS:
        put_instead(end, NULL, 0);
        break;
    case BREACH_FIN:
        put_instead(end, NULL, 0);
        sock_finish_writing(end->sock);
        break;
    case BREACH_RESET:
        put_instead(end, NULL, 0);
        sock_dissolve(end->sock);
        break;
    }
    end->stuck = true;
}

static void flush(struct tls_end *end) {
    while (end->out_at < end->out.len) {
        size_t left = end->out.len - end->out_at;
        bool may = end->breach != BREACH_NONE && !end->breached;
        if (may && end->sent == end->breach_at) {
            breach(end);
            continue;
        }
        if (may && left > end->breach_at - end->sent) left = end->breach_at - end->sent;
        ssize_t put = sock_write_raw(end->sock, end->out.bytes + end->out_at, left);
        if (put <= 0) return;
        end->out_at += (size_t)put;
        end->sent += (uint64_t)put;
    }
    end->out.len = end->out_at = 0;
}

/* Everything that OpenSSL makes, but what is not said any more. */
static void send_made(struct tls_end *end) {
    size_t before = end->out.len;
    collect(end);
    if (end->stuck) end->out.len = before;
    flush(end);
}

/* What has come, for OpenSSL. 1, or as sock_read. */
static ssize_t pull(struct tls_end *end) {
    char bytes[4096];
    ssize_t got = sock_read_raw(end->sock, bytes, sizeof bytes);
    if (got <= 0) return got;
    CHECK(BIO_write(SSL_get_rbio(end->ssl), bytes, (int)got) == got);
    return 1;
}

static ssize_t fail(struct tls_end *end, const char *what) {
    unsigned long error = ERR_peek_error();
    char text[256];
    ERR_error_string_n(error, text, sizeof text);
    ERR_clear_error();
    end->failed = true;
    send_made(end);
    sim_note("tls fails", sock_number(end->sock), ERR_GET_REASON(error), end->breached);
    if (!may_fail(end)) {
        sim_fail(INVARIANT_BYTES, "socket %u: %s: %s", sock_number(end->sock), what, text);
    }
    return -ECONNRESET;
}

/* Of a call that was no success: 1 to try again, else as sock_read. */
static ssize_t result_of(struct tls_end *end, int result, const char *what) {
    int error = SSL_get_error(end->ssl, result);
    if (error == SSL_ERROR_ZERO_RETURN) return 0;
    if (error != SSL_ERROR_WANT_READ) return fail(end, what);
    send_made(end);
    ssize_t got = pull(end);
    /* The end was not said. */
    return got == 0 ? -ECONNRESET : got;
}

static ssize_t shake(struct tls_end *end) {
    if (end->failed) return -ECONNRESET;
    while (!end->ready) {
        ERR_clear_error();
        int result = SSL_do_handshake(end->ssl);
        if (result == 1) {
            end->ready = true;
            sim_note("tls ready", sock_number(end->sock), SSL_version(end->ssl),
                     SSL_session_reused(end->ssl));
            send_made(end);
            break;
        }
        ssize_t got = result_of(end, result, "the handshake");
        if (got != 1) return got == 0 ? -ECONNRESET : got;
    }
    return 1;
}

/* In clear: to a client of HTTP that has none of TLS weir says so. */
static ssize_t read_answer_in_clear(struct tls_end *end) {
    static const char wanted[] = "HTTP/1.1 400 ";
    char bytes[1024];
    ssize_t got = sock_read_raw(end->sock, bytes, sizeof bytes);
    if (got > 0 && (size_t)got >= sizeof wanted && memcmp(bytes, wanted, sizeof wanted - 1) != 0 &&
        !end->failed) {
        sim_fail(INVARIANT_BYTES, "HTTP where TLS is spoken is answered with '%.*s'", (int)got,
                 bytes);
    }
    if (got <= 0) return got;
    if (!end->options.is_http && !world.tls_passes)
        sim_fail(INVARIANT_BYTES, "what is no TLS is answered on a port without HTTP");
    end->failed = true;
    return got;
}

static ssize_t read_line(struct tls_end *end, char *to) {
    ssize_t got = sock_read_raw(end->sock, to, 1);
    if (got == 1 && *to == '\n') end->in_line = false;
    return got;
}

ssize_t tls_end_read(struct tls_end *end, void *to, size_t size) {
    if (end->in_line) return read_line(end, to);
    if (end->breached && end->breach == BREACH_PLAIN) return -ECONNRESET;
    for (;;) {
        ssize_t ready = shake(end);
        if (ready != 1) return ready;
        ERR_clear_error();
        int got = SSL_read(end->ssl, to, size < RECORD_MAX ? (int)size : RECORD_MAX);
        if (got > 0) {
            send_made(end); /* an answer to new keys */
            return got;
        }
        ssize_t more = result_of(end, got, "a record");
        if (more != 1) return more;
    }
}

/* Keys may change at any time (RFC 8446 section 4.6.3). */
static void maybe_change_keys(struct tls_end *end) {
    if (!sim_fault(FAULT_TLS_KEYS) || SSL_version(end->ssl) != TLS1_3_VERSION) return;
    int wish = sim_one_in(2) ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
    sim_note("tls new keys", sock_number(end->sock), wish, 0);
    CHECK(SSL_key_update(end->ssl, wish) == 1);
}

ssize_t tls_end_write(struct tls_end *end, const void *from, size_t size) {
    if (sock_is_dead(end->sock) || end->failed) return -ECONNRESET;
    flush(end);
    if (!end->ready || end->out.len != 0 || end->stuck || size == 0) return -EAGAIN;
    maybe_change_keys(end);
    if (size > end->record_max) size = end->record_max;
    ERR_clear_error();
    int put = SSL_write(end->ssl, from, (int)size);
    if (put <= 0) return fail(end, "writing");
    send_made(end);
    return put;
}

static void say_end(struct tls_end *end, bool says) {
    if (end->fin_wanted) return;
    end->fin_wanted = true;
    ERR_clear_error();
    if (says && end->ready && !end->failed) (void)SSL_shutdown(end->ssl);
    ERR_clear_error();
    send_made(end);
}

void tls_end_shutdown(struct tls_end *end, bool says) {
    say_end(end, says);
    tls_end_step(end);
}

void tls_end_close(struct tls_end *end, bool says) {
    say_end(end, says);
    end->closing = true;
    end->sock->actor = (struct sock_actor){0};
    tls_end_step(end);
}

/* A close with something unread, weir's answer to new keys at least, would take back what was said
 * last. */
static bool lingers(struct tls_end *end) {
    char bytes[4096];
    ssize_t got = 1;
    if (!end->options.is_server || end->stuck || end->sock->state != SOCK_OPEN) return false;
    sock_finish_writing(end->sock);
    while (got > 0)
        got = sock_read_raw(end->sock, bytes, sizeof bytes);
    return got == -EAGAIN;
}

void tls_end_step(struct tls_end *end) {
    struct sock *sock = end->sock;
    if (sock->state == SOCK_OPEN && !sock->reset) {
        flush(end);
        while (end->breached && end->breach == BREACH_PLAIN && read_answer_in_clear(end) > 0)
            continue;
        bool clear = end->in_line || (end->breached && end->breach == BREACH_PLAIN);
        if (!end->ready && !clear && !end->closing) (void)shake(end);
    }
    bool done = end->out.len == 0 || end->stuck || sock->reset || !end->ready;
    if (end->closing && (done || sock->state != SOCK_OPEN)) {
        if (sock->state != SOCK_CLOSED && !lingers(end)) sock_end(sock);
    } else if (end->fin_wanted && done && !end->stuck && sock->state == SOCK_OPEN && !sock->reset) {
        sock_finish_writing(sock);
    }
}

static enum breach pick_breach(const struct tls_end_options *options) {
    enum fault fault = options->is_server ? FAULT_SERVER_TLS : FAULT_CLIENT_TLS;
    if (!sim_has(fault) || !sim_one_in(4)) return BREACH_NONE;
    enum breach least = options->is_server ? BREACH_GARBAGE : BREACH_PLAIN;
    return (enum breach)sim_between(least, BREACH_RESET);
}

void tls_end_begin(struct sock *sock, const struct tls_end_options *options) {
    struct tls_end *end = calloc(1, sizeof *end);
    CHECK(end);
    *end = (struct tls_end){.sock = sock, .options = *options, .in_line = options->begins_in_line};
    end->ssl = tls_site_new(options->is_server, options->alpn);
    SSL_set_bio(end->ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    BIO_set_mem_eof_return(SSL_get_rbio(end->ssl), -1);
    uint64_t least = sim_has(FAULT_SLOW_NETWORK) ? RECORD_SLOW : 1;
    end->record_max = (uint32_t)(sim_one_in(2) ? RECORD_MAX : sim_between(least, RECORD_MAX));
    end->breach = pick_breach(options);
    end->breach_at = sim_skewed(BREACH_AT_MAX);
    if (end->breach == BREACH_PLAIN) end->breach_at = 0;
    if (options->clear) {
        text_add(&end->out, options->clear->bytes, options->clear->len);
        end->breach_at += options->clear->len;
    }
    sock->tls = end;
}

bool tls_end_breaches(const struct sock *sock) {
    return sock->tls && sock->tls->breach != BREACH_NONE;
}

/* Before a handshake nobody is told why. */
bool tls_end_may_be_refused(const struct sock *sock) {
    if (world.draining) return true;
    if (!sock->tls) return false;
    bool limited = world.clients_limited || world.handshakes_limited;
    return limited || sock->broken || may_fail(sock->tls) || tls_end_breaches(sock);
}

enum tls_opening tls_end_opening(const struct sock *sock) {
    const struct tls_end *end = sock->tls;
    bool over = sock->reset || (end && !end->ready && (end->failed || sock->in.fin_arrived));
    if (over) return TLS_OPENING_OVER;
    bool open = sock->state == SOCK_OPEN && (!end || end->ready);
    return open ? TLS_OPENING_DONE : TLS_OPENING_WAITS;
}

void tls_end_free(struct tls_end *end) {
    if (!end) return;
    SSL_free(end->ssl);
    text_free(&end->out);
    free(end);
}
