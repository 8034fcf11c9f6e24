// A projection in C++: the header and the macros work there as well.
#include "lantern_test.h"

#include <cstdio>
#include <string>

namespace {

struct Count {
    lantern_text type;
    std::int64_t events;
};

const lantern_field count_fields[] = {
    LANTERN_FIELD(Count, type, LANTERN_TEXT, LANTERN_SAME, ""),
    LANTERN_FIELD(Count, events, LANTERN_INTEGER, LANTERN_SUM, ""),
};
lantern_table counts = LANTERN_TABLE("counts", "Events by type.", Count, count_fields);

int applied;

void apply(const lantern_event *event) {
    applied++;
    auto *row = static_cast<Count *>(lantern_row(&counts, event->type, nullptr));
    lantern_set_text(&row->type, event->type);
    row->events++;
    if (lantern_is(event->type, "bad")) lantern_fail("bad");
}

const char *const subscribes[] = { "*", nullptr };
lantern_table *const tables[] = { &counts, nullptr };

lantern_projection describe() {
    lantern_projection it = {};
    it.name = "counts";
    it.version = "1.0.0";
    it.description = "Events by type";
    it.subscribes = subscribes;
    it.tables = tables;
    it.on_failure = LANTERN_PARK_SUBJECT;
    it.apply = apply;
    return it;
}

} // namespace

const lantern_projection lantern_the_projection = describe();

int main() {
    lantern_test_start(nullptr);
    lantern_test_feed("{\"id\":\"1\",\"type\":\"a\",\"time\":\"2026-03-01T12:00:00Z\"}\n");
    const char *row = lantern_test_row("counts", "a");
    if (!row || std::string(row) != "{\"type\":\"a\",\"events\":1}") {
        std::fprintf(stderr, "FAILED: %s\n", row ? row : "(no row)");
        return 1;
    }
    // The call ends with the first event that fails; the events after it come in another one.
    const char *event = "{\"id\":\"1\",\"type\":\"a\",\"time\":\"2026-03-01T12:00:00Z\"}\n";
    const char *bad = "{\"id\":\"2\",\"type\":\"bad\",\"time\":\"2026-03-01T12:00:00Z\"}\n";
    lantern_test_start(nullptr);
    applied = 0;
    lantern_test_feed((std::string(event) + bad + bad + event + bad + event).c_str());
    row = lantern_test_row("counts", "a");
    if (applied != 6 || lantern_test_parked_count() != 3 || !row || std::string(row) != "{\"type\":\"a\",\"events\":3}" || lantern_test_row("counts", "bad")) {
        std::fprintf(stderr, "FAILED: %d calls, %s\n", applied, row ? row : "(no row)");
        return 1;
    }
    std::puts("a projection in C++ works");
}
