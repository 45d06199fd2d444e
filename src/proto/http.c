#include "proto/http.h"

#include "proto/http_internal.h"

#include <arpa/inet.h>

/* Visible ASCII takes part in field values and (but for "#") in targets; the rest is told by name.
 */
#define SEEN (HTTP_BYTE_VALUE | HTTP_BYTE_TARGET)
#define TCHAR (SEEN | HTTP_BYTE_TOKEN)
#define REG_NAME (SEEN | HTTP_BYTE_REG_NAME)
#define BOTH (TCHAR | HTTP_BYTE_REG_NAME)
const uint8_t http_byte_classes[256] = {
    ['\t'] = HTTP_BYTE_VALUE,
    [' '] = HTTP_BYTE_VALUE,
    ['!'] = BOTH,
    ['"'] = SEEN,
    ['#'] = HTTP_BYTE_VALUE | HTTP_BYTE_TOKEN,
    ['$'] = BOTH,
    ['%'] = TCHAR,
    ['&' ... '\''] = BOTH,
    ['(' ... ')'] = REG_NAME,
    ['*' ... '+'] = BOTH,
    [','] = REG_NAME,
    ['-' ... '.'] = BOTH,
    ['/'] = SEEN,
    ['0' ... '9'] = BOTH | HTTP_BYTE_DIGIT | HTTP_BYTE_HEX,
    [':'] = SEEN,
    [';'] = REG_NAME,
    ['<'] = SEEN,
    ['='] = REG_NAME,
    ['>' ... '@'] = SEEN,
    ['A' ... 'F'] = BOTH | HTTP_BYTE_HEX,
    ['G' ... 'Z'] = BOTH,
    ['[' ... ']'] = SEEN,
    ['^'] = TCHAR,
    ['_'] = BOTH,
    ['`'] = TCHAR,
    ['a' ... 'f'] = BOTH | HTTP_BYTE_HEX,
    ['g' ... 'z'] = BOTH,
    ['{'] = SEEN,
    ['|'] = TCHAR,
    ['}'] = SEEN,
    ['~'] = BOTH,
    [0x80 ... 0xff] = HTTP_BYTE_VALUE,
};

static const struct bytes method_texts[HTTP_METHOD_COUNT] = {
    [HTTP_GET] = HTTP_TEXT("GET"),         [HTTP_HEAD] = HTTP_TEXT("HEAD"),
    [HTTP_POST] = HTTP_TEXT("POST"),       [HTTP_PUT] = HTTP_TEXT("PUT"),
    [HTTP_DELETE] = HTTP_TEXT("DELETE"),   [HTTP_CONNECT] = HTTP_TEXT("CONNECT"),
    [HTTP_OPTIONS] = HTTP_TEXT("OPTIONS"), [HTTP_TRACE] = HTTP_TEXT("TRACE"),
    [HTTP_PATCH] = HTTP_TEXT("PATCH"),     [HTTP_OTHER] = HTTP_TEXT("OTHER"),
};

static enum http_method method_if(struct bytes text, enum http_method candidate) {
    bool same = memcmp(text.ptr, method_texts[candidate].ptr, text.len) == 0;
    return same ? candidate : HTTP_OTHER;
}

enum http_method http_method_of(struct bytes text) {
    switch (text.len) {
    case 3:
        return method_if(text, text.ptr[0] == 'G' ? HTTP_GET : HTTP_PUT);
    case 4:
        return method_if(text, text.ptr[0] == 'P' ? HTTP_POST : HTTP_HEAD);
    case 5:
        return method_if(text, text.ptr[0] == 'P' ? HTTP_PATCH : HTTP_TRACE);
    case 6:
        return method_if(text, HTTP_DELETE);
    case 7:
        return method_if(text, text.ptr[0] == 'C' ? HTTP_CONNECT : HTTP_OPTIONS);
    default:
        return HTTP_OTHER;
    }
}

struct bytes http_method_text(enum http_method method) {
    return method_texts[method];
}

bool http_method_is_idempotent(enum http_method method) {
    switch (method) {
    case HTTP_GET:
    case HTTP_HEAD:
    case HTTP_PUT:
    case HTTP_DELETE:
    case HTTP_OPTIONS:
    case HTTP_TRACE:
        return true;
    case HTTP_POST:
    case HTTP_CONNECT:
    case HTTP_PATCH:
    case HTTP_OTHER:
    case HTTP_METHOD_COUNT:
        return false;
    }
    return false;
}

/* Lower case; letters and "-" only: words_match relies on both. */
#define FIELD_NAME_SIZE_MAX 19
static const struct bytes field_names[HTTP_FIELD_COUNT] = {
    [HTTP_FIELD_ACCEPT_ENCODING] = HTTP_TEXT("accept-encoding"),
    [HTTP_FIELD_CACHE_CONTROL] = HTTP_TEXT("cache-control"),
    [HTTP_FIELD_CONNECTION] = HTTP_TEXT("connection"),
    [HTTP_FIELD_CONTENT_ENCODING] = HTTP_TEXT("content-encoding"),
    [HTTP_FIELD_CONTENT_LENGTH] = HTTP_TEXT("content-length"),
    [HTTP_FIELD_CONTENT_TYPE] = HTTP_TEXT("content-type"),
    [HTTP_FIELD_COOKIE] = HTTP_TEXT("cookie"),
    [HTTP_FIELD_DATE] = HTTP_TEXT("date"),
    [HTTP_FIELD_EXPECT] = HTTP_TEXT("expect"),
    [HTTP_FIELD_FORWARDED] = HTTP_TEXT("forwarded"),
    [HTTP_FIELD_HOST] = HTTP_TEXT("host"),
    [HTTP_FIELD_KEEP_ALIVE] = HTTP_TEXT("keep-alive"),
    [HTTP_FIELD_LOCATION] = HTTP_TEXT("location"),
    [HTTP_FIELD_PROXY_AUTHORIZATION] = HTTP_TEXT("proxy-authorization"),
    [HTTP_FIELD_PROXY_CONNECTION] = HTTP_TEXT("proxy-connection"),
    [HTTP_FIELD_RETRY_AFTER] = HTTP_TEXT("retry-after"),
    [HTTP_FIELD_SERVER] = HTTP_TEXT("server"),
    [HTTP_FIELD_SET_COOKIE] = HTTP_TEXT("set-cookie"),
    [HTTP_FIELD_TE] = HTTP_TEXT("te"),
    [HTTP_FIELD_TRAILER] = HTTP_TEXT("trailer"),
    [HTTP_FIELD_TRANSFER_ENCODING] = HTTP_TEXT("transfer-encoding"),
    [HTTP_FIELD_UPGRADE] = HTTP_TEXT("upgrade"),
    [HTTP_FIELD_USER_AGENT] = HTTP_TEXT("user-agent"),
    [HTTP_FIELD_VIA] = HTTP_TEXT("via"),
    [HTTP_FIELD_X_FORWARDED_FOR] = HTTP_TEXT("x-forwarded-for"),
    [HTTP_FIELD_X_FORWARDED_HOST] = HTTP_TEXT("x-forwarded-host"),
    [HTTP_FIELD_X_FORWARDED_PROTO] = HTTP_TEXT("x-forwarded-proto"),
    [HTTP_FIELD_X_REQUEST_ID] = HTTP_TEXT("x-request-id"),
};

/* The fields whose names have that many bytes; HTTP_FIELD_OTHER (0) ends a row. */
#define SAME_LENGTH_MAX 4
static const uint8_t fields_of_length[FIELD_NAME_SIZE_MAX + 1][SAME_LENGTH_MAX + 1] = {
    [2] = {HTTP_FIELD_TE},
    [3] = {HTTP_FIELD_VIA},
    [4] = {HTTP_FIELD_HOST, HTTP_FIELD_DATE},
    [6] = {HTTP_FIELD_SERVER, HTTP_FIELD_COOKIE, HTTP_FIELD_EXPECT},
    [7] = {HTTP_FIELD_UPGRADE, HTTP_FIELD_TRAILER},
    [8] = {HTTP_FIELD_LOCATION},
    [9] = {HTTP_FIELD_FORWARDED},
    [10] = {HTTP_FIELD_CONNECTION, HTTP_FIELD_USER_AGENT, HTTP_FIELD_SET_COOKIE,
            HTTP_FIELD_KEEP_ALIVE},
    [11] = {HTTP_FIELD_RETRY_AFTER},
    [12] = {HTTP_FIELD_CONTENT_TYPE, HTTP_FIELD_X_REQUEST_ID},
    [13] = {HTTP_FIELD_CACHE_CONTROL},
    [14] = {HTTP_FIELD_CONTENT_LENGTH},
    [15] = {HTTP_FIELD_ACCEPT_ENCODING, HTTP_FIELD_X_FORWARDED_FOR},
    [16] = {HTTP_FIELD_CONTENT_ENCODING, HTTP_FIELD_X_FORWARDED_HOST, HTTP_FIELD_PROXY_CONNECTION},
    [17] = {HTTP_FIELD_TRANSFER_ENCODING, HTTP_FIELD_X_FORWARDED_PROTO},
    [19] = {HTTP_FIELD_PROXY_AUTHORIZATION},
};

/* Which bytes may be in upper case, and are folded: a constant of each caller below. */
#define FOLD_LETTERS 0x4040404040404040u
#define FOLD_NONE 0u

/* Eight bytes of a name against eight of a lower-case one. Letters have bit 0x40 and "-" has not,
 * so the bit that folds case (0x20) is set exactly where the known name has a letter: no other byte
 * can be taken for one. */
static inline bool words_match(uint64_t given, uint64_t lower, uint64_t fold) {
    return (given | ((lower & fold) >> 1)) == lower;
}

static inline uint64_t load_8(const char *at) {
    uint64_t word;
    memcpy(&word, at, sizeof(word));
    return word;
}

/* All of a name of 2 to 7 bytes, some of them twice, in one word. */
static inline uint64_t load_short(const char *at, size_t len) {
    if (len >= 4) {
        uint32_t front;
        uint32_t back;
        memcpy(&front, at, sizeof(front));
        memcpy(&back, at + len - 4, sizeof(back));
        return (uint64_t)back << 32 | front;
    }
    uint16_t front;
    memcpy(&front, at, sizeof(front));
    return (uint64_t)(unsigned char)at[len - 1] << 16 | front;
}

/* Both have `len` bytes, 2 to FIELD_NAME_SIZE_MAX. Words may overlap. */
static inline bool name_matches(const char *text, const char *lower, size_t len, uint64_t fold) {
    if (len < 8) return words_match(load_short(text, len), load_short(lower, len), fold);
    if (!words_match(load_8(text), load_8(lower), fold)) return false;
    if (!words_match(load_8(text + len - 8), load_8(lower + len - 8), fold)) return false;
    return len <= 16 || words_match(load_8(text + 8), load_8(lower + 8), fold);
}

static inline enum http_field_id field_id_of(struct bytes name, uint64_t fold) {
    if (name.len > FIELD_NAME_SIZE_MAX) return HTTP_FIELD_OTHER;
    for (const uint8_t *id = fields_of_length[name.len]; *id != HTTP_FIELD_OTHER; id++) {
        if (name_matches(name.ptr, field_names[*id].ptr, name.len, fold))
            return (enum http_field_id) * id;
    }
    return HTTP_FIELD_OTHER;
}

enum http_field_id http_field_id_of(struct bytes name) { return field_id_of(name, FOLD_LETTERS); }

enum http_field_id http_field_id_of_lower(struct bytes name) {
    return field_id_of(name, FOLD_NONE);
}

struct bytes http_field_name(enum http_field_id id) {
    return field_names[id];
}

/* RFC 9110 section 15, RFC 6585, RFC 8297 and the IANA registry. */
#define PHRASE(status, literal) [(status)-100] = HTTP_TEXT(literal)
static const struct bytes phrases[] = {
    PHRASE(100, "Continue"),
    PHRASE(101, "Switching Protocols"),
    PHRASE(102, "Processing"),
    PHRASE(103, "Early Hints"),
    PHRASE(200, "OK"),
    PHRASE(201, "Created"),
    PHRASE(202, "Accepted"),
    PHRASE(203, "Non-Authoritative Information"),
    PHRASE(204, "No Content"),
    PHRASE(205, "Reset Content"),
    PHRASE(206, "Partial Content"),
    PHRASE(207, "Multi-Status"),
    PHRASE(208, "Already Reported"),
    PHRASE(226, "IM Used"),
    PHRASE(300, "Multiple Choices"),
    PHRASE(301, "Moved Permanently"),
    PHRASE(302, "Found"),
    PHRASE(303, "See Other"),
    PHRASE(304, "Not Modified"),
    PHRASE(305, "Use Proxy"),
    PHRASE(307, "Temporary Redirect"),
    PHRASE(308, "Permanent Redirect"),
    PHRASE(400, "Bad Request"),
    PHRASE(401, "Unauthorized"),
    PHRASE(402, "Payment Required"),
    PHRASE(403, "Forbidden"),
    PHRASE(404, "Not Found"),
    PHRASE(405, "Method Not Allowed"),
    PHRASE(406, "Not Acceptable"),
    PHRASE(407, "Proxy Authentication Required"),
    PHRASE(408, "Request Timeout"),
    PHRASE(409, "Conflict"),
    PHRASE(410, "Gone"),
    PHRASE(411, "Length Required"),
    PHRASE(412, "Precondition Failed"),
    PHRASE(413, "Content Too Large"),
    PHRASE(414, "URI Too Long"),
    PHRASE(415, "Unsupported Media Type"),
    PHRASE(416, "Range Not Satisfiable"),
    PHRASE(417, "Expectation Failed"),
    PHRASE(421, "Misdirected Request"),
    PHRASE(422, "Unprocessable Content"),
    PHRASE(423, "Locked"),
    PHRASE(424, "Failed Dependency"),
    PHRASE(425, "Too Early"),
    PHRASE(426, "Upgrade Required"),
    PHRASE(428, "Precondition Required"),
    PHRASE(429, "Too Many Requests"),
    PHRASE(431, "Request Header Fields Too Large"),
    PHRASE(451, "Unavailable For Legal Reasons"),
    PHRASE(500, "Internal Server Error"),
    PHRASE(501, "Not Implemented"),
    PHRASE(502, "Bad Gateway"),
    PHRASE(503, "Service Unavailable"),
    PHRASE(504, "Gateway Timeout"),
    PHRASE(505, "HTTP Version Not Supported"),
    PHRASE(506, "Variant Also Negotiates"),
    PHRASE(507, "Insufficient Storage"),
    PHRASE(508, "Loop Detected"),
    PHRASE(511, "Network Authentication Required"),
};

struct bytes http_reason_phrase(int status) {
    int count = (int)(sizeof(phrases) / sizeof(phrases[0]));
    if (status < 100 || status - 100 >= count) return BYTES("");
    struct bytes phrase = phrases[status - 100];
    return phrase.ptr != NULL ? phrase : BYTES("");
}

bool http_is_websocket(const struct http_message *message) {
    return bytes_equal_nocase(message->upgrade, BYTES("websocket"));
}

bool http_response_has_no_body(enum http_method request_method, int status) {
    if (status < 200 || status == 204 || status == 304) return true;
    return request_method == HTTP_HEAD || (request_method == HTTP_CONNECT && status < 300);
}

bool http_token_valid(struct bytes b) { return b.len != 0 && http_bytes_are(b, HTTP_BYTE_TOKEN); }

bool http_field_value_valid(struct bytes b) { return http_bytes_are(b, HTTP_BYTE_VALUE); }

/* RFC 3986 section 3.2.3; a port that is there but empty is allowed by it. */
static bool port_valid(struct bytes port) {
    uint32_t value = 0;
    for (size_t i = 0; i < port.len; i++) {
        if (!http_byte_is(port.ptr[i], HTTP_BYTE_DIGIT)) return false;
        value = value * 10 + (uint32_t)(port.ptr[i] - '0');
        if (value > UINT16_MAX) return false;
    }
    return true;
}

/* What stands between the brackets. IPvFuture is refused: nothing of the kind exists. */
static bool ip_literal_valid(struct bytes b) {
    char text[INET6_ADDRSTRLEN];
    if (b.len >= sizeof(text) || memchr(b.ptr, '\0', b.len) != NULL) return false;
    memcpy(text, b.ptr, b.len);
    text[b.len] = '\0';
    struct in6_addr address;
    return inet_pton(AF_INET6, text, &address) == 1;
}

/* Bytes of the host at the front of an authority, brackets included; 0 when there is no valid one.
 */
static size_t host_size(struct bytes authority) {
    if (authority.len != 0 && authority.ptr[0] == '[') {
        size_t close = bytes_find(authority, ']');
        if (close == authority.len) return 0;
        return ip_literal_valid(bytes_make(authority.ptr + 1, close - 1)) ? close + 1 : 0;
    }
    size_t at = 0;
    while (at < authority.len) {
        char c = authority.ptr[at];
        if (http_byte_is(c, HTTP_BYTE_REG_NAME)) {
            at++;
            continue;
        }
        if (c != '%') break;
        bool hex = authority.len - at > 2 && http_byte_is(authority.ptr[at + 1], HTTP_BYTE_HEX) &&
                   http_byte_is(authority.ptr[at + 2], HTTP_BYTE_HEX);
        if (!hex) return 0;
        at += 3;
    }
    return at;
}

bool http_authority_valid(struct bytes b) {
    size_t host = host_size(b);
    if (host == 0) return false;
    if (host == b.len) return true;
    return b.ptr[host] == ':' && port_valid(bytes_make(b.ptr + host + 1, b.len - host - 1));
}

struct bytes http_authority_host(struct bytes authority) {
    struct bytes host = authority;
    if (host.len != 0 && host.ptr[0] == '[') {
        size_t close = bytes_find(host, ']');
        return bytes_slice(host, 0, close + 1);
    }
    host.len = bytes_find(host, ':');
    if (host.len > 1 && host.ptr[host.len - 1] == '.') host.len--;
    return host;
}

/* RFC 9110 section 6.5.1: not framing, routing, request modifiers, authentication, response control
 * data nor how to process the content. Fields weir looks at are all of these kinds; the rest by
 * name. */
bool http_trailer_forbidden(struct bytes name, enum http_field_id id) {
    static const struct bytes forbidden[] = {
        HTTP_TEXT("age"),
        HTTP_TEXT("authorization"),
        HTTP_TEXT("content-range"),
        HTTP_TEXT("expires"),
        HTTP_TEXT("if-match"),
        HTTP_TEXT("if-modified-since"),
        HTTP_TEXT("if-none-match"),
        HTTP_TEXT("if-range"),
        HTTP_TEXT("if-unmodified-since"),
        HTTP_TEXT("max-forwards"),
        HTTP_TEXT("pragma"),
        HTTP_TEXT("proxy-authenticate"),
        HTTP_TEXT("range"),
        HTTP_TEXT("vary"),
        HTTP_TEXT("warning"),
        HTTP_TEXT("www-authenticate"),
    };
    if (id != HTTP_FIELD_OTHER) return true;
    for (size_t i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++) {
        if (bytes_equal_nocase(name, forbidden[i])) return true;
    }
    return false;
}

bool http_fields_init(struct http_fields *fields, struct arena *arena, uint32_t capacity) {
    struct http_field *items = NULL;
    if (capacity != 0) {
        items = arena_alloc(arena, (size_t)capacity * sizeof(*items));
        if (items == NULL) return false;
    }
    *fields = (struct http_fields){.items = items, .capacity = capacity};
    return true;
}

/* The old table stays in the arena: tables are small, and grow once if at all. */
bool http_fields_grow(struct http_fields *fields, struct arena *arena) {
    struct http_fields grown;
    if (!http_fields_init(&grown, arena, fields->capacity + fields->capacity / 2 + 8)) return false;
    if (fields->count != 0) {
        memcpy(grown.items, fields->items, (size_t)fields->count * sizeof(*fields->items));
    }
    grown.count = fields->count;
    *fields = grown;
    return true;
}

bool http_fields_add(struct http_fields *fields, struct arena *arena, struct bytes name,
                     struct bytes value) {
    struct http_field field = {.name = name, .value = value, .id = http_field_id_of(name)};
    return http_fields_put(fields, arena, field);
}

struct http_field *http_fields_find(const struct http_fields *fields, enum http_field_id id) {
    for (uint32_t i = 0; i < fields->count; i++) {
        if (fields->items[i].id == id) return &fields->items[i];
    }
    return NULL;
}

struct http_field *http_fields_find_name(const struct http_fields *fields, struct bytes name) {
    for (uint32_t i = 0; i < fields->count; i++) {
        if (bytes_equal_nocase(fields->items[i].name, name)) return &fields->items[i];
    }
    return NULL;
}

uint32_t http_fields_remove(struct http_fields *fields, struct bytes name) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        if (bytes_equal_nocase(fields->items[i].name, name)) continue;
        fields->items[kept++] = fields->items[i];
    }
    uint32_t removed = fields->count - kept;
    fields->count = kept;
    return removed;
}
