#include "proto/tls_library.h"

#include <openssl/conf.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

OSSL_LIB_CTX *tls_library_new(void) {
    /* As OpenSSL reads its file by itself: one that is missing or wrong is none. */
    const unsigned long flags = CONF_MFLAGS_DEFAULT_SECTION | CONF_MFLAGS_IGNORE_MISSING_FILE |
                                CONF_MFLAGS_IGNORE_RETURN_CODES;
    /* Makes known what may stand in that file. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CONFIG, NULL) != 1) return NULL;
    OSSL_LIB_CTX *library = OSSL_LIB_CTX_new();
    if (!library) return NULL;
    if (CONF_modules_load_file_ex(library, NULL, NULL, flags) <= 0) {
        OSSL_LIB_CTX_free(library);
        library = NULL;
    }
    ERR_clear_error();
    return library;
}

void tls_library_free(OSSL_LIB_CTX *library) { OSSL_LIB_CTX_free(library); }
