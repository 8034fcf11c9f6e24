/* The contract's functions in Wasm, by the canonical ABI of components. The host wraps the
 * module as a component. docs/guide/by-hand.md explains the layout. */
#ifdef __wasm__
#include "internal.h"

#include <string.h>

#define IMPORT(interface, name) \
    __attribute__((import_module("lantern:projection/" interface "@0.2.0"), import_name(name)))
#define EXPORT(name) __attribute__((export_name(name)))

/* The host writes the values that it passes into the call's memory. */
EXPORT("cabi_realloc") void *ln_realloc(void *old, size_t before, size_t align, size_t bytes) {
    (void)align;
    void *at = ln_take(bytes);
    if (before) memcpy(at, old, before);
    return at;
}

typedef struct { const uint32_t *ends; uint32_t count; const uint8_t *bytes; uint32_t length; } wit_column;
_Static_assert(sizeof(wit_column) == 16 && sizeof(ln_column) == 16, "a column is four words");
typedef struct { uint8_t some; lantern_text value; } wit_option;
_Static_assert(sizeof(lantern_text) == 8 && sizeof(wit_option) == 12 && sizeof(ln_row) == 16, "as in the canonical ABI");

IMPORT("tables", "get") void wit_get(uint32_t table, const char *key, size_t key_length, wit_option *found);
IMPORT("tables", "get-many") void wit_get_many(uint32_t table, const uint32_t *ends, uint32_t count, const uint8_t *bytes, uint32_t length, void *found);
IMPORT("tables", "put-many") void wit_put_many(const uint32_t *causes, uint32_t cause_count, uint32_t table, const uint32_t *key_ends, uint32_t keys, const uint8_t *key_bytes, uint32_t key_length, const uint32_t *ends, uint32_t count, const uint8_t *bytes, uint32_t length);
IMPORT("tables", "delete-many") void wit_delete_many(const uint32_t *causes, uint32_t cause_count, uint32_t table, const uint32_t *ends, uint32_t count, const uint8_t *bytes, uint32_t length);
IMPORT("tables", "scan") void wit_scan(uint32_t table, const char *start, size_t start_length, const char *end, size_t end_length, uint32_t limit, uint32_t reverse, void *found);
IMPORT("timers", "set") void wit_set_timer(uint32_t cause, int64_t at, const char *key, size_t length);
IMPORT("timers", "cancel") void wit_cancel_timer(uint32_t cause, const char *key, size_t length);
IMPORT("outbox", "emit") void wit_emit(const void *events, uint32_t count);
IMPORT("rejections", "reject") void wit_reject(uint32_t cause, const char *message, size_t length);
IMPORT("logging", "log") void wit_log(uint32_t cause, uint32_t level, const char *message, size_t length);

bool ln_host_get(uint32_t table, lantern_text key, lantern_text *value) {
    wit_option found;
    wit_get(table, key.at, key.length, &found);
    *value = found.value;
    return found.some;
}

void ln_host_get_many(uint32_t table, ln_column keys, const uint8_t **found, ln_column *values) {
    struct { const uint8_t *found; uint32_t count; ln_column values; } answer;
    wit_get_many(table, keys.ends, keys.count, keys.bytes, keys.length, &answer);
    *found = answer.found;
    *values = answer.values;
}

void ln_host_put_many(const uint32_t *causes, uint32_t table, ln_column keys, ln_column values) {
    wit_put_many(causes, keys.count, table, keys.ends, keys.count, keys.bytes, keys.length, values.ends, values.count, values.bytes, values.length);
}

void ln_host_delete_many(const uint32_t *causes, uint32_t table, ln_column keys) {
    wit_delete_many(causes, keys.count, table, keys.ends, keys.count, keys.bytes, keys.length);
}

size_t ln_host_scan(uint32_t table, lantern_text start, lantern_text end, uint32_t limit, bool reverse, const ln_row **rows) {
    struct { const ln_row *rows; uint32_t count; } answer;
    wit_scan(table, start.at, start.length, end.at, end.length, limit, reverse, &answer);
    *rows = answer.rows;
    return answer.count;
}

void ln_host_set_timer(uint32_t cause, lantern_time at, lantern_text key) { wit_set_timer(cause, at, key.at, key.length); }
void ln_host_cancel_timer(uint32_t cause, lantern_text key) { wit_cancel_timer(cause, key.at, key.length); }

void ln_host_emit(uint32_t cause, const char *type, lantern_text subject, lantern_time time, lantern_text data) {
    const struct { uint32_t cause; lantern_text type, subject, tenant; int64_t time; lantern_text data; } event = {
        cause, lantern_text_of(type), subject, { "", 0 }, time, data,
    };
    _Static_assert(sizeof event == 48, "as in the canonical ABI");
    wit_emit(&event, 1);
}

void ln_host_reject(uint32_t cause, lantern_text message) { wit_reject(cause, message.at, message.length); }
void ln_host_log(uint32_t cause, lantern_level level, lantern_text message) { wit_log(cause, level, message.at, message.length); }

/* ---- setup -------------------------------------------------------------------------------------- */

typedef struct { const void *at; uint32_t count; } wit_list;
typedef struct { uint32_t some; lantern_text value; } wit_optional_text;
typedef struct { lantern_text name; uint8_t kind; } wit_member;
typedef struct { lantern_text name; uint8_t kind; lantern_text unit; uint8_t merge; } wit_field;

typedef struct {
    lantern_text name, description;
    uint8_t is_public, per_tenant;
    wit_list fields;
    wit_optional_text newest_by;
    struct { uint64_t some, value; } retention;
    wit_list options;
} wit_table;

typedef struct {
    lantern_text name, version, description;
    wit_list subscribes;
    uint8_t attributes;
    wit_list members, tables, emits;
    struct { uint32_t some, value; } cycle_depth_max;
    struct { uint64_t some, allowed_lateness, tick; } event_time;
    uint8_t on_failure;
    wit_optional_text parameters;
    wit_list options;
} wit_manifest;

_Static_assert(sizeof(wit_field) == 24 && sizeof(wit_table) == 64 && sizeof(wit_manifest) == 120, "as in the canonical ABI");

static wit_list texts_of(const char *const *list) {
    uint32_t count = 0;
    while (list && list[count]) count++;
    lantern_text *texts = ln_take(count * sizeof *texts);
    for (uint32_t i = 0; i < count; i++) texts[i] = lantern_text_of(list[i]);
    return (wit_list){ texts, count };
}

static wit_optional_text optional(const char *text) {
    return (wit_optional_text){ text != NULL, text ? lantern_text_of(text) : (lantern_text){ "", 0 } };
}

static uint8_t merge_of(const lantern_field *field) {
    bool sketch = field->kind == LANTERN_DISTINCT || field->kind == LANTERN_PERCENTILES;
    return sketch ? LANTERN_SKETCH : field->merge;
}

static void describe_table(const lantern_table *table, wit_table *out) {
    wit_field *fields = ln_take(table->field_count * sizeof *fields);
    for (size_t i = 0; i < table->field_count; i++) {
        const lantern_field *field = &table->fields[i];
        fields[i] = (wit_field){ lantern_text_of(field->name), (uint8_t)field->kind, lantern_text_of(field->unit), merge_of(field) };
    }
    *out = (wit_table){
        .name = lantern_text_of(table->name),
        .description = lantern_text_of(table->description),
        .is_public = !table->is_private,
        .per_tenant = table->per_tenant,
        .fields = { fields, table->is_private ? 0 : (uint32_t)table->field_count },
        .newest_by = optional(table->newest_by),
        .retention = { table->retention > 0, (uint64_t)table->retention },
    };
}

static wit_manifest describe(void) {
    const lantern_projection *it = &lantern_the_projection;
    uint32_t tables = 0;
    uint32_t attributes = it->attributes;
    while (it->tables[tables]) attributes |= it->tables[tables++]->per_tenant ? LANTERN_TENANT : 0;
    wit_table *described = ln_take(tables * sizeof *described);
    for (uint32_t i = 0; i < tables; i++) describe_table(it->tables[i], &described[i]);
    wit_member *members = ln_take(it->member_count * sizeof *members);
    for (size_t i = 0; i < it->member_count; i++)
        members[i] = (wit_member){ lantern_text_of(it->members[i].name), (uint8_t)it->members[i].kind };
    return (wit_manifest){
        .name = lantern_text_of(it->name),
        .version = lantern_text_of(it->version),
        .description = lantern_text_of(it->description),
        .subscribes = texts_of(it->subscribes),
        .attributes = (uint8_t)attributes,
        .members = { members, (uint32_t)it->member_count },
        .tables = { described, tables },
        .emits = texts_of(it->emits),
        .event_time = { it->tick > 0, (uint64_t)it->allowed_lateness, (uint64_t)it->tick },
        .on_failure = (uint8_t)it->on_failure,
        .parameters = optional(it->parameters),
    };
}

EXPORT("lantern:projection/projector@0.2.0#setup") void *ln_wasm_setup(const char *parameters, size_t length) {
    static struct { uint64_t failed; union { wit_manifest manifest; lantern_text message; } value; } answer;
    answer.failed = !ln_setup((lantern_text){ parameters, length });
    if (answer.failed) answer.value.message = (lantern_text){ ln_call.message.at, ln_call.message.length };
    else answer.value.manifest = describe();
    return &answer;
}

/* Called when the host has read the answer. */
EXPORT("cabi_post_lantern:projection/projector@0.2.0#setup") void ln_after_setup(void *answer) { (void)answer; ln_release(); }
EXPORT("cabi_post_lantern:projection/projector@0.2.0#apply") void ln_after_apply(void *answer) { (void)answer; ln_release(); }

/* ---- apply ---------------------------------------------------------------------------------------- */

typedef struct {
    wit_list validity;
    uint8_t kind; /* of the values */
    union { wit_list list; ln_column column; } values;
    wit_list mismatched;
} wit_member_column;

typedef struct { int64_t at; lantern_text key; uint64_t offset; } wit_timer;

typedef struct {
    uint32_t partition;
    wit_list timers;
    int64_t watermark;
    wit_list offsets, times, watermarks, type_names, types;
    ln_column id, source, subject, tenant, dataschema, datacontenttype, extensions, data;
    wit_list members;
} wit_batch;

_Static_assert(sizeof(wit_member_column) == 36 && sizeof(wit_timer) == 24 && sizeof(ln_due) == 24, "as in the canonical ABI");
_Static_assert(offsetof(wit_batch, offsets) == 24 && offsetof(wit_batch, members) == 192, "as in the canonical ABI");

EXPORT("lantern:projection/projector@0.2.0#apply") void *ln_wasm_apply(const wit_batch *given) {
    static const lantern_kind kinds[] = { LANTERN_INTEGER, LANTERN_TIMESTAMP, LANTERN_NUMBER, LANTERN_BOOLEAN, LANTERN_TEXT, LANTERN_JSON };
    static struct {
        uint8_t failed;
        struct { uint8_t some; uint32_t cause; lantern_text message; } failure;
    } answer;
    _Static_assert(sizeof answer == 20, "as in the canonical ABI");
    const wit_member_column *columns = given->members.at;
    ln_member_column *members = ln_take(given->members.count * sizeof *members);
    for (uint32_t i = 0; i < given->members.count; i++) {
        const wit_member_column *column = &columns[i];
        bool texts = column->kind > 3;
        members[i] = (ln_member_column){
            kinds[column->kind], column->validity.at, texts ? NULL : column->values.list.at,
            texts ? column->values.column : (ln_column){ 0 }, column->mismatched.at, column->mismatched.count,
        };
    }
    const ln_batch batch = {
        given->timers.at, given->timers.count, given->watermark, given->offsets.at, given->offsets.count,
        given->times.at, given->watermarks.at, given->type_names.at, given->type_names.count, given->types.at,
        given->id, given->source, given->subject, given->tenant, given->dataschema, given->datacontenttype,
        given->extensions, given->data, members, given->members.count,
    };
    uint32_t cause = 0;
    answer.failed = !ln_apply(&batch, &cause);
    answer.failure.some = 1;
    answer.failure.cause = cause;
    answer.failure.message = (lantern_text){ ln_call.message.at, ln_call.message.length };
    return &answer;
}
#else
/* Otherwise `native.c` is the host. */
typedef int ln_nothing;
#endif
