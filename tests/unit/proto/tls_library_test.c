#include "proto/tls_library.h"

#include "proto/tls_tickets.h"
#include "unit/proto/tls_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static struct tls_tickets tickets;

static struct tls_context *context_in(OSSL_LIB_CTX *library, bool is_server,
                                      const struct made *own) {
    struct tls_identity identity = identity_of(own);
    struct tls_context_options options = {.identities = &identity,
                                          .identity_count = is_server,
                                          .min_version = 2,
                                          .tickets = is_server ? &tickets : NULL,
                                          .scope = BYTES("site"),
                                          .ca = own->certificate_pem,
                                          .verify = true,
                                          .library = library};
    struct tls_fault fault;
    struct tls_context *context = is_server ? tls_context_new_server(&options, &fault)
                                            : tls_context_new_client(&options, &fault);
    if (!context) fail_msg("%s", fault.text);
    return context;
}

/* A handshake between two libraries; true: it was resumed by `session`, which is replaced. */
static bool shake(const struct tls_context *client, const struct tls_context *server,
                  SSL_SESSION **session) {
    struct ends ends = ends_new(tls_context_ssl(client), tls_context_ssl(server));
    assert_true(tls_context_expect(client, ends.client, "a.example"));
    if (*session) assert_int_equal(SSL_set_session(ends.client, *session), 1);
    assert_true(ends_shake(&ends));
    bool is_resumed = SSL_session_reused(ends.client) == 1;
    SSL_SESSION_free(*session);
    *session = SSL_get1_session(ends.client);
    ends_free(&ends);
    return is_resumed;
}

static void each_side_has_its_own(void **state) {
    (void)state;
    static const bool kinds[] = {false, true};
    assert_true(tls_tickets_init(&tickets, 60));
    for (size_t i = 0; i < 2; i++) {
        OSSL_LIB_CTX *ours = tls_library_new();
        OSSL_LIB_CTX *theirs = tls_library_new();
        assert_true(ours && theirs && ours != theirs);
        const struct made *own = make_certificate(&(struct wish){
            .subject = "a", .names = "DNS:a.example", .is_ca = true, .is_rsa = kinds[i]});
        struct tls_context *server = context_in(ours, true, own);
        struct tls_context *client = context_in(theirs, false, own);
        SSL_SESSION *session = NULL;
        assert_false(shake(client, server, &session));
        assert_true(shake(client, server, &session)); /* tickets are made and read in it, too */
        SSL_SESSION_free(session);
        tls_context_free(server);
        tls_context_free(client);
        fixture_end();
        tls_library_free(ours);
        tls_library_free(theirs);
    }
    tls_tickets_fini(&tickets);
    assert_int_equal(ERR_peek_error(), 0);
}

/* An operator's rules for OpenSSL hold in it as well: with this one nothing can be had. */
static void the_systems_configuration_counts(void **state) {
    (void)state;
    char path[] = "/tmp/weir_openssl_XXXXXX";
    static const char text[] = "openssl_conf = init\n[init]\nalg_section = rules\n"
                               "[rules]\ndefault_properties = fips=yes\n";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, sizeof text - 1), sizeof text - 1);
    close(fd);
    OSSL_LIB_CTX *usual = tls_library_new();
    assert_int_equal(setenv("OPENSSL_CONF", path, 1), 0);
    OSSL_LIB_CTX *strict = tls_library_new();
    assert_int_equal(unsetenv("OPENSSL_CONF") + unlink(path), 0);
    EVP_MD *digest = EVP_MD_fetch(usual, "SHA256", NULL);
    assert_non_null(digest);
    EVP_MD_free(digest);
    assert_non_null(strict);
    assert_null(EVP_MD_fetch(strict, "SHA256", NULL));
    ERR_clear_error();
    tls_library_free(usual);
    tls_library_free(strict);
    tls_library_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_side_has_its_own),
        cmocka_unit_test(the_systems_configuration_counts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
