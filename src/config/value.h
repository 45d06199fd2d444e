/* value.h: the texts of single values: numbers with units, lists, names, parts of HTTP.
 *
 * No state, no errors of their own: a false says "this is none", the caller knows the place to
 * name.
 */
#ifndef WEIR_CONFIG_VALUE_H
#define WEIR_CONFIG_VALUE_H

#include "base/bytes.h"

/* A whole number and a unit: "500ms", "10s", "5m", "1h". */
bool value_duration(struct bytes text, uint64_t *ms);
/* A whole number, then k, m, g (powers of 1024) or nothing. */
bool value_size(struct bytes text, uint64_t *bytes);
/* A size for each second, "500" or "500/s". */
bool value_rate(struct bytes text, uint64_t *per_s);
/* A whole number, "100" or "100/s". */
bool value_frequency(struct bytes text, uint64_t *per_s);
/* "on" or "off". */
bool value_switch(struct bytes text, uint64_t *on);

/* As much of a text as a message should repeat. */
static inline struct bytes value_shown(struct bytes text) { return bytes_slice(text, 0, 80); }

/* Takes the next item off a list separated by blanks or commas; empty items do not count. */
bool value_next(struct bytes *rest, struct bytes *item);
/* Takes the next word off a text separated by blanks only. */
bool value_word(struct bytes *rest, struct bytes *item);
/* "NAME: VALUE" split at the first colon, both trimmed; false without a colon. */
bool value_field(struct bytes text, struct bytes *name, struct bytes *value);

/* Of a section: letters, digits, "_", "." and "-", at least one. */
bool value_is_name(struct bytes text);
/* RFC 9110 section 5.6.2. */
bool value_is_token(struct bytes text);
/* A host of a route: a name, "*." and a name, an IPv4 address or an IPv6 one in brackets. No port.
 */
bool value_is_host_pattern(struct bytes text);
/* "/" and visible ASCII or bytes over 127, without "?" and "#" (RFC 3986 section 3.3). */
bool value_is_path(struct bytes text);
/* RFC 9110 section 8.3.1 without parameters: type/subtype, or a star as subtype. */
bool value_is_media_range(struct bytes text);

#endif
