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

static void free_row(const lantern_table *table, void *row) {
    if (!row) return;
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

/* Gives the key a new entry, without a row. */
static entry *insert(lantern_table *table, lantern_text key, uint32_t hash) {
    struct lantern_cache *cache = cache_of(table);
    if (cache->count >= (table->cache_rows ? table->cache_rows : CACHE_ROWS)) {
        ln_flush_table(table);
        ln_check_rows();
        drop_rows(table);
    }
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
    if (!read_row(table, bytes, it->row)) table_error(table, it->key, "a stored row is not what this plugin writes");
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
    entry *fresh = insert(table, key, hash);
    lantern_text bytes;
    if (ln_host_get(table->id, key, &bytes)) set_row(table, fresh, bytes);
    return fresh;
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
    if (!it || !change(table, it)) {
        /* A row that is not stored, so that the caller need not check. */
        void *row = ln_take(table->row_bytes);
        memset(row, 0, table->row_bytes);
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
    if (it && change(table, it)) {
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
    size_t most = table->cache_rows ? table->cache_rows : CACHE_ROWS;
    clear(&wanted);
    if (count + cache->count > most) {
        ln_flush_table(table);
        drop_rows(table);
    }
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
            if (!read_row(table, page[i].value, row->row)) table_error(table, page[i].key, "a stored row is not what this plugin writes");
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
