/* JSON, numbers and times: reading, and writing in the form that rows have. */
#include "internal.h"

#include <stdlib.h>
#include <string.h>

#define DEPTH_MAX 64

lantern_text lantern_text_of(const char *string) {
    return (lantern_text){ string, strlen(string) };
}

int lantern_compare(lantern_text a, lantern_text b) {
    size_t both = a.length < b.length ? a.length : b.length;
    int order = both ? memcmp(a.at, b.at, both) : 0;
    return order ? order : (a.length > b.length) - (a.length < b.length);
}

bool lantern_same(lantern_text a, lantern_text b) {
    return a.length == b.length && (a.length == 0 || memcmp(a.at, b.at, a.length) == 0);
}

bool lantern_is(lantern_text text, const char *string) {
    return lantern_same(text, lantern_text_of(string));
}

/* ---- Buffers ------------------------------------------------------------------------- */

void ln_put(ln_buffer *out, const void *bytes, size_t length) {
    LN_ROOM(out->at, out->length, out->room, length);
    if (length) memcpy(out->at + out->length, bytes, length);
    out->length += length;
}

void ln_put_char(ln_buffer *out, char byte) {
    LN_ROOM(out->at, out->length, out->room, 1);
    out->at[out->length++] = byte;
}

void ln_put_string(ln_buffer *out, const char *string) { ln_put(out, string, strlen(string)); }

lantern_text ln_copy(lantern_text text) {
    char *at = ln_take(text.length + 1);
    if (text.length) memcpy(at, text.at, text.length);
    return (lantern_text){ at, text.length };
}

lantern_text ln_take_buffer(const ln_buffer *buffer) {
    return ln_copy((lantern_text){ buffer->at, buffer->length });
}

void ln_put_unsigned(ln_buffer *out, uint64_t value) {
    char digits[20];
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    ln_put(out, digits + at, sizeof digits - at);
}

void ln_put_integer(ln_buffer *out, int64_t value) {
    if (value < 0) ln_put_char(out, '-');
    ln_put_unsigned(out, value < 0 ? -(uint64_t)value : (uint64_t)value);
}

void ln_put_text(ln_buffer *out, lantern_text text) {
    static const char hex[] = "0123456789abcdef";
    ln_put_char(out, '"');
    size_t plain = 0;
    for (size_t i = 0; i < text.length; i++) {
        unsigned char byte = (unsigned char)text.at[i];
        if (byte >= ' ' && byte != '"' && byte != '\\') continue;
        ln_put(out, text.at + plain, i - plain);
        plain = i + 1;
        ln_put_char(out, '\\');
        switch (byte) {
        case '"': case '\\': ln_put_char(out, (char)byte); break;
        case '\b': ln_put_char(out, 'b'); break;
        case '\t': ln_put_char(out, 't'); break;
        case '\n': ln_put_char(out, 'n'); break;
        case '\f': ln_put_char(out, 'f'); break;
        case '\r': ln_put_char(out, 'r'); break;
        default:
            ln_put_string(out, "u00");
            ln_put_char(out, hex[byte >> 4]);
            ln_put_char(out, hex[byte & 15]);
        }
    }
    ln_put(out, text.at + plain, text.length - plain);
    ln_put_char(out, '"');
}

/* ---- Doubles ------------------------------------------------------------------------- */

/* Unsigned integers of up to 1,184 bits. */
typedef struct { uint32_t words[37]; int count; } big;

static big big_of(uint64_t value) {
    big number = { { (uint32_t)value, (uint32_t)(value >> 32) }, 2 };
    while (number.count && !number.words[number.count - 1]) number.count--;
    return number;
}

static void big_multiply(big *number, uint32_t by) {
    uint64_t carry = 0;
    for (int i = 0; i < number->count; i++) {
        carry += (uint64_t)number->words[i] * by;
        number->words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) number->words[number->count++] = (uint32_t)carry;
}

static void big_shift(big *number, int bits) {
    for (; bits >= 31; bits -= 31) big_multiply(number, UINT32_C(1) << 31);
    big_multiply(number, UINT32_C(1) << bits);
}

static void big_ten(big *number, int power) {
    for (; power >= 9; power -= 9) big_multiply(number, 1000000000);
    for (; power > 0; power--) big_multiply(number, 10);
}

static int big_compare(const big *a, const big *b) {
    if (a->count != b->count) return a->count < b->count ? -1 : 1;
    for (int i = a->count; i-- > 0;)
        if (a->words[i] != b->words[i]) return a->words[i] < b->words[i] ? -1 : 1;
    return 0;
}

static big big_sum(const big *a, const big *b) {
    big sum = { { 0 }, a->count > b->count ? a->count : b->count };
    uint64_t carry = 0;
    for (int i = 0; i < sum.count; i++) {
        carry += (i < a->count ? a->words[i] : 0);
        carry += (i < b->count ? b->words[i] : 0);
        sum.words[i] = (uint32_t)carry;
        carry >>= 32;
    }
    if (carry) sum.words[sum.count++] = (uint32_t)carry;
    return sum;
}

static void big_subtract(big *a, const big *b) {
    int64_t borrow = 0;
    for (int i = 0; i < a->count; i++) {
        int64_t word = (int64_t)a->words[i] - (i < b->count ? b->words[i] : 0) + borrow;
        a->words[i] = (uint32_t)word;
        borrow = word < 0 ? -1 : 0;
    }
    while (a->count && !a->words[a->count - 1]) a->count--;
}

/* The shortest digits that read back as the finite double `value` > 0, and the power of ten
 * of the first digit: the free-format algorithm of Steele and White. */
static int shortest(double value, char *digits, int *power) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    int exponent = (int)(bits >> 52 & 0x7ff);
    uint64_t mantissa = bits & ((UINT64_C(1) << 52) - 1);
    bool narrow = mantissa == 0 && exponent > 1; /* the gap below is half as wide */
    if (exponent) mantissa |= UINT64_C(1) << 52; else exponent = 1;
    exponent -= 1075;
    bool even = mantissa % 2 == 0;

    /* The value is r / s. Half the gap to the next lower double is below / s, and half the gap
     * to the next higher double is above / s. */
    big r = big_of(mantissa), s = big_of(1), above = big_of(1);
    big_shift(&r, narrow ? 2 : 1);
    big_shift(&s, narrow ? 2 : 1);
    if (exponent > 0) {
        big_shift(&r, exponent);
        big_shift(&above, exponent);
    } else {
        big_shift(&s, -exponent);
    }
    big below = above;
    if (narrow) big_shift(&above, 1);

    /* log10(2) is 0.30103; the estimate may be one too small. */
    int length = 64 - __builtin_clzll(mantissa) + exponent;
    int ten = (int)((length - 1) * 0.30102999566398120 + (length >= 1 ? 0 : -1));
    if (ten >= 0) {
        big_ten(&s, ten);
    } else {
        big_ten(&r, -ten);
        big_ten(&above, -ten);
        big_ten(&below, -ten);
    }
    /* Raise `ten` until the first digit is less than 10, including the rounding. */
    for (;;) {
        big limit = s, reach = big_sum(&r, &above);
        big_multiply(&limit, 10);
        int order = big_compare(&reach, &limit);
        if (order < 0 || (order == 0 && !even)) break;
        s = limit;
        ten++;
    }
    *power = ten;
    int count = 0;
    for (;;) {
        int digit = 0;
        while (big_compare(&r, &s) >= 0) {
            big_subtract(&r, &s);
            digit++;
        }
        big reach = big_sum(&r, &above);
        int low = big_compare(&r, &below), high = big_compare(&reach, &s);
        bool down = low < 0 || (low == 0 && even), up = high > 0 || (high == 0 && even);
        if (down || up) {
            big_multiply(&r, 2);
            if (up && (!down || big_compare(&r, &s) >= 0)) digit++;
            digits[count++] = (char)('0' + digit);
            /* A first estimate that was too small gives a leading zero. */
            break;
        }
        digits[count++] = (char)('0' + digit);
        big_multiply(&r, 10);
        big_multiply(&above, 10);
        big_multiply(&below, 10);
    }
    /* A leading zero is dropped. */
    int zeros = 0;
    while (zeros < count - 1 && digits[zeros] == '0') zeros++;
    memmove(digits, digits + zeros, (size_t)(count - zeros));
    *power -= zeros;
    return count - zeros;
}

void ln_put_number(ln_buffer *out, double value) {
    if (value != value || value - value != 0) {
        lantern_fail("a number is NaN or infinite; only finite numbers can be stored");
        ln_put_string(out, "null");
        return;
    }
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (bits >> 63) {
        ln_put_char(out, '-');
        value = -value;
    }
    if (value < 9007199254740992.0 && value == (double)(uint64_t)value) {
        ln_put_unsigned(out, (uint64_t)value);
        ln_put_string(out, ".0");
        return;
    }
    char digits[32];
    int power, count = shortest(value, digits, &power);
    if (value >= 1e-5 && value < 1e16) {
        if (power < 0) ln_put_string(out, "0.");
        for (int i = -1; i > power; i--) ln_put_char(out, '0');
        for (int i = 0; i < count || i <= power; i++) {
            ln_put_char(out, i < count ? digits[i] : '0');
            if (i == power) ln_put_char(out, '.');
        }
        if (power >= count - 1) ln_put_char(out, '0');
        return;
    }
    ln_put_char(out, digits[0]);
    if (count > 1) {
        ln_put_char(out, '.');
        ln_put(out, digits + 1, (size_t)count - 1);
    }
    ln_put_string(out, power < 0 ? "e-" : "e+");
    ln_put_integer(out, power < 0 ? -power : power);
}

bool ln_double_of(lantern_text text, double *value) {
    char *copy = ln_take(text.length + 1), *end;
    memcpy(copy, text.at, text.length);
    copy[text.length] = 0;
    *value = strtod(copy, &end);
    return end == copy + text.length && *value - *value == 0;
}

bool ln_integer_of(lantern_text text, int64_t *value) {
    bool negative = text.length && text.at[0] == '-';
    uint64_t number = 0, most = negative ? UINT64_C(1) << 63 : INT64_MAX;
    for (size_t i = negative; i < text.length; i++) {
        unsigned digit = (unsigned)(text.at[i] - '0');
        if (digit > 9 || number > (most - digit) / 10) return false;
        number = number * 10 + digit;
    }
    *value = negative ? (int64_t)-number : (int64_t)number;
    return text.length > negative;
}

/* ---- Times --------------------------------------------------------------------------- */

int64_t ln_floor_div(int64_t value, int64_t by) {
    return value / by - (value % by < 0);
}

lantern_time lantern_floor(lantern_time time, int64_t step) {
    int64_t past = time % step + (time % step < 0 ? step : 0);
    return time < INT64_MIN + past ? INT64_MIN : time - past;
}

/* Years begin in March, so that the leap day is the last of its year. */
void ln_date_of(int64_t day, int64_t *year, int *month, int *date) {
    day += 719468;
    int64_t era = ln_floor_div(day, 146097);
    int64_t rest = day - era * 146097;
    int64_t of_era = (rest - rest / 1460 + rest / 36524 - rest / 146096) / 365;
    rest -= 365 * of_era + of_era / 4 - of_era / 100;
    int64_t from_march = (5 * rest + 2) / 153;
    *date = (int)(rest - (153 * from_march + 2) / 5 + 1);
    *month = (int)(from_march < 10 ? from_march + 3 : from_march - 9);
    *year = era * 400 + of_era + (*month <= 2);
}

int64_t ln_day_of(int64_t year, int month, int date) {
    year -= month <= 2;
    int64_t era = ln_floor_div(year, 400), of_era = year - era * 400;
    int64_t day = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + date - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + day - 719468;
}

static void put_digits(ln_buffer *out, int64_t value, int width) {
    char digits[8];
    for (int i = width; i-- > 0; value /= 10) digits[i] = (char)('0' + value % 10);
    ln_put(out, digits, (size_t)width);
}

void ln_put_time(ln_buffer *out, lantern_time time) {
    int64_t seconds = ln_floor_div(time, LANTERN_SECOND), micros = time - seconds * LANTERN_SECOND;
    int64_t days = ln_floor_div(seconds, 86400), second = seconds - days * 86400, year;
    int month, date;
    ln_date_of(days, &year, &month, &date);
    if (year >= 0 && year <= 9999) {
        put_digits(out, year, 4);
    } else {
        ln_put_char(out, year < 0 ? '-' : '+');
        put_digits(out, year < 0 ? -year : year, 6);
    }
    const int64_t parts[] = { month, date, second / 3600, second / 60 % 60, second % 60 };
    for (int i = 0; i < 5; i++) {
        ln_put_char(out, "--T::"[i]);
        put_digits(out, parts[i], 2);
    }
    if (micros) {
        bool millis = micros % 1000 == 0;
        ln_put_char(out, '.');
        put_digits(out, millis ? micros / 1000 : micros, millis ? 3 : 6);
    }
    ln_put_char(out, 'Z');
}

static bool number_at(lantern_text text, size_t at, int digits, int *value) {
    *value = 0;
    for (int i = 0; i < digits; i++) {
        if (at + (size_t)i >= text.length || text.at[at + (size_t)i] < '0' || text.at[at + (size_t)i] > '9') return false;
        *value = *value * 10 + text.at[at + (size_t)i] - '0';
    }
    return true;
}

bool ln_read_time(lantern_text text, lantern_time *time) {
    int year, month, date, hour, minute, second;
    if (text.length < 20 || text.at[4] != '-' || text.at[7] != '-' || text.at[13] != ':' || text.at[16] != ':') return false;
    if (!number_at(text, 0, 4, &year) || !number_at(text, 5, 2, &month) || !number_at(text, 8, 2, &date)) return false;
    if (!number_at(text, 11, 2, &hour) || !number_at(text, 14, 2, &minute) || !number_at(text, 17, 2, &second)) return false;
    if (month < 1 || month > 12 || date < 1 || date > 31 || hour > 23 || minute > 59 || second > 60) return false;
    size_t at = 19;
    int64_t micros = 0, place = 100000;
    if (text.at[at] == '.')
        for (at++; at < text.length && text.at[at] >= '0' && text.at[at] <= '9'; at++, place /= 10)
            micros += place * (text.at[at] - '0');
    int hours = 0, minutes = 0;
    if (at >= text.length) return false;
    char sign = text.at[at];
    if (sign == '+' || sign == '-') {
        if (!number_at(text, at + 1, 2, &hours) || !number_at(text, at + 4, 2, &minutes)) return false;
    } else if (sign != 'Z') {
        return false;
    }
    int64_t offset = (hours * 3600 + minutes * 60) * (sign == '-' ? -1 : 1);
    int64_t seconds = ln_day_of(year, month, date) * 86400 + hour * 3600 + minute * 60 + (second < 59 ? second : 59) - offset;
    *time = seconds * LANTERN_SECOND + micros;
    return true;
}

/* ---- Reading JSON ---------------------------------------------------------------------- */

void ln_space(ln_reader *reader) {
    while (reader->at < reader->end && (*reader->at == ' ' || *reader->at == '\t' || *reader->at == '\n' || *reader->at == '\r'))
        reader->at++;
}

bool ln_expect(ln_reader *reader, const char *what) {
    size_t length = strlen(what);
    if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, what, length)) return false;
    reader->at += length;
    return true;
}

static bool hex_of(const char *at, const char *end, unsigned *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, at++) {
        if (at >= end) return false;
        unsigned digit = (unsigned)(*at | 32);
        digit = digit >= '0' && digit <= '9' ? digit - '0' : digit >= 'a' && digit <= 'f' ? digit - 'a' + 10 : 16;
        if (digit > 15) return false;
        *code = *code << 4 | digit;
    }
    return true;
}

static char *put_utf8(char *out, unsigned code) {
    if (code < 0x80) {
        *out++ = (char)code;
    } else if (code < 0x800) {
        *out++ = (char)(0xc0 | code >> 6);
        *out++ = (char)(0x80 | (code & 63));
    } else if (code < 0x10000) {
        *out++ = (char)(0xe0 | code >> 12);
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    } else {
        *out++ = (char)(0xf0 | code >> 18);
        *out++ = (char)(0x80 | (code >> 12 & 63));
        *out++ = (char)(0x80 | (code >> 6 & 63));
        *out++ = (char)(0x80 | (code & 63));
    }
    return out;
}

bool ln_read_text(ln_reader *reader, lantern_text *text) {
    if (reader->at >= reader->end || *reader->at != '"') return false;
    const char *start = ++reader->at, *at = start;
    while (at < reader->end && *at != '"' && *at != '\\') at++;
    if (at >= reader->end) return false;
    if (*at == '"') {
        *text = (lantern_text){ start, (size_t)(at - start) };
        reader->at = at + 1;
        return true;
    }
    const char *last = at;
    while (last < reader->end && *last != '"') last += *last == '\\' ? 2 : 1;
    if (last >= reader->end) return false;
    char *copy = ln_take((size_t)(last - start) + 1), *out = copy;
    for (at = start; at < last;) {
        if (*at != '\\') {
            *out++ = *at++;
            continue;
        }
        unsigned code, low;
        char escape = at[1];
        at += 2;
        switch (escape) {
        case '"': case '\\': case '/': *out++ = escape; break;
        case 'b': *out++ = '\b'; break;
        case 'f': *out++ = '\f'; break;
        case 'n': *out++ = '\n'; break;
        case 'r': *out++ = '\r'; break;
        case 't': *out++ = '\t'; break;
        case 'u':
            if (!hex_of(at, last, &code)) return false;
            at += 4;
            if (code >= 0xd800 && code < 0xdc00 && last - at >= 6 && at[0] == '\\' && at[1] == 'u' && hex_of(at + 2, last, &low) && low >= 0xdc00 && low < 0xe000) {
                code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
                at += 6;
            } else if (code >= 0xd800 && code < 0xe000) {
                return false;
            }
            out = put_utf8(out, code);
            break;
        default: return false;
        }
    }
    *text = (lantern_text){ copy, (size_t)(out - copy) };
    reader->at = last + 1;
    return true;
}

bool ln_read_number(ln_reader *reader, lantern_text *text, bool *whole) {
    const char *start = reader->at;
    *whole = true;
    for (; reader->at < reader->end; reader->at++) {
        char byte = *reader->at;
        if (byte == '.' || byte == 'e' || byte == 'E') *whole = false;
        else if (!(byte >= '0' && byte <= '9') && byte != '-' && byte != '+') break;
    }
    *text = (lantern_text){ start, (size_t)(reader->at - start) };
    return text->length > 0;
}

static int compare_members(const void *a, const void *b) {
    const ln_row *left = a, *right = b;
    int order = lantern_compare(left->key, right->key);
    /* If members have the same name, the last one counts. It is sorted first, and the others
     * are left out. */
    return order ? order : (left->value.at < right->value.at) - (left->value.at > right->value.at);
}

/* Reads an array or object. For an object, `*members` are its members in the call's memory. */
static bool read_items(ln_reader *reader, ln_row **members, size_t *count, int depth) {
    bool object = *reader->at++ == '{';
    size_t room = 0;
    *members = NULL;
    *count = 0;
    ln_space(reader);
    if (ln_expect(reader, object ? "}" : "]")) return true;
    for (;;) {
        if (*count == room) {
            ln_row *more = ln_take((room * 2 + 8) * sizeof *more);
            if (room) memcpy(more, *members, room * sizeof *more);
            *members = more;
            room = room * 2 + 8;
        }
        ln_row *item = &(*members)[(*count)++];
        item->key = (lantern_text){ 0 };
        ln_space(reader);
        if (object) {
            if (!ln_read_text(reader, &item->key)) return false;
            ln_space(reader);
            if (!ln_expect(reader, ":")) return false;
            ln_space(reader);
        }
        const char *start = reader->at;
        if (!ln_pass(reader, depth + 1)) return false;
        item->value = (lantern_text){ start, (size_t)(reader->at - start) };
        ln_space(reader);
        if (ln_expect(reader, object ? "}" : "]")) return true;
        if (!ln_expect(reader, ",")) return false;
    }
}

bool ln_pass(ln_reader *reader, int depth) {
    lantern_text text;
    bool whole;
    ln_space(reader);
    if (reader->at >= reader->end || depth > 2 * DEPTH_MAX) return false;
    switch (*reader->at) {
    case '"': {
        const char *at = reader->at + 1;
        while (at < reader->end && *at != '"') at += *at == '\\' ? 2 : 1;
        if (at >= reader->end) return false;
        reader->at = at + 1;
        return true;
    }
    case '{': case '[': {
        bool object = *reader->at++ == '{';
        const char *close = object ? "}" : "]";
        ln_space(reader);
        if (ln_expect(reader, close)) return true;
        for (;;) {
            if (object) {
                ln_space(reader);
                if (reader->at >= reader->end || *reader->at != '"' || !ln_pass(reader, depth + 1)) return false;
                ln_space(reader);
                if (!ln_expect(reader, ":")) return false;
            }
            if (!ln_pass(reader, depth + 1)) return false;
            ln_space(reader);
            if (ln_expect(reader, close)) return true;
            if (!ln_expect(reader, ",")) return false;
        }
    }
    case 't': return ln_expect(reader, "true");
    case 'f': return ln_expect(reader, "false");
    case 'n': return ln_expect(reader, "null");
    default: return ln_read_number(reader, &text, &whole);
    }
}

static bool put_canonical_number(ln_reader *reader, ln_buffer *out) {
    lantern_text text;
    bool whole;
    double value;
    if (!ln_read_number(reader, &text, &whole)) return false;
    if (whole && !lantern_is(text, "-0")) {
        int64_t integer;
        bool fits = ln_integer_of(text, &integer);
        /* 2^63 to 2^64 - 1 are integers too. */
        if (!fits && text.at[0] != '-')
            fits = text.length < 20 || (text.length == 20 && memcmp(text.at, "18446744073709551615", 20) <= 0);
        if (fits) {
            ln_put(out, text.at, text.length);
            return true;
        }
    }
    if (!ln_double_of(text, &value)) return false;
    ln_put_number(out, value);
    return true;
}

bool ln_canonical(ln_reader *reader, ln_buffer *out, int depth) {
    ln_space(reader);
    if (reader->at >= reader->end) return false;
    char first = *reader->at;
    if (first == '"') {
        lantern_text text;
        if (!ln_read_text(reader, &text)) return false;
        ln_put_text(out, text);
        return true;
    }
    if (first == 't' || first == 'f' || first == 'n') {
        const char *start = reader->at;
        if (!ln_pass(reader, depth)) return false;
        ln_put(out, start, (size_t)(reader->at - start));
        return true;
    }
    if (first != '{' && first != '[') return put_canonical_number(reader, out);
    if (depth == DEPTH_MAX) {
        lantern_fail("JSON is nested more than 64 deep");
        return false;
    }
    ln_row *items;
    size_t count;
    if (!read_items(reader, &items, &count, depth)) return false;
    if (first == '{' && count) qsort(items, count, sizeof *items, compare_members);
    ln_put_char(out, first);
    bool more = false;
    for (size_t i = 0; i < count; i++) {
        if (first == '{' && i && lantern_same(items[i].key, items[i - 1].key)) continue;
        if (more) ln_put_char(out, ',');
        more = true;
        if (first == '{') {
            ln_put_text(out, items[i].key);
            ln_put_char(out, ':');
        }
        ln_reader inner = { items[i].value.at, items[i].value.at + items[i].value.length };
        if (!ln_canonical(&inner, out, depth + 1)) return false;
    }
    ln_put_char(out, first == '{' ? '}' : ']');
    return true;
}

int ln_find_member(lantern_text object, const char *name, lantern_text *value) {
    ln_reader reader = { object.at, object.at + object.length };
    ln_row *members;
    size_t count;
    ln_space(&reader);
    if (reader.at >= reader.end || *reader.at != '{' || !read_items(&reader, &members, &count, 0)) return -1;
    int found = 0;
    for (size_t i = 0; i < count; i++) {
        if (!lantern_is(members[i].key, name)) continue;
        *value = members[i].value;
        found++;
    }
    return found;
}
