#include "config/ini.h"

#include "config/suggest.h"
#include "config/value.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

/* What inih would do in silence, and why every line passes through here first: it cuts lines at its
 * buffer (200 bytes by default) and section names at 49, ends a line at a NUL byte, takes an
 * indented line as a continuation of the one before and "key: value" as "key = value", knows no "#"
 * after a value and no quotes, tells of a line without
 * "=" only by the number of the first, and never of a section that is empty. Its reader gets lines
 * that are cut to what matters; what it must not see becomes an empty line. */
struct reading {
    struct memory *memory;
    struct faults *faults;
    struct ini_file *ini;
    FILE *stream;
    char *line; /* getline(3)'s */
    size_t line_size;
    uint32_t line_number;
    bool is_skipping; /* the section is none of ours: its keys are not looked at */
};

static struct ini_section *current_section(struct reading *r) {
    return r->ini->section_count == 0 ? NULL : &r->ini->sections[r->ini->section_count - 1];
}

static struct fault_place place_of(const struct reading *r, const char *section, const char *key) {
    return (struct fault_place){r->line_number, section, key};
}

static void explain_section(struct bytes word, struct writer *why) {
    if (section_is_later(word)) {
        writer_print(why, "not supported by this version");
        return;
    }
    struct suggest suggest;
    suggest_init(&suggest, word);
    for (unsigned i = 0; i < SECTION_COUNT; i++) {
        suggest_offer(&suggest, bytes_of(section_word((enum section_kind)i)));
    }
    writer_print(why, "unknown section");
    if (suggest.best.len == 0) return;
    writer_print(why, " (did you mean \"%.*s\"?)", BYTES_FMT(suggest.best));
}

/* Checks "word" or "word name"; false with a sentence in `why`. */
static bool read_title(struct bytes title, enum section_kind *kind, struct bytes *name,
                       struct writer *why) {
    struct bytes rest = title;
    struct bytes word = BYTES_NONE;
    (void)value_word(&rest, &word); /* none: an empty title, which is no section we know */
    if (!section_find(word, kind)) {
        explain_section(word, why);
        return false;
    }
    *name = bytes_trim(rest);
    if (!section_is_named(*kind)) {
        if (name->len == 0) return true;
        writer_print(why, "this section takes no name");
        return false;
    }
    if (name->len == 0) {
        writer_print(why, "a name is missing, as in [%s NAME]", section_word(*kind));
        return false;
    }
    if (value_is_name(*name)) return true;
    writer_print(why, "the name may have letters, digits, \"_\", \".\" and \"-\" only");
    return false;
}

static void add_section(struct reading *r, enum section_kind kind, struct bytes name) {
    struct ini_file *ini = r->ini;
    const struct ini_section *same = ini_section_find(ini, kind, name);
    ini->sections =
        memory_grow(r->memory, ini->sections, ini->section_count, sizeof(struct ini_section));
    struct ini_section *section = &ini->sections[ini->section_count++];
    *section = (struct ini_section){.kind = kind,
                                    .name = memory_string(r->memory, name),
                                    .line = r->line_number,
                                    .ordinal = ini->kind_counts[kind]++};
    /* With one space between word and name, however it was written. */
    char title[INI_TITLE_SIZE_MAX + 1];
    int size = snprintf(title, sizeof title, "%s%s%s", section_word(kind), name.len ? " " : "",
                        section->name);
    section->title = memory_string(r->memory, bytes_make(title, (size_t)size));
    if (same) {
        faults_add(r->faults, place_of(r, section->title, NULL),
                   "duplicate section, the first is in line %u", same->line);
    }
}

/* `line` begins with "[". */
static void take_section(struct reading *r, struct bytes line) {
    r->is_skipping = true;
    size_t end = bytes_find(line, ']');
    if (end == line.len) {
        faults_add(r->faults, place_of(r, NULL, NULL),
                   "\"]\" is missing at the end of the section's name");
        return;
    }
    struct bytes title = bytes_trim(bytes_slice(line, 1, end - 1));
    char *shown = memory_string(r->memory, bytes_slice(title, 0, INI_TITLE_SIZE_MAX));
    if (title.len > INI_TITLE_SIZE_MAX) {
        faults_add(r->faults, place_of(r, shown, NULL),
                   "the section's name is longer than %d bytes", INI_TITLE_SIZE_MAX);
        return;
    }
    if (end + 1 != line.len) {
        faults_add(r->faults, place_of(r, shown, NULL), "text after \"]\"");
    }
    enum section_kind kind;
    struct bytes name;
    char text[256];
    struct writer why = writer_make(text, sizeof text);
    if (!read_title(title, &kind, &name, &why)) {
        faults_add(r->faults, place_of(r, shown, NULL), "%.*s", BYTES_FMT(writer_bytes(&why)));
        return;
    }
    r->is_skipping = false;
    add_section(r, kind, name);
}

/* The line without a comment that follows a blank outside quotes, trimmed; false when a quote stays
 * open. */
static bool cut_comment(struct bytes *line) {
    bool in_quotes = false;
    for (size_t i = 0; i < line->len; i++) {
        char c = line->ptr[i];
        if (c == '"') in_quotes = !in_quotes;
        bool after_blank = i == 0 || line->ptr[i - 1] == ' ' || line->ptr[i - 1] == '\t';
        if (in_quotes || !after_blank || (c != ';' && c != '#')) continue;
        line->len = i;
        break;
    }
    *line = bytes_trim(*line);
    return !in_quotes;
}

static bool has_control_byte(struct bytes line) {
    for (size_t i = 0; i < line.len; i++) {
        unsigned char c = (unsigned char)line.ptr[i];
        if ((c < ' ' && c != '\t') || c == 0x7f) return true;
    }
    return false;
}

/* What inih shall see of a line: nothing, a section or "key = value". */
static struct bytes take_line(struct reading *r, struct bytes line) {
    bool is_first = r->line_number == 1;
    if (is_first && bytes_starts_with(line, BYTES("\xef\xbb\xbf"))) {
        line = bytes_slice(line, 3, line.len);
    }
    if (line.len != 0 && line.ptr[line.len - 1] == '\n') line.len--;
    if (line.len != 0 && line.ptr[line.len - 1] == '\r') line.len--;
    const char *wrong = NULL;
    if (line.len > INI_LINE_SIZE_MAX) {
        wrong = "the line is longer than 8192 bytes";
    } else if (has_control_byte(line)) {
        wrong = "the line has a control byte";
    } else if (!cut_comment(&line)) {
        wrong = "a double quote is never closed";
    }
    if (!wrong) {
        if (line.len == 0) return BYTES_NONE;
        if (line.ptr[0] == '[') {
            take_section(r, line);
            return r->is_skipping ? BYTES_NONE : line;
        }
        size_t sign = bytes_find(line, '=');
        bool is_pair = sign != line.len && sign != 0 && bytes_find(line, ':') > sign;
        if (is_pair) return r->is_skipping ? BYTES_NONE : line;
        wrong = "expected \"key = value\" or \"[section]\"";
    }
    const struct ini_section *section = current_section(r);
    const char *title = section && !r->is_skipping ? section->title : NULL;
    faults_add(r->faults, place_of(r, title, NULL), "%s", wrong);
    return BYTES_NONE;
}

/* inih's fgets: one line a call, so that the handler runs while line_number is still that line's.
 */
static char *next_line(char *buffer, int size, void *stream) {
    struct reading *r = stream;
    ssize_t got = getline(&r->line, &r->line_size, r->stream);
    if (got < 0) return NULL;
    r->line_number++;
    struct bytes line = take_line(r, bytes_make(r->line, (size_t)got));
    /* Cannot happen while inih's buffer is as long as ini_read asks for. */
    if (line.len + 2 > (size_t)size) line = BYTES_NONE;
    if (line.len != 0) memcpy(buffer, line.ptr, line.len);
    buffer[line.len] = '\n';
    buffer[line.len + 1] = '\0';
    return buffer;
}

/* Takes the quotes off a value that begins with one; false when text follows the closing one. */
static bool unquote(struct bytes *value, bool *is_quoted) {
    *is_quoted = value->len != 0 && value->ptr[0] == '"';
    if (!*is_quoted) return true;
    struct bytes inner = bytes_slice(*value, 1, value->len);
    size_t end = bytes_find(inner, '"');
    *value = bytes_slice(inner, 0, end);
    return end + 1 == inner.len;
}

static void add_entry(struct reading *r, struct ini_section *section, const struct key *key,
                      const char *text) {
    struct fault_place place = place_of(r, section->title, key->name);
    struct bytes value = bytes_of(text);
    bool is_quoted;
    if (!unquote(&value, &is_quoted)) {
        faults_add(r->faults, place, "text after the closing double quote");
    }
    struct bytes rest = value;
    struct bytes item;
    bool has_items = is_quoted ? value.len != 0 : value_next(&rest, &item);
    bool may_be_empty = is_quoted && key->id == KEY_BODY;
    if (!has_items && !may_be_empty) faults_add(r->faults, place, "the value is empty");
    const struct ini_entry *same = ini_find(section, key->id);
    if (same && key->kind != KIND_LIST) {
        faults_add(r->faults, place, "duplicate key, the first is in line %u", same->line);
    }
    section->entries =
        memory_grow(r->memory, section->entries, section->entry_count, sizeof(struct ini_entry));
    section->entries[section->entry_count++] =
        (struct ini_entry){.key = key,
                           .value = memory_bytes(r->memory, value),
                           .is_quoted = is_quoted,
                           .line = r->line_number};
}

static int on_pair(void *user, const char *title, const char *name, const char *value) {
    (void)title; /* take_section has read it already, uncut */
    struct reading *r = user;
    struct ini_section *section = current_section(r);
    if (!section) {
        faults_add(r->faults, place_of(r, NULL, NULL), "%.*s: stands before the first [section]",
                   BYTES_FMT(value_shown(bytes_of(name))));
        return 1;
    }
    const struct key *key = key_find(section->kind, bytes_of(name));
    if (key) {
        add_entry(r, section, key, value);
        return 1;
    }
    char text[256];
    struct writer why = writer_make(text, sizeof text);
    key_explain_unknown(section->kind, bytes_of(name), &why);
    char *shown = memory_string(r->memory, value_shown(bytes_of(name)));
    faults_add(r->faults, place_of(r, section->title, shown), "%.*s",
               BYTES_FMT(writer_bytes(&why)));
    return 1;
}

/* fopen(3) opens a directory as well, and reading it then looks like an empty file. */
static FILE *open_file(const char *file, int *error) {
    FILE *stream = fopen(file, "re");
    struct stat status;
    *error = 0;
    if (!stream || fstat(fileno(stream), &status) != 0) {
        *error = errno;
    } else if (S_ISDIR(status.st_mode)) {
        *error = EISDIR;
    }
    if (*error == 0) return stream;
    if (stream) (void)fclose(stream); /* nothing was written */
    return NULL;
}

void ini_read(const char *file, struct memory *memory, struct faults *faults,
              struct ini_file *ini) {
    *ini = (struct ini_file){0};
    struct fault_place whole = {0, NULL, NULL};
    int error;
    struct reading reading = {.memory = memory, .faults = faults, .ini = ini};
    reading.stream = open_file(file, &error);
    if (!reading.stream) {
        faults_add(faults, whole, "cannot read: %s", strerror(error));
        return;
    }
    /* Debian's inih keeps its options in variables. Room for a line, "\n" and the NUL. */
    ini_use_stack = false;
    ini_allow_realloc = false;
    ini_max_line = ini_initial_alloc = INI_LINE_SIZE_MAX + 2;
    ini_allow_multiline = false;
    ini_allow_inline_comments = false;
    ini_allow_no_value = false;
    ini_stop_on_first_error = false;
    /* A line number here would be of a line that take_line let pass and inih does not understand:
     * none. */
    if (ini_parse_stream(next_line, &reading, on_pair, &reading) != 0) {
        faults_add(faults, whole, "cannot parse");
    }
    if (ferror(reading.stream)) faults_add(faults, whole, "cannot read: %s", strerror(errno));
    free(reading.line);
    (void)fclose(reading.stream); /* nothing was written */
}

struct ini_entry *ini_find(const struct ini_section *section, enum key_id key) {
    for (uint32_t i = 0; i < section->entry_count; i++) {
        if (section->entries[i].key->id == key) return &section->entries[i];
    }
    return NULL;
}

const struct ini_entry *ini_next(const struct ini_section *section, enum key_id key,
                                 const struct ini_entry *entry) {
    uint32_t i = entry ? (uint32_t)(entry - section->entries) + 1 : 0;
    for (; i < section->entry_count; i++) {
        if (section->entries[i].key->id == key) return &section->entries[i];
    }
    return NULL;
}

const struct ini_section *ini_section_find(const struct ini_file *ini, enum section_kind kind,
                                           struct bytes name) {
    for (uint32_t i = 0; i < ini->section_count; i++) {
        const struct ini_section *section = &ini->sections[i];
        if (section->kind == kind && bytes_equal(bytes_of(section->name), name)) return section;
    }
    return NULL;
}
