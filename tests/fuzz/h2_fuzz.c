/* HTTP/2: a whole session, in either role, on what the other side may send; nothing trips a CHECK,
 * and everything comes back.
 *
 * The first 4 bytes of an input choose the role, how the rest is cut into receives, and how the
 * streams' user behaves. The rest is what the connection receives: of a client behind the preface,
 * unless a bit says that it brings its own.
 */
#include "base/check.h"
#include "session/session.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define OPTION_BYTES 4
#define STREAMS_MAX 16
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define SETTINGS "\0\0\0\4\0\0\0\0\0"

/* What the options say of the streams' user. */
enum {
    USER_UPSTREAM = 1,   /* the session's role */
    USER_NO_PREFACE = 2, /* the input has its own */
    USER_ANSWERS = 4,    /* at once, with a body */
    USER_LATER = 8,      /* its answer has trailers, and ends by itself */
    USER_PAUSES = 16,    /* after each data, and resumes with the next turn */
    USER_CLOSES = 32,    /* in its first event */
    USER_TUNNELS = 64,   /* where a request may become one */
    USER_REFUSES = 128   /* its second stream */
};

struct user {
    struct stream *stream;
    bool answered;
    bool ended;
    bool tunnelled;
    bool paused;
};

static struct net net;
static struct stat_block stats;
static struct session_room room;
static struct session_options options;
static struct arena arena;
static struct user users[STREAMS_MAX];
static uint8_t mode;
static uint32_t begun;
static bool closed;
static bool ready;
static struct session *session;

static struct user *user_of(struct stream *stream) { return stream->user; }

static void user_close(struct user *user, enum reason reason) {
    struct stream *stream = user->stream;
    user->stream = NULL;
    stream->ops->close(stream, reason);
}

static void user_answer(struct user *user, bool tunnel) {
    struct stream *stream = user->stream;
    struct http_field fields[1] = {{.name = BYTES("X-Name"), .value = BYTES("value")}};
    struct http_fields list = {fields, 1, 1};
    struct http_message message = {
        .status = tunnel ? 101 : 200, .body_length = HTTP_LENGTH_UNKNOWN, .fields = list};
    user->answered = true;
    stream->ops->head(stream, &message, false);
    if (tunnel) {
        user->tunnelled = true;
        stream->ops->tunnel(stream, 1000);
        return;
    }
    (void)stream->ops->data(stream, BYTES("some body"), NULL, false); /* full: who cares */
    stream->ops->end(stream, mode & USER_LATER ? &list : NULL);
}

static void on_head(struct stream *stream, struct http_message *message, bool end) {
    struct user *user = user_of(stream);
    CHECK(stream == user->stream && !user->ended);
    for (uint32_t i = 0; i < message->fields.count; i++) {
        CHECK(http_token_valid(message->fields.items[i].name));
        CHECK(http_field_value_valid(message->fields.items[i].value));
    }
    if (message->status >= 200) user->answered = true;
    user->ended = end;
    if (mode & USER_CLOSES) {
        user_close(user, REASON_NO_ROUTE);
        return;
    }
    bool tunnel = message->upgrade.len != 0 && (mode & USER_TUNNELS);
    if (tunnel) user->ended = false;
    if (session->is_client && (tunnel || (mode & USER_ANSWERS))) user_answer(user, tunnel);
}

static void on_data(struct stream *stream, struct bytes data, struct lease *lease) {
    struct user *user = user_of(stream);
    CHECK(stream == user->stream && !user->ended);
    CHECK(data.ptr >= lease->memory && data.ptr + data.len <= lease->memory + lease->size);
    if (mode & USER_CLOSES) {
        user_close(user, REASON_SERVER_RESET);
        return;
    }
    if (mode & USER_PAUSES) {
        stream->ops->pause(stream);
        user->paused = true;
    }
    if (user->tunnelled) (void)stream->ops->data(stream, data, lease, false); /* as above */
}

static void on_end(struct stream *stream, const struct http_fields *trailers) {
    struct user *user = user_of(stream);
    CHECK(stream == user->stream && !user->ended);
    user->ended = true;
    for (uint32_t i = 0; trailers && i < trailers->count; i++)
        CHECK(http_token_valid(trailers->items[i].name));
    if (user->tunnelled) {
        stream->ops->end(stream, NULL);
        user_close(user, REASON_NONE);
    } else if (user->answered) {
        user_close(user, REASON_NONE);
    }
}

static void on_reset(struct stream *stream, enum reason reason) {
    user_close(user_of(stream), reason);
}

static void on_drained(struct stream *stream) { CHECK(user_of(stream)->stream == stream); }

static const struct stream_events events = {.on_head = on_head,
                                            .on_data = on_data,
                                            .on_end = on_end,
                                            .on_drained = on_drained,
                                            .on_reset = on_reset};

static void user_begin(struct stream *stream) {
    struct user *user = &users[begun++];
    *user = (struct user){.stream = stream};
    stream->events = &events;
    stream->user = user;
}

static bool host_on_stream(struct session *of, struct stream *stream) {
    (void)of;
    if (begun == STREAMS_MAX || (begun == 1 && (mode & USER_REFUSES))) return false;
    user_begin(stream);
    return true;
}

static void host_on_refused(struct session *of, enum reason reason) {
    (void)of;
    CHECK(reason != REASON_NONE);
}

static void host_on_ready(struct session *of) {
    (void)of;
    ready = true;
}

static void host_on_room(struct session *of) { CHECK(of->streams_open <= STREAMS_MAX); }

static void host_on_closed(struct session *of, enum reason reason) {
    (void)reason;
    CHECK(of == session);
    for (uint32_t i = 0; i < begun; i++)
        CHECK(!users[i].stream);
    closed = true;
}

static const struct session_host host = {host_on_stream, host_on_refused, host_on_ready,
                                         host_on_room, host_on_closed};

static void turn(void) {
    /* Something is due: no turn sleeps. */
    struct net_task task;
    net_task_init(&task, net_task_cancel);
    net_defer(&net, &task);
    CHECK(net_turn(&net) == 0);
    net_task_cancel(&task);
    for (uint32_t i = 0; i < begun; i++) {
        struct user *user = &users[i];
        if (!user->stream || !user->paused) continue;
        user->paused = false;
        user->stream->ops->resume(user->stream);
    }
}

static void set_up(void) {
    struct net_options net_options = {.conns_max = 16,
                                      .sq_entries = 64,
                                      .cq_entries = 256,
                                      .small_size = 4096,
                                      .small_count = 64,
                                      .bulk_size = 65536,
                                      .bulk_count = 4,
                                      .queue_mark = 16384};
    CHECK(net_init(&net, &net_options, &stats) == 0 && net_start(&net) == 0);
    struct session_room_options room_options = {.sessions_max = 4,
                                                .h2_sessions_max = 4,
                                                .exchanges_max = STREAMS_MAX,
                                                .max_header_size = 2048,
                                                .max_headers = 16,
                                                .h2_memory_max = 1 << 20};
    CHECK(session_room_init(&room, &net, &room_options) == 0);
    options = (struct session_options){.timeout_request_ms = 60000,
                                       .timeout_client_ms = 60000,
                                       .timeout_keepalive_ms = 60000,
                                       .timeout_connect_ms = 60000,
                                       .timeout_server_ms = 60000,
                                       .max_header_size = 2048,
                                       .max_headers = 16,
                                       .max_target = 256,
                                       .max_body_size = 20000,
                                       .h2_streams_max = 8};
    for (int i = 0; i < H2_FLOOD_COUNT; i++)
        options.h2_flood.max[i] = 64;
}

static int accept_client(void) {
    int fds[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) == 0);
    struct conn *conn = conn_accept(&net, fds[0], NULL, NULL);
    CHECK(conn);
    session = session_h2.accept(&room, conn, &options, &host);
    CHECK(session);
    return fds[1];
}

static int connect_server(void) {
    static int listening = -1;
    static struct sockaddr_un address = {.sun_family = AF_UNIX};
    static socklen_t size;
    if (listening < 0) {
        listening = socket(AF_UNIX, SOCK_STREAM, 0);
        int len = snprintf(address.sun_path + 1, sizeof address.sun_path - 1, "weir-h2-fuzz-%d",
                           (int)getpid());
        size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)len);
        CHECK(bind(listening, (struct sockaddr *)&address, size) == 0);
        CHECK(listen(listening, 16) == 0);
    }
    struct session_address to = {.address = (struct sockaddr *)&address, .size = size};
    enum reason reason;
    session = session_h2.connect(&room, &to, &options, &host, &reason);
    CHECK(session);
    while (!ready)
        turn();
    int fd = accept(listening, NULL, NULL);
    CHECK(fd >= 0);
    struct http_message request = {.method = HTTP_POST,
                                   .method_text = BYTES("POST"),
                                   .scheme = BYTES("http"),
                                   .authority = BYTES("a"),
                                   .path = BYTES("/"),
                                   .body_length = HTTP_LENGTH_UNKNOWN};
    static const enum http_method methods[] = {HTTP_GET, HTTP_HEAD, HTTP_POST, HTTP_GET};
    for (uint32_t i = 0; i < 4; i++) {
        struct stream *stream = session_h2.open(session, &arena);
        CHECK(stream);
        user_begin(stream);
        request.method = methods[i];
        request.method_text = http_method_text(methods[i]);
        request.upgrade = i == 3 && (mode & USER_TUNNELS) ? BYTES("websocket") : BYTES_NONE;
        stream->ops->head(stream, &request, methods[i] != HTTP_POST);
        if (methods[i] == HTTP_POST) (void)stream->ops->data(stream, BYTES("body"), NULL, true);
    }
    return fd;
}

/* Straight into the session, as if the kernel had brought it. */
static void receive(struct bytes bytes, uint32_t piece_max, uint32_t seed) {
    while (bytes.len != 0 && !closed && session->conn) {
        seed = seed * 1664525 + 1013904223;
        size_t len = 1 + (seed >> 8) % piece_max;
        if (len > bytes.len) len = bytes.len;
        struct lease *lease = buf_take(&net.small);
        if (!lease) return;
        /* At its end: what reads past it is seen. */
        char *to = lease->memory + lease->size - len;
        memcpy(to, bytes.ptr, len);
        session->conn->events->on_bytes(session->conn, bytes_make(to, len), lease);
        bytes = bytes_slice(bytes, len, SIZE_MAX);
        if (seed & 0x10000) turn();
    }
}

static void drain_socket(int fd) {
    char memory[65536];
    while (recv(fd, memory, sizeof memory, MSG_DONTWAIT) > 0)
        continue;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bool is_set_up;
    if (size < OPTION_BYTES) return 0;
    if (!is_set_up) set_up();
    is_set_up = true;
    mode = data[0];
    uint32_t piece_max = 1 + data[1] * 8u;
    uint32_t seed = (uint32_t)data[2] << 8 | data[3];
    begun = 0;
    closed = ready = false;
    arena_init(&arena, &room.arenas);
    int fd = mode & USER_UPSTREAM ? connect_server() : accept_client();
    bool brings_it = mode & USER_NO_PREFACE;
    if (!brings_it && !(mode & USER_UPSTREAM)) receive(BYTES(PREFACE), 64, seed);
    if (!brings_it) receive(BYTES(SETTINGS), 64, seed);
    receive(bytes_make((const char *)data + OPTION_BYTES, size - OPTION_BYTES), piece_max, seed);
    for (int i = 0; i < 4 && !closed; i++) {
        turn();
        drain_socket(fd);
    }
    (void)close(fd);
    if (!closed) session->ops->close(session, REASON_DRAIN_CUT);
    /* Who is not told and has not ended closes by itself. */
    for (uint32_t i = 0; i < begun; i++) {
        if (users[i].stream) user_close(&users[i], REASON_CLIENT_RESET);
    }
    for (int i = 0; i < 1000 && !(closed && net.conns.used == 0); i++)
        turn();
    conn_close_all(&net);
    for (int i = 0; i < 1000 && net.conns.used != 0; i++)
        turn();
    arena_reset(&arena);
    CHECK(closed && net.conns.used == 0 && session_room_used(&room) == 0);
    CHECK(room.arenas.small.used == 0 && room.arenas.large.used == 0);
    CHECK(buf_pool_leased(&net.small) == 0);
    CHECK(stat_get(&stats, STAT_H2_STREAMS_ACTIVE) == 0);
    return 0;
}
