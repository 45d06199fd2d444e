/* h1_fixture.h: heads are parsed whole and byte by byte, from memory of exactly their size. */
#ifndef WEIR_UNIT_PROTO_H1_FIXTURE_H
#define WEIR_UNIT_PROTO_H1_FIXTURE_H

#include "proto/h1_parse.h"

#define FIXTURE_FIELDS_MAX 100

struct h1_fixture {
    struct h1_limits limits; /* 16k, 100 fields, 8k; a test may set others */
    enum http_method request_method;
    struct arena_pool pool;
    struct arena arena;
    struct h1_parser parser;
    struct h1_span spans[FIXTURE_FIELDS_MAX];
    struct http_message message;
};

void h1_fixture_init(struct h1_fixture *fixture);
void h1_fixture_fini(struct h1_fixture *fixture);
/* Parses both ways, fails the test when they differ, and leaves the parser. */
enum h1_result h1_fixture_parse(struct h1_fixture *fixture, enum h1_kind kind, struct bytes head);
/* Parses what must be accepted and builds its message. */
void h1_fixture_accept(struct h1_fixture *fixture, enum h1_kind kind, struct bytes head);
/* Parses what must be refused with `reason`. */
void h1_fixture_refuse(struct h1_fixture *fixture, enum h1_kind kind, struct bytes head,
                       enum reason reason);
/* The value of a field of the message, ptr NULL when it is not there. */
struct bytes h1_fixture_field(const struct h1_fixture *fixture, const char *name);

#endif
