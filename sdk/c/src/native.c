/* The host in memory of lantern_test.h. */
#ifndef __wasm__
#include "internal.h"
#include "lantern_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLES_MAX 64

typedef struct { lantern_text key, value; } stored;
typedef struct { stored *rows; size_t count, room; } stored_table;
typedef struct { lantern_time due, at; lantern_text key; uint64_t offset; } armed;
typedef struct { lantern_text type, id, source, subject, tenant, data; lantern_time time, watermark; uint64_t offset; } event;
typedef struct { uint32_t table; lantern_text key, value; bool was; } change;

static stored_table tables[TABLES_MAX];
static armed *timers;
static size_t timer_count, timer_room;
static change *journal;
static size_t journal_count, journal_room;
static lantern_test_event *emitted;
static size_t emitted_count, emitted_room;
static struct { const char *id, *reason; } *parked;
static size_t parked_count, parked_room;
static size_t batch_max = 1000;
static bool drop_rows;
static const char *parameters_given;
static lantern_time newest, watermark;
static uint64_t next_offset;
/* The events that the call in progress rejects and, for each event and timer, whether a
 * write names it as its cause. */
typedef struct { size_t index; const char *reason; } rejected_event;
static rejected_event *rejected;
static size_t rejected_count, rejected_room;
static bool *wrote;
/* The timers and events that the call in progress reads. */
static const event *call_events;
static const armed *call_timers;
static size_t call_timer_count;

static lantern_text keep(lantern_text text) {
    char *at = ln_new(text.length + 1);
    if (text.length) memcpy(at, text.at, text.length);
    at[text.length] = 0;
    return (lantern_text){ at, text.length };
}

static void give_up(const char *why, const char *what) {
    fprintf(stderr, "lantern_test: %s: %s\n", why, what);
    exit(2);
}

/* ---- Rows ------------------------------------------------------------------------------------ */

static size_t place_of(const stored_table *table, lantern_text key, bool *found) {
    size_t low = 0, high = table->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (lantern_compare(table->rows[middle].key, key) < 0) low = middle + 1; else high = middle;
    }
    *found = low < table->count && lantern_same(table->rows[low].key, key);
    return low;
}

static void store(uint32_t id, lantern_text key, const lantern_text *value) {
    stored_table *table = &tables[id];
    bool found;
    size_t at = place_of(table, key, &found);
    if (found && value) {
        table->rows[at].value = *value;
    } else if (found) {
        table->count--;
        memmove(table->rows + at, table->rows + at + 1, (table->count - at) * sizeof *table->rows);
    } else if (value) {
        LN_ROOM(table->rows, table->count, table->room, 1);
        memmove(table->rows + at + 1, table->rows + at, (table->count - at) * sizeof *table->rows);
        table->rows[at] = (stored){ key, *value };
        table->count++;
    }
}

/* Notes that a write names the event or timer `cause` as its cause. It is a fault of the SDK if
 * this event was rejected, or comes after the event that ended the call. The program then ends. */
static void note_write(uint32_t cause) {
    wrote[cause] = true;
    for (size_t i = 0; i < rejected_count; i++) {
        size_t bad = call_timer_count + rejected[i].index;
        if (cause == bad || (cause > bad && lantern_the_projection.on_failure != LANTERN_PARK_EVENT))
            give_up("a rejected event is the cause of a write", call_events[rejected[i].index].id.at);
    }
}

static void write_row(uint32_t cause, uint32_t table, lantern_text key, const lantern_text *value) {
    lantern_text before;
    bool was = ln_host_get(table, key, &before);
    note_write(cause);
    if (key.length > 1024) {
        lantern_fail("a key is over the limit of 1,024 bytes");
        /* The fault may be in another event than the one in progress, so the whole call fails. */
        ln_call.fault = true;
        ln_call.cause = cause;
        return;
    }
    key = keep(key);
    LN_ROOM(journal, journal_count, journal_room, 1);
    journal[journal_count++] = (change){ table, key, before, was };
    lantern_text kept = value ? keep(*value) : key;
    store(table, key, value ? &kept : NULL);
}

bool ln_host_get(uint32_t table, lantern_text key, lantern_text *value) {
    bool found;
    size_t at = place_of(&tables[table], key, &found);
    *value = found ? tables[table].rows[at].value : (lantern_text){ NULL, 0 };
    return found;
}

void ln_host_get_many(uint32_t table, ln_column keys, const uint8_t **found, ln_column *values) {
    uint8_t *all = ln_take(keys.count);
    uint32_t *ends = ln_take(keys.count * sizeof *ends);
    ln_buffer bytes = { 0 };
    for (uint32_t i = 0; i < keys.count; i++) {
        lantern_text value;
        all[i] = ln_host_get(table, ln_value(keys, i), &value);
        if (all[i]) ln_put(&bytes, value.at, value.length);
        ends[i] = (uint32_t)bytes.length;
    }
    lantern_text copied = ln_take_buffer(&bytes);
    free(bytes.at);
    *found = all;
    *values = (ln_column){ ends, keys.count, (const uint8_t *)copied.at, (uint32_t)copied.length };
}

void ln_host_put_many(const uint32_t *causes, uint32_t table, ln_column keys, ln_column values) {
    for (uint32_t i = 0; i < keys.count && !ln_call.failed; i++) {
        lantern_text value = ln_value(values, i);
        write_row(causes[i], table, ln_value(keys, i), &value);
    }
}

void ln_host_delete_many(const uint32_t *causes, uint32_t table, ln_column keys) {
    for (uint32_t i = 0; i < keys.count && !ln_call.failed; i++) write_row(causes[i], table, ln_value(keys, i), NULL);
}

size_t ln_host_scan(uint32_t table, lantern_text start, lantern_text end, uint32_t limit, bool reverse, const ln_row **rows) {
    bool found;
    size_t first = place_of(&tables[table], start, &found);
    size_t after = end.length ? place_of(&tables[table], end, &found) : tables[table].count;
    size_t count = after > first ? after - first : 0;
    if (count > limit) count = limit;
    ln_row *all = ln_take((count + 1) * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        const stored *row = &tables[table].rows[reverse ? after - 1 - i : first + i];
        all[i] = (ln_row){ row->key, row->value };
    }
    *rows = all;
    return count;
}

/* ---- Timers, emitted events, the log ----------------------------------------------------------- */

static lantern_time watermark_at(uint32_t cause) { return cause < call_timer_count ? watermark : call_events[cause - call_timer_count].watermark; }
static uint64_t offset_at(uint32_t cause) { return cause < call_timer_count ? call_timers[cause].offset : call_events[cause - call_timer_count].offset; }

static void disarm(lantern_text key) {
    for (size_t i = 0; i < timer_count; i++)
        if (lantern_same(timers[i].key, key)) timers[i--] = timers[--timer_count];
}

void ln_host_cancel_timer(uint32_t cause, lantern_text key) {
    note_write(cause);
    disarm(key);
}

void ln_host_set_timer(uint32_t cause, lantern_time at, lantern_text key) {
    lantern_time from = watermark_at(cause);
    note_write(cause);
    for (size_t i = 0; i < timer_count; i++)
        if (timers[i].at == at && lantern_same(timers[i].key, key)) return;
    disarm(key);
    LN_ROOM(timers, timer_count, timer_room, 1);
    timers[timer_count++] = (armed){ from == INT64_MIN || at > from ? at : from + 1, at, keep(key), offset_at(cause) };
}

void ln_host_reject(uint32_t cause, lantern_text message) {
    bool again = rejected_count && (lantern_the_projection.on_failure != LANTERN_PARK_EVENT || rejected[rejected_count - 1].index + call_timer_count >= cause);
    if (cause < call_timer_count || wrote[cause] || again) give_up("an event was rejected that may not be", keep(message).at);
    LN_ROOM(rejected, rejected_count, rejected_room, 1);
    rejected[rejected_count++] = (rejected_event){ cause - call_timer_count, keep(message).at };
}

void ln_host_emit(uint32_t cause, const char *type, lantern_text subject, lantern_time time, lantern_text data) {
    note_write(cause);
    LN_ROOM(emitted, emitted_count, emitted_room, 1);
    emitted[emitted_count++] = (lantern_test_event){ lantern_text_of(type), keep(subject), time, keep(data) };
}

void ln_host_log(uint32_t cause, lantern_level level, lantern_text message) {
    (void)cause, (void)level;
    fprintf(stderr, "log: %.*s\n", (int)message.length, message.at);
}

/* ---- Calls ----------------------------------------------------------------------------------------- */

static void fresh_instance(void) {
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++) (*table)->cache = NULL;
    if (!ln_setup(lantern_text_of(parameters_given))) give_up("setup failed", "the second time");
}

static ln_column column_of(const event *events, size_t count, size_t member, bool wanted) {
    uint32_t *ends = ln_take((count + 1) * sizeof *ends);
    ln_buffer bytes = { 0 };
    for (size_t i = 0; i < count; i++) {
        const lantern_text *text = (const lantern_text *)((const char *)&events[i] + member);
        if (wanted) ln_put(&bytes, text->at, text->length);
        ends[i] = (uint32_t)bytes.length;
    }
    lantern_text copied = ln_take_buffer(&bytes);
    free(bytes.at);
    return (ln_column){ ends, (uint32_t)count, (const uint8_t *)copied.at, (uint32_t)copied.length };
}

/* Decodes a member of an event; returns 1, 0 if it is missing, or -1 if it is of another kind. */
static int decode(const event *from, const lantern_member *member, int64_t *number, double *real, lantern_text *text) {
    lantern_text value;
    bool whole;
    int times = ln_find_member(from->data, member->name, &value);
    if (times != 1) return times == 0 ? 0 : -1;
    if (lantern_is(value, "null")) return 0;
    ln_reader reader = { value.at, value.at + value.length };
    bool fits = false;
    switch (member->kind) {
    case LANTERN_INTEGER: fits = ln_integer_of(value, number); break;
    case LANTERN_NUMBER: fits = ln_read_number(&reader, text, &whole) && ln_double_of(*text, real); break;
    case LANTERN_BOOLEAN: *number = lantern_is(value, "true"); fits = *number || lantern_is(value, "false"); break;
    case LANTERN_TEXT: fits = ln_read_text(&reader, text); break;
    case LANTERN_TIMESTAMP: {
        int64_t year;
        int month, date;
        fits = ln_read_text(&reader, text) && ln_read_time(*text, number);
        /* The 30th of February is no date. */
        if (fits && text->at[text->length - 1] == 'Z') {
            ln_date_of(ln_floor_div(*number, LANTERN_DAY), &year, &month, &date);
            fits = date == (text->at[8] - '0') * 10 + text->at[9] - '0';
        }
        break;
    }
    default: *text = value; fits = true;
    }
    return fits ? 1 : -1;
}

static void decode_member(const event *events, size_t count, const lantern_member *member, ln_member_column *out) {
    uint8_t *validity = ln_take(count / 8 + 1), *bits = ln_take(count / 8 + 1);
    int64_t *numbers = ln_take((count + 1) * sizeof *numbers);
    double *reals = ln_take((count + 1) * sizeof *reals);
    uint32_t *mismatched = ln_take((count + 1) * sizeof *mismatched), wrong = 0;
    event *texts = ln_take((count + 1) * sizeof *texts);
    memset(validity, 0, count / 8 + 1);
    memset(bits, 0, count / 8 + 1);
    memset(texts, 0, (count + 1) * sizeof *texts);
    for (size_t i = 0; i < count; i++) {
        numbers[i] = 0, reals[i] = 0;
        int found = decode(&events[i], member, &numbers[i], &reals[i], &texts[i].data);
        if (found < 0) mismatched[wrong++] = (uint32_t)i;
        if (found > 0) validity[i / 8] |= (uint8_t)(1 << i % 8);
        if (numbers[i]) bits[i / 8] |= (uint8_t)(1 << i % 8);
    }
    const void *values = member->kind == LANTERN_NUMBER ? (const void *)reals : member->kind == LANTERN_BOOLEAN ? (const void *)bits : (const void *)numbers;
    *out = (ln_member_column){ member->kind, validity, values, column_of(texts, count, offsetof(event, data), true), mismatched, wrong };
}

/* Calls the projection with timers or events; undoes everything if it fails. */
static bool call(const event *events, size_t count, const armed *due, size_t due_count, size_t *cause) {
    const lantern_projection *it = &lantern_the_projection;
    uint32_t attributes = it->attributes;
    for (lantern_table *const *table = it->tables; *table; table++) attributes |= (*table)->per_tenant ? LANTERN_TENANT : 0;
    uint64_t *offsets = ln_take((count + 1) * sizeof *offsets);
    int64_t *times = ln_take((count + 1) * sizeof *times), *watermarks = ln_take((count + 1) * sizeof *watermarks);
    uint16_t *types = ln_take((count + 1) * sizeof *types);
    lantern_text *names = ln_take((count + 1) * sizeof *names);
    for (size_t i = 0; i < count; i++) {
        offsets[i] = events[i].offset, times[i] = events[i].time, watermarks[i] = events[i].watermark;
        types[i] = (uint16_t)i, names[i] = events[i].type;
    }
    ln_due *fired = ln_take((due_count + 1) * sizeof *fired);
    for (size_t i = 0; i < due_count; i++) fired[i] = (ln_due){ due[i].at, due[i].key, due[i].offset };
    ln_member_column *members = ln_take((it->member_count + 1) * sizeof *members);
    for (size_t i = 0; i < it->member_count; i++) decode_member(events, count, &it->members[i], &members[i]);
#define COLUMN(name, flag) column_of(events, count, offsetof(event, name), attributes & (flag))
    const ln_batch batch = {
        fired, (uint32_t)due_count, watermark, offsets, (uint32_t)count, times, watermarks, names, (uint32_t)count, types,
        COLUMN(id, LANTERN_ID), COLUMN(source, LANTERN_SOURCE), COLUMN(subject, LANTERN_EVENT_SUBJECT), COLUMN(tenant, LANTERN_TENANT),
        COLUMN(id, 0), COLUMN(id, 0), COLUMN(id, 0), COLUMN(data, LANTERN_DATA), members, (uint32_t)it->member_count,
    };
    call_events = events, call_timers = due, call_timer_count = due_count;
    armed *before = ln_new((timer_count + 1) * sizeof *before);
    size_t before_count = timer_count, emitted_before = emitted_count;
    if (timer_count) memcpy(before, timers, timer_count * sizeof *before);
    /* A timer that fires is no longer set, unless the call sets it again. */
    for (size_t i = 0; i < due_count; i++) disarm(due[i].key);
    journal_count = rejected_count = 0;
    wrote = ln_take(due_count + count + 1);
    memset(wrote, 0, due_count + count + 1);
    uint32_t blamed = 0;
    bool done = ln_apply(&batch, &blamed) && !ln_call.failed;
    if (!done) {
        *cause = ln_call.cause;
        while (journal_count) {
            change *it_was = &journal[--journal_count];
            store(it_was->table, it_was->key, it_was->was ? &it_was->value : NULL);
        }
        if (before_count) memcpy(timers, before, before_count * sizeof *before);
        timer_count = before_count;
        emitted_count = emitted_before;
    }
    free(before);
    ln_buffer reason = { 0 };
    ln_put(&reason, ln_call.message.at, ln_call.message.length);
    ln_release();
    if (!done || drop_rows) fresh_instance();
    ln_call.message.length = 0;
    ln_put(&ln_call.message, reason.at, reason.length);
    free(reason.at);
    return done;
}

static void park(lantern_text id, const char *reason) {
    LN_ROOM(parked, parked_count, parked_room, 1);
    parked[parked_count].id = keep(id).at;
    parked[parked_count++].reason = reason;
}

static void fold(const event *events, size_t count) {
    size_t cause;
    if (!count) return;
    if (call(events, count, NULL, 0, &cause)) {
        for (size_t i = 0; i < rejected_count; i++) park(events[rejected[i].index].id, rejected[i].reason);
        /* Unless the projection parks single events, its call ends with the first one. */
        if (rejected_count && lantern_the_projection.on_failure != LANTERN_PARK_EVENT) {
            size_t after = rejected[0].index + 1;
            fold(events + after, count - after);
        }
        return;
    }
    if (count == 1) {
        park(events[0].id, keep((lantern_text){ ln_call.message.at, ln_call.message.length }).at);
        return;
    }
    fold(events, cause);
    fold(events + cause, 1);
    fold(events + cause + 1, count - cause - 1);
}

static int compare_timers(const void *a, const void *b) {
    const armed *left = a, *right = b;
    return left->due != right->due ? (left->due < right->due ? -1 : 1) : lantern_compare(left->key, right->key);
}

static void move_watermark(lantern_time to) {
    watermark = to;
    armed *due = ln_new((timer_count + 1) * sizeof *due);
    size_t count = 0, cause;
    for (size_t i = 0; i < timer_count; i++)
        if (timers[i].due <= to) due[count++] = timers[i];
    if (count) qsort(due, count, sizeof *due, compare_timers);
    if (count && !call(NULL, 0, due, count, &cause)) give_up("a timer failed", ln_call.message.at);
    free(due);
}

/* ---- Events ------------------------------------------------------------------------------------------- */

static lantern_text attribute(lantern_text line, const char *name) {
    lantern_text value, text = { "", 0 };
    if (ln_find_member(line, name, &value) != 1) return text;
    ln_reader reader = { value.at, value.at + value.length };
    return ln_read_text(&reader, &text) ? keep(text) : text;
}

static event read_event(lantern_text line) {
    event read = { .type = attribute(line, "type"), .id = attribute(line, "id"), .source = attribute(line, "source"),
                   .subject = attribute(line, "subject"), .tenant = attribute(line, "tenant") };
    lantern_text time = attribute(line, "time"), data = { "null", 4 };
    if (!read.type.length || !ln_read_time(time, &read.time)) give_up("this line is not an event with a type and a time", keep(line).at);
    ln_find_member(line, "data", &data);
    read.data = keep(data);
    return read;
}

static bool subscribed(lantern_text type) {
    for (const char *const *pattern = lantern_the_projection.subscribes; *pattern; pattern++) {
        size_t length = strlen(*pattern);
        bool prefix = length && (*pattern)[length - 1] == '*';
        if (lantern_is(type, *pattern)) return true;
        if (prefix && type.length >= length - 1 && !memcmp(type.at, *pattern, length - 1)) return true;
    }
    return false;
}

void lantern_test_feed(const char *ndjson) {
    event *events = ln_new(batch_max * sizeof *events);
    size_t count = 0;
    int64_t tick = lantern_the_projection.tick;
    while (*ndjson) {
        size_t length = strcspn(ndjson, "\n");
        if (length) {
            event read = read_event((lantern_text){ ndjson, length });
            read.offset = next_offset++;
            read.watermark = watermark;
            if (subscribed(read.type)) events[count++] = read;
            lantern_time to = watermark;
            if (tick && subscribed(read.type)) {
                if (newest == INT64_MIN || read.time > newest) newest = read.time;
                to = lantern_floor(newest - lantern_the_projection.allowed_lateness, tick);
            }
            if (count == batch_max || to != watermark) {
                fold(events, count);
                count = 0;
            }
            if (to != watermark) move_watermark(to);
        }
        ndjson += length + (ndjson[length] == '\n');
    }
    fold(events, count);
    ln_release();
    free(events);
}

const char *lantern_test_start(const char *parameters) {
    memset(tables, 0, sizeof tables);
    timer_count = emitted_count = parked_count = 0;
    newest = watermark = INT64_MIN;
    next_offset = 0;
    parameters_given = parameters ? parameters : "";
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++) (*table)->cache = NULL;
    bool done = ln_setup(lantern_text_of(parameters_given));
    ln_release();
    return done ? NULL : keep((lantern_text){ ln_call.message.at, ln_call.message.length }).at;
}

void lantern_test_batches(size_t events, bool drop) { batch_max = events ? events : 1, drop_rows = drop; }

const char *lantern_test_file(const char *path) {
    FILE *file = fopen(path, "rb");
    ln_buffer content = { 0 };
    char piece[4096];
    if (!file) give_up("cannot open", path);
    for (size_t length; (length = fread(piece, 1, sizeof piece, file));) ln_put(&content, piece, length);
    fclose(file);
    ln_put_char(&content, 0);
    return content.at;
}

/* ---- Results ---------------------------------------------------------------------------------------------- */

static stored_table *table_named(const char *name) {
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++)
        if (!strcmp((*table)->name, name)) return &tables[(*table)->id];
    give_up("there is no table", name);
    return NULL;
}

const char *lantern_test_row(const char *table, const char *key) {
    bool found;
    stored_table *rows = table_named(table);
    size_t at = place_of(rows, lantern_text_of(key), &found);
    return found ? rows->rows[at].value.at : NULL;
}

size_t lantern_test_row_count(const char *table) { return table_named(table)->count; }
lantern_text lantern_test_key_at(const char *table, size_t index) { return table_named(table)->rows[index].key; }
lantern_text lantern_test_row_at(const char *table, size_t index) { return table_named(table)->rows[index].value; }
size_t lantern_test_emitted_count(void) { return emitted_count; }
const lantern_test_event *lantern_test_emitted_at(size_t index) { return &emitted[index]; }
size_t lantern_test_parked_count(void) { return parked_count; }
const char *lantern_test_parked_id(size_t index) { return parked[index].id; }
const char *lantern_test_parked_reason(size_t index) { return parked[index].reason; }
#else
typedef int ln_no_native_host;
#endif
