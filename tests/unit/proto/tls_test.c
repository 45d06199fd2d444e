#include "unit/proto/tls_ends.h"

#include <openssl/err.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

static char *pattern(size_t size) {
    char *text = malloc(size);
    for (size_t i = 0; i < size; i++)
        text[i] = (char)((i * 31 + i / 251) & 0xff);
    return text;
}

static void assert_open(const struct tls_ends *pair) {
    assert_true(pair->client.tls.is_open && pair->server.tls.is_open);
    assert_int_equal(pair->client.tls.failure, REASON_NONE);
    assert_int_equal(pair->server.tls.failure, REASON_NONE);
}

static void open_pair(struct tls_ends *pair, int version) {
    tls_ends_init(pair, version);
    tls_ends_shake(pair, SIZE_MAX);
    assert_open(pair);
    /* Session tickets. */
    struct writer none = writer_make(NULL, 0);
    assert_int_equal(tls_ends_read(&pair->client, tls_ends_take(&pair->server), SIZE_MAX, &none),
                     TLS_MORE);
}

/* Writes `text` in records, and gives it to the other side in pieces. */
static void carry(struct tls_end *from, struct tls_end *to, struct bytes text, size_t piece) {
    for (struct bytes left = text; left.len != 0;) {
        struct bytes record = bytes_slice(left, 0, TLS_RECORD_MAX);
        assert_int_equal(tls_write(&from->tls, record), TLS_DONE);
        left = bytes_slice(left, record.len, left.len);
    }
    char *memory = malloc(text.len);
    struct writer got = writer_make(memory, text.len);
    assert_int_equal(tls_ends_read(to, tls_ends_take(from), piece, &got), TLS_MORE);
    assert_true(bytes_equal(writer_bytes(&got), text));
    free(memory);
}

static void a_handshake_may_come_in_any_pieces(void **state) {
    (void)state;
    static const size_t pieces[] = {1, 3, 100, SIZE_MAX};
    for (size_t v = 0; v < 2; v++) {
        for (size_t i = 0; i < sizeof pieces / sizeof pieces[0]; i++) {
            struct tls_ends pair;
            tls_ends_init(&pair, versions[v]);
            tls_ends_shake(&pair, pieces[i]);
            assert_open(&pair);
            tls_ends_fini(&pair);
        }
    }
}

static void facts_are_known_afterwards(void **state) {
    (void)state;
    static const char *const names[] = {"TLSv1.2", "TLSv1.3"};
    for (size_t v = 0; v < 2; v++) {
        struct tls_ends pair;
        struct tls_facts facts;
        open_pair(&pair, versions[v]);
        tls_facts(&pair.server.tls, &facts);
        assert_string_equal(facts.version, names[v]);
        assert_true(strlen(facts.cipher) > 10);
        assert_true(bytes_equal(facts.server_name, BYTES("weir.test")));
        assert_int_equal(facts.alpn.len, 0);
        assert_false(facts.is_resumed || facts.has_certificate);
        tls_facts(&pair.client.tls, &facts);
        assert_true(facts.has_certificate);
        assert_int_equal(facts.verify_result, X509_V_OK);
        char memory[64];
        struct writer subject = writer_make(memory, sizeof memory);
        tls_subject(&pair.client.tls, &subject);
        assert_true(bytes_equal(writer_bytes(&subject), BYTES("CN=weir.test")));
        subject.len = 0;
        tls_subject(&pair.server.tls, &subject);
        assert_int_equal(subject.len, 0);
        tls_ends_fini(&pair);
    }
}

static void bytes_arrive_whatever_the_pieces(void **state) {
    (void)state;
    static const size_t sizes[] = {1, 100, TLS_RECORD_MAX, TLS_RECORD_MAX + 1, 100000};
    static const size_t pieces[] = {1, 5, 4096, SIZE_MAX};
    char *text = pattern(100000);
    for (size_t v = 0; v < 2; v++) {
        struct tls_ends pair;
        open_pair(&pair, versions[v]);
        for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
            for (size_t j = 0; j < sizeof pieces / sizeof pieces[0]; j++) {
                carry(&pair.client, &pair.server, bytes_make(text, sizes[i]), pieces[j]);
                carry(&pair.server, &pair.client, bytes_make(text, sizes[i]), pieces[j]);
            }
        }
        tls_ends_fini(&pair);
    }
    free(text);
}

/* As a receive buffer is used: plaintext takes the place of the bytes it was made of. */
static void plaintext_fits_where_whole_records_were(void **state) {
    (void)state;
    struct tls_ends pair;
    open_pair(&pair, TLS1_3_VERSION);
    char *text = pattern(50000);
    carry(&pair.client, &pair.server, bytes_make(text, 10), SIZE_MAX);
    for (struct bytes left = bytes_make(text, 50000); left.len != 0;) {
        struct bytes record = bytes_slice(left, 0, 5000);
        assert_int_equal(tls_write(&pair.client.tls, record), TLS_DONE);
        left = bytes_slice(left, record.len, left.len);
    }
    struct bytes wire = tls_ends_take(&pair.client);
    char *start = pair.client.sent;
    size_t at = 0;
    tls_give(&pair.server.tls, wire);
    for (;;) {
        size_t len = 0;
        assert_true(tls_fits(&pair.server.tls));
        enum tls_result result = tls_read(&pair.server.tls, start + at, wire.len - at, &len);
        if (result == TLS_MORE) break;
        assert_int_equal(result, TLS_DONE);
        at += len;
    }
    assert_int_equal(at, 50000);
    assert_memory_equal(start, text, at);
    free(text);
    tls_ends_fini(&pair);
}

static void a_record_in_two_parts_says_its_size(void **state) {
    (void)state;
    struct tls_ends pair;
    open_pair(&pair, TLS1_3_VERSION);
    char *text = pattern(TLS_RECORD_MAX);
    char got[TLS_RECORD_MAX];
    size_t size = 0, len = 0;
    carry(&pair.client, &pair.server, bytes_make(text, 10), SIZE_MAX);
    assert_int_equal(tls_write(&pair.client.tls, bytes_make(text, TLS_RECORD_MAX)), TLS_DONE);
    struct bytes wire = tls_ends_take(&pair.client);
    tls_give(&pair.server.tls, bytes_slice(wire, 0, wire.len - 1));
    assert_true(tls_fits(&pair.server.tls));
    assert_int_equal(tls_read(&pair.server.tls, got, sizeof got, &len), TLS_MORE);
    assert_int_equal(pair.server.tls.input.len, 0);
    assert_false(tls_fits(&pair.server.tls));
    tls_give(&pair.server.tls, bytes_slice(wire, wire.len - 1, 1));
    assert_int_equal(tls_next(&pair.server.tls, &size), TLS_DONE);
    assert_int_equal(size, TLS_RECORD_MAX);
    assert_int_equal(tls_read(&pair.server.tls, got, 1000, &len), TLS_DONE);
    assert_int_equal(len, 1000);
    assert_false(tls_fits(&pair.server.tls));
    assert_int_equal(tls_read(&pair.server.tls, got + 1000, sizeof got - 1000, &len), TLS_DONE);
    assert_int_equal(len, TLS_RECORD_MAX - 1000);
    assert_true(tls_fits(&pair.server.tls));
    assert_memory_equal(got, text, TLS_RECORD_MAX);
    free(text);
    tls_ends_fini(&pair);
}

static void close_notify_ends_one_direction(void **state) {
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        struct tls_ends pair;
        char memory[16];
        struct writer got = writer_make(memory, sizeof memory);
        open_pair(&pair, versions[v]);
        assert_int_equal(tls_write(&pair.client.tls, BYTES("last")), TLS_DONE);
        tls_shutdown(&pair.client.tls);
        size_t said = pair.client.sent_size;
        tls_shutdown(&pair.client.tls);
        assert_int_equal(pair.client.sent_size, said); /* once */
        struct bytes wire = tls_ends_take(&pair.client);
        assert_int_equal(tls_ends_read(&pair.server, wire, 1, &got), TLS_END);
        assert_true(bytes_equal(writer_bytes(&got), BYTES("last")));
        assert_int_equal(pair.server.tls.failure, REASON_NONE);
        carry(&pair.server, &pair.client, BYTES("answer"), 1);
        tls_shutdown(&pair.server.tls);
        assert_int_equal(tls_ends_read(&pair.client, tls_ends_take(&pair.server), 1, &got),
                         TLS_END);
        tls_ends_fini(&pair);
    }
}

/* A FIN before the last byte of close_notify: what is there is no end. */
static void half_a_close_notify_is_no_end(void **state) {
    (void)state;
    struct tls_ends pair;
    struct writer none = writer_make(NULL, 0);
    open_pair(&pair, TLS1_3_VERSION);
    tls_shutdown(&pair.client.tls);
    struct bytes wire = tls_ends_take(&pair.client);
    wire.len--;
    assert_int_equal(tls_ends_read(&pair.server, wire, SIZE_MAX, &none), TLS_MORE);
    tls_ends_fini(&pair);
}

static void a_changed_byte_is_found_and_told(void **state) {
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        struct tls_ends pair;
        struct writer none = writer_make(NULL, 0);
        open_pair(&pair, versions[v]);
        assert_int_equal(tls_write(&pair.client.tls, BYTES("secret")), TLS_DONE);
        struct bytes wire = tls_ends_take(&pair.client);
        pair.client.sent[wire.len - 1] ^= 1;
        assert_int_equal(tls_ends_read(&pair.server, wire, SIZE_MAX, &none), TLS_BAD);
        assert_int_equal(pair.server.tls.failure, REASON_TLS_PROTOCOL);
        assert_int_equal(tls_write(&pair.server.tls, BYTES("x")), TLS_BAD);
        struct bytes alert = tls_ends_take(&pair.server);
        assert_true(alert.len != 0);
        tls_shutdown(&pair.server.tls);
        assert_int_equal(pair.server.sent_size, 0);
        assert_int_equal(tls_ends_read(&pair.client, alert, SIZE_MAX, &none), TLS_BAD);
        assert_int_equal(pair.client.tls.failure, REASON_TLS_ALERT);
        tls_ends_fini(&pair);
    }
}

static void what_is_no_tls_has_a_name(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum reason reason;
    } rows[] = {
        {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", REASON_TLS_PLAIN_HTTP},
        {"CONNECT x:1 HTTP/1.1\r\n\r\n", REASON_TLS_PLAIN_HTTP},
        {"SSH-2.0-OpenSSH_9.2\r\n", REASON_TLS_PROTOCOL},
        {"\x16\x03\x01\x00\x02\x01\x00 and more of that", REASON_TLS_PROTOCOL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct tls_ends pair;
        tls_ends_init(&pair, 0);
        tls_give(&pair.server.tls, bytes_make(rows[i].text, i == 3 ? 24 : strlen(rows[i].text)));
        assert_int_equal(tls_handshake(&pair.server.tls), TLS_BAD);
        assert_int_equal(pair.server.tls.failure, rows[i].reason);
        assert_int_equal(tls_handshake(&pair.server.tls), TLS_BAD);
        tls_ends_fini(&pair);
    }
}

static void failures_have_a_name_on_both_sides(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_init(&pair, 0);
    SSL_set_max_proto_version(pair.client.tls.ssl, TLS1_2_VERSION);
    SSL_set_min_proto_version(pair.server.tls.ssl, TLS1_3_VERSION);
    tls_ends_shake(&pair, SIZE_MAX);
    assert_int_equal(pair.server.tls.failure, REASON_TLS_NOTHING_SHARED);
    assert_int_equal(pair.client.tls.failure, REASON_TLS_ALERT);
    tls_ends_end(&pair);

    tls_ends_begin(&pair);
    SSL_set1_host(pair.client.tls.ssl, "other.test");
    tls_ends_shake(&pair, SIZE_MAX);
    assert_int_equal(pair.client.tls.failure, REASON_TLS_BAD_CERTIFICATE);
    tls_ends_end(&pair);

    tls_ends_begin(&pair);
    SSL_set_verify(pair.server.tls.ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    tls_ends_shake(&pair, SIZE_MAX);
    assert_int_equal(pair.server.tls.failure, REASON_TLS_CERTIFICATE_MISSING);
    tls_ends_fini(&pair);
}

static void without_memory_it_fails_and_says_so(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_init(&pair, TLS1_3_VERSION);
    pair.server.puts_left = 0;
    tls_ends_shake(&pair, SIZE_MAX);
    assert_int_equal(pair.server.tls.failure, REASON_NO_MEMORY);
    tls_ends_fini(&pair);
    open_pair(&pair, TLS1_3_VERSION);
    pair.server.puts_left = 0;
    assert_int_equal(tls_write(&pair.server.tls, BYTES("x")), TLS_BAD);
    assert_int_equal(pair.server.tls.failure, REASON_NO_MEMORY);
    tls_shutdown(&pair.server.tls);
    tls_ends_fini(&pair);
}

static void a_session_is_resumed(void **state) {
    (void)state;
    for (size_t v = 0; v < 2; v++) {
        struct tls_ends pair;
        struct tls_facts facts;
        open_pair(&pair, versions[v]);
        assert_non_null(pair.client.session);
        tls_ends_end(&pair);
        tls_ends_begin(&pair);
        tls_resume(&pair.client.tls, pair.client.session);
        tls_ends_shake(&pair, SIZE_MAX);
        assert_open(&pair);
        tls_facts(&pair.server.tls, &facts);
        assert_true(facts.is_resumed);
        tls_ends_fini(&pair);
    }
}

static void tickets_come_with_the_end_of_the_handshake(void **state) {
    (void)state;
    struct tls_ends pair;
    struct writer none = writer_make(NULL, 0);
    tls_ends_init(&pair, TLS1_3_VERSION);
    tls_ends_shake(&pair, SIZE_MAX);
    assert_open(&pair);
    assert_null(pair.client.session);
    struct bytes wire = tls_ends_take(&pair.server); /* put by the last step of the handshake */
    assert_true(wire.len != 0);
    assert_int_equal(tls_ends_read(&pair.client, wire, 1, &none), TLS_MORE);
    assert_non_null(pair.client.session);
    tls_ends_fini(&pair);
}

/* Each of them once; the last one waits for bytes, in front of which it stands. */
static void new_keys_are_answered_before_the_next_bytes(void **state) {
    (void)state;
    /* A record of 5 bytes, encrypted (RFC 8446 sections 4.6.3 and 5.2): nothing else is as short.
     */
    static const char start[] = {23, 3, 3, 0, 5 + 1 + 16};
    const size_t answer_size = sizeof start + 5 + 1 + 16;
    struct tls_ends pair;
    open_pair(&pair, TLS1_3_VERSION);
    for (size_t i = 0; i < 3; i++) {
        for (size_t j = 0; j <= i; j++) {
            assert_int_equal(SSL_key_update(pair.client.tls.ssl, SSL_KEY_UPDATE_REQUESTED), 1);
            carry(&pair.client, &pair.server, BYTES("with new keys"), 1);
        }
        assert_int_equal(pair.server.sent_size, i * answer_size);
        assert_int_equal(tls_write(&pair.server.tls, BYTES("and back")), TLS_DONE);
        char memory[16];
        struct writer got = writer_make(memory, sizeof memory);
        struct bytes wire = tls_ends_take(&pair.server);
        assert_int_equal(wire.len, (i + 1) * answer_size + sizeof start + 8 + 1 + 16);
        for (size_t j = 0; j <= i; j++) {
            struct bytes record = bytes_slice(wire, j * answer_size, answer_size);
            assert_true(bytes_starts_with(record, bytes_make(start, sizeof start)));
        }
        assert_int_equal(tls_ends_read(&pair.client, wire, 1, &got), TLS_MORE);
        assert_true(bytes_equal(writer_bytes(&got), BYTES("and back")));
    }
    tls_ends_fini(&pair);
}

static void new_keys_without_a_byte_between_them_are_a_flood(void **state) {
    (void)state;
    struct tls_ends pair;
    struct writer none = writer_make(NULL, 0);
    const int most = TLS_USELESS_MAX / 27; /* of a record */
    open_pair(&pair, TLS1_3_VERSION);
    for (int i = 0; i < 2 * most; i++) {
        if (i % (most - 2) == 0) carry(&pair.client, &pair.server, BYTES("a byte"), 1);
        assert_int_equal(SSL_key_update(pair.client.tls.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(pair.client.tls.ssl), 1);
    }
    carry(&pair.client, &pair.server, BYTES("still here"), 1000);
    for (int i = 0; i <= most; i++) {
        assert_int_equal(SSL_key_update(pair.client.tls.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
        assert_int_equal(SSL_do_handshake(pair.client.tls.ssl), 1);
    }
    struct bytes flood = tls_ends_take(&pair.client);
    assert_int_equal(tls_ends_read(&pair.server, flood, 1000, &none), TLS_MORE);
    assert_int_equal(SSL_key_update(pair.client.tls.ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
    assert_int_equal(SSL_do_handshake(pair.client.tls.ssl), 1);
    flood = tls_ends_take(&pair.client);
    assert_int_equal(tls_ends_read(&pair.server, flood, 1000, &none), TLS_BAD);
    assert_int_equal(pair.server.tls.failure, REASON_TLS_PROTOCOL);
    tls_ends_fini(&pair);
}

static int fill_ticket(SSL *ssl, void *used) {
    (void)used;
    static const char filling[2000];
    return SSL_SESSION_set1_ticket_appdata(SSL_get_session(ssl), filling, sizeof filling);
}

/* A ticket of more than a record: with a part of it taken, nothing can be sent until the rest comes
 * (RFC 8446 section 5.1: its records follow each other). */
static void writing_waits_for_the_rest_of_a_ticket(void **state) {
    (void)state;
    struct tls_ends pair;
    struct writer none = writer_make(NULL, 0);
    tls_ends_init(&pair, TLS1_3_VERSION);
    assert_int_equal(SSL_CTX_set_session_ticket_cb(pair.server_context, fill_ticket, NULL, NULL),
                     1);
    SSL_set_max_send_fragment(pair.server.tls.ssl, 1024);
    tls_ends_shake(&pair, SIZE_MAX);
    assert_open(&pair);
    struct bytes tickets = tls_ends_take(&pair.server);
    assert_true(tickets.len > 2000);
    struct bytes part = bytes_slice(tickets, 0, 1100);
    assert_int_equal(tls_ends_read(&pair.client, part, SIZE_MAX, &none), TLS_MORE);
    assert_int_equal(tls_write(&pair.client.tls, BYTES("a request")), TLS_MORE);
    assert_int_equal(pair.client.sent_size, 0);
    struct bytes rest = bytes_slice(tickets, part.len, tickets.len - part.len);
    assert_int_equal(tls_ends_read(&pair.client, rest, SIZE_MAX, &none), TLS_MORE);
    assert_non_null(pair.client.session);
    carry(&pair.client, &pair.server, BYTES("a request"), SIZE_MAX);
    carry(&pair.server, &pair.client, BYTES("an answer"), SIZE_MAX);
    tls_ends_fini(&pair);
}

static void renegotiation_is_refused_and_reading_goes_on(void **state) {
    (void)state;
    struct tls_ends pair;
    struct writer none = writer_make(NULL, 0);
    open_pair(&pair, TLS1_2_VERSION);
    SSL_clear_options(pair.client.tls.ssl, SSL_OP_NO_RENEGOTIATION);
    assert_int_equal(SSL_renegotiate(pair.client.tls.ssl), 1);
    assert_int_equal(SSL_do_handshake(pair.client.tls.ssl), -1); /* sends a ClientHello */
    ERR_clear_error();
    struct bytes hello = tls_ends_take(&pair.client);
    assert_int_equal(tls_ends_read(&pair.server, hello, 1, &none), TLS_MORE);
    assert_true(pair.server.sent_size != 0); /* the warning no_renegotiation */
    assert_int_equal(tls_write(&pair.server.tls, BYTES("still here")), TLS_DONE);
    tls_ends_fini(&pair);
}

/* OpenSSL looks at the thread's errors to say what a call has come to. */
static void errors_of_others_are_nobodys_failure(void **state) {
    (void)state;
    struct tls_ends pair;
    struct writer none = writer_make(NULL, 0);
    size_t size;
    tls_ends_init(&pair, TLS1_3_VERSION);
    ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
    assert_int_equal(tls_handshake(&pair.client.tls), TLS_MORE);
    tls_ends_shake(&pair, SIZE_MAX);
    assert_open(&pair);
    ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
    assert_int_equal(tls_ends_read(&pair.client, tls_ends_take(&pair.server), 1, &none), TLS_MORE);
    ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
    assert_int_equal(tls_next(&pair.client.tls, &size), TLS_MORE);
    ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
    assert_int_equal(tls_write(&pair.client.tls, BYTES("a request")), TLS_DONE);
    ERR_raise(ERR_LIB_SSL, ERR_R_INTERNAL_ERROR);
    tls_shutdown(&pair.client.tls);
    char memory[16];
    struct writer got = writer_make(memory, sizeof memory);
    struct bytes wire = tls_ends_take(&pair.client);
    assert_int_equal(tls_ends_read(&pair.server, wire, SIZE_MAX, &got), TLS_END);
    assert_true(bytes_equal(writer_bytes(&got), BYTES("a request")));
    tls_ends_fini(&pair); /* and none is left */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_handshake_may_come_in_any_pieces),
        cmocka_unit_test(facts_are_known_afterwards),
        cmocka_unit_test(bytes_arrive_whatever_the_pieces),
        cmocka_unit_test(plaintext_fits_where_whole_records_were),
        cmocka_unit_test(a_record_in_two_parts_says_its_size),
        cmocka_unit_test(close_notify_ends_one_direction),
        cmocka_unit_test(half_a_close_notify_is_no_end),
        cmocka_unit_test(a_changed_byte_is_found_and_told),
        cmocka_unit_test(what_is_no_tls_has_a_name),
        cmocka_unit_test(failures_have_a_name_on_both_sides),
        cmocka_unit_test(without_memory_it_fails_and_says_so),
        cmocka_unit_test(a_session_is_resumed),
        cmocka_unit_test(tickets_come_with_the_end_of_the_handshake),
        cmocka_unit_test(new_keys_are_answered_before_the_next_bytes),
        cmocka_unit_test(new_keys_without_a_byte_between_them_are_a_flood),
        cmocka_unit_test(writing_waits_for_the_rest_of_a_ticket),
        cmocka_unit_test(renegotiation_is_refused_and_reading_goes_on),
        cmocka_unit_test(errors_of_others_are_nobodys_failure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
