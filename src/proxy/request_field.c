#include "proxy/request_field.h"

struct bytes request_field(const struct http_message *request, struct bytes name) {
    if (bytes_equal_nocase(name, BYTES("Host"))) {
        return request->authority.len != 0 ? request->authority : BYTES_NONE;
    }
    const struct http_field *field = http_fields_find_name(&request->fields, name);
    if (!field) return BYTES_NONE;
    return field->value.ptr ? field->value : BYTES("");
}
