/* Records that are sealed, against OpenSSL, which made those before and reads them all. */
#include "proto/tls_seal.h"

#include "unit/proto/tls_ends.h"

#include <openssl/err.h>
#include <openssl/provider.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#define FIRST_13 3 /* of tls_ends_suites */
#define RECORD_MAX (TLS_SEAL_HEAD_MAX + TLS_RECORD_MAX + TLS_SEAL_TAIL_MAX)

static char text[TLS_RECORD_MAX];

static void put(struct tls_end *end, const char *from, size_t size) {
    assert_true(end->sent_size + size <= TLS_ENDS_WIRE_MAX);
    memcpy(end->sent + end->sent_size, from, size);
    end->sent_size += size;
}

/* The first `size` bytes of `text` as one record, its plaintext in pieces of `piece`. */
static void seal(struct tls_end *end, size_t size, size_t piece) {
    /* Of exactly their sizes: AddressSanitizer sees what is beyond. */
    char *head = malloc(TLS_SEAL_HEAD_MAX), *tail = malloc(TLS_SEAL_TAIL_MAX);
    size_t head_size = tls_record_begin(&end->tls, size, head);
    assert_true(head_size != 0 && head_size <= TLS_SEAL_HEAD_MAX);
    put(end, head, head_size);
    for (size_t at = 0; at < size; at += piece) {
        struct bytes part = bytes_slice(bytes_make(text, size), at, piece);
        char *body = malloc(part.len);
        assert_true(tls_record_add(&end->tls, part, body));
        put(end, body, part.len);
        free(body);
    }
    size_t tail_size = tls_record_end(&end->tls, tail);
    assert_true(tail_size != 0 && tail_size <= TLS_SEAL_TAIL_MAX);
    put(end, tail, tail_size);
    free(head);
    free(tail);
}

/* What has been put arrives, and is the beginning of `text`. */
static void deliver(struct tls_end *from, struct tls_end *to, size_t size) {
    static char memory[TLS_RECORD_MAX];
    struct writer got = writer_make(memory, sizeof memory);
    assert_int_equal(tls_ends_read(to, tls_ends_take(from), SIZE_MAX, &got), TLS_MORE);
    assert_int_equal(writer_bytes(&got).len, size);
    assert_memory_equal(memory, text, size);
}

static void say(struct tls_end *from, struct tls_end *to, size_t size) {
    assert_int_equal(tls_write(&from->tls, bytes_make(text, size)), TLS_DONE);
    deliver(from, to, size);
}

/* Open, and the server seals. */
static void begin(struct tls_ends *pair, size_t suite) {
    tls_ends_open(pair, &tls_ends_suites[suite], true);
    deliver(&pair->server, &pair->client, 0); /* tickets */
    assert_true(tls_start_sealing(&pair->server.tls, NULL));
    assert_true(tls_seals(&pair->server.tls));
}

static void records_of_any_size_and_pieces_are_read(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 2, 15, 16, 17, 287, 288, 289, 4096, 8191, TLS_RECORD_MAX};
    static const size_t pieces[] = {1, 13, 16, 4095, 8192, TLS_RECORD_MAX};
    for (size_t suite = 0; suite < TLS_ENDS_SUITES; suite++) {
        struct tls_ends pair;
        begin(&pair, suite);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (size_t j = 0; j < sizeof pieces / sizeof pieces[0]; j++) {
                seal(&pair.server, sizes[i], pieces[j]);
                deliver(&pair.server, &pair.client, sizes[i]);
            }
            say(&pair.client, &pair.server, sizes[i]);
        }
        tls_ends_fini(&pair);
    }
}

static void it_begins_behind_any_number_of_records(void **state) {
    (void)state;
    for (size_t suite = 0; suite < TLS_ENDS_SUITES; suite++) {
        for (int records = 0; records < 300; records = records * 4 + 1) {
            struct tls_ends pair;
            tls_ends_open(&pair, &tls_ends_suites[suite], true);
            deliver(&pair.server, &pair.client, 0);
            for (int i = 0; i < records; i++)
                say(&pair.server, &pair.client, 10);
            assert_true(tls_start_sealing(&pair.server.tls, NULL));
            for (int i = 0; i < 300; i++)
                seal(&pair.server, 20, 20);
            static char got[20 * 300];
            struct writer to = writer_make(got, sizeof got);
            struct bytes wire = tls_ends_take(&pair.server);
            assert_int_equal(tls_ends_read(&pair.client, wire, SIZE_MAX, &to), TLS_MORE);
            assert_int_equal(writer_bytes(&to).len, sizeof got);
            tls_ends_fini(&pair);
        }
    }
}

/* RFC 5288 section 3: AES-GCM's nonce, which TLS 1.2 sends, is never the same twice. */
static void no_nonce_is_used_twice(void **state) {
    (void)state;
    for (size_t suite = 0; suite < 2; suite++) {
        struct tls_ends pair;
        uint64_t last = 0;
        tls_ends_open(&pair, &tls_ends_suites[suite], true);
        for (int i = 0; i < 300; i++) {
            uint64_t nonce = 0;
            (void)tls_ends_take(&pair.server); /* it is looked at in place */
            if (i == 150) assert_true(tls_start_sealing(&pair.server.tls, NULL));
            if (i < 150) {
                assert_int_equal(tls_write(&pair.server.tls, bytes_make(text, 5)), TLS_DONE);
            } else if (i != 200) {
                seal(&pair.server, 5, 5);
            } else {
                tls_shutdown(&pair.server.tls);
            }
            for (int j = 0; j < 8; j++)
                nonce = nonce << 8 | (unsigned char)pair.server.sent[5 + j];
            if (i != 0) assert_true(nonce == last + 1);
            last = nonce;
        }
        tls_ends_fini(&pair);
    }
}

static void the_end_is_said(void **state) {
    (void)state;
    for (size_t suite = 0; suite < TLS_ENDS_SUITES; suite++) {
        struct tls_ends pair;
        begin(&pair, suite);
        seal(&pair.server, 100, 7);
        tls_shutdown(&pair.server.tls);
        tls_shutdown(&pair.server.tls);
        char memory[200];
        struct writer got = writer_make(memory, sizeof memory);
        struct bytes wire = tls_ends_take(&pair.server);
        assert_int_equal(tls_ends_read(&pair.client, wire, SIZE_MAX, &got), TLS_END);
        assert_int_equal(writer_bytes(&got).len, 100);
        say(&pair.client, &pair.server, 10);
        assert_int_equal(pair.server.sent_size, 0);
        assert_int_equal(pair.server.alerts, 0);
        tls_ends_fini(&pair);
    }
}

static void a_broken_record_is_answered_by_an_alert(void **state) {
    (void)state;
    for (size_t suite = 0; suite < TLS_ENDS_SUITES; suite++) {
        struct tls_ends pair;
        begin(&pair, suite);
        assert_int_equal(tls_write(&pair.client.tls, bytes_make(text, 4)), TLS_DONE);
        struct bytes record = tls_ends_take(&pair.client);
        *(char *)(uintptr_t)(record.ptr + record.len - 1) ^= 1;
        struct writer none = writer_make(NULL, 0);
        assert_int_equal(tls_ends_read(&pair.server, record, SIZE_MAX, &none), TLS_BAD);
        char head[TLS_SEAL_HEAD_MAX];
        assert_int_equal(tls_record_begin(&pair.server.tls, 1, head), 0);
        struct bytes alert = tls_ends_take(&pair.server);
        assert_int_equal(tls_ends_read(&pair.client, alert, SIZE_MAX, &none), TLS_BAD);
        assert_int_equal(pair.client.tls.failure, REASON_TLS_ALERT);
        tls_ends_fini(&pair);
    }
}

static void ask_for_renegotiation(struct tls_end *end) {
    SSL_clear_options(end->tls.ssl, SSL_OP_NO_RENEGOTIATION);
    assert_int_equal(SSL_renegotiate(end->tls.ssl), 1);
    (void)SSL_do_handshake(end->tls.ssl); /* waits for an answer */
}

static void expect_no_renegotiation(struct tls_end *from, struct tls_end *to) {
    struct writer none = writer_make(NULL, 0);
    struct bytes alert = tls_ends_take(from);
    assert_int_equal(alert.ptr[0], SSL3_RT_ALERT);
    assert_int_equal(tls_ends_read(to, alert, SIZE_MAX, &none), TLS_BAD);
    assert_int_equal(to->tls.failure, REASON_TLS_PROTOCOL);
    assert_string_equal(to->tls.words, "no renegotiation");
}

static void renegotiation_is_refused(void **state) {
    (void)state;
    struct tls_ends pair;
    begin(&pair, 0);
    ask_for_renegotiation(&pair.client);
    deliver(&pair.client, &pair.server, 0);
    expect_no_renegotiation(&pair.server, &pair.client);
    tls_ends_fini(&pair);
}

/* The refusal was not put, and what has come with the question hides it from who reads. */
static void nothing_follows_what_was_not_put(void **state) {
    (void)state;
    for (int begun = 0; begun < 2; begun++) {
        struct tls_ends pair;
        tls_ends_init(&pair, TLS1_2_VERSION);
        tls_keep_keys(&pair.server.tls);
        tls_keep_keys(&pair.client.tls);
        tls_ends_shake(&pair, SIZE_MAX);
        if (begun) assert_true(tls_start_sealing(&pair.server.tls, NULL));
        ask_for_renegotiation(&pair.client);
        assert_true(tls_start_sealing(&pair.client.tls, NULL)); /* OpenSSL would wait */
        seal(&pair.client, 100, 100);
        pair.server.puts_left = 0;
        char got[200];
        size_t len = 0;
        tls_give(&pair.server.tls, tls_ends_take(&pair.client));
        assert_int_equal(tls_read(&pair.server.tls, got, sizeof got, &len), TLS_DONE);
        assert_int_equal(len, 100);
        assert_false(tls_may_hand_over(&pair.server.tls));
        if (begun) {
            char head[TLS_SEAL_HEAD_MAX];
            assert_int_equal(tls_record_begin(&pair.server.tls, 1, head), 0);
        } else {
            assert_int_equal(tls_write(&pair.server.tls, BYTES("x")), TLS_BAD);
        }
        assert_int_equal(pair.server.tls.failure, REASON_NO_MEMORY);
        tls_ends_fini(&pair);
    }
}

static void ask_for_new_keys(struct tls_ends *pair, int type) {
    struct writer none = writer_make(NULL, 0);
    assert_int_equal(SSL_key_update(pair->client.tls.ssl, type), 1);
    assert_int_equal(SSL_do_handshake(pair->client.tls.ssl), 1);
    struct bytes asked = tls_ends_take(&pair->client);
    assert_int_equal(tls_ends_read(&pair->server, asked, SIZE_MAX, &none), TLS_MORE);
}

static void new_keys_of_the_other_side_are_no_matter(void **state) {
    (void)state;
    for (size_t suite = FIRST_13; suite < TLS_ENDS_SUITES; suite++) {
        struct tls_ends pair;
        begin(&pair, suite);
        ask_for_new_keys(&pair, SSL_KEY_UPDATE_NOT_REQUESTED);
        assert_true(tls_seals(&pair.server.tls));
        seal(&pair.server, 100, 100);
        deliver(&pair.server, &pair.client, 100);
        say(&pair.client, &pair.server, 100);
        tls_ends_fini(&pair);
    }
}

/* An answer waits for bytes to send, or for the next one that is asked for. */
static void new_keys_that_are_asked_for_are_openssls(void **state) {
    (void)state;
    for (size_t suite = FIRST_13; suite < TLS_ENDS_SUITES; suite++) {
        for (int asked = 1; asked < 4; asked++) {
            struct tls_ends pair;
            begin(&pair, suite);
            seal(&pair.server, 100, 100);
            deliver(&pair.server, &pair.client, 100);
            for (int i = 0; i < asked; i++)
                ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
            assert_false(tls_seals(&pair.server.tls));
            assert_false(tls_may_hand_over(&pair.server.tls));
            for (int i = 0; i < 3; i++)
                say(&pair.server, &pair.client, 200);
            assert_null(pair.server.tls.seal.cipher);
            assert_int_equal(pair.server.tls.keys.size, 0);
            assert_false(tls_may_hand_over(&pair.server.tls));
            ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
            say(&pair.server, &pair.client, 200);
            say(&pair.client, &pair.server, 200);
            tls_ends_fini(&pair);
        }
    }
}

/* The answer is owed, but nothing follows it. */
static void the_end_needs_no_new_keys(void **state) {
    (void)state;
    struct tls_ends pair;
    begin(&pair, FIRST_13);
    ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
    tls_shutdown(&pair.server.tls);
    struct writer none = writer_make(NULL, 0);
    struct bytes wire = tls_ends_take(&pair.server);
    assert_int_equal(tls_ends_read(&pair.client, wire, SIZE_MAX, &none), TLS_END);
    tls_ends_fini(&pair);
}

static void what_cannot_be_put_fails(void **state) {
    (void)state;
    struct tls_ends pair;
    begin(&pair, FIRST_13);
    ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
    pair.server.puts_left = 0;
    assert_int_equal(tls_write(&pair.server.tls, bytes_make(text, 10)), TLS_BAD);
    assert_int_equal(pair.server.tls.failure, REASON_NO_MEMORY);
    tls_ends_fini(&pair);
}

/* Its ciphers refuse what does not come in order: that stands for a lack of memory. Whatever was
 * made of the record, no other one is, nor an alert. */
static void a_record_that_cannot_be_made_is_the_last(void **state) {
    (void)state;
    for (size_t suite = 0; suite < 2 * TLS_ENDS_SUITES; suite++) {
        struct tls_ends pair;
        char to[TLS_SEAL_HEAD_MAX + TLS_SEAL_TAIL_MAX];
        begin(&pair, suite / 2);
        if (pair.server.tls.keys.as.type.cipher_type == TLS_CIPHER_CHACHA20_POLY1305) {
            tls_ends_fini(&pair); /* it never refuses */
            continue;
        }
        seal(&pair.server, 10, 10);
        deliver(&pair.server, &pair.client, 10);
        if (suite % 2 == 0) {
            assert_false(tls_record_add(&pair.server.tls, BYTES("x"), to));
        } else {
            assert_int_equal(tls_record_end(&pair.server.tls, to), 0);
        }
        assert_int_equal(pair.server.tls.failure, REASON_NO_MEMORY);
        assert_int_equal(tls_record_begin(&pair.server.tls, 1, to), 0);
        tls_shutdown(&pair.server.tls);
        assert_int_equal(pair.server.sent_size, 0);
        assert_int_equal(ERR_peek_error(), 0);
        tls_ends_fini(&pair);
    }
}

/* The keys go on: behind sealed records they may be handed to the kernel. */
static void keys_move_with_each_record(void **state) {
    (void)state;
    struct tls_ends pair;
    begin(&pair, FIRST_13);
    struct tls_keys keys = pair.server.tls.keys;
    for (int i = 0; i < 3; i++) {
        seal(&pair.server, 10, 10);
        tls_keys_advance(&keys);
    }
    assert_memory_equal(&keys, &pair.server.tls.keys, sizeof keys);
    assert_true(tls_may_hand_over(&pair.server.tls));
    tls_hand_over(&pair.server.tls);
    assert_null(pair.server.tls.seal.cipher);
    assert_int_equal(pair.server.tls.keys.size, 0);
    tls_ends_fini(&pair);
}

/* A record may be no longer than the client asks for (RFC 6066 section 4): OpenSSL knows. */
static void small_records_are_openssls(void **state) {
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ends pair;
        tls_ends_init(&pair, version);
        uint8_t small = TLSEXT_max_fragment_length_512;
        assert_int_equal(SSL_set_tlsext_max_fragment_length(pair.client.tls.ssl, small), 1);
        tls_keep_keys(&pair.server.tls);
        tls_ends_shake(&pair, SIZE_MAX);
        assert_true(pair.server.tls.is_open);
        assert_false(tls_may_hand_over(&pair.server.tls));
        deliver(&pair.server, &pair.client, 0);
        say(&pair.server, &pair.client, 2000);
        tls_ends_fini(&pair);
    }
}

static void a_library_without_the_cipher_changes_nothing(void **state) {
    (void)state;
    OSSL_LIB_CTX *library = OSSL_LIB_CTX_new();
    OSSL_PROVIDER *none = OSSL_PROVIDER_load(library, "null");
    assert_non_null(none);
    struct tls_ends pair;
    tls_ends_open(&pair, &tls_ends_suites[FIRST_13], true);
    deliver(&pair.server, &pair.client, 0);
    assert_false(tls_start_sealing(&pair.server.tls, library));
    assert_int_equal(ERR_peek_error(), 0);
    say(&pair.server, &pair.client, 100);
    assert_true(tls_start_sealing(&pair.server.tls, NULL));
    seal(&pair.server, 100, 100);
    deliver(&pair.server, &pair.client, 100);
    tls_ends_fini(&pair);
    OSSL_PROVIDER_unload(none);
    OSSL_LIB_CTX_free(library);
}

static int fill_ticket(SSL *ssl, void *used) {
    static const char filling[2000];
    (void)used;
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), filling, sizeof filling);
}

/* To a server, with what servers send whenever they like: more tickets, of which a part is no
 * reason to wait, and wishes for new keys. */
static void clients_seal_too(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_init(&pair, TLS1_3_VERSION);
    SSL *server = pair.server.tls.ssl;
    assert_int_equal(SSL_CTX_set_session_ticket_cb(pair.server_context, fill_ticket, NULL, NULL),
                     1);
    tls_keep_keys(&pair.client.tls);
    tls_ends_shake(&pair, SIZE_MAX);
    deliver(&pair.server, &pair.client, 0);
    assert_true(tls_start_sealing(&pair.client.tls, NULL));
    SSL_set_max_send_fragment(server, 1024);
    assert_int_equal(SSL_new_session_ticket(server), 1);
    assert_int_equal(SSL_do_handshake(server), 1);
    struct bytes ticket = tls_ends_take(&pair.server);
    struct writer none = writer_make(NULL, 0);
    struct bytes part = bytes_slice(ticket, 0, 1100);
    assert_int_equal(tls_ends_read(&pair.client, part, SIZE_MAX, &none), TLS_MORE);
    seal(&pair.client, 1000, 300);
    deliver(&pair.client, &pair.server, 1000);
    struct bytes rest = bytes_slice(ticket, part.len, ticket.len);
    assert_int_equal(tls_ends_read(&pair.client, rest, SIZE_MAX, &none), TLS_MORE);
    seal(&pair.client, 10, 10);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(SSL_key_update(server, SSL_KEY_UPDATE_REQUESTED), 1);
        say(&pair.server, &pair.client, 100);
    }
    assert_int_equal(pair.client.tls.maker, TLS_BY_OPENSSL);
    assert_int_equal(tls_write(&pair.client.tls, bytes_make(text + 10, 20)), TLS_DONE);
    deliver(&pair.client, &pair.server, 30);
    tls_ends_fini(&pair);
}

static void clients_refuse_renegotiation(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_init(&pair, TLS1_2_VERSION);
    tls_keep_keys(&pair.client.tls);
    tls_ends_shake(&pair, SIZE_MAX);
    assert_true(tls_start_sealing(&pair.client.tls, NULL));
    ask_for_renegotiation(&pair.server);
    deliver(&pair.server, &pair.client, 0);
    expect_no_renegotiation(&pair.client, &pair.server);
    tls_ends_fini(&pair);
}

/* Its keys are new ones, told in another order. */
static void a_resumed_connection_is_sealed(void **state) {
    (void)state;
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        struct tls_ends pair;
        tls_ends_init(&pair, version);
        tls_ends_shake(&pair, SIZE_MAX);
        deliver(&pair.server, &pair.client, 0);
        tls_ends_end(&pair);
        tls_ends_begin(&pair);
        tls_resume(&pair.client.tls, pair.client.session);
        tls_keep_keys(&pair.server.tls);
        tls_keep_keys(&pair.client.tls);
        tls_ends_shake(&pair, SIZE_MAX);
        assert_true(SSL_session_reused(pair.server.tls.ssl));
        deliver(&pair.server, &pair.client, 0);
        assert_true(tls_start_sealing(&pair.client.tls, NULL));
        assert_true(tls_start_sealing(&pair.server.tls, NULL));
        seal(&pair.client, 1000, 300);
        deliver(&pair.client, &pair.server, 1000);
        seal(&pair.server, 1000, 300);
        deliver(&pair.server, &pair.client, 1000);
        tls_ends_fini(&pair);
    }
}

int main(void) {
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7 + i / 256);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_of_any_size_and_pieces_are_read),
        cmocka_unit_test(it_begins_behind_any_number_of_records),
        cmocka_unit_test(no_nonce_is_used_twice),
        cmocka_unit_test(the_end_is_said),
        cmocka_unit_test(a_broken_record_is_answered_by_an_alert),
        cmocka_unit_test(renegotiation_is_refused),
        cmocka_unit_test(nothing_follows_what_was_not_put),
        cmocka_unit_test(new_keys_of_the_other_side_are_no_matter),
        cmocka_unit_test(new_keys_that_are_asked_for_are_openssls),
        cmocka_unit_test(the_end_needs_no_new_keys),
        cmocka_unit_test(what_cannot_be_put_fails),
        cmocka_unit_test(a_record_that_cannot_be_made_is_the_last),
        cmocka_unit_test(keys_move_with_each_record),
        cmocka_unit_test(small_records_are_openssls),
        cmocka_unit_test(clients_seal_too),
        cmocka_unit_test(clients_refuse_renegotiation),
        cmocka_unit_test(a_resumed_connection_is_sealed),
        cmocka_unit_test(a_library_without_the_cipher_changes_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
