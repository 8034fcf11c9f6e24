/* Without arguments: tests of single cases. With `fold EVENTS BATCH`: prints the tables, the
 * emitted and the parked events as JSON, for check.py. */
#include "lantern_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

#define EVENT(type, time, data) "{\"id\":\"" time "\",\"type\":\"" type "\",\"time\":\"2026-03-" time "Z\",\"data\":" data "}\n"

static void expect(const char *events, const char *expected, size_t emitted, size_t parked) {
    for (size_t batch = 1; batch <= 7; batch += 6) {
        lantern_test_batches(batch, batch == 1);
        lantern_test_start(NULL);
        lantern_test_feed(events);
        const char *row = lantern_test_row("inventory", "cup");
        if (row && !strcmp(row, expected) && lantern_test_emitted_count() == emitted && lantern_test_parked_count() == parked) continue;
        failures++;
        fprintf(stderr, "FAILED: found %s\n    expected %s, %zu emitted, %zu parked\n", row ? row : "no row", expected,
                lantern_test_emitted_count(), lantern_test_parked_count());
    }
}

static void cases(void) {
    /* Low, out, and in stock again. */
    expect(EVENT("stock.received", "01T10:00:00", "{\"product\":\"cup\",\"quantity\":10}")
           EVENT("order.placed", "01T11:00:00", "{\"product\":\"cup\",\"quantity\":7}")
           EVENT("order.placed", "01T12:00:00", "{\"product\":\"cup\",\"quantity\":3}"),
           "{\"product\":\"cup\",\"on_hand\":0,\"received\":10,\"sold\":10,\"corrected\":0,\"sold_7d\":10,\"days_left\":0.0,\"status\":\"out\",\"stockouts\":1,\"out_since\":\"2026-03-01T12:00:00Z\",\"changed\":\"2026-03-01T12:00:00Z\"}",
           2, 0);
    /* A count corrects the stock; a negative and a missing quantity are parked. */
    expect(EVENT("stock.received", "01T10:00:00", "{\"product\":\"cup\",\"quantity\":10}")
           EVENT("order.placed", "01T11:00:00", "{\"product\":\"cup\",\"quantity\":-1}")
           EVENT("order.placed", "01T11:30:00", "{\"product\":\"cup\"}")
           EVENT("stock.counted", "01T12:00:00", "{\"product\":\"cup\",\"quantity\":8}"),
           "{\"product\":\"cup\",\"on_hand\":8,\"received\":10,\"sold\":0,\"corrected\":-2,\"sold_7d\":0,\"days_left\":null,\"status\":\"ok\",\"stockouts\":0,\"out_since\":null,\"changed\":\"2026-03-01T12:00:00Z\"}",
           0, 2);
    /* After seven days a product's sales no longer count, even if the product has no further
     * event. */
    expect(EVENT("stock.received", "01T10:00:00", "{\"product\":\"cup\",\"quantity\":10}")
           EVENT("order.placed", "01T11:00:00", "{\"product\":\"cup\",\"quantity\":7}")
           EVENT("order.placed", "08T02:00:00", "{\"product\":\"pen\",\"quantity\":1}"),
           "{\"product\":\"cup\",\"on_hand\":3,\"received\":10,\"sold\":7,\"corrected\":0,\"sold_7d\":0,\"days_left\":null,\"status\":\"ok\",\"stockouts\":0,\"out_since\":null,\"changed\":\"2026-03-01T11:00:00Z\"}",
           2, 0);
    if (!lantern_test_start("{\"low_days\":-1}")) {
        failures++;
        fprintf(stderr, "FAILED: a negative parameter was accepted\n");
    }
}

static void print_text(lantern_text text) { printf("%.*s", (int)text.length, text.at); }

int main(int count, char **arguments) {
    if (count == 4) {
        lantern_test_batches(strtoul(arguments[3], NULL, 10), true);
        lantern_test_start(NULL);
        lantern_test_feed(lantern_test_file(arguments[2]));
        printf("{\"inventory\":[");
        for (size_t i = 0; i < lantern_test_row_count("inventory"); i++) {
            if (i) putchar(',');
            print_text(lantern_test_row_at("inventory", i));
        }
        printf("],\"emitted\":[");
        for (size_t i = 0; i < lantern_test_emitted_count(); i++) {
            if (i) putchar(',');
            print_text(lantern_test_emitted_at(i)->data);
        }
        printf("],\"parked\":%zu}\n", lantern_test_parked_count());
        return 0;
    }
    cases();
    if (!failures) puts("all cases of inventory-health passed");
    return failures != 0;
}
