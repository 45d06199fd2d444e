/* Keys that are handed over: who has them goes on where OpenSSL has stopped, as the kernel does. */
#include "proto/tls_keys.h"

#include "unit/proto/tls_ends.h"

#include <endian.h>
#include <openssl/evp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define DATA 23
#define ALERT 21
#define TAG_SIZE 16

/* What has been put arrives. */
static void deliver(struct tls_end *from, struct tls_end *to, const char *wanted) {
    char memory[4096];
    struct writer got = writer_make(memory, sizeof memory);
    assert_int_equal(tls_ends_read(to, tls_ends_take(from), SIZE_MAX, &got), TLS_MORE);
    assert_true(bytes_equal(writer_bytes(&got), bytes_of(wanted)));
}

static void say(struct tls_end *from, struct tls_end *to, const char *text) {
    assert_int_equal(tls_write(&from->tls, bytes_of(text)), TLS_DONE);
    deliver(from, to, text);
}

static void xor_number(unsigned char *nonce, const unsigned char *number) {
    for (int i = 0; i < 8; i++)
        nonce[4 + i] ^= number[i];
}

struct aead {
    const EVP_CIPHER *cipher;
    const unsigned char *key;
    unsigned char nonce[12];
    const unsigned char *number;
};

static struct aead aead_of(const struct tls_keys *keys) {
    struct aead aead = {0};
    bool is_13 = keys->as.type.version == TLS_1_3_VERSION;
    if (keys->as.type.cipher_type == TLS_CIPHER_CHACHA20_POLY1305) {
        aead.cipher = EVP_chacha20_poly1305();
        aead.key = keys->as.chacha20.key;
        aead.number = keys->as.chacha20.rec_seq;
        memcpy(aead.nonce, keys->as.chacha20.iv, 12);
        xor_number(aead.nonce, aead.number);
        return aead;
    }
    bool is_128 = keys->as.type.cipher_type == TLS_CIPHER_AES_GCM_128;
    aead.cipher = is_128 ? EVP_aes_128_gcm() : EVP_aes_256_gcm();
    aead.key = is_128 ? keys->as.gcm_128.key : keys->as.gcm_256.key;
    aead.number = is_128 ? keys->as.gcm_128.rec_seq : keys->as.gcm_256.rec_seq;
    memcpy(aead.nonce, is_128 ? keys->as.gcm_128.salt : keys->as.gcm_256.salt, 4);
    memcpy(aead.nonce + 4, is_128 ? keys->as.gcm_128.iv : keys->as.gcm_256.iv, 8);
    if (is_13) xor_number(aead.nonce, aead.number);
    return aead;
}

/* One record as the kernel makes it (RFC 8446 section 5.2, RFC 5246 section 6.2.3.3). */
static struct bytes make_record(struct tls_keys *keys, uint8_t type, struct bytes text,
                                unsigned char *to) {
    struct aead aead = aead_of(keys);
    bool is_13 = keys->as.type.version == TLS_1_3_VERSION;
    bool sends_nonce = !is_13 && keys->as.type.cipher_type != TLS_CIPHER_CHACHA20_POLY1305;
    unsigned char inner[256], extra[13];
    size_t size = text.len, nonce_size = sends_nonce ? 8 : 0;
    memcpy(inner, text.ptr, size);
    if (is_13) inner[size++] = type;
    size_t body = nonce_size + size + TAG_SIZE;
    unsigned char header[5] = {is_13 ? DATA : type, 3, 3, (unsigned char)(body >> 8),
                               (unsigned char)body};
    memcpy(to, header, 5);
    memcpy(to + 5, aead.nonce + 4, nonce_size);
    memcpy(extra, aead.number, 8);
    unsigned char tail[5] = {type, 3, 3, (unsigned char)(size >> 8), (unsigned char)size};
    memcpy(extra + 8, tail, 5);
    int len;
    EVP_CIPHER_CTX *cipher = EVP_CIPHER_CTX_new();
    assert_int_equal(EVP_EncryptInit_ex(cipher, aead.cipher, NULL, aead.key, aead.nonce), 1);
    assert_int_equal(EVP_EncryptUpdate(cipher, NULL, &len, is_13 ? header : extra, is_13 ? 5 : 13),
                     1);
    unsigned char *out = to + 5 + nonce_size;
    assert_int_equal(EVP_EncryptUpdate(cipher, out, &len, inner, (int)size), 1);
    assert_int_equal(EVP_EncryptFinal_ex(cipher, out + len, &len), 1);
    assert_int_equal(EVP_CIPHER_CTX_ctrl(cipher, EVP_CTRL_AEAD_GET_TAG, TAG_SIZE, out + size), 1);
    EVP_CIPHER_CTX_free(cipher);
    tls_keys_advance(keys);
    return bytes_make((char *)to, 5 + body);
}

static void who_has_the_keys_goes_on_after_any_records(void **state) {
    (void)state;
    for (size_t i = 0; i < TLS_ENDS_SUITES; i++) {
        for (int records = 0; records < 300; records = records * 4 + 1) {
            struct tls_ends pair;
            unsigned char memory[512];
            tls_ends_open(&pair, &tls_ends_suites[i], true);
            deliver(&pair.server, &pair.client, ""); /* tickets */
            for (int j = 0; j < records; j++)
                say(&pair.server, &pair.client, "by OpenSSL");
            say(&pair.client, &pair.server, "what is received is no matter");
            struct tls_keys keys = pair.server.tls.keys;
            assert_int_equal(keys.as.type.cipher_type, tls_ends_suites[i].type);
            tls_hand_over(&pair.server.tls);
            assert_int_equal(pair.server.tls.keys.size, 0);
            char got[64];
            struct writer text = writer_make(got, sizeof got);
            for (int j = 0; j < 3; j++) {
                struct bytes record = make_record(&keys, DATA, BYTES("by another "), memory);
                assert_int_equal(tls_ends_read(&pair.client, record, SIZE_MAX, &text), TLS_MORE);
            }
            assert_true(
                bytes_equal(writer_bytes(&text), BYTES("by another by another by another ")));
            say(&pair.client, &pair.server, "and still heard");
            tls_ends_fini(&pair);
        }
    }
}

/* RFC 5288 section 3: no nonce twice. What OpenSSL puts next shows which one it would be. */
static void the_nonce_is_the_one_that_is_next(void **state) {
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        struct tls_ends pair;
        tls_ends_open(&pair, &tls_ends_suites[i], true);
        for (int j = 0; j < 5; j++) {
            struct tls_keys keys = pair.server.tls.keys;
            struct aead aead = aead_of(&keys);
            (void)tls_ends_take(&pair.server);
            assert_int_equal(tls_write(&pair.server.tls, BYTES("text")), TLS_DONE);
            struct bytes record = tls_ends_take(&pair.server);
            assert_memory_equal(record.ptr + 5, aead.nonce + 4, 8);
        }
        tls_ends_fini(&pair);
    }
}

static void numbers_carry(void **state) {
    (void)state;
    struct tls12_crypto_info_aes_gcm_128 told = {.info = {TLS_1_2_VERSION, TLS_CIPHER_AES_GCM_128}};
    memset(told.iv, 0xff, sizeof told.iv);
    memset(told.rec_seq + 5, 0xff, 3);
    struct tls_keys keys = {0};
    tls_keys_set(&keys, &told);
    assert_int_equal(keys.size, sizeof told);
    tls_keys_advance(&keys);
    static const unsigned char none[8], carried[8] = {0, 0, 0, 0, 1};
    assert_memory_equal(keys.as.gcm_128.iv, none, 8);
    assert_memory_equal(keys.as.gcm_128.rec_seq, carried, 8);
    /* In TLS 1.3 only the number moves. */
    told.info.version = TLS_1_3_VERSION;
    tls_keys_set(&keys, &told);
    tls_keys_advance(&keys);
    assert_memory_equal(keys.as.gcm_128.iv, told.iv, 8);
    assert_memory_equal(keys.as.gcm_128.rec_seq, carried, 8);
}

static void other_ciphers_leave_none(void **state) {
    (void)state;
    struct tls12_crypto_info_aes_ccm_128 told = {.info = {TLS_1_2_VERSION, TLS_CIPHER_AES_CCM_128}};
    struct tls_keys keys = {.size = 1};
    tls_keys_set(&keys, &told);
    assert_int_equal(keys.size, 0);
    tls_keys_advance(&keys);
    assert_int_equal(keys.size, 0);
}

static void there_are_none_unasked(void **state) {
    (void)state;
    for (size_t i = 0; i < TLS_ENDS_SUITES; i++) {
        struct tls_ends pair;
        tls_ends_open(&pair, &tls_ends_suites[i], false);
        assert_int_equal(pair.server.tls.keys.size, 0);
        tls_ends_fini(&pair);
    }
}

static void alerts_are_told_afterwards(void **state) {
    (void)state;
    for (size_t i = 0; i < TLS_ENDS_SUITES; i++) {
        struct tls_ends pair;
        unsigned char memory[512];
        tls_ends_open(&pair, &tls_ends_suites[i], true);
        deliver(&pair.server, &pair.client, "");
        struct tls_keys keys = pair.server.tls.keys;
        tls_hand_over(&pair.server.tls);
        tls_shutdown(&pair.server.tls);
        tls_shutdown(&pair.server.tls);
        assert_int_equal(pair.server.sent_size, 0);
        assert_int_equal(pair.server.alerts, 1);
        assert_int_equal(pair.server.alert[1], SSL_AD_CLOSE_NOTIFY);
        struct bytes record = make_record(&keys, ALERT, bytes_make(pair.server.alert, 2), memory);
        struct writer none = writer_make(NULL, 0);
        assert_int_equal(tls_ends_read(&pair.client, record, SIZE_MAX, &none), TLS_END);
        tls_ends_fini(&pair);
    }
}

static void a_broken_record_is_answered_by_an_alert(void **state) {
    (void)state;
    for (size_t i = 0; i < TLS_ENDS_SUITES; i++) {
        struct tls_ends pair;
        tls_ends_open(&pair, &tls_ends_suites[i], true);
        tls_hand_over(&pair.server.tls);
        assert_int_equal(tls_write(&pair.client.tls, BYTES("text")), TLS_DONE);
        struct bytes record = tls_ends_take(&pair.client);
        *(char *)(uintptr_t)(record.ptr + record.len - 1) ^= 1;
        size_t before = pair.server.sent_size;
        struct writer none = writer_make(NULL, 0);
        assert_int_equal(tls_ends_read(&pair.server, record, SIZE_MAX, &none), TLS_BAD);
        assert_int_equal(pair.server.sent_size, before);
        assert_int_equal(pair.server.alerts, 1);
        assert_int_equal(pair.server.alert[1], SSL_AD_BAD_RECORD_MAC);
        tls_ends_fini(&pair);
    }
}

static struct bytes ask_for_new_keys(struct tls_ends *pair, int type) {
    assert_int_equal(SSL_key_update(pair->client.tls.ssl, type), 1);
    assert_int_equal(SSL_do_handshake(pair->client.tls.ssl), 1);
    return tls_ends_take(&pair->client);
}

static void new_keys_before_leave_none_to_hand_over(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_open(&pair, &tls_ends_suites[3], true);
    deliver(&pair.server, &pair.client, "");
    struct writer none = writer_make(NULL, 0);
    struct bytes asked = ask_for_new_keys(&pair, SSL_KEY_UPDATE_NOT_REQUESTED);
    assert_int_equal(tls_ends_read(&pair.server, asked, SIZE_MAX, &none), TLS_MORE);
    assert_int_not_equal(pair.server.tls.keys.size, 0); /* the other direction's */
    asked = ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(tls_ends_read(&pair.server, asked, SIZE_MAX, &none), TLS_MORE);
    assert_false(tls_may_hand_over(&pair.server.tls));
    say(&pair.server, &pair.client, "with the new ones");
    assert_int_equal(pair.server.tls.keys.size, 0);
    assert_false(tls_may_hand_over(&pair.server.tls));
    tls_ends_fini(&pair);
}

static void new_keys_afterwards_are_the_end(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_open(&pair, &tls_ends_suites[3], true);
    tls_hand_over(&pair.server.tls);
    struct writer none = writer_make(NULL, 0);
    struct bytes asked = ask_for_new_keys(&pair, SSL_KEY_UPDATE_NOT_REQUESTED);
    assert_int_equal(tls_ends_read(&pair.server, asked, SIZE_MAX, &none), TLS_MORE);
    asked = ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(tls_ends_read(&pair.server, asked, SIZE_MAX, &none), TLS_BAD);
    assert_int_equal(pair.server.alerts, 1);
    assert_int_equal(pair.server.alert[0], SSL3_AL_FATAL);
    assert_int_equal(pair.server.alert[1], SSL_AD_INTERNAL_ERROR);
    tls_shutdown(&pair.server.tls);
    assert_int_equal(pair.server.alerts, 1);
    tls_ends_fini(&pair);
}

static void new_keys_behind_the_end_are_no_matter(void **state) {
    (void)state;
    struct tls_ends pair;
    tls_ends_open(&pair, &tls_ends_suites[3], true);
    tls_hand_over(&pair.server.tls);
    tls_shutdown(&pair.server.tls);
    struct writer none = writer_make(NULL, 0);
    struct bytes asked = ask_for_new_keys(&pair, SSL_KEY_UPDATE_REQUESTED);
    assert_int_equal(tls_ends_read(&pair.server, asked, SIZE_MAX, &none), TLS_MORE);
    say(&pair.client, &pair.server, "still heard");
    assert_int_equal(pair.server.alerts, 1);
    tls_ends_fini(&pair);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_the_keys_goes_on_after_any_records),
        cmocka_unit_test(the_nonce_is_the_one_that_is_next),
        cmocka_unit_test(numbers_carry),
        cmocka_unit_test(other_ciphers_leave_none),
        cmocka_unit_test(there_are_none_unasked),
        cmocka_unit_test(alerts_are_told_afterwards),
        cmocka_unit_test(a_broken_record_is_answered_by_an_alert),
        cmocka_unit_test(new_keys_before_leave_none_to_hand_over),
        cmocka_unit_test(new_keys_afterwards_are_the_end),
        cmocka_unit_test(new_keys_behind_the_end_are_no_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
