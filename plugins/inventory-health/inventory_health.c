/* Stock on hand, days left and stockouts of each product. README.md describes the tables. */
#include "lantern.h"

#include <string.h>

#define DAYS 7
#define ALERT "inventory.low"

/* ---- Tables -------------------------------------------------------------------------------- */

struct product {
    lantern_text product;
    int64_t on_hand, received, sold, corrected, sold_7d;
    lantern_maybe_number days_left;
    lantern_text status;
    int64_t stockouts;
    lantern_maybe_time out_since;
    lantern_time changed;
};
static const lantern_field product_fields[] = {
    LANTERN_FIELD(struct product, product, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(struct product, on_hand, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct product, received, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct product, sold, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct product, corrected, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct product, sold_7d, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_MAYBE(struct product, days_left, LANTERN_NUMBER, LANTERN_MIN, "d"),
    LANTERN_FIELD(struct product, status, LANTERN_TEXT, LANTERN_NEWEST, ""),
    LANTERN_FIELD(struct product, stockouts, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_MAYBE(struct product, out_since, LANTERN_TIMESTAMP, LANTERN_MIN, ""),
    LANTERN_FIELD(struct product, changed, LANTERN_TIMESTAMP, LANTERN_NEWEST, ""),
};
static lantern_table inventory = {
    .name = "inventory",
    .description = "Stock, days left and stockouts by product.",
    .fields = product_fields,
    .field_count = sizeof product_fields / sizeof *product_fields,
    .row_bytes = sizeof(struct product),
    .newest_by = "changed",
};

/* Quantities sold on the last seven days of a product, by day modulo seven. */
struct week {
    int64_t day;
    int64_t sold[DAYS];
};
static lantern_table weeks = LANTERN_BYTES("weeks");

/* ---- Parameters ----------------------------------------------------------------------------- */

static double low_days;

static void setup(void) {
    static const char *const names[] = { "low_days", NULL };
    lantern_only_parameters(names);
    low_days = lantern_parameter_number("low_days", 7);
    if (low_days < 0) lantern_fail("low_days is negative");
}

/* ---- The last seven days ---------------------------------------------------------------------- */

static int64_t day_of(lantern_time time) { return lantern_floor(time, LANTERN_DAY) / LANTERN_DAY; }
static size_t slot(int64_t day) { return (size_t)((day % DAYS + DAYS) % DAYS); }

static struct week read_week(lantern_text product, int64_t day) {
    lantern_text bytes = lantern_get_bytes(&weeks, product);
    struct week week = { day, { 0 } };
    if (bytes.length == sizeof week) memcpy(&week, bytes.at, sizeof week);
    return week;
}

/* Moves the seven days forward, so that the last of them is `day` or later. */
static void advance(struct week *week, int64_t day) {
    for (int left = DAYS; week->day < day && left; left--) week->sold[slot(++week->day)] = 0;
    if (week->day < day) week->day = day;
}

static int64_t total_of(const struct week *week) {
    int64_t total = 0;
    for (size_t i = 0; i < DAYS; i++) total = lantern_add(total, week->sold[i]);
    return total;
}

static void write_week(lantern_text product, const struct week *week) {
    lantern_put_bytes(&weeks, product, (lantern_text){ (const char *)week, sizeof *week });
}

/* ---- The state of a product --------------------------------------------------------------------- */

static int severity(lantern_text status) { return lantern_is(status, "out") ? 2 : lantern_is(status, "low"); }

static void warn(const struct product *row, lantern_time time) {
    lantern_writer data = { 0 };
    lantern_write(&data, "{\"product\":");
    lantern_write_text(&data, row->product);
    lantern_write(&data, ",\"status\":");
    lantern_write_text(&data, row->status);
    lantern_write(&data, ",\"on_hand\":");
    lantern_write_integer(&data, row->on_hand);
    lantern_write(&data, ",\"days_left\":");
    if (row->days_left.set) lantern_write_number(&data, row->days_left.value);
    else lantern_write(&data, "null");
    lantern_write(&data, "}");
    lantern_emit(ALERT, row->product, time, lantern_written(&data));
}

/* Sets the columns that are computed from stock and sales. Emits an event if the status is now
 * worse. */
static void judge(struct product *row, lantern_time time) {
    int before = severity(row->status);
    row->days_left.set = row->sold_7d > 0;
    row->days_left.value = row->days_left.set ? (double)row->on_hand / ((double)row->sold_7d / DAYS) : 0;
    bool low = row->days_left.set && row->days_left.value < low_days;
    lantern_set_text(&row->status, lantern_text_of(row->on_hand <= 0 ? "out" : low ? "low" : "ok"));
    int now = severity(row->status);
    if (now == 2 && before != 2) {
        row->stockouts++;
        row->out_since = (lantern_maybe_time){ true, time };
    }
    if (now != 2) row->out_since.set = false;
    if (now > before) warn(row, time);
}

/* ---- Events ----------------------------------------------------------------------------------------- */

enum { PRODUCT, QUANTITY };
static const lantern_member members[] = { { "product", LANTERN_TEXT }, { "quantity", LANTERN_INTEGER } };

static void apply(const lantern_event *event) {
    lantern_text product = lantern_text_member(event, PRODUCT);
    int64_t quantity = lantern_integer(event, QUANTITY);
    if (quantity < 0) lantern_fail("quantity is negative");
    if (lantern_failed()) return;
    struct product *row = lantern_row(&inventory, product, NULL);
    lantern_set_text(&row->product, product);
    if (event->time > row->changed) row->changed = event->time;
    if (lantern_is(event->type, "stock.received")) {
        row->received = lantern_add(row->received, quantity);
        row->on_hand = lantern_add(row->on_hand, quantity);
    } else if (lantern_is(event->type, "stock.counted")) {
        row->corrected = lantern_add(row->corrected, lantern_add(quantity, -row->on_hand));
        row->on_hand = quantity;
    } else {
        int64_t day = day_of(event->time);
        struct week week = read_week(product, day);
        row->sold = lantern_add(row->sold, quantity);
        row->on_hand = lantern_add(row->on_hand, -quantity);
        advance(&week, day);
        if (day > week.day - DAYS) week.sold[slot(day)] = lantern_add(week.sold[slot(day)], quantity);
        row->sold_7d = total_of(&week);
        write_week(product, &week);
        if (row->sold_7d > 0) lantern_set_timer((week.day + 1) * LANTERN_DAY, product);
    }
    judge(row, event->time);
}

/* A day is over: the sales of the oldest of the seven days no longer count. */
static void on_timer(const lantern_timer *timer) {
    int64_t day = day_of(timer->watermark);
    struct week week = read_week(timer->key, day);
    advance(&week, day);
    write_week(timer->key, &week);
    struct product *row = lantern_row(&inventory, timer->key, NULL);
    row->sold_7d = total_of(&week);
    if (row->sold_7d > 0) lantern_set_timer((week.day + 1) * LANTERN_DAY, timer->key);
    judge(row, timer->at);
}

/* ---- The projection ------------------------------------------------------------------------------------ */

static const char *const subscribes[] = { "order.placed", "stock.received", "stock.counted", NULL };
static const char *const emits[] = { ALERT, NULL };
static lantern_table *const tables[] = { &inventory, &weeks, NULL };

const lantern_projection lantern_the_projection = {
    .name = "inventory-health",
    .version = "0.1.0",
    .description = "Stock on hand, days left and stockouts by product",
    .subscribes = subscribes,
    .members = members,
    .member_count = 2,
    .tables = tables,
    .emits = emits,
    .allowed_lateness = LANTERN_HOUR,
    .tick = 10 * LANTERN_MINUTE,
    .on_failure = LANTERN_PARK_EVENT,
    .parameters = "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"low_days\":{\"type\":\"number\",\"minimum\":0,\"default\":7,"
                  "\"description\":\"a product with less than this number of days left is low\"}}}",
    .setup = setup,
    .apply = apply,
    .on_timer = on_timer,
};
