/* Tables: rows in memory, and how they become JSON. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define CACHE_ROWS 32768

typedef struct {
    lantern_text key; /* owned */
    void *row;        /* owned; NULL if there is no row */
    uint32_t hash, cause;
    bool changed, unchecked;
} entry;

/* The rows in memory. `slots` are indices of entries plus 1, by hash. */
struct lantern_cache {
    entry *entries;
    uint32_t count, room;
    uint32_t *slots, slot_count;
    uint32_t *changed, changed_count, changed_room;
    uint32_t *unchecked, unchecked_count, unchecked_room;
};

static void *field_of(const void *row, const lantern_field *field) { return (char *)row + field->offset; }

/* How a row was before the event in progress first touched it. */
typedef struct {
    lantern_table *table;
    uint32_t index, cause; /* of the entry */
    bool was_changed, was_row;
    size_t at; /* of the copy in `undo_bytes`: the struct, then what its fields own */
} undo;
static undo *undos;
static size_t undo_count, undo_room;
static ln_buffer undo_bytes;
/* Whether rows of the event in progress were sent to the host. */
static bool sent;

/* Rows that are not stored, for callers that need one after an error. */
typedef struct { const lantern_table *table; void *row; } unstored;
static unstored *unstored_rows;
static size_t unstored_count, unstored_room;

static void table_error(const lantern_table *table, lantern_text key, const char *why) {
    ln_buffer message = { 0 };
    ln_put_string(&message, "table `");
    ln_put_string(&message, table->name);
    ln_put_string(&message, "`: ");
    ln_put_string(&message, why);
    ln_put_char(&message, 0);
    lantern_fail_text(message.at, key);
    free(message.at);
}

/* ---- Rows as JSON ------------------------------------------------------------------------ */

static void put_value(ln_buffer *out, const lantern_field *field, const void *at) {
    const lantern_text *text = at;
    bool missing = field->maybe && (field->kind == LANTERN_TEXT || field->kind == LANTERN_JSON ? !text->at : !*(const bool *)at);
    if (missing) {
        ln_put_string(out, "null");
        return;
    }
    switch (field->kind) {
    case LANTERN_INTEGER:
        ln_put_integer(out, field->maybe ? ((const lantern_maybe_integer *)at)->value : *(const int64_t *)at);
        break;
    case LANTERN_NUMBER:
        ln_put_number(out, field->maybe ? ((const lantern_maybe_number *)at)->value : *(const double *)at);
        break;
    case LANTERN_BOOLEAN:
        ln_put_string(out, (field->maybe ? ((const lantern_maybe_boolean *)at)->value : *(const bool *)at) ? "true" : "false");
        break;
    case LANTERN_TIMESTAMP:
        ln_put_char(out, '"');
        ln_put_time(out, field->maybe ? ((const lantern_maybe_time *)at)->value : *(const lantern_time *)at);
        ln_put_char(out, '"');
        break;
    case LANTERN_TEXT: ln_put_text(out, *text); break;
    case LANTERN_JSON:
        if (text->at) ln_put(out, text->at, text->length); else ln_put_string(out, "null");
        break;
    case LANTERN_DISTINCT: ln_put_distinct(out, at); break;
    case LANTERN_PERCENTILES: ln_put_percentiles(out, at); break;
    }
}

static void put_row(const lantern_table *table, ln_buffer *out, const void *row) {
    if (!table->fields) {
        const lantern_text *bytes = row;
        ln_put(out, bytes->at, bytes->length);
        return;
    }
    ln_put_char(out, '{');
    for (size_t i = 0; i < table->field_count; i++) {
        const lantern_field *field = &table->fields[i];
        if (i) ln_put_char(out, ',');
        ln_put_text(out, lantern_text_of(field->name));
        ln_put_char(out, ':');
        put_value(out, field, field_of(row, field));
    }
    ln_put_char(out, '}');
}

static bool read_value(ln_reader *reader, const lantern_field *field, void *at) {
    lantern_text text;
    bool whole;
    if (field->maybe && ln_expect(reader, "null")) return true;
    switch (field->kind) {
    case LANTERN_INTEGER: {
        lantern_maybe_integer *maybe = at;
        if (field->maybe) maybe->set = true;
        return ln_read_number(reader, &text, &whole) && ln_integer_of(text, field->maybe ? &maybe->value : (int64_t *)at);
    }
    case LANTERN_NUMBER: {
        lantern_maybe_number *maybe = at;
        if (field->maybe) maybe->set = true;
        return ln_read_number(reader, &text, &whole) && ln_double_of(text, field->maybe ? &maybe->value : (double *)at);
    }
    case LANTERN_BOOLEAN: {
        lantern_maybe_boolean *maybe = at;
        if (field->maybe) maybe->set = true;
        bool *value = field->maybe ? &maybe->value : (bool *)at;
        *value = ln_expect(reader, "true");
        return *value || ln_expect(reader, "false");
    }
    case LANTERN_TIMESTAMP: {
        lantern_maybe_time *maybe = at;
        if (field->maybe) maybe->set = true;
        return ln_read_text(reader, &text) && ln_read_time(text, field->maybe ? &maybe->value : (lantern_time *)at);
    }
    case LANTERN_TEXT:
        if (!ln_read_text(reader, &text)) return false;
        lantern_set_text(at, text);
        return true;
    case LANTERN_JSON: {
        const char *start = reader->at;
        if (!ln_pass(reader, 0)) return false;
        lantern_set_text(at, (lantern_text){ start, (size_t)(reader->at - start) });
        return true;
    }
    case LANTERN_DISTINCT: return ln_read_distinct(reader, at);
    case LANTERN_PERCENTILES: return ln_read_percentiles(reader, at);
    }
    return false;
}

static bool read_row(const lantern_table *table, lantern_text bytes, void *row) {
    memset(row, 0, table->row_bytes);
    if (!table->fields) {
        lantern_set_text(row, bytes);
        return true;
    }
    ln_reader reader = { bytes.at, bytes.at + bytes.length };
    for (size_t i = 0; i < table->field_count; i++) {
        const lantern_field *field = &table->fields[i];
        lantern_text name;
        if (!ln_expect(&reader, i ? "," : "{") || !ln_read_text(&reader, &name) || !lantern_is(name, field->name)) return false;
        if (!ln_expect(&reader, ":") || !read_value(&reader, field, field_of(row, field))) return false;
    }
    return ln_expect(&reader, "}") && reader.at == reader.end;
}

static void **text_memory(lantern_text *text, size_t *bytes) {
    *bytes = text->at ? text->length : 0;
    return (void **)&text->at;
}

/* Returns where field `index` of a row stores the address of memory that the row owns, and sets
 * `*bytes` to the size of this memory. Returns NULL if the field owns no memory. A row of bytes
 * counts as one such field. */
static void **owned_by(const lantern_table *table, void *row, size_t index, size_t *bytes) {
    if (!table->fields) return text_memory(row, bytes);
    void *at = field_of(row, &table->fields[index]);
    switch (table->fields[index].kind) {
    case LANTERN_TEXT: case LANTERN_JSON: return text_memory(at, bytes);
    case LANTERN_DISTINCT: return ln_distinct_memory(at, bytes);
    case LANTERN_PERCENTILES: return ln_percentiles_memory(at, bytes);
    default: return NULL;
    }
}

static size_t parts_of(const lantern_table *table) { return table->fields ? table->field_count : 1; }

/* Releases what a row owns. */
static void empty_row(const lantern_table *table, void *row) {
    if (!table->fields) free((char *)((lantern_text *)row)->at);
    for (size_t i = 0; i < table->field_count; i++) {
        void *at = field_of(row, &table->fields[i]);
        switch (table->fields[i].kind) {
        case LANTERN_TEXT: case LANTERN_JSON: free((char *)((lantern_text *)at)->at); break;
        case LANTERN_DISTINCT: ln_free_distinct(at); break;
        case LANTERN_PERCENTILES: ln_free_percentiles(at); break;
        default: break;
        }
    }
}

static void free_row(const lantern_table *table, void *row) {
    if (!row) return;
    empty_row(table, row);
    free(row);
}

void lantern_set_text(lantern_text *field, lantern_text text) {
    char *copy = ln_new(text.length + 1);
    if (text.length) memcpy(copy, text.at, text.length);
    free((char *)field->at);
    *field = (lantern_text){ copy, text.length };
}

void lantern_set_json(lantern_text *field, lantern_text json) {
    ln_buffer out = { 0 };
    ln_reader reader = { json.at, json.at + json.length };
    bool read = ln_canonical(&reader, &out, 0);
    ln_space(&reader);
    if (!read || reader.at != reader.end) lantern_fail_text("this is not JSON", json);
    lantern_set_text(field, (lantern_text){ out.at, out.length });
    free(out.at);
}

void lantern_unset(lantern_text *field) {
    free((char *)field->at);
    *field = (lantern_text){ NULL, 0 };
}

/* ---- The rows in memory -------------------------------------------------------------------- */

static struct lantern_cache *cache_of(lantern_table *table) {
    if (!table->cache) {
        table->cache = ln_new(sizeof *table->cache);
        memset(table->cache, 0, sizeof *table->cache);
    }
    return table->cache;
}

void ln_open_tables(void) {
    uint32_t id = 0;
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++) (*table)->id = id++;
}

static uint32_t hash_of(lantern_text key) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    size_t i = 0;
    for (; i + 8 <= key.length; i += 8) {
        uint64_t word;
        memcpy(&word, key.at + i, 8);
        hash = (hash ^ word) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    for (; i < key.length; i++) hash = (hash ^ (unsigned char)key.at[i]) * UINT64_C(0x100000001b3);
    return (uint32_t)(hash ^ hash >> 32);
}

static uint32_t *slot_of(struct lantern_cache *cache, lantern_text key, uint32_t hash) {
    uint32_t mask = cache->slot_count - 1, at = hash & mask;
    while (cache->slots[at]) {
        entry *other = &cache->entries[cache->slots[at] - 1];
        if (other->hash == hash && lantern_same(other->key, key)) break;
        at = (at + 1) & mask;
    }
    return &cache->slots[at];
}

static void drop_rows(lantern_table *table) {
    struct lantern_cache *cache = table->cache;
    for (uint32_t i = 0; i < cache->count; i++) {
        free((char *)cache->entries[i].key.at);
        free_row(table, cache->entries[i].row);
    }
    cache->count = 0;
    if (cache->slot_count) memset(cache->slots, 0, cache->slot_count * sizeof *cache->slots);
}

/* Writes the rows of a table and drops them from memory; false after an error. */
static bool make_room(lantern_table *table) {
    ln_check_rows();
    ln_flush_table(table);
    if (ln_call.failed) return false;
    drop_rows(table);
    return true;
}

static size_t rows_max(const lantern_table *table) { return table->cache_rows ? table->cache_rows : CACHE_ROWS; }

/* Gives the key a new entry, without a row. There must be room. */
static entry *insert(lantern_table *table, lantern_text key, uint32_t hash) {
    struct lantern_cache *cache = cache_of(table);
    if ((cache->count + 1) * 2 > cache->slot_count) {
        cache->slot_count = cache->slot_count ? cache->slot_count * 2 : 64;
        cache->slots = ln_grow(cache->slots, cache->slot_count * sizeof *cache->slots);
        memset(cache->slots, 0, cache->slot_count * sizeof *cache->slots);
        for (uint32_t i = 0; i < cache->count; i++) *slot_of(cache, cache->entries[i].key, cache->entries[i].hash) = i + 1;
    }
    LN_ROOM(cache->entries, cache->count, cache->room, 1);
    entry *fresh = &cache->entries[cache->count];
    *fresh = (entry){ .hash = hash };
    lantern_set_text(&fresh->key, key);
    *slot_of(cache, fresh->key, hash) = ++cache->count;
    return fresh;
}

static bool check_key(lantern_table *table, lantern_text key) {
    lantern_text tenant, rest;
    bool fits = ln_split_tenant(key, &tenant, &rest);
    const char *why = NULL;
    if (rest.length == 0) why = "a key cannot be empty";
    else if (!fits) why = "U+0000 cannot be part of a key";
    else if (table->per_tenant && !tenant.length) why = "the table is per tenant; use `lantern_in_tenant`";
    else if (!table->per_tenant && tenant.length) why = "U+0000 cannot be part of a key";
    if (why) table_error(table, key, why);
    return !why;
}

static void set_row(lantern_table *table, entry *it, lantern_text bytes) {
    it->row = ln_new(table->row_bytes);
    if (read_row(table, bytes, it->row)) return;
    table_error(table, it->key, "a stored row is not what this plugin writes");
    ln_call.fault = true;
}

/* The entry of a key, read from the host if necessary; NULL after an error. */
static entry *load(lantern_table *table, lantern_text key) {
    struct lantern_cache *cache = cache_of(table);
    uint32_t hash = hash_of(key);
    if (cache->count) {
        uint32_t found = *slot_of(cache, key, hash);
        if (found) return &cache->entries[found - 1];
    }
    if (ln_call.failed || !check_key(table, key)) return NULL;
    if (cache->count >= rows_max(table) && !make_room(table)) return NULL;
    entry *fresh = insert(table, key, hash);
    lantern_text bytes;
    if (ln_host_get(table->id, key, &bytes)) set_row(table, fresh, bytes);
    return fresh;
}

/* Copies the row, so that it can be put back. */
static void note_undo(lantern_table *table, const entry *it, uint32_t index) {
    LN_ROOM(undos, undo_count, undo_room, 1);
    undos[undo_count++] = (undo){ table, index, it->cause, it->changed, it->row != NULL, undo_bytes.length };
    if (!it->row) return;
    ln_put(&undo_bytes, it->row, table->row_bytes);
    for (size_t i = 0; i < parts_of(table); i++) {
        size_t bytes;
        void **at = owned_by(table, it->row, i, &bytes);
        if (at && bytes) ln_put(&undo_bytes, *at, bytes);
    }
}

static void put_back(const undo *was) {
    struct lantern_cache *cache = was->table->cache;
    entry *it = &cache->entries[was->index];
    /* Rows are undone in reverse order, so this row is the last one in the list of changed rows. */
    if (!was->was_changed) cache->changed_count--;
    it->changed = was->was_changed;
    it->cause = was->cause;
    if (!was->was_row) {
        free_row(was->table, it->row);
        it->row = NULL;
        return;
    }
    if (it->row) empty_row(was->table, it->row);
    else it->row = ln_new(was->table->row_bytes);
    const char *copy = undo_bytes.at + was->at;
    memcpy(it->row, copy, was->table->row_bytes);
    copy += was->table->row_bytes;
    for (size_t i = 0; i < parts_of(was->table); i++) {
        size_t bytes;
        void **at = owned_by(was->table, it->row, i, &bytes);
        if (!at || !*at) continue;
        *at = ln_new(bytes);
        if (bytes) memcpy(*at, copy, bytes);
        copy += bytes;
    }
}

void ln_keep_rows(void) {
    undo_count = undo_bytes.length = 0;
    sent = false;
    while (unstored_count) {
        unstored *last = &unstored_rows[--unstored_count];
        free_row(last->table, last->row);
    }
}

bool ln_undo_rows(void) {
    if (sent) return false;
    while (undo_count) put_back(&undos[--undo_count]);
    ln_keep_rows();
    return true;
}

static bool change(lantern_table *table, entry *it) {
    struct lantern_cache *cache = table->cache;
    if (table->per_tenant) {
        lantern_text tenant, rest;
        ln_split_tenant(it->key, &tenant, &rest);
        if (!ln_call.has_tenant || !lantern_same(tenant, ln_call.tenant)) {
            table_error(table, it->key, "only an event or a timer of its tenant may change a row");
            return false;
        }
    }
    uint32_t index = (uint32_t)(it - cache->entries);
    if (!it->unchecked && ln_call.in_event) note_undo(table, it, index);
    it->cause = ln_call.cause;
    if (!it->changed) {
        LN_ROOM(cache->changed, cache->changed_count, cache->changed_room, 1);
        cache->changed[cache->changed_count++] = index;
        it->changed = true;
    }
    if (!it->unchecked) {
        LN_ROOM(cache->unchecked, cache->unchecked_count, cache->unchecked_room, 1);
        cache->unchecked[cache->unchecked_count++] = index;
        it->unchecked = true;
    }
    return true;
}

const void *lantern_get(lantern_table *table, lantern_text key) {
    entry *it = load(table, key);
    return it ? it->row : NULL;
}

void *lantern_row(lantern_table *table, lantern_text key, bool *is_new) {
    entry *it = load(table, key);
    if (is_new) *is_new = !it || !it->row;
    if (!it || ln_call.failed || !change(table, it)) {
        /* A row that is not stored, so that the caller need not check. */
        void *row = ln_new(table->row_bytes);
        memset(row, 0, table->row_bytes);
        LN_ROOM(unstored_rows, unstored_count, unstored_room, 1);
        unstored_rows[unstored_count++] = (unstored){ table, row };
        return row;
    }
    if (!it->row) {
        it->row = ln_new(table->row_bytes);
        memset(it->row, 0, table->row_bytes);
    }
    return it->row;
}

void lantern_delete(lantern_table *table, lantern_text key) {
    entry *it = load(table, key);
    if (it && !ln_call.failed && change(table, it)) {
        free_row(table, it->row);
        it->row = NULL;
    }
}

lantern_text lantern_get_bytes(lantern_table *table, lantern_text key) {
    const lantern_text *bytes = lantern_get(table, key);
    return bytes ? *bytes : (lantern_text){ NULL, 0 };
}

void lantern_put_bytes(lantern_table *table, lantern_text key, lantern_text bytes) {
    lantern_set_text(lantern_row(table, key, NULL), bytes);
}

/* A column that grows. */
typedef struct {
    ln_buffer bytes;
    uint32_t *ends;
    uint32_t count, room;
} column;

static void end_value(column *to) {
    LN_ROOM(to->ends, to->count, to->room, 1);
    to->ends[to->count++] = (uint32_t)to->bytes.length;
}

static ln_column shown(const column *from) {
    return (ln_column){ from->ends, from->count, (const uint8_t *)from->bytes.at, (uint32_t)from->bytes.length };
}

static void clear(column *it) { it->count = 0, it->bytes.length = 0; }

void lantern_prefetch(lantern_table *table, const lantern_text *keys, size_t count) {
    static column wanted;
    struct lantern_cache *cache = cache_of(table);
    size_t most = rows_max(table);
    clear(&wanted);
    if (ln_call.failed || (count + cache->count > most && !make_room(table))) return;
    uint32_t first = cache->count;
    for (size_t i = 0; i < count && cache->count < most && !ln_call.failed; i++) {
        uint32_t hash = hash_of(keys[i]);
        if ((cache->count && *slot_of(cache, keys[i], hash)) || !check_key(table, keys[i])) continue;
        insert(table, keys[i], hash);
        ln_put(&wanted.bytes, keys[i].at, keys[i].length);
        end_value(&wanted);
    }
    if (!wanted.count || ln_call.failed) return;
    const uint8_t *found;
    ln_column rows;
    ln_host_get_many(table->id, shown(&wanted), &found, &rows);
    for (uint32_t i = 0; i < wanted.count; i++)
        if (found[i]) set_row(table, &cache->entries[first + i], ln_value(rows, i));
}

static bool check_row(const lantern_table *table, const void *row) {
    for (size_t i = 0; i < table->field_count; i++) {
        const lantern_field *field = &table->fields[i];
        const void *at = field_of(row, field);
        if (field->maybe && (field->kind == LANTERN_NUMBER || field->kind == LANTERN_TIMESTAMP) && !*(const bool *)at) continue;
        if (field->kind == LANTERN_NUMBER) {
            double value = field->maybe ? ((const lantern_maybe_number *)at)->value : *(const double *)at;
            if (value - value != 0) {
                lantern_fail_text("a field is NaN or infinite; only finite numbers can be stored", lantern_text_of(field->name));
                return false;
            }
        }
        if (field->kind == LANTERN_TIMESTAMP) {
            lantern_time value = field->maybe ? ((const lantern_maybe_time *)at)->value : *(const lantern_time *)at;
            if (value < LN_TIME_MIN || value >= LN_TIME_END) {
                lantern_fail_text("a field is outside of the range of timestamps", lantern_text_of(field->name));
                return false;
            }
        }
    }
    return true;
}

void ln_check_rows(void) {
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++) {
        struct lantern_cache *cache = (*table)->cache;
        if (!cache) continue;
        for (uint32_t i = 0; i < cache->unchecked_count; i++) {
            entry *it = &cache->entries[cache->unchecked[i]];
            it->unchecked = false;
            if (it->row && !ln_call.failed) check_row(*table, it->row);
        }
        cache->unchecked_count = 0;
    }
}

void ln_flush_table(lantern_table *table) {
    static column keys, values, deleted;
    static uint32_t *causes, *deletes, causes_room, deletes_room;
    struct lantern_cache *cache = table->cache;
    if (!cache || !cache->changed_count || ln_call.failed) return;
    clear(&keys), clear(&values), clear(&deleted);
    for (uint32_t i = 0; i < cache->changed_count; i++) {
        entry *it = &cache->entries[cache->changed[i]];
        column *to = it->row ? &keys : &deleted;
        it->changed = false;
        sent |= ln_call.in_event && it->cause == ln_call.cause;
        ln_put(&to->bytes, it->key.at, it->key.length);
        if (it->row) {
            LN_ROOM(causes, keys.count, causes_room, 1);
            causes[keys.count] = it->cause;
            put_row(table, &values.bytes, it->row);
            end_value(&values);
        } else {
            LN_ROOM(deletes, deleted.count, deletes_room, 1);
            deletes[deleted.count] = it->cause;
        }
        end_value(to);
    }
    cache->changed_count = 0;
    if (deleted.count) ln_host_delete_many(deletes, table->id, shown(&deleted));
    if (keys.count) ln_host_put_many(causes, table->id, shown(&keys), shown(&values));
}

void ln_flush(void) {
    for (lantern_table *const *table = lantern_the_projection.tables; *table; table++) ln_flush_table(*table);
}

/* ---- Scans ------------------------------------------------------------------------------------- */

#define SCAN_PAGE 10000

/* Rows of scans: released with the call. */
typedef struct scanned {
    struct scanned *before;
    const lantern_table *table;
    void *row;
} scanned;
static scanned *scans;

void ln_release_scans(void) {
    for (; scans; scans = scans->before) free_row(scans->table, scans->row);
}

size_t lantern_scan(lantern_table *table, lantern_text start, lantern_text end, uint32_t limit, bool reverse, const lantern_found **rows) {
    *rows = NULL;
    if (ln_call.failed) return 0;
    ln_check_rows();
    ln_flush_table(table);
    lantern_found *found = NULL;
    size_t count = 0;
    while (count < limit && !ln_call.failed) {
        uint32_t wanted = limit - (uint32_t)count < SCAN_PAGE ? limit - (uint32_t)count : SCAN_PAGE;
        const ln_row *page;
        size_t length = ln_host_scan(table->id, start, end, wanted, reverse, &page);
        lantern_found *more = ln_take((count + length) * sizeof *more);
        if (count) memcpy(more, found, count * sizeof *more);
        found = more;
        for (size_t i = 0; i < length; i++) {
            scanned *row = ln_take(sizeof *row);
            *row = (scanned){ scans, table, ln_new(table->row_bytes) };
            scans = row;
            if (!read_row(table, page[i].value, row->row)) {
                table_error(table, page[i].key, "a stored row is not what this plugin writes");
                ln_call.fault = true;
            }
            found[count++] = (lantern_found){ page[i].key, row->row };
        }
        if (length < wanted) break;
        lantern_text last = found[count - 1].key;
        if (reverse) {
            end = last;
        } else {
            char *after = ln_take(last.length + 1);
            memcpy(after, last.at, last.length);
            after[last.length] = 0;
            start = (lantern_text){ after, last.length + 1 };
        }
    }
    *rows = found;
    return ln_call.failed ? 0 : count;
}
