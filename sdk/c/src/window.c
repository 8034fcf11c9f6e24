/* Windows over event time. */
#include "internal.h"

#include <string.h>

size_t lantern_windows_of(int64_t size, int64_t hop, lantern_time time, lantern_window *windows, size_t most) {
    lantern_time newest = lantern_floor(time, hop);
    size_t count = 0;
    int64_t back = (size - 1 - (time - newest)) / hop;
    for (; size > time - newest && back >= 0 && count < most; back--) {
        lantern_time start = newest - back * hop;
        windows[count++] = (lantern_window){ start, start + size };
    }
    return count;
}

/* A time as text that sorts by time. */
static void put_sortable(ln_buffer *out, lantern_time time) {
    uint64_t bits = (uint64_t)time ^ UINT64_C(1) << 63;
    for (int shift = 60; shift >= 0; shift -= 4) ln_put_char(out, "0123456789abcdef"[bits >> shift & 15]);
}

static bool read_sortable(lantern_text text, lantern_time *time) {
    uint64_t bits = 0;
    if (text.length < 16) return false;
    for (size_t i = 0; i < 16; i++) {
        char digit = text.at[i];
        bits = bits << 4 | (uint64_t)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
    }
    *time = (lantern_time)(bits ^ UINT64_C(1) << 63);
    return true;
}

/* Splits the key under which events are added into the tenant and the rest. Keys of private
 * tables cannot have U+0000, so the tenant becomes a part of the key. */
static bool split(const lantern_table *table, lantern_text key, lantern_text *tenant, lantern_text *rest) {
    (void)table;
    if (ln_split_tenant(key, tenant, rest)) return true;
    lantern_fail_text("U+0000 cannot be part of a window's key", key);
    return false;
}

static ln_buffer scratch;

static lantern_text row_prefix(lantern_time end, lantern_text tenant) {
    lantern_key key = { 0 };
    scratch.length = 0;
    put_sortable(&scratch, end);
    lantern_part(&key, (lantern_text){ scratch.at, scratch.length });
    lantern_part(&key, tenant);
    lantern_part(&key, (lantern_text){ "", 0 });
    return lantern_key_text(&key);
}

void *lantern_window_row(const lantern_event *event, lantern_table *open, lantern_window window, lantern_text key) {
    lantern_text tenant, rest;
    if (window.end <= event->watermark) return NULL;
    split(open, key, &tenant, &rest);
    lantern_text prefix = row_prefix(window.end, tenant);
    scratch.length = 0;
    ln_put(&scratch, prefix.at, prefix.length);
    put_sortable(&scratch, window.start);
    ln_put_char(&scratch, '/');
    ln_put(&scratch, rest.at, rest.length);
    bool is_new;
    void *row = lantern_row(open, ln_take_buffer(&scratch), &is_new);
    if (is_new) {
        /* Setting a timer again to the same time has no effect. */
        scratch.length = 0;
        put_sortable(&scratch, window.end);
        ln_set_own_timer(open, window.end, tenant, ln_take_buffer(&scratch));
    }
    return row;
}

size_t lantern_close_windows(const lantern_timer *timer, lantern_table *open, const lantern_closed **closed) {
    lantern_text rest;
    lantern_time end;
    if (!ln_own_timer(timer, open, &rest) || !read_sortable(rest, &end)) return 0;
    lantern_text prefix = row_prefix(end, timer->tenant);
    /* All keys with this prefix: a `0` is the character after `/`. */
    lantern_text after = ln_copy(prefix);
    ((char *)after.at)[after.length - 1] = '0';
    const lantern_found *rows;
    size_t count = lantern_scan(open, prefix, after, UINT32_MAX, false, &rows);
    lantern_closed *all = ln_take((count + 1) * sizeof *all);
    for (size_t i = 0; i < count; i++) {
        lantern_text key = { rows[i].key.at + prefix.length, rows[i].key.length - prefix.length };
        lantern_time start = 0;
        read_sortable(key, &start);
        all[i] = (lantern_closed){ { start, end }, timer->tenant, { key.at + 17, key.length - 17 }, rows[i].row };
        lantern_delete(open, rows[i].key);
    }
    *closed = all;
    return count;
}

/* The key of the row that has all values of a tenant's key. */
static lantern_text row_of(lantern_text tenant, lantern_text rest) {
    lantern_key key = { 0 };
    lantern_part(&key, tenant);
    lantern_part(&key, (lantern_text){ "", 0 });
    scratch.length = 0;
    ln_put(&scratch, key.at, key.length);
    ln_put(&scratch, rest.at, rest.length);
    return ln_take_buffer(&scratch);
}

/* ---- Sessions -------------------------------------------------------------------------------- */

/* A row of sessions: when the timer is due, then the sessions, oldest first. */
typedef struct { lantern_window window; int64_t events, sum; } session;

static size_t read_array(lantern_text bytes, size_t head, size_t each, void *first, void **items, size_t more) {
    size_t count = bytes.length >= head ? (bytes.length - head) / each : 0;
    *items = ln_take((count + more) * each + 8);
    if (bytes.length >= head) memcpy(first, bytes.at, head);
    if (count) memcpy(*items, bytes.at + head, count * each);
    return count;
}

static void put_array(lantern_table *table, lantern_text key, const void *first, size_t head, const void *items, size_t bytes) {
    scratch.length = 0;
    ln_put(&scratch, first, head);
    ln_put(&scratch, items, bytes);
    lantern_put_bytes(table, key, (lantern_text){ scratch.at, scratch.length });
}

bool lantern_session_add(const lantern_event *event, lantern_table *open, int64_t gap, lantern_text key, int64_t value) {
    lantern_text tenant, rest;
    if (!split(open, key, &tenant, &rest)) return true;
    lantern_text row = row_of(tenant, rest);
    int64_t armed = INT64_MAX;
    session *sessions;
    size_t count = read_array(lantern_get_bytes(open, row), sizeof armed, sizeof *sessions, &armed, (void **)&sessions, 1);
    session own = { { event->time, event->time + gap }, 1, value };
    if (own.window.end <= event->watermark) {
        bool within = false;
        for (size_t i = 0; i < count; i++) within |= sessions[i].window.start <= event->time && event->time < sessions[i].window.end;
        if (!within) return false;
    }
    size_t first = 0, after = 0;
    while (first < count && sessions[first].window.end <= event->time) first++;
    while (after < count && sessions[after].window.start < event->time + gap) after++;
    for (size_t i = first; i < after; i++) {
        if (sessions[i].window.start < own.window.start) own.window.start = sessions[i].window.start;
        if (sessions[i].window.end > own.window.end) own.window.end = sessions[i].window.end;
        own.events = lantern_add(own.events, sessions[i].events);
        own.sum = lantern_add(own.sum, sessions[i].sum);
    }
    memmove(sessions + first + 1, sessions + after, (count - after) * sizeof *sessions);
    sessions[first] = own;
    count += first + 1 - after;
    if (own.window.end < armed) {
        armed = own.window.end;
        ln_set_own_timer(open, armed, tenant, rest);
    }
    put_array(open, row, &armed, sizeof armed, sessions, count * sizeof *sessions);
    return true;
}

size_t lantern_close_sessions(const lantern_timer *timer, lantern_table *open, const lantern_session **closed) {
    lantern_text rest;
    if (!ln_own_timer(timer, open, &rest)) return 0;
    lantern_text row = row_of(timer->tenant, rest), bytes = lantern_get_bytes(open, row);
    if (!bytes.at) return 0;
    int64_t armed;
    session *sessions;
    size_t count = read_array(bytes, sizeof armed, sizeof *sessions, &armed, (void **)&sessions, 0), over = 0;
    lantern_session *all = ln_take((count + 1) * sizeof *all);
    for (; over < count && sessions[over].window.end <= timer->watermark; over++)
        all[over] = (lantern_session){ sessions[over].window, timer->tenant, rest, sessions[over].events, sessions[over].sum };
    if (over == count) {
        lantern_delete(open, row);
    } else {
        armed = sessions[over].window.end;
        ln_set_timer(armed, timer->full_key);
        put_array(open, row, &armed, sizeof armed, sessions + over, (count - over) * sizeof *sessions);
    }
    *closed = all;
    return over;
}

/* ---- Sliding windows ----------------------------------------------------------------------------- */

/* The maximum number of values of a key. With more, the event fails. */
#define RECENT_MAX 16384

typedef struct { int64_t armed, size, settled; } recent;
typedef struct { lantern_time time; int64_t value; } recent_value;

static lantern_slide slide_at(const recent_value *values, size_t count, lantern_time at, int64_t size) {
    lantern_slide slide = { at, 0, 0 };
    for (size_t i = 0; i < count; i++) {
        if (values[i].time <= at - size || values[i].time > at) continue;
        slide.events++;
        slide.sum = lantern_add(slide.sum, values[i].value);
    }
    return slide;
}

/* The next moment at which something changes without an event. */
static lantern_time due_of(const recent *head, const recent_value *values, size_t count) {
    lantern_time due = INT64_MAX;
    if ((size_t)head->settled < count) due = values[head->settled].time + 1;
    if (count && values[0].time + head->size < due) due = values[0].time + head->size;
    return due;
}

bool lantern_recent_add(const lantern_event *event, lantern_table *table, int64_t size, lantern_text key, int64_t value, lantern_slide *slide) {
    lantern_text tenant, rest;
    *slide = (lantern_slide){ event->time, 0, 0 };
    if (event->time + size <= event->watermark) return false;
    if (!split(table, key, &tenant, &rest)) return true;
    lantern_text row = row_of(tenant, rest);
    recent head = { INT64_MAX, size, 0 };
    recent_value *values;
    size_t count = read_array(lantern_get_bytes(table, row), sizeof head, sizeof *values, &head, (void **)&values, 1);
    if (count >= RECENT_MAX) {
        lantern_fail_text("a key has too many values in a sliding window; use hopping windows", rest);
        return true;
    }
    head.size = size;
    size_t at = count;
    while (at && values[at - 1].time > event->time) at--;
    memmove(values + at + 1, values + at, (count - at) * sizeof *values);
    values[at] = (recent_value){ event->time, value };
    count++;
    /* All windows up to the watermark were returned. */
    if (event->time < event->watermark) head.settled++;
    lantern_time due = due_of(&head, values, count);
    if (due < head.armed) {
        head.armed = due;
        ln_set_own_timer(table, due, tenant, rest);
    }
    *slide = slide_at(values, count, values[count - 1].time, size);
    put_array(table, row, &head, sizeof head, values, count * sizeof *values);
    return true;
}

bool lantern_recent_advance(const lantern_timer *timer, lantern_table *table, lantern_advanced *advanced) {
    lantern_text rest;
    if (!ln_own_timer(timer, table, &rest)) return false;
    lantern_text row = row_of(timer->tenant, rest), bytes = lantern_get_bytes(table, row);
    if (!bytes.at) return false;
    recent head;
    recent_value *values;
    size_t count = read_array(bytes, sizeof head, sizeof *values, &head, (void **)&values, 0);
    lantern_slide *settled = ln_take((count + 1) * sizeof *settled);
    *advanced = (lantern_advanced){ timer->tenant, rest, { 0 }, settled, 0 };
    size_t next = (size_t)head.settled;
    for (; next < count && values[next].time < timer->watermark; next++)
        if (next + 1 == count || values[next + 1].time != values[next].time)
            settled[advanced->settled_count++] = slide_at(values, count, values[next].time, head.size);
    lantern_time newest = count && values[count - 1].time > timer->watermark ? values[count - 1].time : timer->watermark;
    advanced->current = slide_at(values, count, newest, head.size);
    size_t gone = 0;
    while (gone < count && values[gone].time + head.size <= timer->watermark) gone++;
    head.settled = (int64_t)(next - gone);
    if (gone == count) {
        lantern_delete(table, row);
        return true;
    }
    head.armed = due_of(&head, values + gone, count - gone);
    ln_set_timer(head.armed, timer->full_key);
    put_array(table, row, &head, sizeof head, values + gone, (count - gone) * sizeof *values);
    return true;
}
