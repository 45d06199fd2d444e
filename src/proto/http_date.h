/* http_date.h: the time as a Date field says it (RFC 9110 section 5.6.7), made once a second.
 *
 * One per worker; the caller's clock says when a second may have passed, the wall clock what time
 * it is.
 */
#ifndef WEIR_PROTO_HTTP_DATE_H
#define WEIR_PROTO_HTTP_DATE_H

#include "base/bytes.h"

#define HTTP_DATE_SIZE 29

struct http_date {
    uint64_t made_ms; /* on the worker's clock; 0: never */
    char text[HTTP_DATE_SIZE];
};

/* "Sun, 06 Nov 1994 08:49:37 GMT" for the UNIX time `second` (of years 1970 to 9999). */
void http_date_format(int64_t second, char text[HTTP_DATE_SIZE]);
/* The present time; the text lives until the next call. */
struct bytes http_date_now(struct http_date *date, uint64_t now_ms);

#endif
