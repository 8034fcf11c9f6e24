/* Folds an event file with the conformance projection in the host in memory, and prints the
 * result in the form of `sdk/conformance/expected`. Arguments: the events, the parameters
 * or `-`, the number of events in a call, and 1 if rows in memory are dropped after each
 * call. */
#include "internal.h"
#include "lantern_test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static ln_buffer out;

static void part(lantern_text text) {
    ln_put_text(&out, text);
    ln_put_char(&out, '\t');
}

int main(int count, char **arguments) {
    if (count != 5) return 2;
    lantern_test_batches(strtoul(arguments[3], NULL, 10), arguments[4][0] == '1');
    const char *parameters = strcmp(arguments[2], "-") ? lantern_test_file(arguments[2]) : NULL;
    const char *refused = lantern_test_start(parameters);
    if (refused) {
        fprintf(stderr, "%s\n", refused);
        return 1;
    }
    lantern_test_feed(lantern_test_file(arguments[1]));
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++) {
        const char *name = (*table)->name;
        for (size_t i = 0; !(*table)->is_private && i < lantern_test_row_count(name); i++) {
            ln_put_string(&out, name);
            ln_put_char(&out, '\t');
            part(lantern_test_key_at(name, i));
            lantern_text row = lantern_test_row_at(name, i);
            ln_put(&out, row.at, row.length);
            ln_put_char(&out, '\n');
        }
    }
    for (size_t i = 0; i < lantern_test_emitted_count(); i++) {
        const lantern_test_event *event = lantern_test_emitted_at(i);
        ln_put_string(&out, "emitted\t");
        part(event->subject);
        ln_put_time(&out, event->time);
        ln_put_char(&out, '\t');
        ln_put(&out, event->data.at, event->data.length);
        ln_put_char(&out, '\n');
    }
    for (size_t i = 0; i < lantern_test_parked_count(); i++) {
        ln_put_string(&out, "parked\t");
        ln_put_text(&out, lantern_text_of(lantern_test_parked_id(i)));
        ln_put_char(&out, '\n');
    }
    if (out.length) fwrite(out.at, 1, out.length, stdout);
    return 0;
}
