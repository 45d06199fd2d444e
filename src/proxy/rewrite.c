#include "proxy/rewrite.h"

#include "proxy/request_field.h"

/* Of one part of a template that has to be written: a number, or the subject of a certificate. */
#define PART_SIZE_MAX 1024

static struct bytes number_text(uint64_t number, char *memory) {
    struct writer w = writer_make(memory, PART_SIZE_MAX);
    writer_u64(&w, number);
    return writer_bytes(&w);
}

/* All 16 digits: ids of one length sort and grep well. */
static struct bytes id_text(uint64_t id, char *memory) {
    for (int i = 15; i >= 0; i--, id >>= 4) {
        memory[i] = "0123456789abcdef"[id & 15];
    }
    return bytes_make(memory, 16);
}

static struct bytes method_text(const struct http_message *request) {
    return request->method == HTTP_OTHER ? request->method_text : http_method_text(request->method);
}

/* What clients send in a handshake may be any bytes; a field's value may not (RFC 9110
 * section 5.5). */
static struct bytes visible_text(struct bytes text) {
    for (size_t i = 0; i < text.len; i++) {
        if (text.ptr[i] < '!' || text.ptr[i] > '~') return BYTES_NONE;
    }
    return text;
}

static struct bytes subject_text(const struct tls *tls, char *memory) {
    struct writer w = writer_make(memory, PART_SIZE_MAX);
    tls_subject(tls, &w);
    for (size_t i = 0; i < w.len; i++) {
        if (memory[i] < ' ' || memory[i] > '~') memory[i] = '?';
    }
    return writer_bytes(&w);
}

static struct bytes tls_text(enum template_variable variable, const struct tls *tls, char *memory) {
    struct tls_facts facts;
    if (!tls) return BYTES_NONE;
    tls_facts(tls, &facts);
    if (variable == TEMPLATE_TLS_VERSION) return bytes_of(facts.version);
    if (variable == TEMPLATE_TLS_CIPHER) return bytes_of(facts.cipher);
    if (variable == TEMPLATE_TLS_SNI) return visible_text(facts.server_name);
    bool is_believed = facts.has_certificate && facts.verify_result == 0;
    if (variable == TEMPLATE_TLS_CLIENT_VERIFY)
        return is_believed ? BYTES("SUCCESS") : BYTES("NONE");
    return is_believed ? subject_text(tls, memory) : BYTES_NONE;
}

/* Text of a part, in `number` (PART_SIZE_MAX bytes) or anywhere else. URI is the path here. Bytes
 * of the request have passed its parser: no CR, LF or NUL among them (RFC 9110 section 5.5). */
static struct bytes part_text(const struct template_part *part, const struct rewrite_facts *facts,
                              char *number) {
    const struct http_message *request = facts->request;
    switch (part->variable) {
    case TEMPLATE_LITERAL:
        return part->text;
    case TEMPLATE_CLIENT_IP:
        return facts->client_ip;
    case TEMPLATE_CLIENT_PORT:
        return facts->client_port != 0 ? number_text(facts->client_port, number) : BYTES_NONE;
    case TEMPLATE_HOST:
        return http_authority_host(request->authority);
    case TEMPLATE_AUTHORITY:
        return request->authority;
    case TEMPLATE_METHOD:
        return method_text(request);
    case TEMPLATE_SCHEME:
        return request->scheme;
    case TEMPLATE_PATH:
    case TEMPLATE_URI:
        return facts->original_path.ptr ? facts->original_path : request->path;
    case TEMPLATE_QUERY:
        return request->query;
    case TEMPLATE_LISTENER:
        return bytes_of(facts->listener);
    case TEMPLATE_ROUTE:
        return bytes_of(facts->route);
    case TEMPLATE_UPSTREAM:
        return bytes_of(facts->upstream);
    case TEMPLATE_SERVER:
        return bytes_of(facts->server);
    case TEMPLATE_STATUS:
        return facts->status != 0 ? number_text((uint64_t)facts->status, number) : BYTES_NONE;
    case TEMPLATE_TLS_VERSION:
    case TEMPLATE_TLS_CIPHER:
    case TEMPLATE_TLS_SNI:
    case TEMPLATE_TLS_CLIENT_SUBJECT:
    case TEMPLATE_TLS_CLIENT_VERIFY:
        return tls_text(part->variable, facts->tls, number);
    case TEMPLATE_HEADER:
        return request_field(request, part->text);
    case TEMPLATE_REQUEST_ID:
        return id_text(facts->request_id, number);
    }
    return BYTES_NONE;
}

static bool has_query(const struct template_part *part, const struct rewrite_facts *facts) {
    return part->variable == TEMPLATE_URI && facts->request->query.ptr;
}

static void put_lower(struct writer *w, struct bytes text) {
    for (size_t i = 0; i < text.len; i++) {
        char c = text.ptr[i];
        writer_char(w, c >= 'A' && c <= 'Z' ? (char)(c | 0x20) : c);
    }
}

static void put_part(struct writer *w, const struct template_part *part,
                     const struct rewrite_facts *facts) {
    char number[PART_SIZE_MAX];
    struct bytes text = part_text(part, facts, number);
    if (part->variable == TEMPLATE_HOST) {
        put_lower(w, text); /* RFC 9110 section 4.2.3 */
        return;
    }
    writer_put(w, text);
    if (!has_query(part, facts)) return;
    writer_char(w, '?');
    writer_put(w, facts->request->query);
}

static size_t part_size(const struct template_part *part, const struct rewrite_facts *facts) {
    char number[PART_SIZE_MAX];
    size_t size = part_text(part, facts, number).len;
    return has_query(part, facts) ? size + 1 + facts->request->query.len : size;
}

bool rewrite_expand(const struct template *template, const struct rewrite_facts *facts,
                    struct arena *arena, struct bytes *text) {
    if (template->count == 1 && template->parts[0].variable == TEMPLATE_LITERAL) {
        *text = template->parts[0].text; /* the configuration outlives the arena */
        return true;
    }
    size_t size = 0;
    for (uint32_t i = 0; i < template->count; i++) {
        size += part_size(&template->parts[i], facts);
    }
    if (size == 0) {
        *text = BYTES("");
        return true;
    }
    struct writer w = writer_make(arena_alloc(arena, size), size);
    if (!w.ptr) return false;
    for (uint32_t i = 0; i < template->count; i++) {
        put_part(&w, &template->parts[i], facts);
    }
    *text = writer_bytes(&w);
    return true;
}

/* RFC 9110 section 7.6.3: the protocol it was received by, and a pseudonym; without "HTTP/". */
static struct bytes via_value(const struct http_message *message) {
    if (message->is_h2) return BYTES("2 weir");
    return message->version_minor == 0 ? BYTES("1.0 weir") : BYTES("1.1 weir");
}

/* A field of its own at the end says the same as an item at the end of the list (RFC 9110
 * section 5.3), and needs no text. */
static bool add_via(struct http_message *message, struct arena *arena) {
    struct http_field via = {
        .name = BYTES("Via"), .value = via_value(message), .id = HTTP_FIELD_VIA};
    return http_fields_put(&message->fields, arena, via);
}

/* The last field of that id gets ", item"; a new one when there is none. */
static bool join_item(struct http_fields *fields, struct arena *arena, enum http_field_id id,
                      struct bytes name, struct bytes item) {
    struct http_field *last = NULL;
    for (uint32_t i = 0; i < fields->count; i++) {
        if (fields->items[i].id == id) last = &fields->items[i];
    }
    if (!last)
        return http_fields_put(fields, arena,
                               (struct http_field){.name = name, .value = item, .id = id});
    if (last->value.len == 0) {
        last->value = item;
        return true;
    }
    size_t size = last->value.len + 2 + item.len;
    struct writer w = writer_make(arena_alloc(arena, size), size);
    if (!w.ptr) return false;
    writer_put(&w, last->value);
    writer_put(&w, BYTES(", "));
    writer_put(&w, item);
    last->value = writer_bytes(&w);
    return true;
}

/* Removes what `first` (one of the items) has of its id behind it. */
static void remove_later(struct http_fields *fields, const struct http_field *first) {
    enum http_field_id id = first->id;
    uint32_t kept = (uint32_t)(first - fields->items) + 1;
    for (uint32_t i = kept; i < fields->count; i++) {
        if (fields->items[i].id == id) continue;
        fields->items[kept++] = fields->items[i];
    }
    fields->count = kept;
}

/* One field with that value, or none when the value is empty: what the client claimed is gone
 * either way. */
static bool replace_field(struct http_fields *fields, struct arena *arena, enum http_field_id id,
                          struct bytes name, struct bytes value) {
    struct http_field *first = http_fields_find(fields, id);
    if (value.len == 0) {
        if (first) (void)http_fields_remove(fields, name); /* how many is of no interest */
        return true;
    }
    if (!first)
        return http_fields_put(fields, arena,
                               (struct http_field){.name = name, .value = value, .id = id});
    first->value = value;
    remove_later(fields, first);
    return true;
}

/* Whether what a client says of clients before it is true. */
enum belief {
    BELIEF_UNASKED, /* no trusted_proxies: X-Forwarded-For goes on, the rest is ours to know */
    BELIEF_YES,
    BELIEF_NO
};

static enum belief belief_in(const struct config_listener *listener,
                             const struct rewrite_facts *facts) {
    if (listener->trusted.count == 0) return BELIEF_UNASKED;
    return cidr_list_has_text(&listener->trusted, facts->client_ip) ? BELIEF_YES : BELIEF_NO;
}

/* Also those that weir does not write itself: a server may read X-Forwarded-Port as well. */
static void remove_claims(struct http_fields *fields) {
    struct bytes prefix = BYTES("X-Forwarded-");
    uint32_t kept = 0;
    for (uint32_t i = 0; i < fields->count; i++) {
        const struct http_field *field = &fields->items[i];
        bool is_claim = bytes_equal_nocase(bytes_slice(field->name, 0, prefix.len), prefix);
        if (!is_claim && field->id != HTTP_FIELD_FORWARDED) fields->items[kept++] = *field;
    }
    fields->count = kept;
}

/* A client on a unix socket has no address; RFC 7239 section 6.2 has a word for that. */
static struct bytes forwarded_for(const struct rewrite_facts *facts) {
    return bytes_equal(facts->client_ip, BYTES("unix")) ? BYTES("unknown") : facts->client_ip;
}

/* What a believed proxy says of its own client's request stays. */
static bool tell(struct http_fields *fields, struct arena *arena, const struct http_field *ours,
                 bool is_believed) {
    if (is_believed && http_fields_find(fields, ours->id)) return true;
    return replace_field(fields, arena, ours->id, ours->name, ours->value);
}

static bool add_x_forwarded(struct http_message *request, const struct rewrite_facts *facts,
                            bool is_believed, struct arena *arena) {
    struct http_fields *fields = &request->fields;
    const struct http_field proto = {.name = BYTES("X-Forwarded-Proto"),
                                     .value = request->scheme,
                                     .id = HTTP_FIELD_X_FORWARDED_PROTO};
    const struct http_field host = {.name = BYTES("X-Forwarded-Host"),
                                    .value = request->authority,
                                    .id = HTTP_FIELD_X_FORWARDED_HOST};
    return join_item(fields, arena, HTTP_FIELD_X_FORWARDED_FOR, BYTES("X-Forwarded-For"),
                     forwarded_for(facts)) &&
           tell(fields, arena, &proto, is_believed) && tell(fields, arena, &host, is_believed);
}

/* RFC 7239 section 4: values are tokens or quoted strings. ":" and "[" are no token characters;
 * addresses and valid authorities hold nothing that a quoted string would have to escape (RFC 3986
 * section 3.2.2). */
static void put_parameter(struct writer *w, struct bytes name, struct bytes value) {
    bool quoted = !http_token_valid(value);
    writer_put(w, name);
    if (quoted) writer_char(w, '"');
    writer_put(w, value);
    if (quoted) writer_char(w, '"');
}

/* RFC 7239 section 6: an IPv6 address stands in brackets, and so in quotes. */
static void put_for(struct writer *w, struct bytes client) {
    if (bytes_find(client, ':') == client.len) {
        put_parameter(w, BYTES("for="), client);
        return;
    }
    writer_put(w, BYTES("for=\"["));
    writer_put(w, client);
    writer_put(w, BYTES("]\""));
}

static bool add_forwarded(struct http_message *request, const struct rewrite_facts *facts,
                          struct arena *arena) {
    struct bytes client = forwarded_for(facts);
    size_t size = sizeof("for=\"[]\";host=\"\";proto=\"\"") + client.len + request->authority.len +
                  request->scheme.len;
    struct writer w = writer_make(arena_alloc(arena, size), size);
    if (!w.ptr) return false;
    put_for(&w, client);
    if (request->authority.len != 0) put_parameter(&w, BYTES(";host="), request->authority);
    if (request->scheme.len != 0) put_parameter(&w, BYTES(";proto="), request->scheme);
    return join_item(&request->fields, arena, HTTP_FIELD_FORWARDED, BYTES("Forwarded"),
                     writer_bytes(&w));
}

static bool add_client(struct http_message *request, const struct config_listener *listener,
                       const struct rewrite_facts *facts, struct arena *arena) {
    enum belief belief = belief_in(listener, facts);
    if (belief == BELIEF_NO) remove_claims(&request->fields);
    switch (listener->forwarded) {
    case CONFIG_FORWARDED_X:
        return add_x_forwarded(request, facts, belief == BELIEF_YES, arena);
    case CONFIG_FORWARDED_RFC7239:
        return add_forwarded(request, facts, arena);
    case CONFIG_FORWARDED_OFF:
        return true;
    }
    return true;
}

/* Whole segments only: "/v1" is no prefix of "/v10" here, though it is one for a route. What is
 * left begins with exactly one slash: "//host/x" in a Location or a Referer made of it would name
 * another host. */
static struct bytes strip_prefix(struct bytes path, struct bytes prefix) {
    while (prefix.len != 0 && prefix.ptr[prefix.len - 1] == '/') {
        prefix.len--;
    }
    if (prefix.len == 0 || !bytes_starts_with(path, prefix)) return path;
    if (path.len == prefix.len) return BYTES("/");
    struct bytes rest = bytes_slice(path, prefix.len, path.len);
    if (rest.ptr[0] != '/') return path;
    while (rest.len > 1 && rest.ptr[1] == '/') {
        rest = bytes_slice(rest, 1, rest.len);
    }
    return rest;
}

/* Every field of the edit's name becomes one, in the place of the first. */
static bool edit_set(struct http_fields *fields, struct arena *arena, struct bytes name,
                     struct bytes value) {
    struct http_field *first = http_fields_find_name(fields, name);
    if (value.len == 0) {
        (void)http_fields_remove(fields, name); /* how many is of no interest */
        return true;
    }
    if (!first) return http_fields_add(fields, arena, name, value);
    struct http_field set = {.name = name, .value = value, .id = first->id};
    uint32_t at = (uint32_t)(first - fields->items);
    struct http_fields later = {.items = first + 1, .count = fields->count - at - 1};
    (void)http_fields_remove(&later, name); /* as above */
    *first = set;
    fields->count = at + 1 + later.count;
    return true;
}

static bool edit_apply(struct http_fields *fields, const struct config_edit *edit,
                       const struct rewrite_facts *facts, struct arena *arena) {
    struct bytes name = bytes_of(edit->name);
    struct bytes value = BYTES_NONE;
    if (edit->kind != CONFIG_EDIT_REMOVE && !rewrite_expand(&edit->value, facts, arena, &value)) {
        return false;
    }
    switch (edit->kind) {
    case CONFIG_EDIT_SET:
        return edit_set(fields, arena, name, value);
    case CONFIG_EDIT_ADD:
        return value.len == 0 || http_fields_add(fields, arena, name, value);
    case CONFIG_EDIT_REMOVE:
        (void)http_fields_remove(fields, name); /* how many is of no interest */
        return true;
    }
    return true;
}

/* Host is not among the fields but in request->authority, and there is always one: removing it, or
 * a value that is no authority (it may come from a request's field), changes nothing. */
static bool edit_host(struct http_message *request, const struct config_edit *edit,
                      const struct rewrite_facts *facts, struct arena *arena) {
    if (edit->kind == CONFIG_EDIT_REMOVE) return true;
    struct bytes value;
    if (!rewrite_expand(&edit->value, facts, arena, &value)) return false;
    if (http_authority_valid(value)) request->authority = value;
    return true;
}

/* Fields of the connection and of framing are never edited: config/check_header refuses them. */
static bool edit_all(struct http_message *message, const struct config_edits *edits,
                     const struct rewrite_facts *facts, struct arena *arena) {
    for (uint32_t i = 0; i < edits->count; i++) {
        const struct config_edit *edit = &edits->items[i];
        bool of_host =
            message->status == 0 && bytes_equal_nocase(bytes_of(edit->name), BYTES("Host"));
        bool done = of_host ? edit_host(message, edit, facts, arena)
                            : edit_apply(&message->fields, edit, facts, arena);
        if (!done) return false;
    }
    return true;
}

bool rewrite_request(struct http_message *request, const struct config_listener *listener,
                     const struct config_route *route, const struct rewrite_facts *facts,
                     struct arena *arena) {
    if (listener->via && !add_via(request, arena)) return false;
    if (!add_client(request, listener, facts, arena)) return false;
    if (!route) return true;
    request->path = strip_prefix(request->path, route->strip_prefix);
    return edit_all(request, &route->request_edits, facts, arena);
}

bool rewrite_response(struct http_message *response, const struct config_listener *listener,
                      const struct config_route *route, const struct rewrite_facts *facts,
                      struct arena *arena) {
    if (listener->via && !add_via(response, arena)) return false;
    return !route || edit_all(response, &route->response_edits, facts, arena);
}
