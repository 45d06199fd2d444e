#include "control/admin.h"

#include "base/clock.h"
#include "control/metrics.h"
#include "service/answer.h"

#include <time.h>

#define METHODS BYTES("GET, HEAD")
#define TEXT BYTES("text/plain")

struct admin_reply {
    uint16_t status;
    struct bytes type;
    struct bytes body; /* static, or in answer->made */
};

struct admin_path {
    struct bytes path;
    /* false: memory is used up. */
    bool (*reply)(const struct admin *admin, struct answer *answer, struct admin_reply *reply);
};

static bool admin_index(const struct admin *admin, struct answer *answer,
                        struct admin_reply *reply) {
    (void)admin;
    (void)answer; /* the same everywhere and always */
    *reply = (struct admin_reply){200, TEXT,
                                  BYTES("weir\n"
                                        "/metrics  Prometheus text format\n"
                                        "/healthz  200 as long as the process answers\n"
                                        "/readyz   200, or 503 while starting or draining\n")};
    return true;
}

static bool admin_health(const struct admin *admin, struct answer *answer,
                         struct admin_reply *reply) {
    (void)admin;
    (void)answer; /* that it answers is what was asked */
    *reply = (struct admin_reply){200, TEXT, BYTES("ok\n")};
    return true;
}

/* NULL: requests are welcome. */
static const char *admin_hindrance(const struct admin *admin) {
    const char *hindrance = NULL;
    for (uint32_t i = 0; i < admin->config->workers; i++) {
        switch (worker_state(admin->workers[i])) {
        case WORKER_STARTING:
            hindrance = "starting\n";
            break;
        case WORKER_RUNNING:
            break;
        case WORKER_DRAINING:
        case WORKER_DRAINED:
        case WORKER_ENDED:
            return "draining\n";
        case WORKER_FAILED:
            return "failed\n";
        }
    }
    return hindrance;
}

static bool admin_ready(const struct admin *admin, struct answer *answer,
                        struct admin_reply *reply) {
    (void)answer; /* the texts are static */
    const char *hindrance = admin_hindrance(admin);
    *reply = (struct admin_reply){hindrance ? 503 : 200, TEXT,
                                  bytes_of(hindrance ? hindrance : "ready\n")};
    return true;
}

static bool admin_metrics(const struct admin *admin, struct answer *answer,
                          struct admin_reply *reply) {
    struct page *page = arena_alloc(answer->stream.arena, sizeof *page);
    if (!page) return false;
    *page = (struct page){0};
    answer->made = page;
    metrics_write(page, admin);
    *reply = (struct admin_reply){200, BYTES("text/plain; version=0.0.4"), page_bytes(page)};
    return !page->failed;
}

static const struct admin_path admin_paths[] = {
    {BYTES("/"), admin_index},
    {BYTES("/metrics"), admin_metrics},
    {BYTES("/healthz"), admin_health},
    {BYTES("/readyz"), admin_ready},
};

static bool admin_reply(struct answer *answer, const struct http_message *request,
                        struct admin_reply *reply) {
    *reply = (struct admin_reply){404, TEXT, BYTES("not found\n")};
    for (size_t i = 0; i < sizeof admin_paths / sizeof admin_paths[0]; i++) {
        if (!bytes_equal(request->path, admin_paths[i].path)) continue;
        if (request->method == HTTP_GET || request->method == HTTP_HEAD)
            return admin_paths[i].reply(answer->service, answer, reply);
        *reply = (struct admin_reply){405, TEXT, BYTES("method not allowed\n")};
    }
    return true;
}

static bool admin_make(struct answer *answer, const struct http_message *request,
                       struct http_message *message, struct bytes *body) {
    struct arena *arena = answer->stream.arena;
    struct admin_reply reply;
    if (!admin_reply(answer, request, &reply)) return false;
    message->status = reply.status;
    *body = reply.body;
    if (!http_fields_init(&message->fields, arena, 4)) return false;
    if (!http_fields_add(&message->fields, arena, BYTES("Content-Type"), reply.type)) return false;
    /* What was true a moment ago is of no use to a probe. */
    if (!http_fields_add(&message->fields, arena, BYTES("Cache-Control"), BYTES("no-store")))
        return false;
    if (reply.status != 405) return true;
    return http_fields_add(&message->fields, arena, BYTES("Allow"), METHODS);
}

static void admin_done(struct answer *answer) {
    if (answer->made) page_fini(answer->made);
}

static struct stream *admin_open(struct service *service, struct net *net, struct arena *arena) {
    struct answer *answer = answer_open(net, arena);
    if (!answer) return NULL;
    answer->service = LIST_OWNER(service, struct admin, service);
    answer->make = admin_make;
    answer->done = admin_done;
    return &answer->stream;
}

static const struct service_ops admin_ops = {.type = "admin", .open = admin_open};

void admin_init(struct admin *admin, const struct config *config, struct worker *const *workers,
                const struct tls_store *tls) {
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now); /* cannot fail for a valid clock */
    *admin = (struct admin){.service = {.ops = &admin_ops},
                            .config = config,
                            .workers = workers,
                            .tls = tls,
                            .start_time_ms =
                                (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000,
                            .start_ns = clock_now_ns()};
}
