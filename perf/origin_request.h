/* origin_request.h: the head of a request, as far as perf/origin.c wants to know it. It is written
 * by a proxy under test and trusted.
 */
#ifndef WEIR_PERF_ORIGIN_REQUEST_H
#define WEIR_PERF_ORIGIN_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct request {
    const char *target; /* points into the head */
    size_t target_size;
    bool is_head;
    bool wants_close;
    bool is_chunked;
    uint64_t body_size;
};

/* `head` is whole and ends with the empty line. False: not a request. */
bool request_read(struct request *request, const char *head, size_t size);

#endif
