/* The call in progress: memory, events, members, timers, emitted events, parameters. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

struct ln_call ln_call;

/* ---- Memory -------------------------------------------------------------------------- */

/* Blocks of the call's memory, newest first. One is kept for the next call. */
typedef struct block {
    struct block *before;
    size_t used, room, unused; /* four words, so that what follows is aligned */
} block;
static block *blocks;

#define BLOCK_BYTES ((size_t)256 << 10)

void *ln_new(size_t bytes) {
    void *at = malloc(bytes ? bytes : 1);
    if (!at) abort();
    return at;
}

void *ln_grow(void *old, size_t bytes) {
    void *at = realloc(old, bytes);
    if (!at) abort();
    return at;
}

void *ln_take(size_t bytes) {
    bytes = (bytes + 7) & ~(size_t)7;
    if (!blocks || blocks->room - blocks->used < bytes) {
        size_t room = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
        block *fresh = ln_new(sizeof *fresh + room);
        *fresh = (block){ blocks, 0, room, 0 };
        blocks = fresh;
    }
    void *at = (char *)(blocks + 1) + blocks->used;
    blocks->used += bytes;
    return at;
}

void ln_release(void) {
    ln_release_scans();
    while (blocks && (blocks->before || blocks->room > BLOCK_BYTES)) {
        block *before = blocks->before;
        free(blocks);
        blocks = before;
    }
    if (blocks) blocks->used = 0;
}

/* ---- Errors and the log ---------------------------------------------------------------- */

bool lantern_failed(void) { return ln_call.failed; }

void lantern_fail(const char *message) { lantern_fail_text(message, (lantern_text){ 0 }); }

void lantern_fail_text(const char *message, lantern_text quoted) {
    if (ln_call.failed) return;
    ln_call.failed = true;
    ln_call.message.length = 0;
    ln_put_string(&ln_call.message, message);
    if (quoted.at) {
        ln_put_string(&ln_call.message, ": ");
        ln_put_text(&ln_call.message, quoted.length > 200 ? (lantern_text){ quoted.at, 0 } : quoted);
    }
}

void lantern_log(lantern_level level, const char *message) { lantern_log_text(level, lantern_text_of(message)); }
void lantern_log_text(lantern_level level, lantern_text message) { ln_host_log(ln_call.cause, level, message); }

int64_t lantern_add(int64_t a, int64_t b) {
    int64_t sum;
    if (!__builtin_add_overflow(a, b, &sum)) return sum;
    lantern_fail("a sum is outside of the range of integers");
    return 0;
}

int64_t lantern_multiply(int64_t a, int64_t b) {
    int64_t product;
    if (!__builtin_mul_overflow(a, b, &product)) return product;
    lantern_fail("a product is outside of the range of integers");
    return 0;
}

/* ---- Keys and written JSON --------------------------------------------------------------- */

static void key_room(lantern_key *key, size_t more) {
    if (key->length + more <= key->room) return;
    char *at = ln_take(key->room = (key->length + more) * 2 + 32);
    if (key->length) memcpy(at, key->at, key->length);
    key->at = at;
}

void lantern_part(lantern_key *key, lantern_text part) {
    key_room(key, 3 * part.length + 1);
    if (key->parts++) key->at[key->length++] = '/';
    for (size_t i = 0; i < part.length; i++) {
        char byte = part.at[i];
        if (byte == '/' || byte == '%') {
            memcpy(key->at + key->length, byte == '/' ? "%2F" : "%25", 3);
            key->length += 3;
        } else {
            key->at[key->length++] = byte;
        }
    }
}

void lantern_part_time(lantern_key *key, lantern_time time) { lantern_part(key, lantern_time_text(time)); }

void lantern_part_unsigned(lantern_key *key, uint64_t number) {
    char digits[20];
    for (size_t i = sizeof digits; i-- > 0; number /= 10) digits[i] = (char)('0' + number % 10);
    lantern_part(key, (lantern_text){ digits, sizeof digits });
}

lantern_text lantern_key_text(const lantern_key *key) { return (lantern_text){ key->at, key->length }; }

lantern_text lantern_key_of(lantern_text first, lantern_text second) {
    lantern_key key = { 0 };
    lantern_part(&key, first);
    lantern_part(&key, second);
    return lantern_key_text(&key);
}

lantern_text lantern_in_tenant(lantern_text tenant, lantern_text key) {
    char *at = ln_take(tenant.length + 1 + key.length);
    if (tenant.length) memcpy(at, tenant.at, tenant.length);
    at[tenant.length] = 0;
    if (key.length) memcpy(at + tenant.length + 1, key.at, key.length);
    return (lantern_text){ at, tenant.length + 1 + key.length };
}

bool ln_split_tenant(lantern_text key, lantern_text *tenant, lantern_text *rest) {
    const char *nul = key.length ? memchr(key.at, 0, key.length) : NULL;
    *tenant = (lantern_text){ key.at, nul ? (size_t)(nul - key.at) : 0 };
    size_t skip = nul ? tenant->length + 1 : 0;
    *rest = (lantern_text){ key.at + skip, key.length - skip };
    return !(nul && tenant->length == 0) && !(rest->length && memchr(rest->at, 0, rest->length));
}

/* Runs `write` on a buffer that is kept from call to call, and copies the bytes that it wrote. */
static ln_buffer scratch;

lantern_text lantern_time_text(lantern_time time) {
    scratch.length = 0;
    ln_put_time(&scratch, time);
    return ln_take_buffer(&scratch);
}

static void append(lantern_writer *writer) {
    if (writer->length + scratch.length > writer->room) {
        char *at = ln_take(writer->room = (writer->length + scratch.length) * 2);
        if (writer->length) memcpy(at, writer->at, writer->length);
        writer->at = at;
    }
    if (scratch.length) memcpy(writer->at + writer->length, scratch.at, scratch.length);
    writer->length += scratch.length;
}

#define APPEND(put)         \
    do {                    \
        scratch.length = 0; \
        put;                \
        append(writer);     \
    } while (0)

void lantern_write(lantern_writer *writer, const char *json) { APPEND(ln_put_string(&scratch, json)); }
void lantern_write_text(lantern_writer *writer, lantern_text text) { APPEND(ln_put_text(&scratch, text)); }
void lantern_write_integer(lantern_writer *writer, int64_t value) { APPEND(ln_put_integer(&scratch, value)); }
void lantern_write_number(lantern_writer *writer, double value) { APPEND(ln_put_number(&scratch, value)); }
void lantern_write_time(lantern_writer *writer, lantern_time time) {
    APPEND(ln_put_char(&scratch, '"'); ln_put_time(&scratch, time); ln_put_char(&scratch, '"'));
}
lantern_text lantern_written(const lantern_writer *writer) { return (lantern_text){ writer->at, writer->length }; }

/* ---- Members ------------------------------------------------------------------------------- */

static const ln_batch *batch;

lantern_text ln_value(ln_column column, size_t index) {
    if (index >= column.count) return (lantern_text){ "", 0 };
    uint32_t start = index ? column.ends[index - 1] : 0;
    return (lantern_text){ (const char *)column.bytes + start, column.ends[index] - start };
}

static bool bit(const uint8_t *bits, size_t index) { return bits[index / 8] >> index % 8 & 1; }

static const lantern_member *declared(size_t index) {
    static const lantern_member none = { "?", LANTERN_JSON };
    if (index < lantern_the_projection.member_count && index < batch->member_count) return &lantern_the_projection.members[index];
    lantern_fail("a member was read that the manifest does not declare");
    return &none;
}

bool lantern_has(const lantern_event *event, size_t index) {
    const lantern_member *member = declared(index);
    if (ln_call.failed) return false;
    const ln_member_column *column = &batch->members[index];
    if (bit(column->validity, event->index)) return true;
    for (uint32_t i = 0; i < column->mismatched_count; i++)
        if (column->mismatched[i] == event->index)
            lantern_fail_text("a member is of another kind, or present more than once, or the data are not a JSON object", lantern_text_of(member->name));
    return false;
}

/* Whether the member is there and was declared with `kind`; an error otherwise. */
static bool present(const lantern_event *event, size_t index, lantern_kind kind) {
    if (!lantern_has(event, index)) {
        if (!ln_call.failed) lantern_fail_text("a member is missing or null", lantern_text_of(declared(index)->name));
        return false;
    }
    if (declared(index)->kind == kind) return true;
    lantern_fail_text("a member was declared with another kind", lantern_text_of(declared(index)->name));
    return false;
}

int64_t lantern_integer(const lantern_event *event, size_t index) {
    return present(event, index, LANTERN_INTEGER) ? ((const int64_t *)batch->members[index].values)[event->index] : 0;
}

double lantern_number(const lantern_event *event, size_t index) {
    return present(event, index, LANTERN_NUMBER) ? ((const double *)batch->members[index].values)[event->index] : 0;
}

lantern_text lantern_text_member(const lantern_event *event, size_t index) {
    return present(event, index, LANTERN_TEXT) ? ln_value(batch->members[index].texts, event->index) : (lantern_text){ "", 0 };
}

bool lantern_boolean(const lantern_event *event, size_t index) {
    return present(event, index, LANTERN_BOOLEAN) && bit(batch->members[index].values, event->index);
}

lantern_time lantern_timestamp(const lantern_event *event, size_t index) {
    return present(event, index, LANTERN_TIMESTAMP) ? ((const int64_t *)batch->members[index].values)[event->index] : 0;
}

lantern_text lantern_json(const lantern_event *event, size_t index) {
    return present(event, index, LANTERN_JSON) ? ln_value(batch->members[index].texts, event->index) : (lantern_text){ "null", 4 };
}

lantern_maybe_integer lantern_maybe_integer_of(const lantern_event *event, size_t index) {
    bool set = lantern_has(event, index);
    return (lantern_maybe_integer){ set, set ? lantern_integer(event, index) : 0 };
}

lantern_maybe_number lantern_maybe_number_of(const lantern_event *event, size_t index) {
    bool set = lantern_has(event, index);
    return (lantern_maybe_number){ set, set ? lantern_number(event, index) : 0 };
}

lantern_maybe_boolean lantern_maybe_boolean_of(const lantern_event *event, size_t index) {
    bool set = lantern_has(event, index);
    return (lantern_maybe_boolean){ set, set && lantern_boolean(event, index) };
}

lantern_maybe_time lantern_maybe_time_of(const lantern_event *event, size_t index) {
    bool set = lantern_has(event, index);
    return (lantern_maybe_time){ set, set ? lantern_timestamp(event, index) : 0 };
}

lantern_text lantern_maybe_text_of(const lantern_event *event, size_t index) {
    return lantern_has(event, index) ? lantern_text_member(event, index) : (lantern_text){ NULL, 0 };
}

/* ---- Timers and emitted events ----------------------------------------------------------------- */

/* The SDK's own timers have keys that begin with this. */
#define OWN_TIMER '\1'

static bool check_timer_key(lantern_text key) {
    lantern_text tenant, rest;
    if (!lantern_the_projection.tick) {
        lantern_fail("timers need event time: set `tick` in the projection");
    } else if (!ln_split_tenant(key, &tenant, &rest)) {
        lantern_fail("U+0000 cannot be part of a timer's key");
    } else if (tenant.length && !(ln_call.has_tenant && lantern_same(tenant, ln_call.tenant))) {
        lantern_fail("a timer's tenant is not that of the event or timer that sets it");
    } else if (rest.length == 0) {
        lantern_fail("a timer's key cannot be empty");
    } else if (rest.at[0] == OWN_TIMER) {
        lantern_fail("keys that begin with U+0001 are reserved for the SDK's windows");
    }
    return !ln_call.failed;
}

/* The timers that the event in progress sets or cancels. They are sent when the event has
 * succeeded. */
typedef struct {
    bool cancels;
    lantern_time at;
    lantern_text key;
} timer_change;
static timer_change *timer_changes;
static size_t timer_change_count, timer_change_room;

static void send_timer(timer_change change) {
    if (change.cancels) ln_host_cancel_timer(ln_call.cause, change.key);
    else ln_host_set_timer(ln_call.cause, change.at, change.key);
}

static void change_timer(timer_change change) {
    if (!ln_call.in_event) {
        send_timer(change);
        return;
    }
    change.key = ln_copy(change.key);
    LN_ROOM(timer_changes, timer_change_count, timer_change_room, 1);
    timer_changes[timer_change_count++] = change;
}

void lantern_set_timer(lantern_time at, lantern_text key) {
    if (check_timer_key(key)) ln_set_timer(at, key);
}

void lantern_cancel_timer(lantern_text key) {
    if (check_timer_key(key)) change_timer((timer_change){ true, 0, key });
}

void ln_set_timer(lantern_time at, lantern_text key) {
    if (!lantern_the_projection.tick) lantern_fail("windows need event time: set `tick` in the projection");
    if (!ln_call.failed) change_timer((timer_change){ false, at, key });
}

void ln_set_own_timer(const lantern_table *table, lantern_time at, lantern_text tenant, lantern_text rest) {
    scratch.length = 0;
    ln_put(&scratch, tenant.at, tenant.length);
    if (tenant.length) ln_put_char(&scratch, 0);
    ln_put_char(&scratch, OWN_TIMER);
    ln_put_unsigned(&scratch, table->id);
    ln_put_char(&scratch, '/');
    ln_put(&scratch, rest.at, rest.length);
    ln_set_timer(at, ln_take_buffer(&scratch));
}

bool ln_own_timer(const lantern_timer *timer, const lantern_table *table, lantern_text *rest) {
    scratch.length = 0;
    ln_put_char(&scratch, OWN_TIMER);
    ln_put_unsigned(&scratch, table->id);
    ln_put_char(&scratch, '/');
    if (timer->key.length < scratch.length || memcmp(timer->key.at, scratch.at, scratch.length)) return false;
    *rest = (lantern_text){ timer->key.at + scratch.length, timer->key.length - scratch.length };
    return true;
}

/* Events emitted so far: sent at the end of the call. */
typedef struct {
    uint32_t cause;
    const char *type;
    lantern_text subject, data;
    lantern_time time;
} emitted;
static emitted *outbox;
static size_t outbox_count, outbox_room;

void lantern_emit(const char *type, lantern_text subject, lantern_time time, lantern_text data) {
    const char *const *known = lantern_the_projection.emits;
    while (known && *known && strcmp(*known, type)) known++;
    if (!known || !*known) {
        lantern_fail_text("an event type is not in `emits`", lantern_text_of(type));
        return;
    }
    LN_ROOM(outbox, outbox_count, outbox_room, 1);
    outbox[outbox_count++] = (emitted){ ln_call.cause, *known, ln_copy(subject), ln_copy(data), time };
}

/* ---- The contract's functions -------------------------------------------------------------------- */

bool ln_setup(lantern_text parameters) {
    ln_call.failed = ln_call.fault = false;
    ln_call.in_setup = true;
    ln_call.parameters = parameters;
    ln_open_tables();
    if (lantern_the_projection.setup) lantern_the_projection.setup();
    ln_call.in_setup = false;
    return !ln_call.failed;
}

static bool fire(void) {
    for (uint32_t i = 0; i < batch->timer_count && !ln_call.failed; i++) {
        lantern_timer timer = { .at = batch->timers[i].at, .watermark = batch->watermark, .offset = batch->timers[i].offset };
        timer.full_key = batch->timers[i].key;
        ln_split_tenant(timer.full_key, &timer.tenant, &timer.key);
        ln_call.cause = i;
        ln_call.has_tenant = timer.tenant.length > 0;
        ln_call.tenant = timer.tenant;
        if (lantern_the_projection.on_timer) lantern_the_projection.on_timer(&timer);
        ln_check_rows();
    }
    return !ln_call.failed;
}

static lantern_event event_at(uint32_t i) {
    return (lantern_event){
        .type = batch->types[i] < batch->type_count ? batch->type_names[batch->types[i]] : (lantern_text){ "", 0 },
        .time = batch->times[i],
        .watermark = batch->watermarks[i],
        .offset = batch->offsets[i],
        .id = ln_value(batch->id, i),
        .source = ln_value(batch->source, i),
        .subject = ln_value(batch->subject, i),
        .tenant = ln_value(batch->tenant, i),
        .dataschema = ln_value(batch->dataschema, i),
        .datacontenttype = ln_value(batch->datacontenttype, i),
        .extensions = ln_value(batch->extensions, i),
        .data = ln_value(batch->data, i),
        .index = i,
    };
}

/* Undoes the changes of the event in progress, and rejects the event. If the changes cannot be
 * undone, the call fails. */
static void reject(size_t outbox_before) {
    if (ln_call.fault || !ln_undo_rows()) return;
    outbox_count = outbox_before;
    ln_host_reject(ln_call.cause, (lantern_text){ ln_call.message.at, ln_call.message.length });
    ln_call.failed = false;
}

/* Returns false if the event was rejected, or the call failed. */
static bool apply_event(uint32_t i) {
    lantern_event event = event_at(i);
    size_t outbox_before = outbox_count;
    ln_call.cause = batch->timer_count + i;
    ln_call.has_tenant = true;
    ln_call.tenant = event.tenant;
    ln_call.in_event = true;
    timer_change_count = 0;
    ln_keep_rows();
    lantern_the_projection.apply(&event);
    ln_check_rows();
    ln_call.in_event = false;
    if (ln_call.failed) {
        reject(outbox_before);
        return false;
    }
    for (size_t change = 0; change < timer_change_count; change++) send_timer(timer_changes[change]);
    ln_keep_rows();
    return true;
}

bool ln_apply(const ln_batch *given, uint32_t *cause) {
    batch = given;
    ln_call.failed = ln_call.fault = ln_call.in_event = false;
    outbox_count = 0;
    if (fire() && batch->count && lantern_the_projection.prepare) {
        lantern_event *events = ln_take(batch->count * sizeof *events);
        for (uint32_t i = 0; i < batch->count; i++) events[i] = event_at(i);
        ln_call.cause = batch->timer_count;
        lantern_the_projection.prepare(events, batch->count);
    }
    bool goes_on = true;
    for (uint32_t i = 0; i < batch->count && !ln_call.failed && goes_on; i++)
        goes_on = apply_event(i) || lantern_the_projection.on_failure == LANTERN_PARK_EVENT;
    if (!ln_call.failed) ln_flush();
    if (ln_call.failed) {
        *cause = ln_call.cause;
        return false;
    }
    for (size_t i = 0; i < outbox_count; i++)
        ln_host_emit(outbox[i].cause, outbox[i].type, outbox[i].subject, outbox[i].time, outbox[i].data);
    return true;
}

/* ---- Parameters ------------------------------------------------------------------------------------- */

/* The value of a parameter; false if it is missing. */
static bool parameter(const char *name, ln_reader *value) {
    lantern_text found;
    if (ln_call.parameters.length == 0) return false;
    int times = ln_find_member(ln_call.parameters, name, &found);
    if (times < 0) lantern_fail("the parameters are not a JSON object");
    if (times > 1) lantern_fail_text("a parameter is given more than once", lantern_text_of(name));
    if (times <= 0 || lantern_is(found, "null")) return false;
    *value = (ln_reader){ found.at, found.at + found.length };
    return true;
}

lantern_text lantern_parameter_text(const char *name, const char *otherwise) {
    ln_reader value;
    lantern_text text = lantern_text_of(otherwise);
    if (parameter(name, &value) && !ln_read_text(&value, &text)) lantern_fail_text("a parameter is not text", lantern_text_of(name));
    return text;
}

int64_t lantern_parameter_integer(const char *name, int64_t otherwise) {
    ln_reader value;
    if (!parameter(name, &value)) return otherwise;
    lantern_text text = { value.at, (size_t)(value.end - value.at) };
    if (!ln_integer_of(text, &otherwise)) lantern_fail_text("a parameter is not an integer", lantern_text_of(name));
    return otherwise;
}

double lantern_parameter_number(const char *name, double otherwise) {
    ln_reader value;
    lantern_text text;
    bool whole;
    if (parameter(name, &value) && !(ln_read_number(&value, &text, &whole) && value.at == value.end && ln_double_of(text, &otherwise)))
        lantern_fail_text("a parameter is not a number", lantern_text_of(name));
    return otherwise;
}

bool lantern_parameter_boolean(const char *name, bool otherwise) {
    ln_reader value;
    if (!parameter(name, &value)) return otherwise;
    if (ln_expect(&value, "true")) return true;
    if (!ln_expect(&value, "false")) lantern_fail_text("a parameter is not true or false", lantern_text_of(name));
    return false;
}

void lantern_only_parameters(const char *const *names) {
    ln_reader reader = { ln_call.parameters.at, ln_call.parameters.at + ln_call.parameters.length };
    ln_space(&reader);
    if (reader.at == reader.end) return;
    if (!ln_expect(&reader, "{")) {
        lantern_fail("the parameters are not a JSON object");
        return;
    }
    for (ln_space(&reader); !ln_expect(&reader, "}"); ln_space(&reader)) {
        lantern_text name;
        if (!ln_read_text(&reader, &name)) break;
        const char *const *known = names;
        while (*known && !lantern_is(name, *known)) known++;
        if (!*known) lantern_fail_text("there is no such parameter", name);
        ln_space(&reader);
        if (!ln_expect(&reader, ":") || !ln_pass(&reader, 0)) break;
        ln_space(&reader);
        ln_expect(&reader, ",");
    }
}
