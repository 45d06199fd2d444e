#include "proto/ws_handshake.h"

#include "base/check.h"

#include <openssl/evp.h>
#include <openssl/rand.h>

/* RFC 6455 section 1.3. */
static const char ws_guid[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#define NONCE_SIZE 16
#define SHA1_SIZE 20

static bool base64_byte(char c) {
    return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '+' ||
           c == '/';
}

bool ws_key_valid(struct bytes key) {
    if (key.len != WS_KEY_SIZE || key.ptr[22] != '=' || key.ptr[23] != '=') return false;
    for (size_t i = 0; i < 22; i++) {
        if (!base64_byte(key.ptr[i])) return false;
    }
    return true;
}

bool ws_key_make(char key[WS_KEY_SIZE]) {
    unsigned char nonce[NONCE_SIZE];
    unsigned char text[WS_KEY_SIZE + 1]; /* with the NUL of EVP_EncodeBlock(3) */
    if (RAND_bytes(nonce, sizeof nonce) != 1) return false;
    CHECK(EVP_EncodeBlock(text, nonce, sizeof nonce) == WS_KEY_SIZE);
    memcpy(key, text, WS_KEY_SIZE);
    return true;
}

void ws_accept_of(const char key[WS_KEY_SIZE], char accept[WS_ACCEPT_SIZE]) {
    char whole[WS_KEY_SIZE + sizeof ws_guid - 1];
    unsigned char digest[SHA1_SIZE];
    unsigned char text[WS_ACCEPT_SIZE + 1];
    memcpy(whole, key, WS_KEY_SIZE);
    memcpy(whole + WS_KEY_SIZE, ws_guid, sizeof ws_guid - 1);
    CHECK(EVP_Digest(whole, sizeof whole, digest, NULL, EVP_sha1(), NULL) == 1);
    CHECK(EVP_EncodeBlock(text, digest, sizeof digest) == WS_ACCEPT_SIZE);
    memcpy(accept, text, WS_ACCEPT_SIZE);
}
