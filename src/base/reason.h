/* reason.h: why an exchange or a connection ended, as one closed set (reason.def). */
#ifndef WEIR_BASE_REASON_H
#define WEIR_BASE_REASON_H

enum reason {
#define REASON(name, status, outcome, proxy_error, text, test) REASON_##name,
#include "base/reason.def"
#undef REASON
    REASON_COUNT
};

struct reason_entry {
    const char *name;        /* lower case, as the label of metrics: "bad_host" */
    int status;              /* HTTP status, 0: none */
    const char *outcome;     /* access log */
    const char *proxy_error; /* RFC 9209 section 2.3, "" for none */
    const char *text;
};

/* Never NULL; CHECKs reason < REASON_COUNT. */
const struct reason_entry *reason_entry(enum reason reason);

#endif
