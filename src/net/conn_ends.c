#include "net/conn_ends.h"

#include "base/log.h"
#include "net/conn_internal.h"
#include "net/listener.h"
#include "net/pp.h"

bool conn_set_ends(struct conn *conn, const struct addr_pair *ends) {
    struct net *net = conn->net;
    if (!conn->ends) conn->ends = slab_acquire(&net->ends);
    if (!conn->ends) return false;
    *conn->ends = *ends;
    return true;
}

bool conn_source(const struct conn *conn, union addr *address) {
    socklen_t size = sizeof *address;
    if (conn->ends) {
        *address = conn->ends->source;
        return true;
    }
    /* Longer addresses of unix sockets are cut, behind the family. */
    return getpeername(conn->fd, &address->any, &size) == 0;
}

bool conn_destination(const struct conn *conn, union addr *address) {
    socklen_t size = sizeof *address;
    if (conn->ends) {
        *address = conn->ends->destination;
        return true;
    }
    return getsockname(conn->fd, &address->any, &size) == 0; /* cut as above */
}

void conn_log_refused(const struct conn *conn, enum reason reason) {
    if (!log_is_on(LOG_DEBUG)) return;
    char memory[ADDR_TEXT_MAX];
    struct writer host = writer_make(memory, sizeof memory);
    union addr source = {0};
    if (conn_source(conn, &source)) {
        addr_host(&source.any, &host);
    } else {
        writer_put(&host, BYTES("unknown"));
    }
    log_debug("%s: client %.*s port %u: refused: %s: %s", conn->listener->address_text,
              BYTES_FMT(writer_bytes(&host)), addr_port(&source.any), reason_entry(reason)->name,
              reason_entry(reason)->text);
}

bool conn_send_pp(struct conn *conn) {
    /* In front of what a filter may send. */
    char *to = conn_out_reserve(conn->net, &conn->out, PP_V1_SIZE_MAX);
    if (!to) return false;
    struct writer text = writer_make(to, PP_V1_SIZE_MAX);
    pp_write(&text, conn->pp_version, conn->ends);
    conn_out_commit(conn->net, &conn->out, text.len);
    conn_mark_dirty(conn);
    /* It has been told. */
    if (conn->ends) slab_release(&conn->net->ends, conn->ends);
    return true;
}
