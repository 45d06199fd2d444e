#include "net/pp.h"

#include "base/check.h"

#include <arpa/inet.h>

#define V1_SIGNATURE BYTES("PROXY ")
#define V2_SIGNATURE BYTES("\r\n\r\n\0\r\nQUIT\n")
#define V2_HEAD_SIZE 16 /* signature, version and command, family and transport, length */
#define V2_VERSION 2
#define V2_LOCAL 0
#define V2_PROXY 1
#define V2_STREAM 1
#define V2_TRANSPORT_MAX 2 /* DGRAM */
#define TLV_HEAD_SIZE 3
#define TLV_CRC32C 0x03

/* The upper half of the 14th byte. */
enum { V2_UNSPEC, V2_INET, V2_INET6, V2_UNIX, V2_FAMILIES };

static enum pp_result bad(struct pp_header *header, enum reason reason) {
    header->reason = reason;
    return PP_BAD;
}

/* Whether `input` begins like `signature`, as far as both go. */
static bool begins_like(struct bytes input, struct bytes signature) {
    size_t len = input.len < signature.len ? input.len : signature.len;
    return bytes_equal(bytes_slice(input, 0, len), bytes_slice(signature, 0, len));
}

/* An address of version 1: inet_pton(3) takes what its text demands, no leading zeros included. */
static bool v1_host(struct bytes text, union addr *address) {
    char string[INET6_ADDRSTRLEN];
    bool is_v4 = address->any.sa_family == AF_INET;
    if (text.len == 0 || text.len >= sizeof string || bytes_find(text, '\0') != text.len) {
        return false;
    }
    memcpy(string, text.ptr, text.len);
    string[text.len] = '\0';
    void *to = is_v4 ? (void *)&address->v4.sin_addr : (void *)&address->v6.sin6_addr;
    return inet_pton(address->any.sa_family, string, to) == 1;
}

static bool v1_port(struct bytes text, union addr *address) {
    uint64_t port;
    if (!bytes_to_u64(text, &port) || port > UINT16_MAX) return false;
    if (text.len > 1 && text.ptr[0] == '0') return false;
    /* Of both families it stands in the same place (RFC 3493 section 3.3). */
    address->v4.sin_port = htons((uint16_t)port);
    return true;
}

/* The next field, up to a single space. */
static bool v1_field(struct bytes *line, struct bytes *field) {
    if (!line->ptr) return false;
    size_t space = bytes_find(*line, ' ');
    *field = bytes_slice(*line, 0, space);
    *line = space == line->len ? BYTES_NONE : bytes_slice(*line, space + 1, line->len);
    return true;
}

/* What stands behind "PROXY " and before CR LF. */
static bool v1_line(struct bytes line, struct pp_header *header) {
    struct bytes field;
    if (!v1_field(&line, &field)) return false;
    header->has_ends = !bytes_equal(field, BYTES("UNKNOWN"));
    /* "the receiver must ignore anything presented before the CRLF is found" */
    if (!header->has_ends) return true;
    bool is_v4 = bytes_equal(field, BYTES("TCP4"));
    if (!is_v4 && !bytes_equal(field, BYTES("TCP6"))) return false;
    header->ends = (struct addr_pair){0};
    union addr *ends[] = {&header->ends.source, &header->ends.destination};
    for (size_t i = 0; i < 2; i++) {
        ends[i]->any.sa_family = is_v4 ? AF_INET : AF_INET6;
        if (!v1_field(&line, &field) || !v1_host(field, ends[i])) return false;
    }
    for (size_t i = 0; i < 2; i++)
        if (!v1_field(&line, &field) || !v1_port(field, ends[i])) return false;
    return !line.ptr;
}

static enum pp_result v1_parse(struct bytes input, struct pp_header *header) {
    struct bytes line = bytes_slice(input, 0, PP_V1_SIZE_MAX);
    size_t from = V1_SIGNATURE.len;
    size_t end = from;
    while (end < line.len && line.ptr[end] != '\r' && line.ptr[end] != '\n')
        end++;
    bool goes_on = end == line.len || (end + 1 == line.len && line.ptr[end] == '\r');
    if (goes_on && line.len < PP_V1_SIZE_MAX) return PP_MORE;
    /* "must not tolerate a single CR or LF character to end the line" */
    bool has_end = !goes_on && line.ptr[end] == '\r' && line.ptr[end + 1] == '\n';
    if (!has_end || !v1_line(bytes_slice(line, from, end - from), header))
        return bad(header, REASON_PROXY_HEADER_MALFORMED);
    header->size = (uint32_t)end + 2;
    return PP_DONE;
}

static uint32_t read_u16(const char *from) {
    const unsigned char *bytes = (const void *)from;
    return (uint32_t)bytes[0] << 8 | bytes[1];
}

static uint32_t read_u32(const char *from) { return read_u16(from) << 16 | read_u16(from + 2); }

/* CRC-32C (RFC 3720 appendix B.4), of bytes in which the four at `hole` count as 0. */
static uint32_t crc32c(struct bytes bytes, size_t hole) {
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < bytes.len; i++) {
        if (i < hole || i >= hole + 4) crc ^= (unsigned char)bytes.ptr[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
    }
    return ~crc;
}

/* The TLVs of `whole`, a header, from `at` on: they fill it exactly, and a checksum fits. */
static bool v2_tlvs(struct bytes whole, size_t at) {
    bool has_crc = false;
    while (at < whole.len) {
        if (whole.len - at < TLV_HEAD_SIZE) return false;
        uint32_t len = read_u16(whole.ptr + at + 1);
        size_t value = at + TLV_HEAD_SIZE;
        if (len > whole.len - value) return false;
        if (whole.ptr[at] == TLV_CRC32C) {
            if (len != 4 || has_crc) return false;
            has_crc = true;
            if (read_u32(whole.ptr + value) != crc32c(whole, value)) return false;
        }
        at = value + len;
    }
    return true;
}

static void v2_ends(const char *block, unsigned family, struct addr_pair *pair) {
    *pair = (struct addr_pair){0};
    union addr *ends[] = {&pair->source, &pair->destination};
    size_t size = family == V2_INET ? 4 : 16;
    for (size_t i = 0; i < 2; i++) {
        union addr *end = ends[i];
        if (family == V2_UNIX) {
            end->any.sa_family = AF_UNIX;
            continue;
        }
        end->any.sa_family = family == V2_INET ? AF_INET : AF_INET6;
        void *to = family == V2_INET ? (void *)&end->v4.sin_addr : (void *)&end->v6.sin6_addr;
        memcpy(to, block + i * size, size);
        memcpy(&end->v4.sin_port, block + 2 * size + 2 * i, 2); /* as in v1_port */
    }
}

/* `whole` is all of it. */
static bool v2_block(struct bytes whole, struct pp_header *header) {
    static const uint8_t block_sizes[V2_FAMILIES] = {0, 2 * 4 + 4, 2 * 16 + 4, 2 * 108};
    unsigned command = (unsigned char)whole.ptr[12] & 0xf;
    unsigned family = (unsigned char)whole.ptr[13] >> 4;
    unsigned transport = (unsigned char)whole.ptr[13] & 0xf;
    header->has_ends = false;
    /* "discard the protocol block including the family which is ignored" */
    if (command == V2_LOCAL) return true;
    if (command != V2_PROXY || family >= V2_FAMILIES || transport > V2_TRANSPORT_MAX) return false;
    /* Addresses are to be ignored, so nobody knows where TLVs would begin. */
    if (family == V2_UNSPEC || transport == 0) return true;
    size_t tlvs = V2_HEAD_SIZE + block_sizes[family];
    if (whole.len < tlvs || !v2_tlvs(whole, tlvs)) return false;
    /* "falls back to the UNSPEC mode": a datagram's ends are none of this stream's. */
    if (transport != V2_STREAM) return true;
    header->has_ends = true;
    v2_ends(whole.ptr + V2_HEAD_SIZE, family, &header->ends);
    return true;
}

static enum pp_result v2_parse(struct bytes input, struct pp_header *header) {
    if (input.len > 12 && (unsigned char)input.ptr[12] >> 4 != V2_VERSION)
        return bad(header, REASON_PROXY_HEADER_VERSION);
    if (input.len < V2_HEAD_SIZE) return PP_MORE;
    uint32_t size = V2_HEAD_SIZE + read_u16(input.ptr + 14);
    if (size > PP_SIZE_MAX) return bad(header, REASON_PROXY_HEADER_MALFORMED);
    if (input.len < size) return PP_MORE;
    if (!v2_block(bytes_slice(input, 0, size), header))
        return bad(header, REASON_PROXY_HEADER_MALFORMED);
    header->size = size;
    return PP_DONE;
}

enum pp_result pp_parse(struct bytes input, unsigned versions, struct pp_header *header) {
    bool is_v1 = begins_like(input, V1_SIGNATURE);
    bool is_v2 = begins_like(input, V2_SIGNATURE);
    if (!is_v1 && !is_v2) return bad(header, REASON_PROXY_HEADER_MALFORMED);
    if (input.len < (is_v1 ? V1_SIGNATURE.len : V2_SIGNATURE.len)) return PP_MORE;
    if (!(versions & (is_v1 ? PP_V1 : PP_V2))) return bad(header, REASON_PROXY_HEADER_VERSION);
    return is_v1 ? v1_parse(input, header) : v2_parse(input, header);
}

enum pp_result pp_read(struct pp_reader *reader, unsigned versions, struct bytes *input,
                       struct pp_header *header) {
    size_t before = reader->len;
    struct bytes text = *input;
    if (before != 0) {
        size_t room = sizeof reader->text - before;
        size_t part = input->len < room ? input->len : room;
        memcpy(reader->text + before, input->ptr, part);
        reader->len += (uint32_t)part;
        text = bytes_make(reader->text, reader->len);
    }
    enum pp_result result = pp_parse(text, versions, header);
    if (result == PP_DONE) {
        *input = bytes_slice(*input, header->size - before, input->len);
    } else if (result == PP_MORE && before == 0) {
        /* What may go on is no longer than a header can be. */
        CHECK(input->len < sizeof reader->text);
        memcpy(reader->text, input->ptr, input->len);
        reader->len = (uint32_t)input->len;
    }
    return result;
}

static bool is_v4(const union addr *address) {
    return address->any.sa_family == AF_INET ||
           (address->any.sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&address->v6.sin6_addr));
}

static bool is_ip(const union addr *address) {
    return address->any.sa_family == AF_INET || address->any.sa_family == AF_INET6;
}

/* The address as 16 bytes, IPv4 mapped into them (RFC 4291 section 2.5.5.2). */
static void bytes_of_addr(const union addr *address, uint8_t bytes[16]) {
    if (address->any.sa_family == AF_INET6) {
        memcpy(bytes, &address->v6.sin6_addr, 16);
        return;
    }
    memset(bytes, 0, 10);
    memset(bytes + 10, 0xff, 2);
    memcpy(bytes + 12, &address->v4.sin_addr, 4);
}

static void v1_write(struct writer *text, const struct addr_pair *ends, bool v4) {
    const union addr *both[] = {&ends->source, &ends->destination};
    writer_put(text, v4 ? BYTES("PROXY TCP4") : BYTES("PROXY TCP6"));
    for (size_t i = 0; i < 2; i++) {
        char string[INET6_ADDRSTRLEN];
        uint8_t bytes[16];
        bytes_of_addr(both[i], bytes);
        const void *from = v4 ? bytes + 12 : bytes;
        writer_char(text, ' ');
        writer_put(text, bytes_of(inet_ntop(v4 ? AF_INET : AF_INET6, from, string, sizeof string)));
    }
    for (size_t i = 0; i < 2; i++) {
        writer_char(text, ' ');
        writer_u64(text, addr_port(&both[i]->any));
    }
    writer_put(text, BYTES("\r\n"));
}

static void v2_write(struct writer *text, const struct addr_pair *ends, bool v4) {
    const union addr *both[] = {&ends->source, &ends->destination};
    size_t size = v4 ? 4 : 16;
    writer_put(text, V2_SIGNATURE);
    writer_char(text, V2_VERSION << 4 | V2_PROXY);
    writer_char(text, (char)((v4 ? V2_INET : V2_INET6) << 4 | V2_STREAM));
    writer_char(text, 0);
    writer_char(text, (char)(2 * size + 4));
    for (size_t i = 0; i < 2; i++) {
        uint8_t bytes[16];
        bytes_of_addr(both[i], bytes);
        writer_put(text, bytes_make((const char *)bytes + (v4 ? 12 : 0), size));
    }
    for (size_t i = 0; i < 2; i++)
        writer_put(text, bytes_make((const char *)&both[i]->v4.sin_port, 2)); /* as in v1_port */
}

void pp_write(struct writer *text, unsigned version, const struct addr_pair *ends) {
    CHECK(version == PP_V1 || version == PP_V2);
    bool is_known = ends && is_ip(&ends->source) && is_ip(&ends->destination);
    if (!is_known && version == PP_V1) {
        writer_put(text, BYTES("PROXY UNKNOWN\r\n"));
    } else if (!is_known) {
        /* Nobody may refuse LOCAL; of the family UNSPEC that is not so sure. */
        writer_put(text, V2_SIGNATURE);
        writer_put(text, bytes_make("\x20\0\0\0", 4));
    } else {
        bool v4 = is_v4(&ends->source) && is_v4(&ends->destination);
        (version == PP_V1 ? v1_write : v2_write)(text, ends, v4);
    }
}
