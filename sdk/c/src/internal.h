/* The declarations that the parts of the SDK share. They are not for projections. */
#ifndef LANTERN_INTERNAL_H
#define LANTERN_INTERNAL_H

#include "lantern.h"

/* Memory of a call: released as a whole after it. */
void *ln_take(size_t bytes);
void ln_release(void);
/* Memory that stays. Aborts if there is none left. */
void *ln_new(size_t bytes);
void *ln_grow(void *old, size_t bytes);

/* Makes room for `more` elements of `bytes` each in a buffer that stays. */
#define LN_ROOM(at, count, room, more)                                                        \
    do {                                                                                      \
        if ((count) + (more) > (room)) {                                                      \
            (room) = ((count) + (more)) * 2 + 8;                                              \
            (at) = ln_grow((at), (room) * sizeof *(at));                                      \
        }                                                                                     \
    } while (0)

/* A growing text that stays. */
typedef struct {
    char *at;
    size_t length, room;
} ln_buffer;
void ln_put(ln_buffer *out, const void *bytes, size_t length);
void ln_put_char(ln_buffer *out, char byte);
void ln_put_string(ln_buffer *out, const char *string);
void ln_put_integer(ln_buffer *out, int64_t value);
void ln_put_unsigned(ln_buffer *out, uint64_t value);
void ln_put_number(ln_buffer *out, double value);
void ln_put_text(ln_buffer *out, lantern_text text); /* quoted and escaped */
void ln_put_time(ln_buffer *out, lantern_time time); /* not quoted */
lantern_text ln_copy(lantern_text text);              /* into the call's memory */
lantern_text ln_take_buffer(const ln_buffer *buffer); /* copied into the call's memory */

/* Reads JSON. `at` then points behind the text that was read. */
typedef struct {
    const char *at, *end;
} ln_reader;
void ln_space(ln_reader *reader);
bool ln_expect(ln_reader *reader, const char *what);
/* A quoted text, without escapes; copied into the call's memory if it has some. */
bool ln_read_text(ln_reader *reader, lantern_text *text);
/* The text of a number, and whether it has neither fraction nor exponent. */
bool ln_read_number(ln_reader *reader, lantern_text *text, bool *whole);
bool ln_integer_of(lantern_text text, int64_t *value);
bool ln_double_of(lantern_text text, double *value);
/* Passes any value. */
bool ln_pass(ln_reader *reader, int depth);
bool ln_read_time(lantern_text text, lantern_time *time);
/* Writes the JSON value in the form that rows have. */
bool ln_canonical(ln_reader *reader, ln_buffer *out, int depth);
/* Finds the value of the member `name` of an object; if the name is repeated, the last
 * value. Returns how often the name occurs, or -1 if the text is not an object. */
int ln_find_member(lantern_text object, const char *name, lantern_text *value);

#define LN_TIME_MIN (INT64_C(-62135596800) * LANTERN_SECOND)
#define LN_TIME_END (INT64_C(253402207200) * LANTERN_SECOND)

int64_t ln_floor_div(int64_t value, int64_t by);
/* Year, month and day of a day counted from 1970-01-01, and back. */
void ln_date_of(int64_t day, int64_t *year, int *month, int *date);
int64_t ln_day_of(int64_t year, int month, int date);

/* Sketches as JSON. */
void ln_put_distinct(ln_buffer *out, const lantern_distinct *sketch);
void ln_put_percentiles(ln_buffer *out, const lantern_percentiles *sketch);
bool ln_read_distinct(ln_reader *reader, lantern_distinct *sketch);
bool ln_read_percentiles(ln_reader *reader, lantern_percentiles *sketch);
void ln_free_distinct(lantern_distinct *sketch);
void ln_free_percentiles(lantern_percentiles *sketch);
/* Where a sketch stores the address of its memory, and how many bytes it uses there. */
void **ln_distinct_memory(lantern_distinct *sketch, size_t *bytes);
void **ln_percentiles_memory(lantern_percentiles *sketch, size_t *bytes);

/* The call in progress. */
extern struct ln_call {
    bool failed;
    bool fault;               /* failed for a reason other than the event and the rows */
    bool in_event;            /* what happens can be undone */
    ln_buffer message;
    uint32_t cause;           /* of what is written */
    bool in_setup;
    bool has_tenant;          /* whether rows of a tenant may be changed */
    lantern_text tenant;
    lantern_text parameters;
} ln_call;
void ln_set_timer(lantern_time at, lantern_text key);
/* If the key is one of a timer that the SDK has set for a table, gives the rest of the key;
 * otherwise false. */
bool ln_own_timer(const lantern_timer *timer, const lantern_table *table, lantern_text *rest);
/* Sets the SDK's own timer of a table. */
void ln_set_own_timer(const lantern_table *table, lantern_time at, lantern_text tenant, lantern_text rest);
/* Splits a key at U+0000; false if it is not a key. */
bool ln_split_tenant(lantern_text key, lantern_text *tenant, lantern_text *rest);
/* Sends all changed rows to the host. */
void ln_flush(void);
void ln_flush_table(lantern_table *table);
/* Checks the rows that the event changed. */
void ln_check_rows(void);
/* The end of an event: `ln_keep_rows` keeps the row changes of the event, `ln_undo_rows` undoes
 * them. `ln_undo_rows` returns false if some of the changes were already sent to the host, because
 * these cannot be undone. */
void ln_keep_rows(void);
bool ln_undo_rows(void);
void ln_open_tables(void);
/* Releases the rows that scans returned. */
void ln_release_scans(void);

/* ---- The host, in Wasm or in a native test ------------------------------------------- */

/* A column of byte strings, as in the contract. */
typedef struct {
    const uint32_t *ends;
    uint32_t count;
    const uint8_t *bytes;
    uint32_t length;
} ln_column;

typedef struct { lantern_text key, value; } ln_row;

typedef struct {
    lantern_kind kind; /* of the values: distinct and percentiles come as JSON */
    const uint8_t *validity;
    const void *values; /* int64_t, double or bits; NULL for columns */
    ln_column texts;
    const uint32_t *mismatched;
    uint32_t mismatched_count;
} ln_member_column;

typedef struct { lantern_time at; lantern_text key; uint64_t offset; } ln_due;

typedef struct {
    const ln_due *timers;
    uint32_t timer_count;
    lantern_time watermark;
    const uint64_t *offsets;
    uint32_t count;
    const int64_t *times, *watermarks;
    const lantern_text *type_names;
    uint32_t type_count;
    const uint16_t *types;
    ln_column id, source, subject, tenant, dataschema, datacontenttype, extensions, data;
    const ln_member_column *members;
    uint32_t member_count;
} ln_batch;

bool ln_host_get(uint32_t table, lantern_text key, lantern_text *value);
void ln_host_get_many(uint32_t table, ln_column keys, const uint8_t **found, ln_column *values);
void ln_host_put_many(const uint32_t *causes, uint32_t table, ln_column keys, ln_column values);
void ln_host_delete_many(const uint32_t *causes, uint32_t table, ln_column keys);
size_t ln_host_scan(uint32_t table, lantern_text start, lantern_text end, uint32_t limit, bool reverse, const ln_row **rows);
void ln_host_set_timer(uint32_t cause, lantern_time at, lantern_text key);
void ln_host_cancel_timer(uint32_t cause, lantern_text key);
void ln_host_emit(uint32_t cause, const char *type, lantern_text subject, lantern_time time, lantern_text data);
void ln_host_reject(uint32_t cause, lantern_text message);
void ln_host_log(uint32_t cause, lantern_level level, lantern_text message);

/* The contract's two functions. Both return false if the call failed. Then `ln_call.message` is the
 * message and, after `ln_apply`, `*cause` is the event or timer that caused the failure. */
bool ln_setup(lantern_text parameters);
bool ln_apply(const ln_batch *batch, uint32_t *cause);

lantern_text ln_value(ln_column column, size_t index);

#endif
