/* The SDK for Lantern projections in C and C++. README.md has a complete example.
 *
 * Errors within a call are kept. If a function fails, it returns zero, an empty text or a row that
 * is not stored, and so do all later functions. When `apply` returns, the event is parked with the
 * message of the first error. So a projection needs to call `lantern_failed()` only if it would
 * otherwise do much work for nothing.
 */
#ifndef LANTERN_H
#define LANTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Text: UTF-8 bytes that need not end with a zero. */
typedef struct {
    const char *at;
    size_t length;
} lantern_text;

/* Microseconds since 1970-01-01T00:00:00Z. */
typedef int64_t lantern_time;

#define LANTERN_SECOND INT64_C(1000000)
#define LANTERN_MINUTE (60 * LANTERN_SECOND)
#define LANTERN_HOUR (60 * LANTERN_MINUTE)
#define LANTERN_DAY (24 * LANTERN_HOUR)

/* The text of a C string. */
lantern_text lantern_text_of(const char *string);
bool lantern_same(lantern_text a, lantern_text b);
/* Whether `text` equals a C string. */
bool lantern_is(lantern_text text, const char *string);
/* Less than, equal to or greater than 0, by bytes. */
int lantern_compare(lantern_text a, lantern_text b);

/* ---- Kinds and fields ------------------------------------------------------------ */

typedef enum {
    LANTERN_INTEGER,     /* int64_t */
    LANTERN_NUMBER,      /* double */
    LANTERN_TEXT,        /* lantern_text */
    LANTERN_BOOLEAN,     /* bool */
    LANTERN_TIMESTAMP,   /* lantern_time */
    LANTERN_JSON,        /* lantern_text, JSON */
    LANTERN_DISTINCT,    /* lantern_distinct */
    LANTERN_PERCENTILES, /* lantern_percentiles */
} lantern_kind;

typedef enum {
    LANTERN_SAME,
    LANTERN_SUM,
    LANTERN_MIN,
    LANTERN_MAX,
    LANTERN_NEWEST,
    LANTERN_SKETCH, /* what sketches have */
} lantern_merge;

/* Values that may be missing: `null` in the row. A text or JSON that may be missing is a
 * lantern_text with `at` == NULL. */
typedef struct { bool set; int64_t value; } lantern_maybe_integer;
typedef struct { bool set; double value; } lantern_maybe_number;
typedef struct { bool set; bool value; } lantern_maybe_boolean;
typedef struct { bool set; lantern_time value; } lantern_maybe_time;

/* A field of a row: a member of a struct. Build it with LANTERN_FIELD or LANTERN_MAYBE. */
typedef struct {
    const char *name;
    lantern_kind kind;
    lantern_merge merge;
    const char *unit;
    size_t offset;
    bool maybe;
} lantern_field;

/* A field for the member `name` of the struct `row`, such as LANTERN_FIELD(struct product,
 * cents, LANTERN_INTEGER, LANTERN_SUM, "cent"). */
#define LANTERN_FIELD(row, name, kind, merge, unit) \
    { #name, kind, merge, unit, offsetof(row, name), false }
/* A field for a member that may be missing; otherwise like LANTERN_FIELD. */
#define LANTERN_MAYBE(row, name, kind, merge, unit) \
    { #name, kind, merge, unit, offsetof(row, name), true }

/* ---- Tables ------------------------------------------------------------------------ */

struct lantern_cache;

/* A table, in a static variable. The rows of a public table are structs with `fields`. The
 * rows of a private table are structs with `fields` or, if it has no fields, bytes. */
typedef struct {
    const char *name;
    const char *description;
    const lantern_field *fields;
    size_t field_count;
    size_t row_bytes; /* sizeof of the struct */
    bool is_private;
    bool per_tenant;
    const char *newest_by; /* or NULL */
    int64_t retention;     /* in microseconds; 0 is for ever */
    size_t cache_rows;     /* rows kept in memory; 0 is 32,768 */
    /* The SDK's own. */
    uint32_t id;
    struct lantern_cache *cache;
} lantern_table;

/* A public table `name` with rows of the struct `row` and the array `fields`. */
#define LANTERN_TABLE(name, description, row, fields) \
    { name, description, fields, sizeof(fields) / sizeof(fields[0]), sizeof(row), false, false, NULL, 0, 0, 0, NULL }
/* A private table `name`, which readers cannot see; otherwise like LANTERN_TABLE. */
#define LANTERN_PRIVATE(name, row, fields) \
    { name, "", fields, sizeof(fields) / sizeof(fields[0]), sizeof(row), true, false, NULL, 0, 0, 0, NULL }
/* A private table of bytes. */
#define LANTERN_BYTES(name) { name, "", NULL, 0, sizeof(lantern_text), true, false, NULL, 0, 0, 0, NULL }

/* The row under `key`; NULL if there is none. The row is valid until the next call for this
 * table. Do not change it. */
const void *lantern_get(lantern_table *table, lantern_text key);
/* The row under `key`, to change; if there is none, a new row, all zero. Sets `*is_new` to
 * whether the row is new, unless `is_new` is NULL. Never returns NULL. The row is valid
 * until the next call for this table. */
void *lantern_row(lantern_table *table, lantern_text key, bool *is_new);
/* Deletes the row under `key`, if there is one. */
void lantern_delete(lantern_table *table, lantern_text key);
/* Reads the rows of these keys in one call of the host, so that later reads of these rows need no
 * call. Call it from `prepare`, if a table has many more rows than its cache. */
void lantern_prefetch(lantern_table *table, const lantern_text *keys, size_t count);

/* Bytes under `key` of a table without fields; `at` is NULL if there is no row. */
lantern_text lantern_get_bytes(lantern_table *table, lantern_text key);
void lantern_put_bytes(lantern_table *table, lantern_text key, lantern_text bytes);

/* Sets a text or JSON of a row to a copy of `text`. Never assign a text to a row with `=`: the row
 * must own the copy. JSON is brought into the form that rows have. */
void lantern_set_text(lantern_text *field, lantern_text text);
void lantern_set_json(lantern_text *field, lantern_text json);
/* Sets a text that may be missing to no value. */
void lantern_unset(lantern_text *field);

/* A scan: the keys from `start` up to but not including `end` (empty: no bound), at most
 * `limit` rows, last first if `reverse`. It sees what this call has written. */
typedef struct {
    lantern_text key;
    const void *row; /* of the table's struct, or a lantern_text of bytes */
} lantern_found;
/* Returns the number of rows, and their array, valid until the end of the call. */
size_t lantern_scan(lantern_table *table, lantern_text start, lantern_text end, uint32_t limit,
                    bool reverse, const lantern_found **rows);

/* ---- Keys -------------------------------------------------------------------------- */

/* Builds a key of parts with `/` between them, and `/` and `%` within a part escaped. The
 * result is valid until the end of the call. */
typedef struct {
    char *at;
    size_t length, room, parts;
} lantern_key;
void lantern_part(lantern_key *key, lantern_text part);
void lantern_part_time(lantern_key *key, lantern_time time);
/* Padded to 20 digits, so that keys sort as numbers do. */
void lantern_part_unsigned(lantern_key *key, uint64_t number);
lantern_text lantern_key_text(const lantern_key *key);
/* Two parts: `lantern_key_of(lantern_time_text(minute), user)`. */
lantern_text lantern_key_of(lantern_text first, lantern_text second);
/* A key of a per-tenant table or of a tenant's timer. */
lantern_text lantern_in_tenant(lantern_text tenant, lantern_text key);

/* ---- Times ------------------------------------------------------------------------- */

/* RFC 3339 in UTC, as in rows. Valid until the end of the call. */
lantern_text lantern_time_text(lantern_time time);
/* The last multiple of `step` at or before `time`. */
lantern_time lantern_floor(lantern_time time, int64_t step);

typedef struct { lantern_time start, end; } lantern_window;

/* A zone of the IANA database since 1970. */
typedef struct lantern_zone lantern_zone;
/* The zone with this name; NULL if there is none. It is found once and stays in memory. */
const lantern_zone *lantern_zone_named(lantern_text name);
/* The hour, day, week (from Monday), month or year that contains `time`. */
lantern_window lantern_zone_hour(const lantern_zone *zone, lantern_time time);
lantern_window lantern_zone_day(const lantern_zone *zone, lantern_time time);
lantern_window lantern_zone_week(const lantern_zone *zone, lantern_time time);
lantern_window lantern_zone_month(const lantern_zone *zone, lantern_time time);
lantern_window lantern_zone_year(const lantern_zone *zone, lantern_time time);
/* The seconds by which its clocks are ahead of UTC. */
int32_t lantern_zone_offset(const lantern_zone *zone, lantern_time time);
/* The date on its clocks: `2026-03-29`. Valid until the end of the call. */
lantern_text lantern_zone_date(const lantern_zone *zone, lantern_time time);

/* ---- Sketches ----------------------------------------------------------------------- */

/* Sketches are members of row structs; all zero is empty. */
typedef struct { uint64_t *entries; uint32_t count, room; uint8_t *registers; } lantern_distinct;
void lantern_distinct_add(lantern_distinct *sketch, lantern_text value);
void lantern_distinct_add_integer(lantern_distinct *sketch, int64_t value);
uint64_t lantern_distinct_estimate(const lantern_distinct *sketch);

typedef struct { int32_t bucket; uint64_t count; } lantern_bucket;
typedef struct { lantern_bucket *buckets; uint32_t count, room; int64_t min, max; } lantern_percentiles;
void lantern_percentiles_add(lantern_percentiles *sketch, int64_t value);
/* Adds `value` times `scale`, rounded. An error if it does not fit. */
void lantern_percentiles_add_number(lantern_percentiles *sketch, double value, uint32_t scale);
/* The percentile, or 0 if there are no values. */
int64_t lantern_percentile(const lantern_percentiles *sketch, unsigned percent);
uint64_t lantern_percentiles_count(const lantern_percentiles *sketch);

/* ---- Events and timers --------------------------------------------------------------- */

/* An event. Texts of attributes that the manifest does not ask for are empty. */
typedef struct {
    lantern_text type;
    lantern_time time;
    lantern_time watermark; /* INT64_MIN before the first event */
    uint64_t offset;
    lantern_text id, source, subject, tenant, dataschema, datacontenttype, extensions, data;
    /* The SDK's own. */
    size_t index;
} lantern_event;

typedef struct {
    lantern_text key;    /* without the tenant */
    lantern_text tenant; /* empty if it has none */
    lantern_time at;
    lantern_time watermark;
    uint64_t offset; /* of the event that set it */
    /* The SDK's own. */
    lantern_text full_key;
} lantern_timer;

/* A member of the events' data that the host decodes. */
typedef struct {
    const char *name;
    lantern_kind kind;
} lantern_member;

/* Whether the event has the member `index` of the manifest. A value of another kind than
 * the declared one is an error. */
bool lantern_has(const lantern_event *event, size_t index);
/* The value of the member `index`; an error if the member is missing or of another kind. */
int64_t lantern_integer(const lantern_event *event, size_t index);
double lantern_number(const lantern_event *event, size_t index);
lantern_text lantern_text_member(const lantern_event *event, size_t index);
bool lantern_boolean(const lantern_event *event, size_t index);
lantern_time lantern_timestamp(const lantern_event *event, size_t index);
/* The JSON as it was sent. */
lantern_text lantern_json(const lantern_event *event, size_t index);
/* Values that may be missing. */
lantern_maybe_integer lantern_maybe_integer_of(const lantern_event *event, size_t index);
lantern_maybe_number lantern_maybe_number_of(const lantern_event *event, size_t index);
lantern_maybe_boolean lantern_maybe_boolean_of(const lantern_event *event, size_t index);
lantern_maybe_time lantern_maybe_time_of(const lantern_event *event, size_t index);
lantern_text lantern_maybe_text_of(const lantern_event *event, size_t index);

/* Sets or moves the timer of this key; it fires when the watermark reaches `at`. */
void lantern_set_timer(lantern_time at, lantern_text key);
void lantern_cancel_timer(lantern_text key);

/* Appends an event to the log when the call has succeeded. `data` is JSON. */
void lantern_emit(const char *type, lantern_text subject, lantern_time time, lantern_text data);

/* Sums and products; an error if the result does not fit. */
int64_t lantern_add(int64_t a, int64_t b);
int64_t lantern_multiply(int64_t a, int64_t b);

/* Fails the event: the event is parked with this message, and its changes of rows, timers and
 * emitted events are undone. If there are several messages, the first one counts. In `on_timer` and
 * `prepare`, the whole call fails. */
void lantern_fail(const char *message);
void lantern_fail_text(const char *message, lantern_text quoted);
bool lantern_failed(void);

typedef enum { LANTERN_TRACE, LANTERN_DEBUG, LANTERN_INFO, LANTERN_WARN, LANTERN_ERROR } lantern_level;
void lantern_log(lantern_level level, const char *message);
void lantern_log_text(lantern_level level, lantern_text message);

/* ---- Building JSON -------------------------------------------------------------------- */

/* JSON text in the form that rows have. Valid until the end of the call. */
typedef struct {
    char *at;
    size_t length, room;
} lantern_writer;
void lantern_write(lantern_writer *writer, const char *json); /* unchanged */
void lantern_write_text(lantern_writer *writer, lantern_text text);
void lantern_write_integer(lantern_writer *writer, int64_t value);
void lantern_write_number(lantern_writer *writer, double value);
void lantern_write_time(lantern_writer *writer, lantern_time time);
lantern_text lantern_written(const lantern_writer *writer);

/* ---- Parameters ------------------------------------------------------------------------ */

/* For `setup`: the value of a parameter, or `otherwise` if the parameter is missing. A
 * value of another kind fails `setup`. */
lantern_text lantern_parameter_text(const char *name, const char *otherwise);
int64_t lantern_parameter_integer(const char *name, int64_t otherwise);
double lantern_parameter_number(const char *name, double otherwise);
bool lantern_parameter_boolean(const char *name, bool otherwise);
/* Fails `setup` if there is a parameter of another name. The list ends with NULL. */
void lantern_only_parameters(const char *const *names);

/* ---- Windows --------------------------------------------------------------------------- */

/* The windows of `size` that begin every `hop`, from 1970-01-01T00:00:00Z, and contain
 * `time`. Tumbling windows have `hop` == `size`. Fills `windows`, oldest first, and returns
 * their number. */
size_t lantern_windows_of(int64_t size, int64_t hop, lantern_time time, lantern_window *windows,
                          size_t most);

/* Final tumbling and hopping windows: `open` is a private table with the values collected so far.
 * `lantern_window_row` returns the row of an open window. If the window is closed, the event is
 * late for this window, and the function returns NULL. */
void *lantern_window_row(const lantern_event *event, lantern_table *open, lantern_window window,
                         lantern_text key);
typedef struct {
    lantern_window window;
    lantern_text tenant, key;
    const void *row;
} lantern_closed;
/* Removes the windows that end with this timer from the table, and returns them; 0 if the timer
 * does not belong to this table. They are valid until the end of the call. */
size_t lantern_close_windows(const lantern_timer *timer, lantern_table *open,
                             const lantern_closed **closed);

/* Final sessions of a key: `open` is a private table that is declared with LANTERN_BYTES. A session
 * has the number of its events and the sum of their values. Returns false if the event is late. */
bool lantern_session_add(const lantern_event *event, lantern_table *open, int64_t gap,
                         lantern_text key, int64_t value);
typedef struct {
    lantern_window window;
    lantern_text tenant, key;
    int64_t events, sum;
} lantern_session;
size_t lantern_close_sessions(const lantern_timer *timer, lantern_table *open,
                              const lantern_session **closed);

/* Sliding windows of a key: a private table made with LANTERN_BYTES. */
typedef struct {
    lantern_time at; /* the last moment of the window */
    int64_t events, sum;
} lantern_slide;
/* Adds a value; `*slide` is then the window that ends with the key's newest value. Returns
 * false if the event is late. */
bool lantern_recent_add(const lantern_event *event, lantern_table *recent, int64_t size,
                        lantern_text key, int64_t value, lantern_slide *slide);
typedef struct {
    lantern_text tenant, key;
    lantern_slide current; /* at the watermark or, if that is later, the newest value */
    const lantern_slide *settled; /* windows that can no longer change, each once */
    size_t settled_count;
} lantern_advanced;
/* Returns false if the timer is not one of the table's. */
bool lantern_recent_advance(const lantern_timer *timer, lantern_table *recent,
                            lantern_advanced *advanced);

/* ---- The projection ---------------------------------------------------------------------- */

typedef enum { LANTERN_PARK_SUBJECT, LANTERN_PARK_EVENT, LANTERN_HALT } lantern_on_failure;

enum {
    LANTERN_ID = 1,
    LANTERN_SOURCE = 2,
    LANTERN_EVENT_SUBJECT = 4,
    LANTERN_TENANT = 8,
    LANTERN_DATASCHEMA = 16,
    LANTERN_DATACONTENTTYPE = 32,
    LANTERN_EXTENSIONS = 64,
    LANTERN_DATA = 128,
};

/* The definition of a projection. Define `const lantern_projection lantern_the_projection`. */
typedef struct {
    const char *name, *version, *description;
    const char *const *subscribes; /* ends with NULL, as the other lists of texts */
    uint32_t attributes;           /* LANTERN_ID | … */
    const lantern_member *members;
    size_t member_count;
    lantern_table *const *tables; /* ends with NULL; public ones first */
    const char *const *emits;     /* or NULL */
    int64_t allowed_lateness, tick; /* `tick` 0: no event time */
    lantern_on_failure on_failure;
    const char *parameters; /* a JSON Schema, or NULL */
    /* Reads the parameters and fails if they are wrong. May be NULL. */
    void (*setup)(void);
    void (*apply)(const lantern_event *event);
    void (*on_timer)(const lantern_timer *timer); /* may be NULL */
    /* Sees all events of a batch before the first is applied. May be NULL. */
    void (*prepare)(const lantern_event *events, size_t count);
} lantern_projection;

extern const lantern_projection lantern_the_projection;

#ifdef __cplusplus
}
#endif
#endif
