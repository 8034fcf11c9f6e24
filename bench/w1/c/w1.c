/* The benchmark W1: events and cents per tenant and minute, and revenue per product. */
#include "lantern.h"

struct minute {
    int64_t count, cents;
};
static const lantern_field minute_fields[] = {
    LANTERN_FIELD(struct minute, count, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct minute, cents, LANTERN_INTEGER, LANTERN_SUM, "cent"),
};
static lantern_table tenant_minute = LANTERN_TABLE("tenant_minute", "Events by minute and tenant.", struct minute, minute_fields);

struct product {
    int64_t orders, cents;
};
static const lantern_field product_fields[] = {
    LANTERN_FIELD(struct product, orders, LANTERN_INTEGER, LANTERN_SUM, ""),
    LANTERN_FIELD(struct product, cents, LANTERN_INTEGER, LANTERN_SUM, "cent"),
};
static lantern_table by_product = LANTERN_TABLE("product", "Revenue by product.", struct product, product_fields);

enum { PRODUCT, CENTS };
static const lantern_member members[] = { { "product", LANTERN_TEXT }, { "cents", LANTERN_INTEGER } };

static void apply(const lantern_event *event) {
    int64_t cents = lantern_maybe_integer_of(event, CENTS).value;
    lantern_time start = lantern_floor(event->time, LANTERN_MINUTE);
    struct minute *row = lantern_row(&tenant_minute, lantern_key_of(lantern_time_text(start), event->tenant), NULL);
    row->count++;
    row->cents = lantern_add(row->cents, cents);
    if (!lantern_is(event->type, "order.placed")) return;
    struct product *sold = lantern_row(&by_product, lantern_text_member(event, PRODUCT), NULL);
    sold->orders++;
    sold->cents = lantern_add(sold->cents, cents);
}

static const char *const subscribes[] = { "page.viewed", "cart.added", "order.placed", NULL };
static lantern_table *const tables[] = { &tenant_minute, &by_product, NULL };

const lantern_projection lantern_the_projection = {
    .name = "w1",
    .version = "0.1.0",
    .description = "Events by minute and tenant, and revenue by product",
    .subscribes = subscribes,
    .attributes = LANTERN_TENANT,
    .members = members,
    .member_count = 2,
    .tables = tables,
    .on_failure = LANTERN_PARK_EVENT,
    .apply = apply,
};
