/* A host in memory, for tests of a projection with any C compiler. Link the projection with
 * all files of this folder. Results stay in memory until the program ends. */
#ifndef LANTERN_TEST_H
#define LANTERN_TEST_H

#include "lantern.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Begins with empty tables. `parameters` are JSON, or NULL. Returns NULL, or the message
 * with which `setup` refuses them. */
const char *lantern_test_start(const char *parameters);
/* Sets how many events one call has, and whether the rows in memory are dropped after each
 * call, as the host may do. The default is 1,000 events, and rows are not dropped. The
 * tables must be the same with every setting. */
void lantern_test_batches(size_t events, bool drop);
/* Folds events, one CloudEvent as JSON in each line. Ends the program if a line is not one. */
void lantern_test_feed(const char *ndjson);
/* The content of a file, or the end of the program. */
const char *lantern_test_file(const char *path);

/* A row as JSON (or the bytes of a private table), or NULL. */
const char *lantern_test_row(const char *table, const char *key);
size_t lantern_test_row_count(const char *table);
/* The row at an index, in the order of keys. */
lantern_text lantern_test_key_at(const char *table, size_t index);
lantern_text lantern_test_row_at(const char *table, size_t index);

typedef struct { lantern_text type, subject; lantern_time time; lantern_text data; } lantern_test_event;
size_t lantern_test_emitted_count(void);
const lantern_test_event *lantern_test_emitted_at(size_t index);

/* The events that were parked: their ids and the reasons. */
size_t lantern_test_parked_count(void);
const char *lantern_test_parked_id(size_t index);
const char *lantern_test_parked_reason(size_t index);

#ifdef __cplusplus
}
#endif
#endif
