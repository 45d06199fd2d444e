#include "config/address.h"

#include "config/value.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>

#define UNIX_PREFIX BYTES("unix:")
#define HOST_SIZE_MAX 255 /* RFC 1035 section 2.3.4 */

static bool resolve_unix(struct bytes text, struct config_address *address, struct writer *why) {
    struct bytes path = bytes_slice(text, UNIX_PREFIX.len, text.len);
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    if (path.len == 0 || path.ptr[0] != '/') {
        writer_print(why, "\"%.*s\" needs an absolute path", BYTES_FMT(value_shown(text)));
        return false;
    }
    if (path.len >= sizeof local.sun_path) {
        writer_print(why, "the path of \"%.*s\" is longer than the %zu bytes of unix(7)",
                     BYTES_FMT(value_shown(text)), sizeof local.sun_path - 1);
        return false;
    }
    memcpy(local.sun_path, path.ptr, path.len);
    memcpy(&address->storage, &local, sizeof local);
    address->size = sizeof local;
    return true;
}

/* Splits at the last colon; brackets are taken off. false and a sentence in `why`. */
static bool split(struct bytes text, struct bytes *host, struct bytes *port, struct writer *why) {
    size_t colon = text.len;
    while (colon > 0 && text.ptr[colon - 1] != ':')
        colon--;
    struct bytes shown = value_shown(text);
    if (bytes_starts_with(text, BYTES("http://")) || bytes_starts_with(text, BYTES("https://"))) {
        writer_print(why, "\"%.*s\" is a URL: ADDRESS:PORT here, and tls = NAME or on for https",
                     BYTES_FMT(shown));
        return false;
    }
    bool ends_in_bracket = text.len != 0 && text.ptr[text.len - 1] == ']';
    if (colon == 0 || ends_in_bracket) {
        writer_print(why, "\"%.*s\" has no port (ADDRESS:PORT)", BYTES_FMT(shown));
        return false;
    }
    *host = bytes_slice(text, 0, colon - 1);
    *port = bytes_slice(text, colon, text.len);
    if (host->len == 0 || bytes_equal(*host, BYTES("*"))) {
        writer_print(
            why, "\"%.*s\" names no address: 0.0.0.0:PORT is all of IPv4, [::]:PORT all of IPv6",
            BYTES_FMT(shown));
        return false;
    }
    if (host->ptr[0] == '[' && host->ptr[host->len - 1] == ']') {
        *host = bytes_slice(*host, 1, host->len - 2);
        return true;
    }
    if (bytes_find(*host, ':') == host->len) return true;
    writer_print(why, "\"%.*s\": an IPv6 address stands in brackets, as in [::1]:8080",
                 BYTES_FMT(shown));
    return false;
}

static bool ask(struct bytes host, uint64_t port, bool is_ipv6, struct config_address *address,
                const char **error) {
    char node[HOST_SIZE_MAX + 1] = {0};
    char service[6];
    if (host.len > HOST_SIZE_MAX) {
        *error = "the name is too long";
        return false;
    }
    if (host.len != 0) memcpy(node, host.ptr, host.len);
    (void)snprintf(service, sizeof service, "%u", (unsigned)port); /* five digits at most */
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    if (is_ipv6) {
        hints.ai_family = AF_INET6;
        hints.ai_flags |= AI_NUMERICHOST;
    }
    struct addrinfo *answers = NULL;
    int result = getaddrinfo(node, service, &hints, &answers);
    if (result != 0) {
        *error = result == EAI_SYSTEM ? strerror(errno) : gai_strerror(result);
        return false;
    }
    memcpy(&address->storage, answers->ai_addr, answers->ai_addrlen);
    address->size = answers->ai_addrlen;
    freeaddrinfo(answers);
    return true;
}

/* getaddrinfo(3) also takes what inet_aton(3) takes: "1" is 0.0.0.1 and "010.0.0.1" is 8.0.0.1. Of
 * a host that is only digits and dots, four decimal numbers without leading zeros are an address;
 * anything else is a slip. */
static bool is_odd_ipv4(struct bytes host) {
    struct bytes rest = host;
    struct bytes part;
    unsigned count = 0;
    bool is_odd = false;
    while (bytes_split(&rest, '.', &part)) {
        for (size_t i = 0; i < part.len; i++) {
            if (part.ptr[i] < '0' || part.ptr[i] > '9') return false;
        }
        uint64_t number;
        if (!bytes_to_u64(part, &number) || number > 255) is_odd = true;
        if (part.len > 1 && part.ptr[0] == '0') is_odd = true;
        count++;
    }
    return is_odd || count != 4;
}

bool address_resolve(struct bytes text, struct memory *memory, struct config_address *address,
                     struct writer *why) {
    struct config_address found = {.text = memory_string(memory, text)};
    if (bytes_starts_with(text, UNIX_PREFIX)) {
        if (!resolve_unix(text, &found, why)) return false;
        *address = found;
        return true;
    }
    struct bytes host = BYTES_NONE;
    struct bytes digits = BYTES_NONE;
    if (!split(text, &host, &digits, why)) return false;
    uint64_t port;
    if (!bytes_to_u64(digits, &port) || port < 1 || port > 65535) {
        writer_print(why, "\"%.*s\" is no port, it must be 1 to 65535",
                     BYTES_FMT(value_shown(digits)));
        return false;
    }
    const char *error = NULL;
    bool is_ipv6 = text.ptr[0] == '[';
    if (!is_ipv6 && is_odd_ipv4(host)) {
        error = "not an IPv4 address";
    } else if (ask(host, port, is_ipv6, &found, &error)) {
        *address = found;
        return true;
    }
    writer_print(why, "\"%.*s\" cannot be resolved: %s", BYTES_FMT(value_shown(text)), error);
    return false;
}

char *address_host(struct bytes text, struct memory *memory) {
    struct bytes host;
    struct bytes port;
    char unused[512];
    struct writer why = writer_make(unused, sizeof unused);
    if (bytes_starts_with(text, UNIX_PREFIX) || !split(text, &host, &port, &why)) return NULL;
    return memory_string(memory, host);
}

bool address_equal(const struct config_address *a, const struct config_address *b) {
    /* getaddrinfo(3) and resolve_unix zero what they do not set, so bytes can be compared. */
    return a->size == b->size && memcmp(&a->storage, &b->storage, a->size) == 0;
}

static bool is_any(const struct config_address *address) {
    const void *storage = &address->storage;
    const struct sockaddr_in *in = storage;
    const struct sockaddr_in6 *in6 = storage;
    if (address->storage.ss_family == AF_INET) return in->sin_addr.s_addr == INADDR_ANY;
    return address->storage.ss_family == AF_INET6 && IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
}

bool address_covers(const struct config_address *all, const struct config_address *one) {
    const struct sockaddr_in *left = (const void *)&all->storage;
    const struct sockaddr_in *right = (const void *)&one->storage;
    if (!is_any(all) || is_any(one) || left->sin_family != right->sin_family) return false;
    /* The port stands in the same place in both families. */
    return left->sin_port == right->sin_port;
}
