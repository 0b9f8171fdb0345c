/* Room: node. The django_* functions. Thread: the connection's.
 *
 * As Django 5 has them (django/db/backends/sqlite3/_functions.py), with the time zones of Python's
 * zoneinfo. Django 3.2 differs in corners: docs/FUNCTIONS.md. */
#include "node/functions_moment.h"
#include "node/functions_state.h"

#include "node/functions_calendar.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

__extension__ typedef __int128 i128;
__extension__ typedef unsigned __int128 u128;

#define DAY    86400
#define DAY_US (DAY * MOMENT_US)

/* What Python finds false. */
static bool is_false(sqlite3_value *v)
{
    switch (sqlite3_value_type(v)) {
    case SQLITE_NULL:
        return true;
    case SQLITE_INTEGER:
    case SQLITE_FLOAT:
        return sqlite3_value_double(v) == 0.0;
    default:
        return sqlite3_value_bytes(v) == 0;
    }
}

/* Is the text of V (not NULL) this? */
static bool is_text(sqlite3_value *v, const char *wanted)
{
    return sqlite3_value_type(v) == SQLITE_TEXT &&
           (size_t)sqlite3_value_bytes(v) == strlen(wanted) && sqlite3_value_bytes(v) > 0 &&
           memcmp(sqlite3_value_text(v), wanted, strlen(wanted)) == 0;
}

static bool raise_bad(sqlite3_context *ctx, enum moment_result r)
{
    fn_raise(ctx, r == MOMENT_NONE ? "the date or time is empty"
                                   : "no date (YYYY-MM-DD), time (HH:MM:SS) or both");
    return false;
}

static bool raise_range(sqlite3_context *ctx)
{
    fn_raise(ctx, "the date is not in the years 1 to 9999");
    return false;
}

static bool raise_no_time(sqlite3_context *ctx)
{
    fn_raise(ctx, "a date without a time has no hours, and no time zone");
    return false;
}

/* --- time zones --- */

/* "name+HH:MM" in its parts. */
struct zone_text {
    const char *name;
    size_t n;
    int64_t shift; /* seconds east */
};

static bool is_digits(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (p[i] < '0' || p[i] > '9')
            return false;
    return n > 0;
}

/* H:MM, HH:MM, HHMM or HH, up to 23:59. */
static bool read_shift(const char *p, size_t n, int64_t *seconds)
{
    const char *colon = memchr(p, ':', n);
    size_t h = colon != NULL ? (size_t)(colon - p) : 2;
    if (h > 2 || n < h || !is_digits(p, h) || (colon == NULL && n != 2 && n != 4))
        return false;
    const char *minutes = colon != NULL ? colon + 1 : p + 2;
    size_t m = (size_t)(p + n - minutes);
    if (m > 2 || ((colon != NULL || m > 0) && !is_digits(minutes, m)))
        return false;
    int64_t hour = 0, minute = 0;
    for (size_t i = 0; i < h; i++)
        hour = hour * 10 + (p[i] - '0');
    for (size_t i = 0; i < m; i++)
        minute = minute * 10 + (minutes[i] - '0');
    *seconds = hour * 3600 + minute * 60;
    return hour <= 23 && minute <= 59;
}

static bool split_zone(struct zone_text *t)
{
    for (const char *sign = "+-"; *sign != 0; sign++) {
        const char *at = memrchr(t->name, *sign, t->n);
        int64_t shift;
        if (at == NULL || !read_shift(at + 1, (size_t)(t->name + t->n - at - 1), &shift))
            continue;
        t->shift = *sign == '+' ? shift : -shift;
        t->n = (size_t)(at - t->name);
        return true;
    }
    return false;
}

static bool find_zone(sqlite3_context *ctx, const char *name, size_t n, const struct zone **zone)
{
    struct functions *f = sqlite3_user_data(ctx);
    const char *why;
    switch (zones_find(&f->zones, name, n, zone, &why)) {
    case ZONE_FOUND:
        return true;
    case ZONE_NOMEM:
        sqlite3_result_error_nomem(ctx);
        return false;
    case ZONE_UNKNOWN:
    case ZONE_BROKEN:
        break;
    }
    fn_raise(ctx, "time zone \"%.*s\" %s", (int)(n < 64 ? n : 64), name, why);
    return false;
}

/* From the zone FROM to the zone TO. */
static bool move(sqlite3_context *ctx, struct moment *m, const struct zone *from,
                 const struct zone *to)
{
    int64_t local = moment_seconds(m), utc = local - zone_offset_of_local(from, local);
    /* Python goes over UTC, which must be a date, too. */
    if (!moment_set_seconds(m, utc))
        return raise_range(ctx);
    int32_t offset = zone_offset_at(to, utc, &m->fold);
    return moment_set_seconds(m, utc + offset) || raise_range(ctx);
}

static bool same_text(const struct fn_string *a, const struct fn_string *b)
{
    return a->n == b->n && memcmp(a->p, b->p, a->n) == 0;
}

/* M is in the zone CONN (of the connection) and is wanted in the zone WANTED. */
static bool to_zone(sqlite3_context *ctx, struct moment *m, sqlite3_value *wanted,
                    sqlite3_value *conn)
{
    const struct zone *from, *to;
    struct fn_string zone, own = {.p = ""};
    bool has_own = !is_false(conn), has_zone = sqlite3_value_type(wanted) != SQLITE_NULL;
    if (!has_own && (!has_zone || is_false(wanted)) &&
        sqlite3_value_type(wanted) == sqlite3_value_type(conn))
        return true;
    if (!has_own && !has_zone)
        return true;
    if ((has_own && sqlite3_value_type(conn) != SQLITE_TEXT) ||
        (has_zone && sqlite3_value_type(wanted) != SQLITE_TEXT)) {
        fn_raise(ctx, "the name of a time zone is text");
        return false;
    }
    if (!has_own) {
        fn_raise(ctx, "the time zone of the connection is missing");
        return false;
    }
    if (m->is_date)
        return raise_no_time(ctx);
    if (!fn_text(ctx, conn, &own) || !find_zone(ctx, own.p, own.n, &from))
        return false;
    if (!has_zone)
        return true;
    if (!fn_text(ctx, wanted, &zone))
        return false;
    if (same_text(&zone, &own))
        return true;
    /* A zone of the database may look like a shift: Etc/GMT+10. */
    struct functions *f = sqlite3_user_data(ctx);
    struct zone_text t = {zone.p, zone.n, 0};
    const char *why;
    if (zones_find(&f->zones, t.name, t.n, &to, &why) != ZONE_FOUND && split_zone(&t) &&
        !moment_set_seconds(m, moment_seconds(m) + t.shift))
        return raise_range(ctx);
    if (t.n == 0 || (t.n == own.n && memcmp(t.name, own.p, own.n) == 0))
        return true;
    if (!find_zone(ctx, t.name, t.n, &to))
        return false;
    /* The cache may have dropped the first for the second. */
    return find_zone(ctx, own.p, own.n, &from) && find_zone(ctx, t.name, t.n, &to) &&
           move(ctx, m, from, to);
}

/* Django's _sqlite_datetime_parse; false: the result is set (NULL or an error). */
static bool parse(sqlite3_context *ctx, sqlite3_value *v, sqlite3_value *wanted,
                  sqlite3_value *conn, struct moment *m)
{
    if (sqlite3_value_type(v) == SQLITE_NULL)
        return false;
    enum moment_result r = moment_of_timestamp(v, m);
    if (r == MOMENT_RAISED)
        return raise_bad(ctx, r);
    if (r == MOMENT_BAD)
        return false;
    if (r == MOMENT_NONE) /* None cannot be moved to a zone, but else it is NULL */
        return wanted != NULL && (!is_false(conn) || sqlite3_value_type(wanted) != SQLITE_NULL)
                   ? raise_bad(ctx, r)
                   : false;
    return wanted == NULL || to_zone(ctx, m, wanted, conn);
}

/* --- truncation --- */

enum unit { YEAR, QUARTER, MONTH, WEEK, DAY_UNIT, HOUR, MINUTE, SECOND, NO_UNIT };

static enum unit unit_of(sqlite3_context *ctx, sqlite3_value *v, enum unit from, enum unit to)
{
    static const char *const names[] = {"year", "quarter", "month",  "week",
                                        "day",  "hour",    "minute", "second"};
    for (enum unit u = from; u <= to; u++)
        if (is_text(v, names[u]))
            return u;
    fn_raise(ctx, "the unit is none of %s ... %s", names[from], names[to]);
    return NO_UNIT;
}

static void truncate_date(struct moment *m, enum unit u)
{
    int month, day;
    if (u == YEAR)
        m->month = 1;
    else if (u == QUARTER)
        m->month -= (m->month - 1) % 3;
    if (u <= MONTH)
        m->day = 1;
    if (u == WEEK) {
        int64_t d = calendar_day(m->year, m->month, m->day);
        calendar_date(d - (calendar_weekday(d) + 6) % 7, &m->year, &month, &day);
        m->month = month;
        m->day = day;
    }
}

static void result_text(sqlite3_context *ctx, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void result_text(sqlite3_context *ctx, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    char *text = sqlite3_vmprintf(format, ap);
    va_end(ap);
    if (text == NULL)
        sqlite3_result_error_nomem(ctx);
    else
        sqlite3_result_text(ctx, text, -1, sqlite3_free);
}

static void date_trunc(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    (void)n;
    if (!parse(ctx, v[1], v[2], v[3], &m))
        return;
    enum unit u = unit_of(ctx, v[0], YEAR, DAY_UNIT);
    if (u == NO_UNIT)
        return;
    truncate_date(&m, u);
    result_text(ctx, "%04d-%02d-%02d", (int)m.year, m.month, m.day);
}

static void datetime_trunc(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    (void)n;
    if (!parse(ctx, v[1], v[2], v[3], &m))
        return;
    enum unit u = unit_of(ctx, v[0], YEAR, SECOND);
    if (u == NO_UNIT)
        return;
    if (u >= HOUR && m.is_date) {
        (void)raise_no_time(ctx);
        return;
    }
    truncate_date(&m, u);
    result_text(ctx, "%04d-%02d-%02d %02d:%02d:%02d", (int)m.year, m.month, m.day,
                u >= HOUR ? m.hour : 0, u >= MINUTE ? m.minute : 0, u >= SECOND ? m.second : 0);
}

static void time_trunc(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    (void)n;
    if (sqlite3_value_type(v[1]) == SQLITE_NULL)
        return;
    enum moment_result r = moment_of_timestamp(v[1], &m);
    if (r == MOMENT_BAD) {
        r = moment_of_time(v[1], &m);
        if (r == MOMENT_BAD)
            return;
        if (r != MOMENT_READ) {
            (void)raise_bad(ctx, r);
            return;
        }
    } else if (r == MOMENT_NONE || !parse(ctx, v[1], v[2], v[3], &m)) {
        if (r == MOMENT_NONE)
            (void)raise_bad(ctx, r);
        return;
    }
    enum unit u = unit_of(ctx, v[0], HOUR, SECOND);
    if (u == NO_UNIT)
        return;
    if (m.is_date)
        (void)raise_no_time(ctx);
    else
        result_text(ctx, "%02d:%02d:%02d", m.hour, u >= MINUTE ? m.minute : 0,
                    u >= SECOND ? m.second : 0);
}

static void datetime_cast_date(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    (void)n;
    if (!parse(ctx, v[0], v[1], v[2], &m))
        return;
    if (m.is_date)
        (void)raise_no_time(ctx);
    else
        result_text(ctx, "%04d-%02d-%02d", (int)m.year, m.month, m.day);
}

static void datetime_cast_time(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    (void)n;
    if (!parse(ctx, v[0], v[1], v[2], &m))
        return;
    if (m.is_date)
        (void)raise_no_time(ctx);
    else if (m.us != 0)
        result_text(ctx, "%02d:%02d:%02d.%06d", m.hour, m.minute, m.second, m.us);
    else
        result_text(ctx, "%02d:%02d:%02d", m.hour, m.minute, m.second);
}

/* --- extraction --- */

/* One of the parts that every time has; false: no such name. */
static bool extract_time(sqlite3_value *name, const struct moment *m, int *part)
{
    const struct {
        const char *name;
        int value;
    } parts[] = {{"hour", m->hour},
                 {"minute", m->minute},
                 {"second", m->second},
                 {"microsecond", m->us},
                 {"fold", m->fold}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (is_text(name, parts[i].name)) {
            *part = parts[i].value;
            return true;
        }
    return false;
}

static bool extract_date(sqlite3_value *name, const struct moment *m, int *part)
{
    int64_t day = calendar_day(m->year, m->month, m->day), iso_year;
    int weekday = calendar_weekday(day), week;
    calendar_iso_week(day, &iso_year, &week);
    const struct {
        const char *name;
        int value;
    } parts[] = {{"year", (int)m->year},
                 {"month", m->month},
                 {"day", m->day},
                 {"quarter", (m->month + 2) / 3},
                 {"week_day", weekday + 1},
                 {"iso_week_day", weekday == 0 ? 7 : weekday},
                 {"week", week},
                 {"iso_year", (int)iso_year}};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        if (is_text(name, parts[i].name)) {
            *part = parts[i].value;
            return true;
        }
    return false;
}

static void raise_part(sqlite3_context *ctx)
{
    fn_raise(ctx, "no such part of this date or time");
}

static void datetime_extract(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    int part;
    if (!parse(ctx, v[1], n == 4 ? v[2] : NULL, n == 4 ? v[3] : NULL, &m))
        return;
    if (extract_date(v[0], &m, &part) || (!m.is_date && extract_time(v[0], &m, &part)))
        sqlite3_result_int(ctx, part);
    else if (m.is_date || !is_text(v[0], "tzinfo") || (n == 4 && !is_false(v[3])))
        raise_part(ctx);
}

static void time_extract(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment m;
    int part;
    (void)n;
    if (sqlite3_value_type(v[1]) == SQLITE_NULL)
        return;
    enum moment_result r = moment_of_time(v[1], &m);
    if (r == MOMENT_BAD)
        return;
    if (r != MOMENT_READ)
        (void)raise_bad(ctx, r);
    else if (extract_time(v[0], &m, &part))
        sqlite3_result_int(ctx, part);
    else if (!is_text(v[0], "tzinfo")) /* which is None */
        raise_part(ctx);
}

/* --- differences --- */

static int64_t time_us(const struct moment *m)
{
    return (m->hour * 3600 + m->minute * 60 + m->second) * MOMENT_US + m->us;
}

static int64_t moment_us(const struct moment *m)
{
    return moment_seconds(m) * MOMENT_US + m->us;
}

static void time_diff(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment a, b;
    if (fn_any_null(n, v))
        return;
    enum moment_result left = moment_of_time(v[0], &a), right = moment_of_time(v[1], &b);
    if (left != MOMENT_READ || right != MOMENT_READ)
        (void)raise_bad(ctx, left != MOMENT_READ ? left : right);
    else
        sqlite3_result_int64(ctx, time_us(&a) - time_us(&b));
}

static void timestamp_diff(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct moment a, b;
    if (fn_any_null(n, v))
        return;
    enum moment_result left = moment_of_timestamp(v[0], &a), right = moment_of_timestamp(v[1], &b);
    if (left != MOMENT_READ || right != MOMENT_READ)
        (void)raise_bad(ctx, left != MOMENT_READ ? left : right);
    else if (a.is_date != b.is_date)
        fn_raise(ctx, "a date and a date with a time have no difference");
    else
        sqlite3_result_int64(ctx, moment_us(&a) - moment_us(&b));
}

/* --- intervals --- */

/* An operand of + and -: a moment, or an interval in microseconds. */
struct operand {
    bool is_interval;
    i128 us;
    struct moment m;
};

static enum moment_result read_operand(sqlite3_value *v, struct operand *o)
{
    *o = (struct operand){.is_interval = sqlite3_value_type(v) == SQLITE_INTEGER};
    if (!o->is_interval)
        return moment_of_timestamp(v, &o->m);
    o->us = sqlite3_value_int64(v);
    return MOMENT_READ;
}

/* Python's str(timedelta): "[-]D day[s], H:MM:SS[.ffffff]". */
static void result_interval(sqlite3_context *ctx, i128 us)
{
    int64_t days = (int64_t)(us / DAY_US), rest = (int64_t)(us % DAY_US);
    if (rest < 0) {
        rest += DAY_US;
        days--;
    }
    char day_text[48] = "", fraction[16] = "";
    if (days != 0)
        sqlite3_snprintf((int)sizeof day_text, day_text, "%lld day%s, ", (long long)days,
                         days == 1 || days == -1 ? "" : "s");
    if (rest % MOMENT_US != 0)
        sqlite3_snprintf((int)sizeof fraction, fraction, ".%06d", (int)(rest % MOMENT_US));
    int second = (int)(rest / MOMENT_US);
    result_text(ctx, "%s%d:%02d:%02d%s", day_text, second / 3600, second / 60 % 60, second % 60,
                fraction);
}

/* M plus or minus US, as Python prints it; a date takes the whole days of US only. */
static void result_moment(sqlite3_context *ctx, struct moment *m, i128 us, bool minus)
{
    i128 total = (minus ? -us : us) + m->us, seconds = total / MOMENT_US;
    int64_t rest = (int64_t)(total % MOMENT_US);
    if (rest < 0) {
        rest += MOMENT_US;
        seconds--;
    }
    if (m->is_date) {
        i128 days = us / DAY_US - (us % DAY_US < 0 ? 1 : 0);
        seconds = (minus ? -days : days) * DAY;
    }
    m->us = (int)rest;
    if (!moment_set_seconds(m, moment_seconds(m) + (int64_t)seconds))
        (void)raise_range(ctx);
    else if (m->is_date)
        result_text(ctx, "%04d-%02d-%02d", (int)m->year, m->month, m->day);
    else if (m->us != 0)
        result_text(ctx, "%04d-%02d-%02d %02d:%02d:%02d.%06d", (int)m->year, m->month, m->day,
                    m->hour, m->minute, m->second, m->us);
    else
        result_text(ctx, "%04d-%02d-%02d %02d:%02d:%02d", (int)m->year, m->month, m->day, m->hour,
                    m->minute, m->second);
}

static void add(sqlite3_context *ctx, struct operand *a, struct operand *b, bool minus)
{
    if (a->is_interval && b->is_interval)
        result_interval(ctx, minus ? a->us - b->us : a->us + b->us);
    else if (b->is_interval)
        result_moment(ctx, &a->m, b->us, minus);
    else if (a->is_interval && !minus)
        result_moment(ctx, &b->m, a->us, false);
    else if (!a->is_interval && minus && a->m.is_date == b->m.is_date)
        result_interval(ctx, moment_us(&a->m) - moment_us(&b->m));
    else
        fn_raise(ctx, "these two cannot be added or subtracted: dates, dates with times and "
                      "intervals (integers, microseconds)");
}

static bool is_number(sqlite3_value *v)
{
    return sqlite3_value_type(v) == SQLITE_INTEGER || sqlite3_value_type(v) == SQLITE_FLOAT;
}

/* Python's a / b, rounded once: the quotient has 64 bits or more, the last one says whether
 * something is left. */
static double divide_integers(int64_t a, int64_t b)
{
    uint64_t x = a < 0 ? 0 - (uint64_t)a : (uint64_t)a, y = b < 0 ? 0 - (uint64_t)b : (uint64_t)b;
    if (x == 0)
        return b < 0 ? -0.0 : 0.0; /* as Python has it */
    int shift = 64 + __builtin_clzll(x);
    u128 wide = (u128)x << shift, q = wide / y;
    if (wide % y != 0)
        q |= 1;
    double d = ldexp((double)q, -shift);
    return (a < 0) != (b < 0) ? -d : d;
}

static void divide(sqlite3_context *ctx, sqlite3_value *a, sqlite3_value *b)
{
    if (!is_number(a) || !is_number(b))
        fn_raise(ctx, "only numbers are divided");
    else if (sqlite3_value_double(b) == 0.0)
        fn_raise(ctx, "division by zero");
    else if (sqlite3_value_type(a) == SQLITE_INTEGER && sqlite3_value_type(b) == SQLITE_INTEGER)
        sqlite3_result_double(ctx, divide_integers(sqlite3_value_int64(a), sqlite3_value_int64(b)));
    else
        sqlite3_result_double(ctx, sqlite3_value_double(a) / sqlite3_value_double(b));
}

static void format_dtdelta(sqlite3_context *ctx, int n, sqlite3_value **v)
{
    struct operand a, b;
    struct fn_string sign;
    if (fn_any_null(n, v))
        return;
    if (sqlite3_value_type(v[0]) != SQLITE_TEXT) {
        fn_raise(ctx, "the operator is text: + - * /");
        return;
    }
    if (!fn_text(ctx, v[0], &sign))
        return;
    moment_strip(&sign.p, &sign.n);
    char c = sign.n == 1 ? sign.p[0] : '/';
    if (c == '*') {
        fn_multiply(ctx, v[1], v[2], "django_format_dtdelta");
    } else if (c != '+' && c != '-') {
        divide(ctx, v[1], v[2]);
    } else {
        enum moment_result left = read_operand(v[1], &a);
        enum moment_result right = left == MOMENT_BAD ? left : read_operand(v[2], &b);
        if (left == MOMENT_RAISED)
            right = left;
        if (left == MOMENT_BAD || right == MOMENT_BAD)
            return;
        if (left != MOMENT_READ || right != MOMENT_READ)
            (void)raise_bad(ctx, right != MOMENT_READ ? right : left);
        else
            add(ctx, &a, &b, c == '-');
    }
}

const struct function functions_date[] = {
    {"django_date_extract", 2, SQLITE_DETERMINISTIC, datetime_extract, NULL, NULL},
    {"django_date_trunc", 4, SQLITE_DETERMINISTIC, date_trunc, NULL, NULL},
    {"django_datetime_cast_date", 3, SQLITE_DETERMINISTIC, datetime_cast_date, NULL, NULL},
    {"django_datetime_cast_time", 3, SQLITE_DETERMINISTIC, datetime_cast_time, NULL, NULL},
    {"django_datetime_extract", 4, SQLITE_DETERMINISTIC, datetime_extract, NULL, NULL},
    {"django_datetime_trunc", 4, SQLITE_DETERMINISTIC, datetime_trunc, NULL, NULL},
    {"django_time_extract", 2, SQLITE_DETERMINISTIC, time_extract, NULL, NULL},
    {"django_time_trunc", 4, SQLITE_DETERMINISTIC, time_trunc, NULL, NULL},
    {"django_time_diff", 2, SQLITE_DETERMINISTIC, time_diff, NULL, NULL},
    {"django_timestamp_diff", 2, SQLITE_DETERMINISTIC, timestamp_diff, NULL, NULL},
    {"django_format_dtdelta", 3, SQLITE_DETERMINISTIC, format_dtdelta, NULL, NULL},
    {NULL, 0, 0, NULL, NULL, NULL},
};
