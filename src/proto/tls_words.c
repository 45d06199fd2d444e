#include "proto/tls_words.h"

#define ITEM_SIZE_MAX 127 /* the longest name of a cipher has 40 letters or so */

typedef int tls_words_setter(SSL_CTX *ssl, const char *list);

static bool tls_words_is_separator(char c) { return c == ':' || c == ',' || c == ' ' || c == ';'; }

/* Each item as if it were the whole list: what OpenSSL knows none for fails alone. */
static bool tls_words_check(SSL_CTX *ssl, const char *list, tls_words_setter *set,
                            char item[ITEM_SIZE_MAX + 1]) {
    while (*list != '\0') {
        size_t size = 0;
        while (list[size] != '\0' && !tls_words_is_separator(list[size]))
            size++;
        size_t kept = size < ITEM_SIZE_MAX ? size : ITEM_SIZE_MAX;
        memcpy(item, list, kept);
        item[kept] = '\0';
        bool is_looked_at = kept != 0 && !strchr("!-+@", item[0]);
        if (is_looked_at && set(ssl, item) != 1) return false;
        list += size;
        if (*list != '\0') list++;
    }
    return true;
}

static bool tls_words_set_one(SSL_CTX *ssl, const char *list, tls_words_setter *set,
                              char item[ITEM_SIZE_MAX + 1]) {
    if (!list) return true;
    if (!tls_words_check(ssl, list, set, item)) return false;
    /* All of it: separators may be wrong where items are not. */
    (void)snprintf(item, ITEM_SIZE_MAX + 1, "%s", list);
    return set(ssl, list) == 1;
}

bool tls_words_set(SSL_CTX *ssl, const struct tls_context_options *options,
                   struct tls_fault *fault) {
    char item[ITEM_SIZE_MAX + 1];
    if (!tls_words_set_one(ssl, options->ciphers, SSL_CTX_set_cipher_list, item))
        return tls_fault_of_library(fault, TLS_PART_CIPHERS, item);
    if (!tls_words_set_one(ssl, options->ciphersuites, SSL_CTX_set_ciphersuites, item))
        return tls_fault_of_library(fault, TLS_PART_CIPHERSUITES, item);
    if (options->groups && SSL_CTX_set1_groups_list(ssl, options->groups) != 1)
        return tls_fault_set(fault, TLS_PART_GROUPS,
                             "\"%s\" has a group that OpenSSL does not know, or one twice",
                             options->groups);
    return true;
}
