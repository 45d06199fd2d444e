/* check_internal.h: what the files of check.h share. */
#ifndef WEIR_CONFIG_CHECK_INTERNAL_H
#define WEIR_CONFIG_CHECK_INTERNAL_H

#include "config/check.h"

/* An error at an entry, and one at a section that lacks a key. */
#define check_fault(check, section, entry, ...)                                                    \
    faults_add((check)->faults,                                                                    \
               (struct fault_place){(entry)->line, (section)->title, (entry)->key->name},          \
               __VA_ARGS__)
void check_missing(struct check *check, const struct ini_section *section, enum key_id key);

/* The number of a key: of the section, else of [defaults] where that has the key too, else its
 * default. */
uint64_t check_number(const struct check *check, const struct ini_section *section,
                      enum key_id key);
/* The text of a scalar, its default when the section does not say it. */
struct bytes check_text(const struct ini_section *section, enum key_id key);
/* The next item of a list entry; a value in quotes is one item. *rest begins as entry->value. */
bool check_item(const struct ini_entry *entry, struct bytes *rest, struct bytes *item);
/* Resolves the name of a section of `kind`; NULL and an error when there is none. */
const struct ini_section *check_reference(struct check *check, const struct ini_section *section,
                                          const struct ini_entry *entry, enum section_kind kind,
                                          struct bytes name);

/* check_header.c. Parses "NAME: VALUE" (or a NAME to remove) into *edits, with the rules for fields
 * that weir owns. */
enum header_side { HEADER_REQUEST, HEADER_RESPONSE, HEADER_SERVICE };
void check_edits(struct check *check, const struct ini_section *section, enum header_side side,
                 struct config_edits *edits);
/* A template of an entry, whose variables must be among `allowed` (bits 1 << enum
 * template_variable). */
bool check_template(struct check *check, const struct ini_section *section,
                    const struct ini_entry *entry, struct bytes text, unsigned allowed,
                    struct template *parsed);
/* false and an error when `name` is no field name or one that weir takes out of every message
 * itself. */
bool check_field_name(struct check *check, const struct ini_section *section,
                      const struct ini_entry *entry, struct bytes name);

#define VARIABLES_OF_REQUEST                                                                       \
    ((2u << TEMPLATE_REQUEST_ID) - 1 - (1u << TEMPLATE_UPSTREAM) - (1u << TEMPLATE_SERVER) -       \
     (1u << TEMPLATE_STATUS))
#define VARIABLES_OF_UPSTREAM                                                                      \
    (VARIABLES_OF_REQUEST | 1u << TEMPLATE_UPSTREAM | 1u << TEMPLATE_SERVER)
#define VARIABLES_OF_RESPONSE (VARIABLES_OF_UPSTREAM | 1u << TEMPLATE_STATUS)

/* check_route.c. Reports keys of the section that only a checked WebSocket has any use for. */
void check_websocket_keys(struct check *check, const struct ini_section *section, uint64_t mode);
/* check_global.c. */
void check_global(struct check *check);
/* check_upstream.c. Reports at `entry` a service that a listener with `mode` cannot use. */
void check_service_fits(struct check *check, const struct ini_section *section,
                        const struct ini_entry *entry, const struct ini_section *service,
                        enum config_mode mode);
/* One section each. */
void check_upstream(struct check *check, const struct ini_section *section,
                    struct config_upstream *upstream);
/* Between all of them and who uses them: keys that nobody has any use for. */
void check_upstreams_together(struct check *check);
void check_service(struct check *check, const struct ini_section *section,
                   struct config_service *service);
/* check_listener.c. */
void check_listener(struct check *check, const struct ini_section *section,
                    struct config_listener *listener);
/* Between all listeners: addresses, and requests nobody would take. */
void check_listeners_together(struct check *check);
/* check_tls.c. */
void check_tls(struct check *check, const struct ini_section *section, struct config_tls *tls);
void check_listener_tls(struct check *check, const struct ini_section *section,
                        struct config_listener *listener);
/* After its servers. */
void check_upstream_tls(struct check *check, const struct ini_section *section,
                        struct config_upstream *upstream);
/* check_route.c. */
void check_route(struct check *check, const struct ini_section *section,
                 struct config_route *route);
/* check_action.c: what a route does with a request. */
void check_route_action(struct check *check, const struct ini_section *section,
                        struct config_route *route);
/* Keys of struct config_limits that a section may say, or inherits. */
void check_limits(const struct check *check, const struct ini_section *section,
                  struct config_limits *limits);

#endif
