/* grpc.h: what a proxy has to know of a gRPC call (the protocol is "gRPC over HTTP2" of grpc.io).
 *
 * A call is a POST whose content-type is application/grpc or begins with it. Its outcome is a
 * number, grpc-status, in the trailers of the answer; HTTP's status is 200 also when it failed. So
 * an answer of weir's own is a head without body that has the trailers' fields ("trailers-only"),
 * and a call that fails after its head ends in trailers. Messages pass as bytes nobody looks into.
 */
#ifndef WEIR_PROTO_GRPC_H
#define WEIR_PROTO_GRPC_H

#include "base/reason.h"
#include "proto/http.h"

/* grpc.io, "Status codes and their use": those weir gives itself. */
enum grpc_status {
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_UNAUTHENTICATED = 16
};

/* application/grpc, application/grpc+proto, application/grpc;...: not application/grpc-web. Any
 * case. */
bool grpc_is_content_type(struct bytes value);
/* HTTP/1.0 has no trailers, and so no calls. */
bool grpc_is_request(const struct http_message *request);
/* An answer of HTTP's 200 whose body is gRPC messages: what may end in trailers with a status. */
bool grpc_is_answer(const struct http_message *answer);

/* A grpc-timeout: 1 to 8 digits and one of H M S m u n; in ms, rounded up. false: it is none. */
bool grpc_timeout_parse(struct bytes value, uint64_t *ms);
/* The same backwards, in ms; false: it has more than 8 digits. `text` has GRPC_TIMEOUT_SIZE bytes.
 */
#define GRPC_TIMEOUT_SIZE 9
bool grpc_timeout_write(uint64_t ms, struct writer *text);

/* The status that stands for an HTTP status of weir's own error answers. As in "HTTP to gRPC Status
 * Code Mapping", but 504 is DEADLINE_EXCEEDED, as nothing else says what it says, and what is too
 * large is RESOURCE_EXHAUSTED. */
enum grpc_status grpc_status_of_http(int http_status);

/* The status that stands for a stream reset by a server with that code of HTTP/2: what its client
 * would make of it without a proxy. */
enum grpc_status grpc_status_of_reset(uint32_t code);

/* Appends a grpc-message: printable ASCII but "%" as it stands, all else as %XX. */
void grpc_put_message(struct writer *text, struct bytes message);

/* grpc-status, and grpc-message for `reason`, appended to `fields`: the trailers of a call that
 * ends so. false when the arena is at its limit. */
bool grpc_put_status(enum grpc_status status, enum reason reason, struct arena *arena,
                     struct http_fields *fields);
/* The same as a whole answer without body: trailers-only. Has Proxy-Status as http_error.h's. */
bool grpc_status_answer(enum grpc_status status, enum reason reason, struct arena *arena,
                        struct http_message *answer);
/* With the status that stands for that of `reason`, which must have one. */
enum grpc_status grpc_status_of(enum reason reason);
bool grpc_error_answer(enum reason reason, struct arena *arena, struct http_message *answer);

#endif
