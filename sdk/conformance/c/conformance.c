/* The conformance projection in C; ../README.md defines it. */
#include "lantern.h"

#include <string.h>

#define EMITTED "conformance.out"

/* ---- Tables ------------------------------------------------------------------------------ */

struct sum {
    lantern_text key;
    int64_t events, total;
    lantern_maybe_integer least, greatest;
    lantern_time last;
};
static const lantern_field sum_fields[] = {
    LANTERN_FIELD(struct sum, key, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct sum, events, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct sum, total, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_MAYBE(struct sum, least, LANTERN_INTEGER, LANTERN_MIN, ""),
    LANTERN_MAYBE(struct sum, greatest, LANTERN_INTEGER, LANTERN_MAX, ""),
    LANTERN_FIELD(struct sum, last, LANTERN_TIMESTAMP, LANTERN_NEWEST, ""),
};
static lantern_table sums = {
    .name = "sums", .description = "Sums by key.", .fields = sum_fields, .field_count = 6, .row_bytes = sizeof(struct sum), .newest_by = "last",
};

struct values {
    lantern_text id;
    lantern_maybe_integer n;
    lantern_maybe_number x;
    lantern_text s;
    lantern_maybe_boolean b;
    lantern_maybe_time t;
    lantern_text j;
};
static const lantern_field values_fields[] = {
    LANTERN_FIELD(struct values, id, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_MAYBE(struct values, n, LANTERN_INTEGER, LANTERN_SAME, ""),
    LANTERN_MAYBE(struct values, x, LANTERN_NUMBER, LANTERN_SAME, ""),
    LANTERN_MAYBE(struct values, s, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_MAYBE(struct values, b, LANTERN_BOOLEAN, LANTERN_SAME, ""),
    LANTERN_MAYBE(struct values, t, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_MAYBE(struct values, j, LANTERN_JSON, LANTERN_SAME, ""),
};
static lantern_table values = LANTERN_TABLE("values", "The members of `c.value` events.", struct values, values_fields);

struct scanned {
    lantern_text id;
    int64_t count;
    lantern_text keys;
    int64_t total;
};
static const lantern_field scanned_fields[] = {
    LANTERN_FIELD(struct scanned, id, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct scanned, count, LANTERN_INTEGER, LANTERN_SAME, ""),
    LANTERN_FIELD(struct scanned, keys, LANTERN_JSON, LANTERN_SAME, ""),
    LANTERN_FIELD(struct scanned, total, LANTERN_INTEGER, LANTERN_SAME, ""),
};
static lantern_table scans = LANTERN_TABLE("scans", "The results of scans.", struct scanned, scanned_fields);

struct fired {
    lantern_text key;
    lantern_time at, watermark;
    int64_t times;
};
static const lantern_field fired_fields[] = {
    LANTERN_FIELD(struct fired, key, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct fired, at, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct fired, watermark, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct fired, times, LANTERN_INTEGER, LANTERN_SUM, ""),
};
static lantern_table fired = LANTERN_TABLE("fired", "Timers that fired.", struct fired, fired_fields);

struct tenant {
    lantern_text subject;
    int64_t events, closed;
};
static const lantern_field tenant_fields[] = {
    LANTERN_FIELD(struct tenant, subject, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct tenant, events, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct tenant, closed, LANTERN_INTEGER, LANTERN_SUM, ""),
};
static lantern_table tenants = {
    .name = "tenants", .description = "Events by tenant and subject.", .fields = tenant_fields, .field_count = 3, .row_bytes = sizeof(struct tenant), .per_tenant = true,
};

struct minute {
    lantern_time start;
    lantern_text user;
    int64_t events;
};
static const lantern_field minute_fields[] = {
    LANTERN_FIELD(struct minute, start, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct minute, user, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct minute, events, LANTERN_INTEGER, LANTERN_SUM, ""),
};
static lantern_table minutes = LANTERN_TABLE("minutes", "Visits by minute and user.", struct minute, minute_fields);

/* A row of `hops` and of `sessions`. */
struct closed {
    lantern_time start, end;
    lantern_text user;
    int64_t number;
};
static const lantern_field hop_fields[] = {
    LANTERN_FIELD(struct closed, start, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct closed, end, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct closed, user, LANTERN_TEXT, LANTERN_SAME, ""),
    { "total", LANTERN_INTEGER, LANTERN_SUM, "", offsetof(struct closed, number), false },
};
static lantern_table hops = LANTERN_TABLE("hops", "Closed hopping windows.", struct closed, hop_fields);
static const lantern_field session_fields[] = {
    LANTERN_FIELD(struct closed, start, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct closed, end, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct closed, user, LANTERN_TEXT, LANTERN_SAME, ""),
    { "events", LANTERN_INTEGER, LANTERN_SUM, "", offsetof(struct closed, number), false },
};
static lantern_table sessions = LANTERN_TABLE("sessions", "Closed sessions.", struct closed, session_fields);

struct sliding {
    lantern_text user;
    int64_t events, total;
};
static const lantern_field sliding_fields[] = {
    LANTERN_FIELD(struct sliding, user, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct sliding, events, LANTERN_INTEGER, LANTERN_SAME, ""),
    LANTERN_FIELD(struct sliding, total, LANTERN_INTEGER, LANTERN_SAME, ""),
};
static lantern_table sliding = LANTERN_TABLE("sliding", "The sliding window of each user.", struct sliding, sliding_fields);

struct settled {
    lantern_time at;
    lantern_text user;
    int64_t total;
};
static const lantern_field settled_fields[] = {
    LANTERN_FIELD(struct settled, at, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct settled, user, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct settled, total, LANTERN_INTEGER, LANTERN_SAME, ""),
};
static lantern_table settled = LANTERN_TABLE("settled", "Sliding windows that can no longer change.", struct settled, settled_fields);

struct late {
    lantern_text user;
    int64_t hops, sessions, sliding;
};
static const lantern_field late_fields[] = {
    LANTERN_FIELD(struct late, user, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct late, hops, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct late, sessions, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct late, sliding, LANTERN_INTEGER, LANTERN_SUM, ""),
};
static lantern_table late = LANTERN_TABLE("late", "Late visits by user.", struct late, late_fields);

struct day {
    lantern_text day;
    lantern_time start, end;
    int64_t events;
};
static const lantern_field day_fields[] = {
    LANTERN_FIELD(struct day, day, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct day, start, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct day, end, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct day, events, LANTERN_INTEGER, LANTERN_SUM, ""),
};
static lantern_table days = LANTERN_TABLE("days", "Days of a time zone.", struct day, day_fields);

struct hour {
    lantern_time start, end;
    int64_t events;
};
static const lantern_field hour_fields[] = {
    LANTERN_FIELD(struct hour, start, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct hour, end, LANTERN_TIMESTAMP, LANTERN_SAME, ""),
    LANTERN_FIELD(struct hour, events, LANTERN_INTEGER, LANTERN_SUM, ""),
};
static lantern_table hours = LANTERN_TABLE("hours", "Hours of a time zone.", struct hour, hour_fields);

struct sketches {
    lantern_text key;
    lantern_distinct texts;
    lantern_percentiles values, scaled;
};
static const lantern_field sketch_fields[] = {
    LANTERN_FIELD(struct sketches, key, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct sketches, texts, LANTERN_DISTINCT, LANTERN_SKETCH, ""),
    LANTERN_FIELD(struct sketches, values, LANTERN_PERCENTILES, LANTERN_SKETCH, ""),
    LANTERN_FIELD(struct sketches, scaled, LANTERN_PERCENTILES, LANTERN_SKETCH, ""),
};
static lantern_table sketches = LANTERN_TABLE("sketches", "Sketches by key.", struct sketches, sketch_fields);

struct total { int64_t total; };
static const lantern_field total_fields[] = { LANTERN_FIELD(struct total, total, LANTERN_INTEGER, LANTERN_SUM, "") };

static lantern_table seen = LANTERN_BYTES("seen");
static lantern_table open_hops = LANTERN_PRIVATE("open_hops", struct total, total_fields);
static lantern_table open_sessions = LANTERN_BYTES("open_sessions");
static lantern_table recent = LANTERN_BYTES("recent");

/* ---- Members and parameters -------------------------------------------------------------------- */

enum { KEY, N, X, S, B, T, J, START, END, LIMIT, REVERSE, SECONDS, FAIL, MEMBERS };
static const lantern_member members[MEMBERS] = {
    [KEY] = { "key", LANTERN_TEXT }, [N] = { "n", LANTERN_INTEGER }, [X] = { "x", LANTERN_NUMBER }, [S] = { "s", LANTERN_TEXT },
    [B] = { "b", LANTERN_BOOLEAN }, [T] = { "t", LANTERN_TIMESTAMP }, [J] = { "j", LANTERN_JSON }, [START] = { "start", LANTERN_TEXT },
    [END] = { "end", LANTERN_TEXT }, [LIMIT] = { "limit", LANTERN_INTEGER }, [REVERSE] = { "reverse", LANTERN_BOOLEAN },
    [SECONDS] = { "seconds", LANTERN_INTEGER }, [FAIL] = { "fail", LANTERN_BOOLEAN },
};

static const lantern_zone *zone;
static int64_t factor;

static void setup(void) {
    static const char *const names[] = { "zone", "factor", NULL };
    lantern_only_parameters(names);
    lantern_text name = lantern_parameter_text("zone", "Europe/Berlin");
    zone = lantern_zone_named(name);
    if (!zone) lantern_fail_text("there is no such time zone", name);
    factor = lantern_parameter_integer("factor", 1);
}

/* ---- Events ------------------------------------------------------------------------------------------ */

static void count(const lantern_event *event, lantern_text key, lantern_maybe_integer n) {
    bool is_new;
    struct sum *row = lantern_row(&sums, key, &is_new);
    if (is_new) lantern_set_text(&row->key, key);
    row->events++;
    row->last = event->time;
    if (!n.set) return;
    int64_t value = lantern_multiply(n.value, factor);
    row->total = lantern_add(row->total, value);
    if (!row->least.set || value < row->least.value) row->least = (lantern_maybe_integer){ true, value };
    if (!row->greatest.set || value > row->greatest.value) row->greatest = (lantern_maybe_integer){ true, value };
}

static const lantern_maybe_integer none = { false, 0 };

static void once(const lantern_event *event) {
    lantern_text key = lantern_text_member(event, KEY);
    if (lantern_get_bytes(&seen, key).at) return;
    lantern_put_bytes(&seen, key, lantern_text_of(""));
    count(event, key, none);
}

static void value(const lantern_event *event) {
    struct values *row = lantern_row(&values, event->id, NULL);
    lantern_set_text(&row->id, event->id);
    row->n = lantern_maybe_integer_of(event, N);
    row->x = lantern_maybe_number_of(event, X);
    lantern_text s = lantern_maybe_text_of(event, S);
    if (s.at) lantern_set_text(&row->s, s); else lantern_unset(&row->s);
    row->b = lantern_maybe_boolean_of(event, B);
    row->t = lantern_maybe_time_of(event, T);
    if (lantern_has(event, J)) lantern_set_json(&row->j, lantern_json(event, J)); else lantern_unset(&row->j);
}

static void scan(const lantern_event *event) {
    lantern_text start = lantern_text_member(event, START), end = lantern_text_member(event, END);
    int64_t limit = lantern_integer(event, LIMIT), total = 0;
    bool reverse = lantern_maybe_boolean_of(event, REVERSE).value;
    if (limit < 0 || limit > 1000) lantern_fail("limit is not from 0 to 1,000");
    const lantern_found *rows;
    size_t found = lantern_scan(&sums, start, end, (uint32_t)limit, reverse, &rows);
    lantern_writer keys = { 0 };
    lantern_write(&keys, "[");
    for (size_t i = 0; i < found; i++) {
        if (i) lantern_write(&keys, ",");
        lantern_write_text(&keys, rows[i].key);
        total = lantern_add(total, ((const struct sum *)rows[i].row)->total);
    }
    lantern_write(&keys, "]");
    struct scanned *row = lantern_row(&scans, event->id, NULL);
    lantern_set_text(&row->id, event->id);
    row->count = (int64_t)found;
    lantern_set_json(&row->keys, lantern_written(&keys));
    row->total = total;
}

static void remind(const lantern_event *event) {
    lantern_text key = lantern_text_member(event, KEY);
    lantern_maybe_integer seconds = lantern_maybe_integer_of(event, SECONDS);
    if (seconds.set) lantern_set_timer(lantern_add(event->time, lantern_multiply(seconds.value, LANTERN_SECOND)), key);
    else lantern_cancel_timer(key);
}

static void emit(const lantern_event *event, lantern_text key, int64_t number) {
    for (int64_t i = 0; i < number; i++) {
        lantern_writer data = { 0 };
        lantern_write(&data, "{\"key\":");
        lantern_write_text(&data, key);
        lantern_write(&data, ",\"i\":");
        lantern_write_integer(&data, i);
        lantern_write(&data, "}");
        lantern_emit(EMITTED, event->subject, event->time, lantern_written(&data));
    }
}

static void fail(const lantern_event *event) {
    lantern_text key = lantern_text_member(event, KEY);
    bool fails = lantern_maybe_boolean_of(event, FAIL).value;
    count(event, key, none);
    lantern_delete(&sums, lantern_text_of("gone"));
    emit(event, key, 1);
    lantern_set_timer(event->time + 5 * LANTERN_SECOND, key);
    if (fails) lantern_fail("asked to fail");
}

static void of_tenant(const lantern_event *event) {
    if (!event->tenant.length || !event->subject.length) return;
    lantern_text key = lantern_in_tenant(event->tenant, event->subject);
    struct tenant *row = lantern_row(&tenants, key, NULL);
    lantern_set_text(&row->subject, event->subject);
    row->events++;
    lantern_set_timer(event->time + 10 * LANTERN_SECOND, key);
}

static void put_sliding(lantern_text user, lantern_slide slide) {
    struct sliding *row = lantern_row(&sliding, user, NULL);
    lantern_set_text(&row->user, user);
    row->events = slide.events;
    row->total = slide.sum;
}

static void visit(const lantern_event *event) {
    lantern_text user = lantern_text_member(event, KEY);
    int64_t n = lantern_has(event, N) ? lantern_integer(event, N) : 1;
    if (!user.length) lantern_fail("the key is empty");
    if (lantern_failed()) return;
    lantern_time start = lantern_floor(event->time, LANTERN_MINUTE);
    struct minute *minute = lantern_row(&minutes, lantern_key_of(lantern_time_text(start), user), NULL);
    minute->start = start;
    lantern_set_text(&minute->user, user);
    minute->events++;

    lantern_window windows[3];
    size_t number = lantern_windows_of(60 * LANTERN_SECOND, 20 * LANTERN_SECOND, event->time, windows, 3);
    struct late missed = { { 0 }, 0, 0, 0 };
    for (size_t i = 0; i < number; i++) {
        struct total *open = lantern_window_row(event, &open_hops, windows[i], user);
        if (open) open->total = lantern_add(open->total, n);
        else missed.hops++;
    }
    lantern_slide slide;
    missed.sessions = !lantern_session_add(event, &open_sessions, 30 * LANTERN_SECOND, user, n);
    missed.sliding = !lantern_recent_add(event, &recent, 60 * LANTERN_SECOND, user, n, &slide);
    if (!missed.sliding) put_sliding(user, slide);
    if (missed.hops + missed.sessions + missed.sliding == 0) return;
    struct late *row = lantern_row(&late, user, NULL);
    lantern_set_text(&row->user, user);
    row->hops += missed.hops;
    row->sessions += missed.sessions;
    row->sliding += missed.sliding;
}

static void day_and_hour(const lantern_event *event) {
    lantern_time time = lantern_has(event, T) ? lantern_timestamp(event, T) : event->time;
    lantern_text date = lantern_zone_date(zone, time);
    lantern_window window = lantern_zone_day(zone, time);
    struct day *day = lantern_row(&days, date, NULL);
    lantern_set_text(&day->day, date);
    day->start = window.start;
    day->end = window.end;
    day->events++;
    window = lantern_zone_hour(zone, time);
    struct hour *hour = lantern_row(&hours, lantern_time_text(window.start), NULL);
    hour->start = window.start;
    hour->end = window.end;
    hour->events++;
}

static void sketch(const lantern_event *event) {
    lantern_text key = lantern_text_member(event, KEY), s = lantern_maybe_text_of(event, S);
    lantern_maybe_integer n = lantern_maybe_integer_of(event, N);
    lantern_maybe_number x = lantern_maybe_number_of(event, X);
    struct sketches *row = lantern_row(&sketches, key, NULL);
    lantern_set_text(&row->key, key);
    if (s.at) lantern_distinct_add(&row->texts, s);
    if (n.set) lantern_percentiles_add(&row->values, n.value);
    if (x.set) lantern_percentiles_add_number(&row->scaled, x.value, 1000);
}

static void apply(const lantern_event *event) {
    if (lantern_is(event->type, "c.add")) count(event, lantern_text_member(event, KEY), lantern_maybe_integer_of(event, N));
    else if (lantern_is(event->type, "c.delete")) lantern_delete(&sums, lantern_text_member(event, KEY));
    else if (lantern_is(event->type, "c.once")) once(event);
    else if (lantern_is(event->type, "c.value")) value(event);
    else if (lantern_is(event->type, "c.scan")) scan(event);
    else if (lantern_is(event->type, "c.remind")) remind(event);
    else if (lantern_is(event->type, "c.emit")) {
        int64_t number = lantern_integer(event, N);
        if (number > 100) lantern_fail("n is greater than 100");
        else emit(event, lantern_text_member(event, KEY), number);
    }
    else if (lantern_is(event->type, "c.fail")) fail(event);
    else if (lantern_is(event->type, "c.tenant")) of_tenant(event);
    else if (lantern_is(event->type, "c.visit")) visit(event);
    else if (lantern_is(event->type, "c.day")) day_and_hour(event);
    else if (lantern_is(event->type, "c.sketch")) sketch(event);
}

/* ---- Timers ------------------------------------------------------------------------------------------- */

static void put_closed(lantern_table *table, lantern_window window, lantern_text user, int64_t number) {
    struct closed *row = lantern_row(table, lantern_key_of(lantern_time_text(window.start), user), NULL);
    row->start = window.start;
    row->end = window.end;
    lantern_set_text(&row->user, user);
    row->number = number;
}

static void on_timer(const lantern_timer *timer) {
    const lantern_closed *windows;
    size_t number = lantern_close_windows(timer, &open_hops, &windows);
    for (size_t i = 0; i < number; i++) put_closed(&hops, windows[i].window, windows[i].key, ((const struct total *)windows[i].row)->total);
    const lantern_session *over;
    number = lantern_close_sessions(timer, &open_sessions, &over);
    for (size_t i = 0; i < number; i++) put_closed(&sessions, over[i].window, over[i].key, over[i].events);
    lantern_advanced user;
    if (lantern_recent_advance(timer, &recent, &user)) {
        for (size_t i = 0; i < user.settled_count; i++) {
            lantern_slide slide = user.settled[i];
            struct settled *row = lantern_row(&settled, lantern_key_of(lantern_time_text(slide.at), user.key), NULL);
            row->at = slide.at;
            lantern_set_text(&row->user, user.key);
            row->total = slide.sum;
        }
        put_sliding(user.key, user.current);
    }
    if (timer->tenant.length) {
        struct tenant *row = lantern_row(&tenants, timer->full_key, NULL);
        row->closed++;
    } else if (timer->key.at[0] != '\1') {
        struct fired *row = lantern_row(&fired, timer->key, NULL);
        lantern_set_text(&row->key, timer->key);
        row->at = timer->at;
        row->watermark = timer->watermark;
        row->times++;
        lantern_writer data = { 0 };
        lantern_write(&data, "{\"timer\":");
        lantern_write_text(&data, timer->key);
        lantern_write(&data, "}");
        lantern_emit(EMITTED, timer->key, timer->at, lantern_written(&data));
    }
}

static const char *const subscribes[] = { "c.*", NULL };
static const char *const emits[] = { EMITTED, NULL };
static lantern_table *const tables[] = {
    &sums, &values, &scans, &fired, &tenants, &minutes, &hops, &sessions, &sliding, &settled, &late, &days, &hours, &sketches,
    &seen, &open_hops, &open_sessions, &recent, NULL,
};

const lantern_projection lantern_the_projection = {
    .name = "conformance",
    .version = "1.0.0",
    .description = "The conformance projection in C",
    .subscribes = subscribes,
    .attributes = LANTERN_ID | LANTERN_EVENT_SUBJECT | LANTERN_TENANT,
    .members = members,
    .member_count = MEMBERS,
    .tables = tables,
    .emits = emits,
    .allowed_lateness = 10 * LANTERN_SECOND,
    .tick = 5 * LANTERN_SECOND,
    .on_failure = LANTERN_PARK_EVENT,
    .parameters = "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"zone\":{\"type\":\"string\",\"default\":\"Europe/Berlin\"},\"factor\":{\"type\":\"integer\",\"default\":1}}}",
    .setup = setup,
    .apply = apply,
    .on_timer = on_timer,
};
