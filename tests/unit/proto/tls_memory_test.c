/* What OpenSSL takes for a connection in the worst case, against the constants with which the
 * budget of a worker is reckoned up. */
#include "proto/tls.h"

#include "base/list.h"
#include "proto/tls_tickets.h"
#include "unit/proto/tls_fixture.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* OpenSSL's memory by who asked for it, which stands before each piece of it. */
enum side { SERVER, CLIENT, OTHERS, SIDES };
struct piece {
    _Alignas(16) enum side side;
};
static enum side asking = OTHERS;
static size_t used[SIDES];
static size_t peak[SIDES];
static size_t rest[SIDES]; /* what was there before both ends */

static void *count(struct piece *piece, enum side side) {
    if (!piece) return NULL;
    piece->side = side;
    used[side] += malloc_usable_size(piece) - sizeof *piece;
    if (used[side] > peak[side]) peak[side] = used[side];
    return piece + 1;
}

static struct piece *uncount(void *memory) {
    struct piece *piece = (struct piece *)memory - 1;
    used[piece->side] -= malloc_usable_size(piece) - sizeof *piece;
    return piece;
}

static void *take(size_t size, const char *file, int line) {
    (void)file, (void)line;
    return count(malloc(sizeof(struct piece) + size), asking);
}

static void give(void *memory, const char *file, int line) {
    (void)file, (void)line;
    if (memory) free(uncount(memory));
}

static void *take_again(void *memory, size_t size, const char *file, int line) {
    if (!memory) return take(size, file, line);
    struct piece *piece = uncount(memory);
    return count(realloc(piece, sizeof *piece + size), piece->side);
}

/* Both ends are weir's; what one has put waits for the other. */
#define SENT_MAX (1 << 20)
struct end {
    struct tls tls;
    size_t sent_len;
    char sent[SENT_MAX];
};
static struct end ends[2]; /* SERVER, CLIENT */

static bool put(struct tls *tls, struct bytes bytes) {
    struct end *end = LIST_OWNER(tls, struct end, tls);
    assert_true(end->sent_len + bytes.len <= SENT_MAX);
    memcpy(end->sent + end->sent_len, bytes.ptr, bytes.len);
    end->sent_len += bytes.len;
    return true;
}

static const struct tls_events events = {.put = put};

static const struct made *ca;
static struct tls_tickets tickets;
static struct tls_context *plain, *with_clients, *dialling;

static struct tls_context *context_of(bool is_server, struct tls_context_options options) {
    struct tls_fault fault;
    struct tls_context *context = is_server ? tls_context_new_server(&options, &fault)
                                            : tls_context_new_client(&options, &fault);
    if (!context) fail_msg("%s", fault.text);
    return context;
}

static int set_up(void **state) {
    (void)state;
    if (!tls_tickets_init(&tickets, 60)) return -1;
    ca = make_certificate(&(struct wish){.subject = "ca", .is_ca = true});
    struct tls_identity server = identity_of(
        make_certificate(&(struct wish){.subject = "s", .names = "DNS:a.example", .issuer = ca}));
    struct tls_identity client =
        identity_of(make_certificate(&(struct wish){.subject = "c", .issuer = ca}));
    struct tls_context_options options = {.identities = &server,
                                          .identity_count = 1,
                                          .min_version = 2,
                                          .tickets = &tickets,
                                          .alpn = BYTES("\x02h2\x08http/1.1"),
                                          .scope = BYTES("site")};
    plain = context_of(true, options);
    options.ca = ca->certificate_pem;
    options.client_auth = TLS_CLIENT_AUTH_OPTIONAL;
    with_clients = context_of(true, options);
    dialling = context_of(false, (struct tls_context_options){.identities = &client,
                                                              .identity_count = 1,
                                                              .min_version = 2,
                                                              .ca = ca->certificate_pem,
                                                              .alpn = BYTES("\x02h2"),
                                                              .verify = true});
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    tls_context_free(plain);
    tls_context_free(with_clients);
    tls_context_free(dialling);
    fixture_end();
    return 0;
}

static void begin(const struct tls_context *server) {
    struct tls_context *const contexts[] = {(struct tls_context *)(uintptr_t)server, dialling};
    for (enum side side = SERVER; side <= CLIENT; side++) {
        rest[side] = used[side];
        peak[side] = 0;
        ends[side].sent_len = 0;
        asking = side;
        assert_true(
            tls_init(&ends[side].tls, tls_context_ssl(contexts[side]), side == SERVER, &events));
        tls_keep_keys(&ends[side].tls);
        if (side == CLIENT)
            assert_true(tls_context_expect(dialling, ends[side].tls.ssl, "a.example"));
        asking = OTHERS;
    }
}

static void finish(void) {
    for (enum side side = SERVER; side <= CLIENT; side++) {
        tls_fini(&ends[side].tls);
        assert_int_equal(used[side], rest[side]);
    }
    ERR_clear_error();
}

/* Lets `side` take what the other one has put. */
static void step(enum side side) {
    static char copy[SENT_MAX];
    static char plaintext[TLS_RECORD_MAX];
    struct end *end = &ends[side];
    struct end *from = &ends[1 - (int)side];
    size_t len = from->sent_len;
    memcpy(copy, from->sent, len);
    from->sent_len = 0;
    asking = side;
    tls_give(&end->tls, bytes_make(copy, len));
    if (!end->tls.is_open) {
        assert_int_not_equal(tls_handshake(&end->tls), TLS_BAD);
    }
    if (end->tls.is_open && end->tls.input.len != 0) {
        assert_int_equal(tls_read(&end->tls, plaintext, sizeof plaintext, &len), TLS_MORE);
    }
    asking = OTHERS;
}

static void shake(void) {
    step(CLIENT);
    for (int i = 0; i < 4; i++) {
        step(SERVER);
        step(CLIENT);
    }
    assert_true(ends[SERVER].tls.is_open && ends[CLIENT].tls.is_open);
}

/* The head and the first byte of a full record. */
static void give_part_of_a_record(enum side side) {
    static const char part[] = {0x17, 3, 3, 0x40, 0x11, 0};
    struct tls *tls = &ends[side].tls;
    char byte;
    size_t len;
    asking = side;
    tls_give(tls, bytes_make(part, sizeof part));
    assert_int_equal(tls_read(tls, &byte, 1, &len), TLS_MORE);
    asking = OTHERS;
}

static void assert_measured(const char *what, uint64_t most, uint64_t constant) {
    print_message("%s: %llu bytes, reckoned with %llu\n", what, (unsigned long long)most,
                  (unsigned long long)constant);
    assert_true(most <= constant);
    assert_true(most > constant / 2); /* else the constant says nothing */
}

static void set_version(int version) {
    const struct tls_context *const contexts[] = {plain, with_clients, dialling};
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(SSL_CTX_set_max_proto_version(tls_context_ssl(contexts[i]), version), 1);
}

/* What OpenSSL takes once in a thread. */
static void warm_up(void) {
    begin(with_clients);
    shake();
    for (enum side side = SERVER; side <= CLIENT; side++) {
        tls_fini(&ends[side].tls);
    }
    ERR_clear_error();
}

static void an_open_connection(void **state) {
    (void)state;
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    size_t most = 0;
    for (size_t i = 0; i < 2; i++) {
        set_version(versions[i]);
        warm_up();
        for (int role = 0; role < 2; role++) {
            begin(with_clients);
            shake();
            /* The part of a record comes to each of both. */
            give_part_of_a_record(role == 0 ? SERVER : CLIENT);
            enum side side = role == 0 ? SERVER : CLIENT;
            size_t before = used[side];
            asking = side;
            assert_true(tls_start_sealing(&ends[side].tls, NULL));
            asking = OTHERS;
            print_message("to seal: %zu bytes\n", used[side] - before);
            size_t size = used[side] - rest[side];
            print_message("TLS 1.%d, %s: %zu bytes\n", i == 0 ? 2 : 3,
                          role == 0 ? "server" : "client", size);
            if (size > most) most = size;
            finish();
        }
    }
    assert_measured("an open connection", most, TLS_OPEN_MEMORY);
}

/* A hello as long as OpenSSL reads one, of which the beginning has come. */
static void a_handshake_that_begins_long(void **state) {
    (void)state;
    char record[64] = {0x16, 3, 1, 0, 59, 1, 2, 1, 0x40};
    begin(plain);
    asking = SERVER;
    tls_give(&ends[SERVER].tls, bytes_make(record, sizeof record));
    assert_int_equal(tls_handshake(&ends[SERVER].tls), TLS_MORE);
    asking = OTHERS;
    print_message("for a moment, while memory grows: %zu bytes\n", peak[SERVER] - rest[SERVER]);
    assert_measured("a handshake that has begun", used[SERVER] - rest[SERVER], TLS_SHAKE_MEMORY);
    finish();
}

/* The server is shown as many certificates as OpenSSL reads, small ones, most of them of no use. */
static void the_other_sides_certificates(void **state) {
    (void)state;
    set_version(TLS1_3_VERSION);
    begin(with_clients);
    shake();
    size_t few = used[SERVER] - rest[SERVER];
    finish();
    begin(with_clients);
    int size = i2d_X509(ca->certificate, NULL);
    for (long left = SSL_CTX_get_max_cert_list(tls_context_ssl(with_clients)) - 2 * size - 64;
         left > size + 5; left -= size + 5)
        assert_int_equal(SSL_add1_chain_cert(ends[CLIENT].tls.ssl, ca->certificate), 1);
    shake();
    assert_measured("certificates", used[SERVER] - rest[SERVER] - few, TLS_CERTIFICATES_MEMORY);
    print_message("while they are read: %zu bytes\n", peak[SERVER]);
    assert_true(peak[SERVER] <= TLS_OPEN_MEMORY + TLS_SHAKE_MEMORY + TLS_CERTIFICATES_MEMORY);
    finish();
}

int main(void) {
    /* Before OpenSSL has any memory. */
    if (CRYPTO_set_mem_functions(take, take_again, give) != 1) return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_open_connection),
        cmocka_unit_test(a_handshake_that_begins_long),
        cmocka_unit_test(the_other_sides_certificates),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
