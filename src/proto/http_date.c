#include "proto/http_date.h"

#include "base/clock.h"

#include <time.h>

static const char *const days[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
static const char *const months[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};

static void put_two(struct writer *w, uint32_t value) {
    writer_char(w, (char)('0' + value / 10 % 10));
    writer_char(w, (char)('0' + value % 10));
}

void http_date_format(int64_t second, char text[HTTP_DATE_SIZE]) {
    struct clock_date date = clock_date_of(second);
    struct writer w = writer_make(text, HTTP_DATE_SIZE);
    writer_put(&w, bytes_make(days[date.weekday], 3));
    writer_put(&w, BYTES(", "));
    put_two(&w, date.day);
    writer_char(&w, ' ');
    writer_put(&w, bytes_make(months[date.month - 1], 3));
    writer_char(&w, ' ');
    put_two(&w, date.year / 100);
    put_two(&w, date.year % 100);
    writer_char(&w, ' ');
    put_two(&w, date.hour);
    writer_char(&w, ':');
    put_two(&w, date.minute);
    writer_char(&w, ':');
    put_two(&w, date.second);
    writer_put(&w, BYTES(" GMT"));
}

struct bytes http_date_now(struct http_date *date, uint64_t now_ms) {
    if (date->made_ms == 0 || now_ms - date->made_ms >= 1000) {
        struct timespec now;
        (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for a valid clock */
        http_date_format(now.tv_sec, date->text);
        /* The next one is due when the wall clock's second ends. */
        date->made_ms = now_ms - (uint64_t)now.tv_nsec / 1000000;
    }
    return bytes_make(date->text, HTTP_DATE_SIZE);
}
