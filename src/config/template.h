/* template.h: text of the configuration with $variables in it, parsed once.
 *
 * "$name" or "${name}" is a variable, "$$" a dollar sign. Unknown names are configuration errors.
 * proxy/rewrite expands templates per request.
 */
#ifndef WEIR_CONFIG_TEMPLATE_H
#define WEIR_CONFIG_TEMPLATE_H

#include "base/bytes.h"

enum template_variable {
    TEMPLATE_LITERAL,
    TEMPLATE_CLIENT_IP,
    TEMPLATE_CLIENT_PORT,
    TEMPLATE_HOST,      /* of the request, lower case, without port */
    TEMPLATE_AUTHORITY, /* as sent, with port */
    TEMPLATE_METHOD,
    TEMPLATE_SCHEME,
    TEMPLATE_PATH,
    TEMPLATE_QUERY, /* without "?" */
    TEMPLATE_URI,   /* path and, if any, "?" and query, as sent by the client */
    TEMPLATE_LISTENER,
    TEMPLATE_ROUTE,
    TEMPLATE_UPSTREAM,
    TEMPLATE_SERVER,
    TEMPLATE_TLS_VERSION, /* of the client's connection; these five are empty without TLS */
    TEMPLATE_TLS_CIPHER,
    TEMPLATE_TLS_SNI,
    TEMPLATE_TLS_CLIENT_SUBJECT,
    TEMPLATE_TLS_CLIENT_VERIFY, /* "SUCCESS" or "NONE" */
    TEMPLATE_STATUS,            /* of the response */
    TEMPLATE_HEADER,            /* $header_NAME: a request field; _ in NAME stands for - */
    TEMPLATE_REQUEST_ID
};

struct template_part {
    enum template_variable variable;
    struct bytes text; /* LITERAL: the text; HEADER: the field's name */
};

struct template {
    struct template_part *parts;
    uint32_t count;
};

/* 0 and *template (free with template_fini), or -EINVAL and *error, a static or allocated-in-place
 * message of at most error_size bytes. */
int template_parse(struct template *template, struct bytes text, char *error, size_t error_size);
/* 0 and *template with `text` as it stands, "$" included; or -ENOMEM. */
int template_literal(struct template *template, struct bytes text);
void template_fini(struct template *template);

#endif
