/* Tests of the SDK's parts, and of a small projection in the host in memory. */
#include "internal.h"
#include "lantern_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(bool holds, const char *what) {
    if (holds) return;
    failures++;
    fprintf(stderr, "FAILED: %s\n", what);
}

static void same(const char *found, const char *expected) {
    if (found && !strcmp(found, expected)) return;
    failures++;
    fprintf(stderr, "FAILED: found %s\n    expected %s\n", found ? found : "(none)", expected);
}

static ln_buffer out;

static const char *written(void) {
    ln_put_char(&out, 0);
    return out.at;
}

static const char *number(double value) {
    out.length = 0;
    ln_put_number(&out, value);
    return written();
}

static void numbers_are_shortest_and_read_back(void) {
    same(number(1), "1.0");
    same(number(-0.0), "-0.0");
    same(number(0.1), "0.1");
    same(number(1e15), "1000000000000000.0");
    same(number(9007199254740993.0), "9007199254740992.0");
    same(number(1e16), "1e+16");
    same(number(123456789012345680.0), "1.2345678901234568e+17");
    same(number(0.00001), "0.00001");
    same(number(0.000015), "0.000015");
    same(number(9.9e-6), "9.9e-6");
    same(number(5e-324), "5e-324");
    same(number(2.2250738585072014e-308), "2.2250738585072014e-308");
    same(number(1.7976931348623157e308), "1.7976931348623157e+308");
    same(number(9.5367431640625e-07), "9.5367431640625e-7");
    same(number(1e23), "1e+23");
    same(number(0.30000000000000004), "0.30000000000000004");
    /* Random doubles with a fixed seed: reading the written text gives the same double, and no text
     * with fewer digits does. */
    uint64_t state = 17;
    for (int i = 0; i < 20000; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint64_t bits = state ^ state >> 29;
        double value;
        memcpy(&value, &bits, sizeof value);
        if (value - value != 0) continue;
        const char *text = number(value);
        check(strtod(text, NULL) == value, text);
        int digits = 0;
        const char *end = strpbrk(text, "e");
        for (const char *at = text; *at && at != end; at++) digits += *at >= '0' && *at <= '9';
        char shorter[64];
        snprintf(shorter, sizeof shorter, "%.*e", digits - 2, value);
        check(digits < 3 || !end || strtod(shorter, NULL) != value, shorter);
    }
}

static const char *canonical(const char *json) {
    out.length = 0;
    ln_reader reader = { json, json + strlen(json) };
    if (!ln_canonical(&reader, &out, 0)) return NULL;
    return written();
}

static void json_is_brought_into_the_form_of_rows(void) {
    same(canonical("{ \"b\" : 1, \"a\" : [1.50, 1E2, -0, 18446744073709551616, 18446744073709551615] }"),
         "{\"a\":[1.5,100.0,-0.0,1.8446744073709552e+19,18446744073709551615],\"b\":1}");
    same(canonical("{\"a\":1,\"a\":2}"), "{\"a\":2}");
    same(canonical("\"\\u00e9\\ud83d\\ude00\\/\\u0001\\n\""), "\"\xc3\xa9\xf0\x9f\x98\x80/\\u0001\\n\"");
    check(!canonical("[1,"), "a cut array is no JSON");
    check(!canonical("\"\\ud800\""), "half of a surrogate pair is no text");
}

static const char *time_text(lantern_time time) {
    out.length = 0;
    ln_put_time(&out, time);
    return written();
}

static void times_are_rfc_3339(void) {
    lantern_time time;
    same(time_text(0), "1970-01-01T00:00:00Z");
    same(time_text(-1), "1969-12-31T23:59:59.999999Z");
    same(time_text(500000), "1970-01-01T00:00:00.500Z");
    check(ln_read_time(lantern_text_of("2026-03-01T13:07:42.5+01:00"), &time), "a time with an offset");
    same(time_text(time), "2026-03-01T12:07:42.500Z");
    check(!ln_read_time(lantern_text_of("2026-03-01"), &time), "a date is no time");
    for (int64_t day = -800000; day < 800000; day += 97) {
        int64_t year;
        int month, date;
        ln_date_of(day, &year, &month, &date);
        check(ln_day_of(year, month, date) == day, "a day is the day of its date");
    }
}

static void sketches_are_those_of_the_specification(void) {
    static const struct { int values; uint64_t estimate; } counts[] = { { 512, 512 }, { 513, 520 }, { 10000, 9767 }, { 100000, 100105 } };
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        lantern_distinct sketch = { 0 };
        for (int value = 1; value <= counts[i].values; value++) lantern_distinct_add_integer(&sketch, value);
        check(lantern_distinct_estimate(&sketch) == counts[i].estimate, "an estimate of the specification");
    }
    lantern_distinct three = { 0 };
    for (int value = 3; value >= 1; value--) lantern_distinct_add_integer(&three, value);
    out.length = 0;
    ln_put_distinct(&out, &three);
    same(written(), "{\"estimate\":3,\"sketch\":\"ASYWfCr1YCG1Yha3tBJ2Ng==\"}");
    lantern_percentiles values = { 0 };
    static const int64_t seven[] = { INT64_MIN, -1000, -1, 0, 1000, 1000000, INT64_MAX };
    for (int i = 0; i < 7; i++) lantern_percentiles_add(&values, seven[i]);
    out.length = 0;
    ln_put_percentiles(&out, &values);
    same(written(), "{\"count\":7,\"min\":-9223372036854775808,\"p50\":0,\"p75\":1003519,\"p90\":9187343239835811839,\"p95\":9187343239835811839,\"p99\":9187343239835811839,\"max\":9223372036854775807,\"sketch\":\"A////////////wH+//////////8BAAHCGgG7AgEAAbwCAfwEAcQVAQ==\"}");
    /* Read back, it is the same. */
    lantern_percentiles again = { 0 };
    ln_reader reader = { out.at, out.at + out.length - 1 };
    check(ln_read_percentiles(&reader, &again), "a sketch reads back");
    ln_buffer second = { 0 };
    ln_put_percentiles(&second, &again);
    check(second.length == out.length - 1 && !memcmp(second.at, out.at, second.length), "a sketch read back is the same");
}

static void windows_are_those_that_hold_the_moment(void) {
    static const int64_t sizes[][2] = { { 1, 1 }, { 7, 2 }, { 2, 7 }, { 10, 10 }, { 9, 4 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int64_t time = -30; time < 30; time++) {
            lantern_window windows[16];
            size_t count = lantern_windows_of(sizes[i][0], sizes[i][1], time, windows, 16), expected = 0;
            for (int64_t start = -60 * sizes[i][1]; start < 60 * sizes[i][1]; start += sizes[i][1]) {
                if (!(start <= time && time < start + sizes[i][0])) continue;
                check(expected < count && windows[expected].start == start, "a window's start");
                expected++;
            }
            check(count == expected, "the number of windows");
        }
}

static void keys_are_escaped_and_sort(void) {
    lantern_key key = { 0 };
    lantern_part(&key, lantern_text_of("a/b"));
    lantern_part_unsigned(&key, 7);
    lantern_part(&key, lantern_text_of("100 %"));
    check(lantern_is(lantern_key_text(&key), "a%2Fb/00000000000000000007/100 %25"), "a key of three parts");
}

static void a_day_in_berlin_has_23_hours_when_the_clocks_change(void) {
    const lantern_zone *berlin = lantern_zone_named(lantern_text_of("Europe/Berlin"));
    check(berlin && !lantern_zone_named(lantern_text_of("Europe/Atlantis")), "zones by name");
    lantern_time noon;
    ln_read_time(lantern_text_of("2026-03-29T12:00:00Z"), &noon);
    lantern_window day = lantern_zone_day(berlin, noon), week = lantern_zone_week(berlin, noon), year = lantern_zone_year(berlin, noon);
    same(time_text(day.start), "2026-03-28T23:00:00Z");
    same(time_text(day.end), "2026-03-29T22:00:00Z");
    same(time_text(week.start), "2026-03-22T23:00:00Z");
    same(time_text(lantern_zone_month(berlin, noon).end), "2026-03-31T22:00:00Z");
    same(time_text(year.start), "2025-12-31T23:00:00Z");
}

/* ---- A small projection ------------------------------------------------------------------------ */

struct product { lantern_text product; int64_t orders; double share; };
static const lantern_field product_fields[] = {
    LANTERN_FIELD(struct product, product, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct product, orders, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct product, share, LANTERN_NUMBER, LANTERN_SAME, "%"),
};
static lantern_table products = LANTERN_TABLE("products", "", struct product, product_fields);
static lantern_table owners = { .name = "owners", .description = "", .fields = product_fields, .field_count = 3, .row_bytes = sizeof(struct product), .per_tenant = true, .cache_rows = 1 };

struct note { int64_t events; lantern_text last, data; lantern_distinct users; lantern_percentiles shares; };
static const lantern_field note_fields[] = {
    LANTERN_FIELD(struct note, events, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_MAYBE(struct note, last, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct note, data, LANTERN_JSON, LANTERN_SAME, ""),
    LANTERN_FIELD(struct note, users, LANTERN_DISTINCT, LANTERN_SKETCH, ""),
    LANTERN_FIELD(struct note, shares, LANTERN_PERCENTILES, LANTERN_SKETCH, ""),
};
static lantern_table notes = LANTERN_TABLE("notes", "", struct note, note_fields);
static lantern_table raw = LANTERN_BYTES("raw");

enum { PRODUCT, SHARE };
static const lantern_member members[] = { { "product", LANTERN_TEXT }, { "share", LANTERN_NUMBER } };
static int64_t step;
/* How often `apply` was called. */
static size_t applied;

/* Changes rows of all kinds, then fails if the share is 0. */
static void take_note(const lantern_event *event, lantern_text product) {
    static lantern_text last;
    int64_t share = (int64_t)lantern_number(event, SHARE);
    struct note *row = lantern_row(&notes, product, NULL);
    row->events++;
    lantern_set_json(&row->data, event->data);
    if (share % 3) lantern_set_text(&row->last, event->id);
    else lantern_unset(&row->last);
    for (int64_t i = 0; i < 40; i++) lantern_distinct_add_integer(&row->users, 1000 * (int64_t)event->offset + i);
    lantern_percentiles_add(&row->shares, share + (int64_t)event->offset);
    lantern_put_bytes(&raw, product, event->id);
    last = lantern_get_bytes(&raw, product);
    check(lantern_failed() || lantern_same(last, event->id), "the bytes that were put");
    lantern_delete(&notes, lantern_text_of("gone"));
    lantern_set_timer(event->time + share * LANTERN_MINUTE, product);
    if (share == 4) lantern_cancel_timer(product);
    lantern_emit("note.taken", event->id, event->time, lantern_text_of("{}"));
    /* Sends rows of this event to the host. */
    const lantern_found *rows;
    if (lantern_is(event->source, "scan")) lantern_scan(&notes, lantern_text_of("a"), lantern_text_of(""), 9, false, &rows);
    if (!share) lantern_fail("no share");
    if (!share) lantern_set_text(&((struct note *)lantern_row(&notes, product, NULL))->last, product);
    row = lantern_row(&notes, lantern_text_of("gone"), NULL);
    row->events++;
}

static void on_timer(const lantern_timer *timer) {
    struct note *row = lantern_row(&notes, lantern_key_of(lantern_text_of("fired"), timer->key), NULL);
    row->events++;
}

static void setup(void) {
    static const char *const names[] = { "step", NULL };
    lantern_only_parameters(names);
    step = lantern_parameter_integer("step", 1);
}

static void apply(const lantern_event *event) {
    lantern_text product = lantern_text_member(event, PRODUCT);
    applied++;
    if (lantern_is(event->type, "order.note")) {
        take_note(event, product);
        return;
    }
    struct product *row = lantern_row(&products, product, NULL);
    lantern_set_text(&row->product, product);
    row->orders += step;
    row->share = lantern_has(event, SHARE) ? 1 / lantern_number(event, SHARE) : 0;
    if (event->tenant.length) {
        lantern_text owner = lantern_is(product, "foreign") ? lantern_text_of("t2") : event->tenant;
        struct product *own = lantern_row(&owners, lantern_in_tenant(owner, product), NULL);
        lantern_set_text(&own->product, product);
        own->orders++;
    }
}

static void prepare(const lantern_event *events, size_t count) {
    lantern_text *keys = ln_take(count * sizeof *keys);
    size_t wanted = 0;
    for (size_t i = 0; i < count; i++)
        if (events[i].index % 2 == 0) keys[wanted++] = lantern_text_of("a");
    lantern_prefetch(&products, keys, wanted);
}

static const char *const subscribes[] = { "order.*", NULL };
static lantern_table *const tables[] = { &products, &owners, &notes, &raw, NULL };
static const char *const emits[] = { "note.taken", NULL };
const lantern_projection lantern_the_projection = {
    .name = "test", .version = "1.0.0", .description = "", .subscribes = subscribes, .members = members, .member_count = 2,
    .tables = tables, .on_failure = LANTERN_PARK_EVENT, .parameters = "{}", .setup = setup, .apply = apply, .prepare = prepare,
    .attributes = LANTERN_ID | LANTERN_SOURCE | LANTERN_DATA, .emits = emits, .tick = LANTERN_MINUTE, .on_timer = on_timer,
};

#define ORDER(id, tenant, data) "{\"id\":\"" id "\",\"type\":\"order.placed\",\"tenant\":\"" tenant "\",\"time\":\"2026-03-01T12:00:00Z\",\"data\":" data "}\n"

static void a_projection_folds_the_same_however_it_is_cut(void) {
    static const char events[] =
        ORDER("1", "", "{\"product\":\"a\"}")
        ORDER("2", "", "{\"product\":7}")
        ORDER("3", "", "{\"product\":\"b\",\"share\":0}")
        ORDER("4", "t1", "{\"product\":\"a\",\"share\":4}")
        ORDER("5", "t1", "{\"product\":\"foreign\"}")
        ORDER("6", "t1", "{\"product\":\"c\"}")
        ORDER("7", "", "{}")
        ORDER("8", "", "{\"product\":\"\"}")
        "{\"id\":\"9\",\"type\":\"other\",\"time\":\"2026-03-01T12:00:00Z\",\"data\":{}}\n"
        ORDER("10", "t2", "{\"product\":\"a\"}");
    for (size_t cut = 1; cut <= 16; cut *= 2) {
        lantern_test_batches(cut, cut % 3 == 1);
        check(!lantern_test_start("{\"step\":2}"), "setup");
        lantern_test_feed(events);
        same(lantern_test_row("products", "a"), "{\"product\":\"a\",\"orders\":6,\"share\":0.0}");
        check(!lantern_test_row("products", "b"), "an infinite share is not stored");
        check(!lantern_test_row("products", "foreign"), "what a failed event wrote is discarded");
        check(lantern_test_row_count("owners") == 3, "three rows of owners");
        static const char *const parked[] = { "2", "3", "5", "7", "8" };
        check(lantern_test_parked_count() == 5, "five events fail");
        for (size_t i = 0; i < 5 && i < lantern_test_parked_count(); i++) same(lantern_test_parked_id(i), parked[i]);
        check(strstr(lantern_test_parked_reason(3), "missing or null: \"product\""), lantern_test_parked_reason(3));
    }
    same(lantern_test_start("{\"steps\":2}"), "there is no such parameter: \"steps\"");
    same(lantern_test_start("{\"step\":\"2\"}"), "a parameter is not an integer: \"step\"");
}

/* All rows, emitted and parked events, after a fold in batches of `cut` events. */
static const char *folded(const char *events, size_t cut, bool drop) {
    static ln_buffer all;
    all.length = 0;
    lantern_test_batches(cut, drop);
    check(!lantern_test_start(NULL), "setup");
    lantern_test_feed(events);
    for (lantern_table *const *table = tables; *table; table++)
        for (size_t i = 0; i < lantern_test_row_count((*table)->name); i++) {
            lantern_text key = lantern_test_key_at((*table)->name, i), row = lantern_test_row_at((*table)->name, i);
            ln_put(&all, key.at, key.length);
            ln_put_char(&all, ' ');
            ln_put(&all, row.at, row.length);
            ln_put_char(&all, '\n');
        }
    for (size_t i = 0; i < lantern_test_emitted_count(); i++) ln_put_text(&all, lantern_test_emitted_at(i)->subject);
    ln_put_char(&all, 0);
    return all.at;
}

static size_t lines(const char *text) {
    size_t count = 0;
    for (; *text; text++) count += *text == '\n';
    return count;
}

static void a_rejected_event_leaves_nothing_and_is_applied_once(void) {
    /* The random numbers have a fixed seed. In `bad`, some events fail. In `calm`, the product of
     * the same events is not text: these events change nothing, but they move the watermark. */
    ln_buffer bad = { 0 }, calm = { 0 };
    char line[256];
    uint64_t state = 29;
    size_t failing = 0;
    for (int i = 0; i < 400; i++) {
        state = state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        unsigned product = state >> 40 & 3, share = state >> 50 & 3, minute = (unsigned)i / 8;
        bool scans = (state >> 55 & 7) == 0;
        const char *format = "{\"id\":\"n%d\",\"type\":\"order.note\",\"source\":\"%s\",\"time\":\"2026-03-01T12:%02u:00Z\",\"data\":{\"product\":%s%u%s,\"share\":%u}}\n";
        snprintf(line, sizeof line, format, i, scans && share ? "scan" : "", minute, "\"p", product, "\"", share);
        ln_put_string(&bad, line);
        failing += share == 0;
        snprintf(line, sizeof line, format, i, scans && share ? "scan" : "", minute, share ? "\"p" : "", product, share ? "\"" : "", share);
        ln_put_string(&calm, line);
    }
    ln_put_char(&bad, 0);
    ln_put_char(&calm, 0);
    char *expected = strdup(folded(calm.at, 1, true));
    check(lines(expected) >= 8 && failing > 50, "rows and failing events");
    static const size_t cuts[] = { 1, 7, 1000 };
    for (size_t i = 0; i < 6; i++) {
        applied = 0;
        same(folded(bad.at, cuts[i / 2], i % 2), expected);
        check(applied == lines(bad.at), "each event is applied once");
        check(lantern_test_parked_count() == failing, "what fails is parked");
        same(lantern_test_parked_reason(0), "no share");
    }
    /* If a failing event has sent rows to the host, the call cannot undo these rows. So the other
     * events are applied again in another call. */
    static const char sent[] =
        "{\"id\":\"1\",\"type\":\"order.note\",\"time\":\"2026-03-01T12:00:00Z\",\"data\":{\"product\":\"p\",\"share\":1}}\n"
        "{\"id\":\"2\",\"type\":\"order.note\",\"time\":\"2026-03-01T12:00:00Z\",\"data\":{\"product\":\"p\",\"share\":1}}\n"
        "{\"id\":\"3\",\"type\":\"order.note\",\"source\":\"scan\",\"time\":\"2026-03-01T12:00:00Z\",\"data\":{\"product\":\"p\",\"share\":0}}\n";
    applied = 0;
    folded(sent, 1000, false);
    check(applied == 5 && lantern_test_parked_count() == 1, "a sent row of a failing event ends the call");
    check(strstr(lantern_test_row("notes", "p"), "{\"events\":2,\"last\":\"2\"") != NULL, lantern_test_row("notes", "p"));
    free(expected);
}

int main(void) {
    numbers_are_shortest_and_read_back();
    json_is_brought_into_the_form_of_rows();
    times_are_rfc_3339();
    sketches_are_those_of_the_specification();
    windows_are_those_that_hold_the_moment();
    keys_are_escaped_and_sort();
    a_day_in_berlin_has_23_hours_when_the_clocks_change();
    a_projection_folds_the_same_however_it_is_cut();
    a_rejected_event_leaves_nothing_and_is_applied_once();
    if (!failures) puts("all tests of the SDK in C passed");
    return failures != 0;
}
