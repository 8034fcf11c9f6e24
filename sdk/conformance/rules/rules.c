/* A projection that breaks the rules, in C: README.md of the suite lists its events. */
#include "lantern.h"

#include <stdlib.h>
#include <string.h>

struct count { int64_t events; };
static const lantern_field count_fields[] = { LANTERN_FIELD(struct count, events, LANTERN_INTEGER, LANTERN_SUM, "") };
static lantern_table counts = LANTERN_TABLE("counts", "Events by type.", struct count, count_fields);

static volatile uint64_t sink;

static uint64_t recurse(uint64_t depth) {
    volatile char room[256];
    memset((char *)room, (int)depth, sizeof room);
    return depth == UINT64_MAX ? (uint64_t)room[0] : recurse(depth + 1) + (uint64_t)room[1];
}

static void apply(const lantern_event *event) {
    struct count *row = lantern_row(&counts, event->type, NULL);
    row->events++;
    if (lantern_is(event->type, "r.error")) lantern_fail("refused by the projection");
    if (lantern_is(event->type, "r.loop")) for (;;) sink++;
    if (lantern_is(event->type, "r.trap")) __builtin_trap();
    if (lantern_is(event->type, "r.recursion")) sink = recurse(0);
    if (lantern_is(event->type, "r.memory")) {
        for (;;) {
            char *block = malloc(1 << 20);
            if (!block) abort();
            memset(block, 1, 1 << 20);
            sink += (uint64_t)block[sink % (1 << 20)];
        }
    }
}

static const char *const subscribes[] = { "r.*", NULL };
static lantern_table *const tables[] = { &counts, NULL };
const lantern_projection lantern_the_projection = {
    .name = "rules", .version = "1.0.0", .description = "A projection that breaks the rules", .subscribes = subscribes,
    .tables = tables, .on_failure = LANTERN_PARK_EVENT, .apply = apply,
};
