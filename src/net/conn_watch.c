#include "net/conn_watch.h"

#include "base/check.h"
#include "net/conn_internal.h"
#include "ring/op.h"

#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>

void conn_watch(struct conn *conn) {
    CHECK(conn->state == CONN_OPEN);
    if (conn->watch_armed) return;
    conn->watch_armed = true;
    conn_op_begin(conn);
    op_watch(&conn->net->ring, conn_token(conn, RING_WATCH), conn->fd);
}

uint64_t conn_left_unread(const struct conn *conn) {
    struct tcp_info info;
    socklen_t size = sizeof info;
    int unread = 0;
    if (conn->recv_armed) return UINT64_MAX; /* it may hold some of them */
    if (getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &size) < 0) return UINT64_MAX;
    if (info.tcpi_state != TCP_CLOSE_WAIT || ioctl(conn->fd, SIOCINQ, &unread) < 0)
        return UINT64_MAX;
    return (uint64_t)unread;
}

/* A FIN of either side ends no watch: a poll says so, too, again and again. */
void conn_on_watch(struct conn *conn, const struct ring_completion *completion) {
    if (!completion->more) conn->watch_armed = false;
    if (conn->state == CONN_CLOSING || completion->result < 0) return;
    if (completion->result & POLLERR) {
        int error = 0;
        socklen_t size = sizeof error;
        (void)getsockopt(conn->fd, SOL_SOCKET, SO_ERROR, &error, &size); /* else it is a reset */
        conn_lose(conn, error != 0 ? error : ECONNRESET);
    } else if (!completion->more && conn->state == CONN_OPEN) {
        conn_watch(conn);
    }
}
