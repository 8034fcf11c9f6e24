/* Time zones, from the table that the Rust SDK has (sdk/rust/zones.bin; its format is
 * described in sdk/rust/src/zone/table.rs). */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

extern const unsigned char ln_zones[];
extern const size_t ln_zones_bytes;

#define DAY_S 86400
#define UNIT_S 30
#define LISTED_UNTIL 2101

typedef struct { int month, week, weekday; int64_t time_s; } rule_day;

struct lantern_zone {
    struct lantern_zone *next;
    lantern_text name;
    int32_t first_offset;
    struct { lantern_time start; int32_t offset; } *changes;
    size_t count, room;
    bool has_rule;
    int32_t standard, summer;
    rule_day begins, ends;
};

typedef struct { lantern_time start, end; int32_t offset; } span;

static uint64_t natural(const unsigned char **at) {
    uint64_t value = 0;
    for (int shift = 0;; shift += 7) {
        unsigned char byte = *(*at)++;
        value |= (uint64_t)(byte & 127) << shift;
        if (!(byte & 128)) return value;
    }
}

static int64_t signed_number(const unsigned char **at) {
    uint64_t value = natural(at);
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

static rule_day read_rule_day(const unsigned char **at) {
    rule_day day;
    day.month = (int)natural(at);
    day.week = (int)natural(at);
    day.weekday = (int)natural(at);
    day.time_s = signed_number(at);
    return day;
}

/* The time of the day in a year, in seconds since 1970 by the clock before the
 * change. */
static int64_t rule_time(const rule_day *day, int64_t year) {
    int64_t first = ln_day_of(year, day->month, 1), ahead = (day->weekday - (first + 4)) % 7;
    int64_t found = first + (ahead < 0 ? ahead + 7 : ahead) + (day->week - 1) * 7, of_year;
    int month, date;
    for (;; found -= 7) {
        ln_date_of(found, &of_year, &month, &date);
        if (month == day->month) return found * DAY_S + day->time_s;
    }
}

static void rule_changes(const lantern_zone *zone, int64_t year, span changes[2]) {
    span begins = { (rule_time(&zone->begins, year) - zone->standard) * LANTERN_SECOND, 0, zone->summer };
    span ends = { (rule_time(&zone->ends, year) - zone->summer) * LANTERN_SECOND, 0, zone->standard };
    bool in_order = begins.start < ends.start;
    changes[0] = in_order ? begins : ends;
    changes[1] = in_order ? ends : begins;
}

static void add_change(lantern_zone *zone, lantern_time start, int32_t offset) {
    LN_ROOM(zone->changes, zone->count, zone->room, 1);
    zone->changes[zone->count].start = start;
    zone->changes[zone->count++].offset = offset;
}

static int64_t year_of(lantern_time time) {
    int64_t year;
    int month, date;
    ln_date_of(ln_floor_div(time, LANTERN_DAY), &year, &month, &date);
    return year;
}

static void decode(lantern_zone *zone, const unsigned char *at) {
    uint64_t number = natural(&at);
    int32_t *offsets = ln_take(number * sizeof *offsets);
    for (uint64_t i = 0; i < number; i++) offsets[i] = (int32_t)signed_number(&at);
    zone->first_offset = offsets[0];
    int64_t seconds = 0;
    for (uint64_t left = natural(&at); left; left--) {
        uint64_t change = natural(&at);
        seconds += (int64_t)(change / number) * UNIT_S;
        add_change(zone, seconds * LANTERN_SECOND, offsets[change % number]);
    }
    zone->has_rule = natural(&at) == 1;
    if (!zone->has_rule) return;
    zone->standard = (int32_t)signed_number(&at);
    zone->summer = (int32_t)signed_number(&at);
    zone->begins = read_rule_day(&at);
    zone->ends = read_rule_day(&at);
    lantern_time last = zone->count ? zone->changes[zone->count - 1].start : 0;
    for (int64_t year = year_of(last); year < LISTED_UNTIL; year++) {
        span changes[2];
        rule_changes(zone, year, changes);
        for (int i = 0; i < 2; i++)
            if (changes[i].start > last) add_change(zone, changes[i].start, changes[i].offset);
    }
}

const lantern_zone *lantern_zone_named(lantern_text name) {
    static lantern_zone *zones;
    for (lantern_zone *known = zones; known; known = known->next)
        if (lantern_same(known->name, name)) return known;
    size_t start = 0;
    bool found = false;
    const unsigned char *at = ln_zones;
    for (; *at; at += *at + 5) {
        if (*at != name.length || memcmp(at + 1, name.at, name.length)) continue;
        start = (size_t)at[1 + *at] << 8 | at[2 + *at];
        found = true;
    }
    if (!found) return NULL;
    lantern_zone *zone = ln_new(sizeof *zone);
    memset(zone, 0, sizeof *zone);
    zone->next = zones;
    lantern_set_text(&zone->name, name);
    decode(zone, at + 1 + start);
    return zones = zone;
}

static span span_at(const lantern_zone *zone, lantern_time time) {
    size_t low = 0, high = zone->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (zone->changes[middle].start <= time) low = middle + 1; else high = middle;
    }
    span found = { INT64_MIN, INT64_MAX, zone->first_offset };
    if (low) found.start = zone->changes[low - 1].start, found.offset = zone->changes[low - 1].offset;
    if (low < zone->count) found.end = zone->changes[low].start;
    if (!zone->has_rule || found.end != INT64_MAX) return found;
    lantern_time last = found.start;
    for (int64_t year = year_of(time) - 1; year <= year_of(time) + 1; year++) {
        span changes[2];
        rule_changes(zone, year, changes);
        for (int i = 0; i < 2; i++) {
            if (changes[i].start <= last) continue;
            if (changes[i].start > time) {
                found.end = changes[i].start;
                return found;
            }
            found = (span){ changes[i].start, INT64_MAX, changes[i].offset };
        }
    }
    return found;
}

int32_t lantern_zone_offset(const lantern_zone *zone, lantern_time time) { return span_at(zone, time).offset; }

static lantern_time local_of(const lantern_zone *zone, lantern_time time) {
    return time + lantern_zone_offset(zone, time) * LANTERN_SECOND;
}

lantern_text lantern_zone_date(const lantern_zone *zone, lantern_time time) {
    lantern_text text = lantern_time_text(local_of(zone, time));
    return (lantern_text){ text.at, text.length < 10 ? text.length : 10 };
}

lantern_window lantern_zone_hour(const lantern_zone *zone, lantern_time time) {
    span within = span_at(zone, time);
    lantern_time local = local_of(zone, time), start = time - (local - lantern_floor(local, LANTERN_HOUR));
    lantern_time end = start + LANTERN_HOUR;
    return (lantern_window){ start > within.start ? start : within.start, end < within.end ? end : within.end };
}

/* The first moment at which the clocks show a day's midnight, or a later time. */
static lantern_time midnight(const lantern_zone *zone, int64_t day) {
    lantern_time local = day * LANTERN_DAY;
    for (span within = span_at(zone, local - LANTERN_DAY);; within = span_at(zone, within.end)) {
        lantern_time at = local - within.offset * LANTERN_SECOND;
        if (at < within.start) at = within.start;
        if (at < within.end || within.end == INT64_MAX) return at;
    }
}

typedef enum { OF_DAY, OF_WEEK, OF_MONTH, OF_YEAR } period;

/* The first day of the period that contains `day`. */
static int64_t first_of(period of, int64_t day) {
    int64_t year, monday = (day + 3) % 7;
    int month, date;
    ln_date_of(day, &year, &month, &date);
    switch (of) {
    case OF_DAY: return day;
    case OF_WEEK: return day - (monday < 0 ? monday + 7 : monday);
    case OF_MONTH: return ln_day_of(year, month, 1);
    case OF_YEAR: return ln_day_of(year, 1, 1);
    }
    return day;
}

static lantern_window window_of(const lantern_zone *zone, lantern_time time, period of) {
    static const int days[] = { 1, 7, 31, 366 };
    int64_t day = first_of(of, first_of(of, ln_floor_div(local_of(zone, time), LANTERN_DAY)) + days[of]);
    while (midnight(zone, day) > time) day = first_of(of, day - 1);
    return (lantern_window){ midnight(zone, day), midnight(zone, first_of(of, day + days[of])) };
}

lantern_window lantern_zone_day(const lantern_zone *zone, lantern_time time) { return window_of(zone, time, OF_DAY); }
lantern_window lantern_zone_week(const lantern_zone *zone, lantern_time time) { return window_of(zone, time, OF_WEEK); }
lantern_window lantern_zone_month(const lantern_zone *zone, lantern_time time) { return window_of(zone, time, OF_MONTH); }
lantern_window lantern_zone_year(const lantern_zone *zone, lantern_time time) { return window_of(zone, time, OF_YEAR); }
