#include "base/cidr.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#define MAPPED_BITS 96

static uint8_t bits_of(uint16_t family) {
    if (family == AF_INET) return 32;
    return family == AF_INET6 ? 128 : 0;
}

/* Of the byte at `index`: the bits that belong to a prefix of `bits`. */
static uint8_t mask_of(uint8_t bits, uint8_t index) {
    unsigned before = index * 8u;
    if (bits <= before) return 0;
    if (bits - before >= 8) return 0xff;
    return (uint8_t)(0xff00u >> (bits - before));
}

static void unmap(struct cidr *cidr) {
    struct in6_addr address;
    memcpy(&address, cidr->bytes, sizeof address);
    if (cidr->family != AF_INET6 || cidr->bits < MAPPED_BITS || !IN6_IS_ADDR_V4MAPPED(&address)) {
        return;
    }
    cidr->family = AF_INET;
    cidr->bits = (uint8_t)(cidr->bits - MAPPED_BITS);
    memmove(cidr->bytes, cidr->bytes + 12, 4);
    memset(cidr->bytes + 4, 0, 12);
}

static bool read_address(struct bytes text, struct cidr *cidr) {
    char string[INET6_ADDRSTRLEN];
    if (text.len == 0 || text.len >= sizeof string || bytes_find(text, '\0') != text.len) {
        return false;
    }
    memcpy(string, text.ptr, text.len);
    string[text.len] = '\0';
    *cidr = (struct cidr){.family = bytes_find(text, ':') == text.len ? AF_INET : AF_INET6};
    cidr->bits = bits_of(cidr->family);
    return inet_pton(cidr->family, string, cidr->bytes) == 1;
}

bool cidr_parse(struct bytes text, struct cidr *cidr) {
    if (bytes_equal(text, BYTES("unix:"))) {
        *cidr = (struct cidr){.family = AF_UNIX};
        return true;
    }
    size_t slash = bytes_find(text, '/');
    struct cidr read;
    if (!read_address(bytes_slice(text, 0, slash), &read)) return false;
    if (slash != text.len) {
        uint64_t bits;
        if (!bytes_to_u64(bytes_slice(text, slash + 1, text.len), &bits)) return false;
        if (bits > read.bits) return false;
        read.bits = (uint8_t)bits;
    }
    unmap(&read);
    *cidr = read;
    return true;
}

bool cidr_trim(struct cidr *cidr) {
    bool had_more = false;
    for (uint8_t i = 0; i < sizeof cidr->bytes; i++) {
        uint8_t kept = cidr->bytes[i] & mask_of(cidr->bits, i);
        if (kept != cidr->bytes[i]) had_more = true;
        cidr->bytes[i] = kept;
    }
    return had_more;
}

void cidr_write(const struct cidr *cidr, struct writer *text) {
    if (cidr->family == AF_UNIX) {
        writer_put(text, BYTES("unix:"));
        return;
    }
    char string[INET6_ADDRSTRLEN];
    writer_put(text, bytes_of(inet_ntop(cidr->family, cidr->bytes, string, sizeof string)));
    writer_char(text, '/');
    writer_u64(text, cidr->bits);
}

static bool has(const struct cidr_list *list, const struct cidr *point) {
    for (uint32_t i = 0; i < list->count; i++) {
        const struct cidr *cidr = &list->items[i];
        bool differs = cidr->family != point->family;
        for (uint8_t j = 0; j < sizeof cidr->bytes; j++) {
            if ((cidr->bytes[j] ^ point->bytes[j]) & mask_of(cidr->bits, j)) differs = true;
        }
        if (!differs) return true;
    }
    return false;
}

bool cidr_list_has(const struct cidr_list *list, const struct sockaddr *address) {
    const void *any = address;
    struct cidr point = {.family = address->sa_family, .bits = bits_of(address->sa_family)};
    if (point.family == AF_INET) {
        memcpy(point.bytes, &((const struct sockaddr_in *)any)->sin_addr, 4);
    } else if (point.family == AF_INET6) {
        memcpy(point.bytes, &((const struct sockaddr_in6 *)any)->sin6_addr, 16);
        unmap(&point);
    }
    return has(list, &point);
}

bool cidr_list_has_text(const struct cidr_list *list, struct bytes address) {
    struct cidr point;
    if (bytes_equal(address, BYTES("unix"))) address = BYTES("unix:");
    bool is_address = bytes_find(address, '/') == address.len && cidr_parse(address, &point);
    return is_address && has(list, &point);
}
