/* The sketches of docs/sketches.md. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define EXACT_MAX 512
#define REGISTERS 4096
#define DENSE_BYTES 2560

/* ---- Base64 ---------------------------------------------------------------------------- */

static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void put_base64(ln_buffer *out, const uint8_t *bytes, size_t length) {
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t word = (uint32_t)bytes[i] << 16 | (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        ln_put_char(out, DIGITS[word >> 18]);
        ln_put_char(out, DIGITS[word >> 12 & 63]);
        ln_put_char(out, left > 1 ? DIGITS[word >> 6 & 63] : '=');
        ln_put_char(out, left > 2 ? DIGITS[word & 63] : '=');
    }
}

static bool read_base64(lantern_text text, uint8_t **bytes, size_t *length) {
    if (text.length % 4) return false;
    *bytes = ln_take(text.length / 4 * 3 + 1);
    *length = 0;
    for (size_t i = 0; i < text.length; i += 4) {
        uint32_t word = 0;
        int digits = 0;
        for (int j = 0; j < 4; j++) {
            const char *digit = text.at[i + (size_t)j] == '=' ? NULL : strchr(DIGITS, text.at[i + (size_t)j]);
            if (text.at[i + (size_t)j] != '=' && (!digit || !*digit)) return false;
            word = word << 6 | (digit ? (uint32_t)(digit - DIGITS) : 0);
            digits += digit != NULL;
        }
        for (int j = 0; j < digits - 1; j++) (*bytes)[(*length)++] = (uint8_t)(word >> (16 - 8 * j));
    }
    return true;
}

/* ---- Distinct ---------------------------------------------------------------------------- */

static uint64_t turn(uint64_t value, int bits) { return value << bits | value >> (64 - bits); }

#define P1 UINT64_C(0x9E3779B185EBCA87)
#define P2 UINT64_C(0xC2B2AE3D27D4EB4F)
#define P3 UINT64_C(0x165667B19E3779F9)
#define P4 UINT64_C(0x85EBCA77C2B2AE63)
#define P5 UINT64_C(0x27D4EB2F165667C5)

static uint64_t lane(uint64_t value, uint64_t word) { return turn(value + word * P2, 31) * P1; }

static uint64_t word_at(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8); /* Wasm and the machines of tests have the lowest byte first */
    return word;
}

static uint64_t xxh64(const uint8_t *at, size_t length) {
    const uint8_t *end = at + length;
    uint64_t hash = P5;
    if (length >= 32) {
        uint64_t lanes[4] = { P1 + P2, P2, 0, -P1 };
        for (; end - at >= 32; at += 32)
            for (int i = 0; i < 4; i++) lanes[i] = lane(lanes[i], word_at(at + 8 * i));
        hash = turn(lanes[0], 1) + turn(lanes[1], 7) + turn(lanes[2], 12) + turn(lanes[3], 18);
        for (int i = 0; i < 4; i++) hash = (hash ^ lane(0, lanes[i])) * P1 + P4;
    }
    hash += length;
    for (; end - at >= 8; at += 8) hash = turn(hash ^ lane(0, word_at(at)), 27) * P1 + P4;
    if (end - at >= 4) {
        uint32_t word;
        memcpy(&word, at, 4);
        hash = turn(hash ^ word * P1, 23) * P2 + P3;
        at += 4;
    }
    for (; at < end; at++) hash = turn(hash ^ *at * P5, 11) * P1;
    hash = (hash ^ hash >> 33) * P2;
    hash = (hash ^ hash >> 29) * P3;
    return hash ^ hash >> 32;
}

static void set_register(uint8_t *registers, uint64_t entry) {
    uint32_t low = entry & 0xFFFFFFF;
    uint8_t rank = (uint8_t)(low ? __builtin_clz(low) - 3 : 29);
    uint8_t *at = &registers[entry >> 28];
    if (rank > *at) *at = rank;
}

static void add_entry(lantern_distinct *sketch, uint64_t entry) {
    if (sketch->registers) {
        set_register(sketch->registers, entry);
        return;
    }
    uint32_t low = 0, high = sketch->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sketch->entries[middle] < entry) low = middle + 1; else high = middle;
    }
    if (low < sketch->count && sketch->entries[low] == entry) return;
    if (sketch->count == EXACT_MAX) {
        sketch->registers = ln_new(REGISTERS);
        memset(sketch->registers, 0, REGISTERS);
        for (uint32_t i = 0; i < sketch->count; i++) set_register(sketch->registers, sketch->entries[i]);
        set_register(sketch->registers, entry);
        free(sketch->entries);
        sketch->entries = NULL;
        sketch->count = sketch->room = 0;
        return;
    }
    LN_ROOM(sketch->entries, sketch->count, sketch->room, 1);
    memmove(sketch->entries + low + 1, sketch->entries + low, (sketch->count - low) * sizeof entry);
    sketch->entries[low] = entry;
    sketch->count++;
}

void lantern_distinct_add(lantern_distinct *sketch, lantern_text value) {
    add_entry(sketch, xxh64((const uint8_t *)value.at, value.length) >> 24);
}

void lantern_distinct_add_integer(lantern_distinct *sketch, int64_t value) {
    ln_buffer digits = { 0 };
    ln_put_integer(&digits, value);
    lantern_distinct_add(sketch, (lantern_text){ digits.at, digits.length });
    free(digits.at);
}

typedef unsigned __int128 u128;
#define ONE ((u128)1 << 60)

static u128 square_root(u128 value) {
    u128 root = 0;
    for (int bit = 63; bit >= 0; bit--) {
        u128 next = root | (u128)1 << bit;
        if (next * next <= value) root = next;
    }
    return root;
}

static u128 sigma(u128 x) {
    u128 sum = x, weight = 1;
    while ((x = x * x >> 60)) {
        sum += x * weight;
        weight *= 2;
    }
    return sum;
}

static u128 tau(u128 x) {
    if (x == 0 || x == ONE) return 0;
    u128 sum = ONE - x;
    for (int k = 1;; k++) {
        x = square_root(x << 60);
        u128 change = ((ONE - x) * (ONE - x) >> 60) >> k;
        if (!change) return sum / 3;
        sum -= change;
    }
}

uint64_t lantern_distinct_estimate(const lantern_distinct *sketch) {
    if (!sketch->registers) return sketch->count;
    uint32_t counts[30] = { 0 };
    for (int i = 0; i < REGISTERS; i++) counts[sketch->registers[i]]++;
    u128 s = 4096 * tau(ONE - ((u128)counts[29] << 48)) >> 28;
    for (int rank = 1; rank <= 28; rank++) s += counts[rank] * (ONE >> rank);
    s += 4096 * sigma((u128)counts[0] << 48);
    u128 most = (u128)1 << 40, estimate = s ? (((u128)UINT64_C(6653256548922161246) << 21) + s / 2) / s : most;
    return (uint64_t)(estimate < most ? estimate : most);
}

void ln_put_distinct(ln_buffer *out, const lantern_distinct *sketch) {
    size_t length = 1 + (sketch->registers ? DENSE_BYTES : 5 * sketch->count);
    uint8_t *bytes = ln_take(length);
    memset(bytes, 0, length);
    bytes[0] = sketch->registers ? 2 : 1;
    if (sketch->registers) {
        for (size_t i = 0; i < REGISTERS; i++)
            for (size_t bit = 0; bit < 5; bit++)
                if (sketch->registers[i] >> (4 - bit) & 1) bytes[1 + (5 * i + bit) / 8] |= (uint8_t)(0x80 >> (5 * i + bit) % 8);
    } else {
        for (size_t i = 0; i < sketch->count; i++)
            for (size_t byte = 0; byte < 5; byte++) bytes[1 + 5 * i + byte] = (uint8_t)(sketch->entries[i] >> (32 - 8 * byte));
    }
    ln_put_string(out, "{\"estimate\":");
    ln_put_unsigned(out, lantern_distinct_estimate(sketch));
    ln_put_string(out, ",\"sketch\":\"");
    put_base64(out, bytes, length);
    ln_put_string(out, "\"}");
}

/* Reads the bytes of a sketch from its JSON. The other members follow from these bytes, and are
 * skipped. */
static bool read_sketch(ln_reader *reader, uint8_t **bytes, size_t *length) {
    const char *start = reader->at;
    lantern_text value, base64;
    if (!ln_pass(reader, 0)) return false;
    lantern_text object = { start, (size_t)(reader->at - start) };
    if (ln_find_member(object, "sketch", &value) != 1) return false;
    ln_reader inner = { value.at, value.at + value.length };
    return ln_read_text(&inner, &base64) && read_base64(base64, bytes, length) && *length > 0;
}

bool ln_read_distinct(ln_reader *reader, lantern_distinct *sketch) {
    uint8_t *bytes;
    size_t length;
    if (!read_sketch(reader, &bytes, &length)) return false;
    if (bytes[0] == 2 && length == 1 + DENSE_BYTES) {
        sketch->registers = ln_new(REGISTERS);
        memset(sketch->registers, 0, REGISTERS);
        for (size_t i = 0; i < REGISTERS; i++) {
            for (size_t bit = 0; bit < 5; bit++) {
                unsigned set = bytes[1 + (5 * i + bit) / 8] >> (7 - (5 * i + bit) % 8) & 1;
                sketch->registers[i] = (uint8_t)(sketch->registers[i] << 1 | set);
            }
            if (sketch->registers[i] > 29) return false;
        }
        return true;
    }
    if (bytes[0] != 1 || length % 5 != 1 || length > 1 + 5 * EXACT_MAX) return false;
    for (size_t i = 1; i < length; i += 5) {
        uint64_t entry = 0;
        for (size_t byte = 0; byte < 5; byte++) entry = entry << 8 | bytes[i + byte];
        add_entry(sketch, entry);
    }
    return sketch->count == length / 5;
}

void ln_free_distinct(lantern_distinct *sketch) {
    free(sketch->entries);
    free(sketch->registers);
}

void **ln_distinct_memory(lantern_distinct *sketch, size_t *bytes) {
    *bytes = sketch->registers ? REGISTERS : sketch->room * sizeof *sketch->entries;
    return sketch->registers ? (void **)&sketch->registers : (void **)&sketch->entries;
}

/* ---- Percentiles ------------------------------------------------------------------------------ */

static int32_t bucket_of(int64_t value) {
    if (value < 0) return ~bucket_of(~value);
    int bits = value ? 64 - __builtin_clzll((uint64_t)value) : 0, shift = bits > 7 ? bits - 7 : 0;
    return 64 * shift + (int32_t)(value >> shift);
}

static int64_t middle_of(int32_t bucket) {
    if (bucket < 0) return ~middle_of(~bucket);
    if (bucket < 128) return bucket;
    int shift = bucket / 64 - 1;
    return ((int64_t)(bucket - 64 * shift) << shift) + ((INT64_C(1) << shift) - 1) / 2;
}

static void add_count(lantern_percentiles *sketch, int32_t bucket, uint64_t count) {
    uint32_t low = 0, high = sketch->count;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (sketch->buckets[middle].bucket < bucket) low = middle + 1; else high = middle;
    }
    if (low == sketch->count || sketch->buckets[low].bucket != bucket) {
        LN_ROOM(sketch->buckets, sketch->count, sketch->room, 1);
        memmove(sketch->buckets + low + 1, sketch->buckets + low, (sketch->count - low) * sizeof *sketch->buckets);
        sketch->buckets[low] = (lantern_bucket){ bucket, 0 };
        sketch->count++;
    }
    uint64_t *number = &sketch->buckets[low].count;
    *number = *number + count < *number ? UINT64_MAX : *number + count;
}

void lantern_percentiles_add(lantern_percentiles *sketch, int64_t value) {
    if (!sketch->count || value < sketch->min) sketch->min = value;
    if (!sketch->count || value > sketch->max) sketch->max = value;
    add_count(sketch, bucket_of(value), 1);
}

void lantern_percentiles_add_number(lantern_percentiles *sketch, double value, uint32_t scale) {
    double scaled = value * scale;
    if (!(scaled >= -9223372036854775808.0 && scaled < 9223372036854775808.0)) {
        lantern_fail("a number with its scale is outside of the range of integers");
        return;
    }
    int64_t whole = (int64_t)scaled;
    /* Beyond 2^52 a double is whole. */
    double rest = scaled - (double)whole;
    if (rest >= 0.5) whole++;
    if (rest <= -0.5) whole--;
    lantern_percentiles_add(sketch, whole);
}

uint64_t lantern_percentiles_count(const lantern_percentiles *sketch) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < sketch->count; i++) {
        uint64_t count = sketch->buckets[i].count;
        sum = sum + count < sum ? UINT64_MAX : sum + count;
    }
    return sum;
}

int64_t lantern_percentile(const lantern_percentiles *sketch, unsigned percent) {
    u128 rank = ((u128)lantern_percentiles_count(sketch) * percent + 99) / 100, seen = 0;
    if (rank < 1) rank = 1;
    for (uint32_t i = 0; i < sketch->count; i++) {
        seen += sketch->buckets[i].count;
        if (seen < rank && i + 1 < sketch->count) continue;
        int64_t middle = middle_of(sketch->buckets[i].bucket);
        return middle < sketch->min ? sketch->min : middle > sketch->max ? sketch->max : middle;
    }
    return 0;
}

static void put_leb128(ln_buffer *out, uint64_t value) {
    for (; value > 127; value >>= 7) ln_put_char(out, (char)(value | 128));
    ln_put_char(out, (char)value);
}

static uint64_t zigzag(int64_t value) { return (uint64_t)value << 1 ^ (uint64_t)(value >> 63); }

void ln_put_percentiles(ln_buffer *out, const lantern_percentiles *sketch) {
    static const struct { const char *name; unsigned percent; } shown[] = {
        { "\"p50\":", 50 }, { "\"p75\":", 75 }, { "\"p90\":", 90 }, { "\"p95\":", 95 }, { "\"p99\":", 99 },
    };
    ln_put_string(out, "{\"count\":");
    ln_put_unsigned(out, lantern_percentiles_count(sketch));
    if (sketch->count) {
        ln_put_string(out, ",\"min\":");
        ln_put_integer(out, sketch->min);
        for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
            ln_put_char(out, ',');
            ln_put_string(out, shown[i].name);
            ln_put_integer(out, lantern_percentile(sketch, shown[i].percent));
        }
        ln_put_string(out, ",\"max\":");
        ln_put_integer(out, sketch->max);
    } else {
        ln_put_string(out, ",\"min\":null,\"p50\":null,\"p75\":null,\"p90\":null,\"p95\":null,\"p99\":null,\"max\":null");
    }
    ln_put_string(out, ",\"sketch\":\"");
    ln_buffer bytes = { 0 };
    ln_put_char(&bytes, 3);
    int32_t before = -3713;
    if (sketch->count) {
        put_leb128(&bytes, zigzag(sketch->min));
        put_leb128(&bytes, zigzag(sketch->max));
    }
    for (uint32_t i = 0; i < sketch->count; i++) {
        put_leb128(&bytes, (uint64_t)(sketch->buckets[i].bucket - before - 1));
        put_leb128(&bytes, sketch->buckets[i].count);
        before = sketch->buckets[i].bucket;
    }
    put_base64(out, (const uint8_t *)bytes.at, bytes.length);
    free(bytes.at);
    ln_put_string(out, "\"}");
}

static bool read_leb128(const uint8_t **at, const uint8_t *end, uint64_t *value) {
    *value = 0;
    for (int shift = 0; *at < end && shift < 64; shift += 7) {
        uint8_t byte = *(*at)++;
        *value |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) return true;
    }
    return false;
}

bool ln_read_percentiles(ln_reader *reader, lantern_percentiles *sketch) {
    uint8_t *bytes;
    size_t length;
    uint64_t min, max, skipped, count;
    if (!read_sketch(reader, &bytes, &length) || bytes[0] != 3) return false;
    const uint8_t *at = bytes + 1, *end = bytes + length;
    if (at == end) return true;
    if (!read_leb128(&at, end, &min) || !read_leb128(&at, end, &max)) return false;
    sketch->min = (int64_t)(min >> 1) ^ -(int64_t)(min & 1);
    sketch->max = (int64_t)(max >> 1) ^ -(int64_t)(max & 1);
    int64_t bucket = -3713;
    while (at < end) {
        if (!read_leb128(&at, end, &skipped) || !read_leb128(&at, end, &count) || skipped > 7423) return false;
        bucket += (int64_t)skipped + 1;
        if (bucket > 3711) return false;
        add_count(sketch, (int32_t)bucket, count);
    }
    return true;
}

void ln_free_percentiles(lantern_percentiles *sketch) { free(sketch->buckets); }

void **ln_percentiles_memory(lantern_percentiles *sketch, size_t *bytes) {
    *bytes = sketch->room * sizeof *sketch->buckets;
    return (void **)&sketch->buckets;
}
