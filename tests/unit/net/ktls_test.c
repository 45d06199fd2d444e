/* The kernel's records as far as they can be seen from outside: headers, lengths, ends.
 * tests/behaviour/tls/test_ktls.py reads what is in them. On a kernel without kTLS: that nothing is
 * harmed. */
#include "net/ktls.h"

#include "unit/net/net_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tls.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#define ALERT 21
#define DATA 23
#define BEFORE "sent before"

static const struct kind {
    uint16_t version;
    uint16_t cipher;
    uint32_t size;
    uint32_t overhead; /* of a record's body */
} kinds[] = {
    {TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128, sizeof(struct tls12_crypto_info_aes_gcm_128), 24},
    {TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_256, sizeof(struct tls12_crypto_info_aes_gcm_256), 24},
    {TLS_1_2_VERSION, TLS_CIPHER_CHACHA20_POLY1305,
     sizeof(struct tls12_crypto_info_chacha20_poly1305), 16},
    {TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_128, sizeof(struct tls12_crypto_info_aes_gcm_128), 17},
    {TLS_1_3_VERSION, TLS_CIPHER_AES_GCM_256, sizeof(struct tls12_crypto_info_aes_gcm_256), 17},
    {TLS_1_3_VERSION, TLS_CIPHER_CHACHA20_POLY1305,
     sizeof(struct tls12_crypto_info_chacha20_poly1305), 17},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

/* Any keys will do; the number, which stands last, begins somewhere. */
static struct bytes make_keys(const struct kind *kind, char memory[64]) {
    for (int i = 0; i < 64; i++)
        memory[i] = (char)(i * 7);
    struct tls_crypto_info type = {kind->version, kind->cipher};
    memcpy(memory, &type, sizeof type);
    memcpy(memory + kind->size - 8, "\0\0\0\0\0\1\2\3", 8);
    return bytes_make(memory, kind->size);
}

struct pair {
    int fds[2];
    struct ktls ktls;
    uint64_t plain;
    char *got; /* what the other side has read */
    size_t len;
};

static bool start(struct pair *pair, const struct kind *kind, int room) {
    char memory[64];
    *pair = (struct pair){.got = malloc(32 << 20)};
    tcp_pair(pair->fds);
    int size = 16384;
    setsockopt(pair->fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    setsockopt(pair->fds[1], SOL_SOCKET, SO_RCVBUF, &size, sizeof size);
    peer_send(pair->fds[0], BEFORE);
    pair->plain = strlen(BEFORE);
    int error = ktls_start(&pair->ktls, pair->fds[0], make_keys(kind, memory), pair->plain);
    if (!ktls_probe()) assert_int_equal(error, -ENOENT);
    return error == 0;
}

static void end(struct pair *pair) {
    close(pair->fds[0]);
    close(pair->fds[1]);
    free(pair->got);
}

static bool is_sent(const struct pair *pair) {
    return ktls_is_sent(&pair->ktls, pair->fds[0], pair->plain);
}

/* Reads what there is; false at the end of the stream. */
static bool drain(struct pair *pair) {
    for (;;) {
        ssize_t got = peer_take(pair->fds[1], pair->got + pair->len, 65536);
        if (got <= 0) return got != 0;
        pair->len += (size_t)got;
    }
}

static void wait_for(int fd, short events) {
    struct pollfd wait = {.fd = fd, .events = events};
    assert_int_equal(poll(&wait, 1, 5000), 1);
}

/* With FIN as soon as is_sent allows it. */
static void drain_to_end(struct pair *pair) {
    while (!is_sent(pair))
        (void)drain(pair);
    assert_int_equal(shutdown(pair->fds[0], SHUT_WR), 0);
    while (drain(pair))
        wait_for(pair->fds[1], POLLIN);
}

/* Whole records, whose plaintext is as long as what was given; returns the type of the last. */
static int check_records(const struct pair *pair, const struct kind *kind, size_t wanted) {
    size_t plain = 0, at = strlen(BEFORE);
    int type = 0;
    assert_memory_equal(pair->got, BEFORE, at);
    while (at < pair->len) {
        assert_true(pair->len - at >= 5);
        const unsigned char *header = (const unsigned char *)pair->got + at;
        size_t size = (size_t)header[3] << 8 | header[4];
        assert_true(pair->len - at >= 5 + size);
        type = header[0];
        plain += size - kind->overhead;
        at += 5 + size;
    }
    assert_int_equal(plain, wanted);
    return type;
}

static void what_is_sent_leaves_as_records(void **state) {
    (void)state;
    static char text[100000];
    for (size_t i = 0; i < KINDS; i++) {
        struct pair pair;
        if (start(&pair, &kinds[i], 16384)) {
            assert_true(is_sent(&pair));
            for (size_t size = 1; size < sizeof text; size = size * 3 + 1) {
                for (size_t at = 0; at < size;) {
                    ssize_t sent = send(pair.fds[0], text + at, size - at, MSG_DONTWAIT);
                    if (sent < 0) wait_for(pair.fds[1], POLLIN);
                    if (sent > 0) at += (size_t)sent;
                    if (sent > 0) pair.plain += (size_t)sent;
                    (void)drain(&pair);
                }
            }
            drain_to_end(&pair);
            (void)check_records(&pair, &kinds[i], pair.plain - strlen(BEFORE));
        }
        end(&pair);
    }
}

static void where_it_is_refused_the_socket_goes_on(void **state) {
    (void)state;
    struct pair pair;
    if (!start(&pair, &kinds[0], 16384)) {
        peer_send(pair.fds[0], ", and after");
        wait_for(pair.fds[1], POLLIN);
        (void)drain(&pair);
        assert_memory_equal(pair.got, BEFORE ", and after", pair.len);
    }
    end(&pair);
}

/* The socket is full again and again; a FIN that is sent when is_sent says so cuts nothing. */
static void nothing_is_lost_before_fin(void **state) {
    (void)state;
    static char text[50000];
    size_t held_back = 0;
    int rooms = 0;
    for (size_t i = 0; i < KINDS; i++) {
        for (size_t piece = 1; piece < sizeof text; piece = piece * 2 + 13) {
            struct pair pair;
            /* Also rooms in which a record may end up in two buffers of the kernel. */
            rooms += 7919;
            if (!start(&pair, &kinds[i], 16384 + rooms % 120000)) {
                end(&pair);
                continue;
            }
            for (size_t at = 0; at < 2 << 20;) {
                ssize_t sent = send(pair.fds[0], text, piece, MSG_DONTWAIT);
                if (sent < 0) {
                    assert_int_equal(errno, EAGAIN);
                    break;
                }
                pair.plain += (size_t)sent;
                at += (size_t)sent;
            }
            held_back += !is_sent(&pair);
            while (ktls_say(&pair.ktls, pair.fds[0], ALERT, BYTES("\1\0")) == -EAGAIN)
                (void)drain(&pair);
            drain_to_end(&pair);
            int last = check_records(&pair, &kinds[i], pair.plain - strlen(BEFORE) + 2);
            assert_int_equal(last, kinds[i].version == TLS_1_2_VERSION ? ALERT : DATA);
            end(&pair);
        }
    }
    /* Else this test has shown nothing. */
    if (ktls_probe()) assert_int_not_equal(held_back, 0);
}

static void a_closed_socket_holds_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < KINDS; i++) {
        struct pair pair;
        if (start(&pair, &kinds[i], 16384)) {
            tcp_reset(pair.fds[1]);
            pair.fds[1] = -1;
            assert_true(ktls_say(&pair.ktls, pair.fds[0], ALERT, BYTES("\1\0")) < 0);
        }
        end(&pair);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_sent_leaves_as_records),
        cmocka_unit_test(where_it_is_refused_the_socket_goes_on),
        cmocka_unit_test(nothing_is_lost_before_fin),
        cmocka_unit_test(a_closed_socket_holds_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
