#include "service/respond.h"

#include "service/answer.h"

#include <stdlib.h>

struct respond {
    struct service service;
    const struct config_service *config;
};

static bool respond_make(struct answer *answer, const struct http_message *request,
                         struct http_message *message, struct bytes *body) {
    (void)request; /* every request gets the same */
    const struct config_service *config = answer->service;
    struct arena *arena = answer->stream.arena;
    message->status = config->status;
    *body = bytes_make(config->body, config->body_size);
    if (!http_fields_init(&message->fields, arena, config->headers.count + 2)) return false;
    for (uint32_t i = 0; i < config->headers.count; i++) {
        const struct config_edit *edit = &config->headers.items[i];
        struct bytes value = edit->value.count != 0 ? edit->value.parts[0].text : BYTES_NONE;
        if (!http_fields_add(&message->fields, arena, bytes_of(edit->name), value)) return false;
    }
    return true;
}

static struct stream *respond_open(struct service *service, struct net *net, struct arena *arena) {
    struct answer *answer = answer_open(net, arena);
    if (!answer) return NULL;
    struct respond *respond = LIST_OWNER(service, struct respond, service);
    answer->service = (void *)(uintptr_t)respond->config; /* read only, though the pointer says
                                                             nothing of it */
    answer->make = respond_make;
    return &answer->stream;
}

static const struct service_ops respond_ops = {.type = "respond", .open = respond_open};

struct service *respond_new(const struct config_service *config) {
    struct respond *respond = malloc(sizeof *respond);
    if (!respond) return NULL;
    *respond = (struct respond){.service = {.ops = &respond_ops}, .config = config};
    return &respond->service;
}

void respond_free(struct service *service) {
    if (service) free(LIST_OWNER(service, struct respond, service));
}
