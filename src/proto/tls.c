#include "proto/tls.h"

#include "base/check.h"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <pthread.h>

/* BIO_CTRL_SET_KTLS and the type of a KeyUpdate: of OpenSSL's ABI, but in no public header. */
#define TLS_BIO_SET_KTLS 72
#define TLS_KEY_UPDATE 24
/* Alerts and KeyUpdate are shorter. */
#define TLS_SEALED_MESSAGE_MAX 16

static BIO_METHOD *tls_bio_method; /* of the process: made once, never freed */
static pthread_once_t tls_bio_once = PTHREAD_ONCE_INIT;

static int tls_bio_read(BIO *bio, char *to, int size) {
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (tls->input.len == 0) {
        BIO_set_retry_read(bio);
        return -1;
    }
    if (tls->is_open && tls->useless > TLS_USELESS_MAX) return -1; /* for good */
    size_t part = (size_t)size < tls->input.len ? (size_t)size : tls->input.len;
    memcpy(to, tls->input.ptr, part);
    tls->input = bytes_slice(tls->input, part, tls->input.len - part);
    tls->useless += part;
    return (int)part;
}

static int tls_bio_write(BIO *bio, const char *from, int size) {
    struct tls *tls = BIO_get_data(bio);
    BIO_clear_retry_flags(bio);
    if (tls->maker != TLS_BY_OPENSSL) return size;
    if (tls->no_memory || !tls->events->put(tls, bytes_make(from, (size_t)size))) {
        tls->no_memory = true;
        return -1;
    }
    return size;
}

/* Everything is flushed at once. Keys for kTLS (`number`: of what is sent) are kept and not taken:
 * OpenSSL goes on as if nothing had been asked. Datagrams and the rest are not for it. */
static long tls_bio_ctrl(BIO *bio, int command, long number, void *pointer) {
    struct tls *tls = BIO_get_data(bio);
    if (command == TLS_BIO_SET_KTLS && number && tls->maker == TLS_BY_OPENSSL)
        tls_keys_set(&tls->keys, pointer);
    if (command == BIO_CTRL_FLUSH && tls->maker == TLS_BY_NOBODY) tls->maker = TLS_BY_OPENSSL;
    return command == BIO_CTRL_FLUSH;
}

static int tls_bio_create(BIO *bio) {
    BIO_set_init(bio, 1);
    return 1;
}

static void tls_bio_make(void) {
    tls_bio_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir");
    if (!tls_bio_method) return;
    BIO_meth_set_read(tls_bio_method, tls_bio_read);
    BIO_meth_set_write(tls_bio_method, tls_bio_write);
    BIO_meth_set_ctrl(tls_bio_method, tls_bio_ctrl);
    BIO_meth_set_create(tls_bio_method, tls_bio_create);
}

bool tls_init(struct tls *tls, SSL_CTX *context, bool is_server, const struct tls_events *events) {
    *tls = (struct tls){.events = events};
    (void)pthread_once(&tls_bio_once, tls_bio_make); /* fails for invalid arguments only */
    BIO *bio = tls_bio_method ? BIO_new(tls_bio_method) : NULL;
    tls->ssl = bio ? SSL_new(context) : NULL;
    if (!tls->ssl) {
        BIO_free(bio);
        return false;
    }
    BIO_set_data(bio, tls);
    SSL_set_bio(tls->ssl, bio, bio); /* takes the one reference for both directions */
    SSL_set_mode(tls->ssl, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_AUTO_RETRY);
    SSL_clear_mode(tls->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_set_read_ahead(tls->ssl, 0); /* what is not needed yet stays where it was received */
    SSL_set_options(tls->ssl, SSL_OP_NO_RENEGOTIATION);
    if (is_server) {
        SSL_set_accept_state(tls->ssl);
    } else {
        SSL_set_connect_state(tls->ssl);
    }
    return true;
}

/* The kernel's keys can be changed by nobody. The other side would not understand what follows (RFC
 * 8446 section 4.6.3), so this is the end, and said with the keys it knows. */
static void tls_on_new_keys_of_kernel(struct tls *tls) {
    static const char alert[] = {SSL3_AL_FATAL, SSL_AD_INTERNAL_ERROR};
    if (tls->failure != REASON_NONE) return;
    if (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) return; /* nothing follows */
    tls->failure = REASON_TLS_PROTOCOL;
    tls->events->alert(tls, bytes_make(alert, sizeof alert));
}

static void tls_stop_sealing(struct tls *tls) {
    tls_seal_stop(&tls->seal);
    tls_keys_wipe(&tls->keys);
}

/* A whole record of a message that OpenSSL wrote, and whose own record is dropped. */
static void tls_seal_message(struct tls *tls, uint8_t type, struct bytes message) {
    char record[TLS_SEAL_HEAD_MAX + TLS_SEALED_MESSAGE_MAX + TLS_SEAL_TAIL_MAX];
    CHECK(message.len <= TLS_SEALED_MESSAGE_MAX);
    size_t size = tls_seal_begin(&tls->seal, &tls->keys, type, message.len, record);
    bool made = size != 0 && tls_seal_add(&tls->seal, message, record + size);
    size_t tail = 0;
    if (made) {
        size += message.len;
        tail = tls_seal_end(&tls->seal, &tls->keys, record + size);
    }
    if (tail == 0 || !tls->events->put(tls, bytes_make(record, size + tail))) tls->no_memory = true;
}

/* OpenSSL changes the keys of what is sent behind this message: those that are kept are of no use
 * any more. Who seals says so with the old ones; OpenSSL, which has made a record of it and holds
 * that until it flushes, goes on with the new. */
static void tls_on_new_keys(struct tls *tls, struct bytes message) {
    switch (tls->maker) {
    case TLS_BY_OPENSSL:
        tls_keys_wipe(&tls->keys);
        return;
    case TLS_BY_SEAL:
        tls_seal_message(tls, SSL3_RT_HANDSHAKE, message);
        tls_stop_sealing(tls);
        tls->maker = TLS_BY_NOBODY;
        return;
    case TLS_BY_KERNEL:
        tls_on_new_keys_of_kernel(tls);
        return;
    case TLS_BY_NOBODY:
        CHECK(false); /* OpenSSL flushes between two of them, and sends no alert before that */
    }
}

static void tls_on_alert(struct tls *tls, struct bytes alert) {
    CHECK(tls->maker != TLS_BY_NOBODY);
    if (tls->maker == TLS_BY_SEAL) tls_seal_message(tls, SSL3_RT_ALERT, alert);
    if (tls->maker == TLS_BY_KERNEL && tls->failure == REASON_NONE) tls->events->alert(tls, alert);
}

/* SSL_set_msg_callback(3): the header of every record, and every message in plaintext. */
static void tls_on_message(int is_sent, int version, int type, const void *message, size_t size,
                           SSL *ssl, void *user) {
    (void)version;
    (void)ssl;
    struct tls *tls = user;
    struct bytes bytes = bytes_make(message, size);
    if (!is_sent || size == 0) return;
    if (type == SSL3_RT_HEADER) {
        if (tls->maker == TLS_BY_OPENSSL) tls_keys_advance(&tls->keys);
    } else if (type == SSL3_RT_HANDSHAKE && bytes.ptr[0] == TLS_KEY_UPDATE) {
        tls_on_new_keys(tls, bytes);
    } else if (type == SSL3_RT_ALERT) {
        tls_on_alert(tls, bytes);
    }
}

void tls_keep_keys(struct tls *tls) {
    SSL_set_options(tls->ssl, SSL_OP_ENABLE_KTLS);
    SSL_set_msg_callback(tls->ssl, tls_on_message);
    (void)SSL_set_msg_callback_arg(tls->ssl, tls); /* cannot fail */
}

/* OpenSSL answers the wish for new keys (RFC 8446 section 4.6.3) with its next record. */
static bool tls_owes_new_keys(const struct tls *tls) {
    return SSL_get_key_update_type(tls->ssl) != SSL_KEY_UPDATE_NONE;
}

bool tls_may_hand_over(const struct tls *tls) {
    return tls->is_open && tls->keys.size != 0 && !tls->no_memory && !tls_owes_new_keys(tls);
}

void tls_hand_over(struct tls *tls) {
    CHECK(tls_may_hand_over(tls));
    tls_stop_sealing(tls);
    tls->maker = TLS_BY_KERNEL;
}

bool tls_start_sealing(struct tls *tls, OSSL_LIB_CTX *library) {
    CHECK(tls_may_hand_over(tls) && tls->maker == TLS_BY_OPENSSL);
    if (!tls_seal_start(&tls->seal, &tls->keys, library)) return false;
    tls->maker = TLS_BY_SEAL;
    return true;
}

bool tls_seals(const struct tls *tls) {
    return tls->maker == TLS_BY_SEAL && !tls_owes_new_keys(tls);
}

void tls_fini(struct tls *tls) {
    if (!tls->ssl) return;
    tls_stop_sealing(tls);
    SSL_set_shutdown(tls->ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(tls->ssl);
    tls->ssl = NULL;
}

void tls_resume(struct tls *tls, SSL_SESSION *session) {
    (void)SSL_set_session(tls->ssl, session); /* a full handshake instead */
}

/* SSL_CTX_sess_set_new_cb(3): 0, we have taken no reference. */
static int tls_on_session(SSL *ssl, SSL_SESSION *session) {
    struct tls *tls = BIO_get_data(SSL_get_rbio(ssl));
    if (tls->events->on_session) tls->events->on_session(tls, session);
    return 0;
}

void tls_keep_sessions(SSL_CTX *context) {
    const int mode = SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL;
    (void)SSL_CTX_set_session_cache_mode(context, mode); /* gives the old one */
    SSL_CTX_sess_set_new_cb(context, tls_on_session);
}

void tls_give(struct tls *tls, struct bytes bytes) { tls->input = bytes; }

/* What OpenSSL's first error means to whoever runs a server. */
static enum reason tls_reason_of(unsigned long error) {
    if (ERR_GET_LIB(error) != ERR_LIB_SSL) return REASON_TLS_PROTOCOL;
    int reason = ERR_GET_REASON(error);
    if (reason >= SSL_AD_REASON_OFFSET) return REASON_TLS_ALERT;
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
        return REASON_TLS_PLAIN_HTTP;
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_APPLICATION_PROTOCOL:
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_NO_PROTOCOLS_AVAILABLE:
        return REASON_TLS_NOTHING_SHARED;
    case SSL_R_CALLBACK_FAILED:
        return REASON_TLS_UNKNOWN_NAME;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return REASON_TLS_CERTIFICATE_MISSING;
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return REASON_TLS_BAD_CERTIFICATE;
    default:
        return REASON_TLS_PROTOCOL;
    }
}

/* A server that does not take what it is offered (RFC 7301 section 3.2) says so by an alert, or
 * chooses something else: for that OpenSSL has no word but the place where it finds it. */
static bool tls_lacks_alpn(const struct tls *tls) {
    const char *place = "";
    unsigned long error = ERR_peek_error_func(&place);
    if (SSL_is_server(tls->ssl) || ERR_GET_LIB(error) != ERR_LIB_SSL) return false;
    int reason = ERR_GET_REASON(error);
    return reason == SSL_R_TLSV1_ALERT_NO_APPLICATION_PROTOCOL ||
           (reason == SSL_R_BAD_EXTENSION && strcmp(place, "tls_parse_stoc_alpn") == 0);
}

/* What came before must not be taken for what the next call says. Clearing what is empty costs ten
 * times as much as looking. */
static void tls_forget_errors(void) {
    if (ERR_peek_error() != 0) ERR_clear_error();
}

static enum tls_result tls_fail(struct tls *tls) {
    unsigned long error = ERR_peek_error();
    enum reason reason = tls_lacks_alpn(tls) ? REASON_TLS_ALPN_REFUSED : tls_reason_of(error);
    tls->failure = tls->no_memory ? REASON_NO_MEMORY : reason;
    tls->words = reason == REASON_TLS_BAD_CERTIFICATE
                     ? X509_verify_cert_error_string(SSL_get_verify_result(tls->ssl))
                     : ERR_reason_error_string(error);
    ERR_clear_error();
    return TLS_BAD;
}

/* Of a call that gave `result`, which is no success. */
static enum tls_result tls_result_of(struct tls *tls, int result) {
    if (tls->failure != REASON_NONE) return TLS_BAD; /* tls_on_new_keys */
    switch (SSL_get_error(tls->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        /* OpenSSL goes on without an alert that is only a warning; nothing can follow it. */
        return tls->no_memory ? tls_fail(tls) : TLS_MORE;
    case SSL_ERROR_ZERO_RETURN:
        return TLS_END;
    default:
        return tls_fail(tls);
    }
}

enum tls_result tls_handshake(struct tls *tls) {
    CHECK(!tls->is_open);
    if (tls->failure != REASON_NONE) return TLS_BAD;
    tls_forget_errors();
    int result = SSL_do_handshake(tls->ssl);
    /* Unlike application data, handshake messages may share a record with what comes later. */
    tls->is_split = true;
    if (result == 1) {
        tls->is_open = true;
        tls->useless = 0;
        return TLS_DONE;
    }
    enum tls_result failed = tls_result_of(tls, result);
    return failed == TLS_END ? tls_fail(tls) : failed;
}

/* The kernel's records do not pass OpenSSL, which would change them with its next one. */
static void tls_look_for_new_keys(struct tls *tls) {
    if (tls->maker == TLS_BY_KERNEL && tls_owes_new_keys(tls)) tls_on_new_keys_of_kernel(tls);
}

bool tls_fits(const struct tls *tls) { return !tls->is_split && SSL_pending(tls->ssl) == 0; }

enum tls_result tls_read(struct tls *tls, char *to, size_t size, size_t *len) {
    CHECK(tls->is_open);
    if (tls->failure != REASON_NONE) return TLS_BAD;
    tls_forget_errors();
    const char *before = tls->input.ptr;
    int result = SSL_read_ex(tls->ssl, to, size, len);
    tls_look_for_new_keys(tls);
    if (result == 1) {
        tls->is_split = false;
        tls->useless = 0;
        return TLS_DONE;
    }
    tls->is_split |= tls->input.ptr != before;
    return tls_result_of(tls, result);
}

enum tls_result tls_next(struct tls *tls, size_t *size) {
    CHECK(tls->is_open);
    if (tls->failure != REASON_NONE) return TLS_BAD;
    tls_forget_errors();
    char byte;
    int result = SSL_peek_ex(tls->ssl, &byte, 1, size);
    tls_look_for_new_keys(tls);
    if (result == 1) {
        tls->is_split = false;
        tls->useless = 0;
        *size = (size_t)SSL_pending(tls->ssl);
        return TLS_DONE;
    }
    tls->is_split = true;
    return tls_result_of(tls, result);
}

enum tls_result tls_write(struct tls *tls, struct bytes bytes) {
    CHECK(tls->is_open && tls->maker != TLS_BY_KERNEL && !tls_seals(tls));
    CHECK(bytes.len != 0 && bytes.len <= TLS_RECORD_MAX);
    if (tls->failure != REASON_NONE) return TLS_BAD;
    tls_forget_errors();
    size_t written = 0;
    if (SSL_write_ex(tls->ssl, bytes.ptr, bytes.len, &written) != 1) {
        enum tls_result failed = tls_result_of(tls, 0);
        return failed == TLS_END ? tls_fail(tls) : failed;
    }
    CHECK(written == bytes.len); /* without SSL_MODE_ENABLE_PARTIAL_WRITE it is all or nothing */
    CHECK(tls->maker == TLS_BY_OPENSSL); /* the new keys that were owed went first */
    return TLS_DONE;
}

/* Nothing but memory may fail there. */
static bool tls_made(struct tls *tls, bool made) {
    if (made) return true;
    tls->no_memory = true;
    (void)tls_fail(tls); /* BAD */
    return false;
}

size_t tls_record_begin(struct tls *tls, size_t size, char *to) {
    CHECK(tls_seals(tls) && size != 0 && size <= TLS_RECORD_MAX);
    /* Nobody would understand what follows a record that was not put. */
    if (tls->failure != REASON_NONE || !tls_made(tls, !tls->no_memory)) return 0;
    size_t head = tls_seal_begin(&tls->seal, &tls->keys, SSL3_RT_APPLICATION_DATA, size, to);
    return tls_made(tls, head != 0) ? head : 0;
}

bool tls_record_add(struct tls *tls, struct bytes plain, char *to) {
    return tls_made(tls, tls_seal_add(&tls->seal, plain, to));
}

size_t tls_record_end(struct tls *tls, char *to) {
    size_t tail = tls_seal_end(&tls->seal, &tls->keys, to);
    return tls_made(tls, tail != 0) ? tail : 0;
}

void tls_shutdown(struct tls *tls) {
    if (!tls->is_open || tls->failure != REASON_NONE) return;
    if (SSL_get_shutdown(tls->ssl) & SSL_SENT_SHUTDOWN) return;
    tls_forget_errors();
    (void)SSL_shutdown(tls->ssl); /* 0: the other side's is still to come */
}

void tls_facts(const struct tls *tls, struct tls_facts *facts) {
    const unsigned char *alpn;
    unsigned alpn_size;
    SSL_get0_alpn_selected(tls->ssl, &alpn, &alpn_size);
    *facts = (struct tls_facts){
        .version = SSL_get_version(tls->ssl),
        .cipher = SSL_get_cipher_name(tls->ssl),
        .server_name = bytes_of(SSL_get_servername(tls->ssl, TLSEXT_NAMETYPE_host_name)),
        .alpn = bytes_make((const char *)alpn, alpn_size),
        .is_resumed = SSL_session_reused(tls->ssl) != 0,
        .has_certificate = SSL_get0_peer_certificate(tls->ssl) != NULL,
        .verify_result = SSL_get_verify_result(tls->ssl)};
}

void tls_describe(const struct tls *tls, struct writer *text) {
    struct tls_facts facts;
    tls_facts(tls, &facts);
    writer_print(text, ", %s %s", facts.version, facts.cipher);
    if (facts.alpn.len != 0) writer_print(text, ", ALPN %.*s", BYTES_FMT(facts.alpn));
    if (facts.server_name.len != 0) writer_print(text, ", name %.*s", BYTES_FMT(facts.server_name));
    if (facts.is_resumed) writer_print(text, ", resumed");
}

void tls_subject(const struct tls *tls, struct writer *text) {
    const X509 *certificate = SSL_get0_peer_certificate(tls->ssl);
    BIO *memory = certificate ? BIO_new(BIO_s_mem()) : NULL;
    if (!memory) return;
    const X509_NAME *name = X509_get_subject_name(certificate);
    char *subject = NULL;
    if (X509_NAME_print_ex(memory, name, 0, XN_FLAG_RFC2253) > 0) {
        long size = BIO_get_mem_data(memory, &subject);
        if (size > 0) writer_put(text, bytes_make(subject, (size_t)size));
    }
    BIO_free(memory);
}
