/* Room: node. Thread: any.
 *
 * Python's int() takes white space around, a sign, and single underscores between digits; digits
 * other than ASCII's are refused here. What does not fit a C int is an OverflowError, which comes
 * after all texts were read, and which no caller of these functions catches. */
#include "node/functions_moment.h"

#include "node/functions_calendar.h"

#include <string.h>

#define DIGITS_MAX 4300 /* of int(): sys.get_int_max_str_digits() */
#define TOO_LARGE  ((int64_t)INT32_MAX + 1)
#define DAY        86400

struct piece {
    const char *p;
    size_t n;
};

/* Bytes of the white space (Python's str.isspace) at P; 0: none. */
static size_t space_at(const char *p, size_t n)
{
    const unsigned char *u = (const unsigned char *)p;
    if (n >= 1 && ((u[0] >= 0x09 && u[0] <= 0x0d) || (u[0] >= 0x1c && u[0] <= 0x20)))
        return 1;
    if (n >= 2 && u[0] == 0xc2 && (u[1] == 0x85 || u[1] == 0xa0))
        return 2;
    static const char wide[][4] = {"\xe1\x9a\x80", "\xe2\x80\xa8", "\xe2\x80\xa9",
                                   "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"};
    for (size_t i = 0; n >= 3 && i < sizeof wide / sizeof wide[0]; i++)
        if (memcmp(p, wide[i], 3) == 0)
            return 3;
    return n >= 3 && u[0] == 0xe2 && u[1] == 0x80 && u[2] >= 0x80 && u[2] <= 0x8a ? 3 : 0;
}

static size_t space_before(const char *p, size_t n)
{
    for (size_t k = 1; k <= 3 && k <= n; k++)
        if (space_at(p + n - k, k) == k)
            return k;
    return 0;
}

void moment_strip(const char **p, size_t *n)
{
    size_t k;
    while ((k = space_at(*p, *n)) > 0) {
        *p += k;
        *n -= k;
    }
    while ((k = space_before(*p, *n)) > 0)
        *n -= k;
}

/* Python's int(text); false: ValueError. What fits no C int becomes TOO_LARGE. */
static bool read_int(struct piece t, int64_t *v)
{
    moment_strip(&t.p, &t.n);
    bool negative = t.n > 0 && t.p[0] == '-', digit_last = false;
    size_t i = t.n > 0 && (t.p[0] == '-' || t.p[0] == '+') ? 1 : 0, digits = 0;
    *v = 0;
    for (; i < t.n; i++) {
        if (t.p[i] == '_' && digit_last) {
            digit_last = false;
            continue;
        }
        if (t.p[i] < '0' || t.p[i] > '9')
            return false;
        digit_last = true;
        digits++;
        *v = *v * 10 + (t.p[i] - '0');
        if (*v > TOO_LARGE)
            *v = TOO_LARGE;
    }
    if (negative)
        *v = -*v;
    return digit_last && digits <= DIGITS_MAX;
}

/* Python's str.split(c): up to MAX pieces; the count may be MAX + 1, for "more". */
static size_t split(struct piece t, char c, struct piece *out, size_t max)
{
    size_t count = 0, from = 0;
    for (size_t i = 0; i <= t.n; i++) {
        if (i < t.n && t.p[i] != c)
            continue;
        if (count == max)
            return max + 1;
        out[count++] = (struct piece){t.p + from, i - from};
        from = i + 1;
    }
    return count;
}

/* "5" or "5.25": the seconds and the six digits behind the point. */
static bool split_seconds(struct piece t, struct piece *seconds, int64_t *us)
{
    struct piece parts[2];
    size_t n = split(t, '.', parts, 2);
    *seconds = parts[0];
    *us = 0;
    if (n == 1)
        return true;
    if (n > 2)
        return false;
    char six[] = "000000";
    memcpy(six, parts[1].p, parts[1].n < 6 ? parts[1].n : 6);
    return read_int((struct piece){six, 6}, us);
}

static bool overflows(int64_t v)
{
    return v > INT32_MAX || v < INT32_MIN;
}

static enum moment_result set_date(struct moment *m, const int64_t v[3])
{
    if (overflows(v[0]) || overflows(v[1]) || overflows(v[2]))
        return MOMENT_RAISED;
    if (v[0] < 1 || v[0] > 9999 || v[1] < 1 || v[1] > 12 || v[2] < 1 ||
        v[2] > calendar_month_days(v[0], (int)v[1]))
        return MOMENT_BAD;
    m->year = v[0];
    m->month = (int)v[1];
    m->day = (int)v[2];
    return MOMENT_READ;
}

static enum moment_result set_time(struct moment *m, const int64_t v[4])
{
    if (overflows(v[0]) || overflows(v[1]) || overflows(v[2]) || overflows(v[3]))
        return MOMENT_RAISED;
    if (v[0] < 0 || v[0] > 23 || v[1] < 0 || v[1] > 59 || v[2] < 0 || v[2] > 59 || v[3] < 0 ||
        v[3] > 999999)
        return MOMENT_BAD;
    m->hour = (int)v[0];
    m->minute = (int)v[1];
    m->second = (int)v[2];
    m->us = (int)v[3];
    return MOMENT_READ;
}

static enum moment_result read_date(struct piece t, struct moment *m)
{
    struct piece parts[3];
    int64_t v[3];
    size_t n = split(t, '-', parts, 3);
    m->is_date = true;
    for (size_t i = 0; i < 3 && i < n; i++)
        if (!read_int(parts[i], &v[i]))
            return MOMENT_BAD;
    return n == 3 ? set_date(m, v) : MOMENT_BAD;
}

/* In the order in which Python finds what is missing: a piece that is not there (IndexError) is
 * never caught, one that is no number (ValueError) is. */
static enum moment_result read_both(struct piece date, struct piece time, struct moment *m)
{
    struct piece dates[3], times[3], seconds;
    int64_t d[3], t[4];
    const char *zone = memchr(time.p, '-', time.n);
    if (zone == NULL)
        zone = memchr(time.p, '+', time.n);
    if (zone != NULL)
        time.n = (size_t)(zone - time.p);
    size_t n_dates = split(date, '-', dates, 3), n_times = split(time, ':', times, 3);
    if (n_times < 3)
        return MOMENT_RAISED;
    struct piece parts[2];
    if (split(times[2], '.', parts, 2) > 2)
        return MOMENT_BAD;
    for (size_t i = 0; i < 3; i++) {
        if (i >= n_dates)
            return MOMENT_RAISED;
        if (!read_int(dates[i], &d[i]))
            return MOMENT_BAD;
    }
    if (!read_int(times[0], &t[0]) || !read_int(times[1], &t[1]) ||
        !split_seconds(times[2], &seconds, &t[3]) || !read_int(seconds, &t[2]))
        return MOMENT_BAD;
    for (size_t i = 0; i < 4; i++)
        if (overflows(t[i]))
            return MOMENT_RAISED;
    enum moment_result r = set_date(m, d);
    return r == MOMENT_READ ? set_time(m, t) : r;
}

/* What Python finds false: "", b"", 0, 0.0. */
static bool is_empty(sqlite3_value *v)
{
    switch (sqlite3_value_type(v)) {
    case SQLITE_INTEGER:
    case SQLITE_FLOAT:
        return sqlite3_value_double(v) == 0.0;
    default:
        return sqlite3_value_bytes(v) == 0;
    }
}

enum moment_result moment_of_timestamp(sqlite3_value *v, struct moment *m)
{
    *m = (struct moment){0};
    if (is_empty(v))
        return MOMENT_NONE;
    if (sqlite3_value_type(v) != SQLITE_TEXT)
        return MOMENT_BAD;
    struct piece t = {(const char *)sqlite3_value_text(v), (size_t)sqlite3_value_bytes(v)};
    if (t.p == NULL)
        return MOMENT_RAISED;
    if (memchr(t.p, ' ', t.n) == NULL)
        return read_date(t, m);
    struct piece words[2];
    size_t n = 0, k;
    moment_strip(&t.p, &t.n);
    while (t.n > 0) {
        size_t word = 0;
        while (word < t.n && space_at(t.p + word, t.n - word) == 0)
            word++;
        if (n == 2)
            return MOMENT_BAD;
        words[n++] = (struct piece){t.p, word};
        t.p += word;
        t.n -= word;
        while ((k = space_at(t.p, t.n)) > 0) {
            t.p += k;
            t.n -= k;
        }
    }
    return n == 2 ? read_both(words[0], words[1], m) : MOMENT_BAD;
}

enum moment_result moment_of_time(sqlite3_value *v, struct moment *m)
{
    struct piece parts[3], seconds;
    int64_t t[4];
    *m = (struct moment){0};
    if (is_empty(v))
        return MOMENT_NONE;
    if (sqlite3_value_type(v) == SQLITE_BLOB) /* bytes.split(str): TypeError */
        return MOMENT_BAD;
    struct piece all = {(const char *)sqlite3_value_text(v), (size_t)sqlite3_value_bytes(v)};
    if (sqlite3_value_type(v) != SQLITE_TEXT || all.p == NULL) /* AttributeError */
        return MOMENT_RAISED;
    if (split(all, ':', parts, 3) != 3 || !split_seconds(parts[2], &seconds, &t[3]) ||
        !read_int(parts[0], &t[0]) || !read_int(parts[1], &t[1]) || !read_int(seconds, &t[2]))
        return MOMENT_BAD;
    return set_time(m, t);
}

int64_t moment_seconds(const struct moment *m)
{
    return calendar_day(m->year, m->month, m->day) * DAY + m->hour * 3600 + m->minute * 60 +
           m->second;
}

bool moment_set_seconds(struct moment *m, int64_t seconds)
{
    int64_t day = seconds / DAY, rest = seconds % DAY;
    if (rest < 0) {
        rest += DAY;
        day--;
    }
    calendar_date(day, &m->year, &m->month, &m->day);
    m->hour = (int)(rest / 3600);
    m->minute = (int)(rest / 60 % 60);
    m->second = (int)(rest % 60);
    return m->year >= 1 && m->year <= 9999;
}
