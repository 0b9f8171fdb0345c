/* Room: node. Thread: the cache's owner.
 *
 * A zone's file (RFC 8536) lists the moments at which the offset changed, and ends with a rule for
 * the time after them in the form of POSIX's TZ, like "CET-1CEST,M3.5.0,M10.5.0/3". Names are
 * checked so that they cannot leave the database's directory, and files are bounded and parsed as
 * if somebody hostile had written them.
 *
 * Not here: dates (functions_date.c). */
#include "node/functions_zone.h"

#include "base/buf.h"
#include "node/functions_calendar.h"

#include <ctype.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DATABASE       "/usr/share/zoneinfo"
#define FILE_BYTES_MAX 65536 /* the largest of 2025b has 4 KB */
#define CHANGES_MAX    4096  /* the most in 2025b: 243 */
#define DAY            86400
#define OFFSET_MAX     (26 * 3600)

/* Mm.w.d, Jn (1-365, without the leap day) or n (0-365), and the second of that day. */
struct rule {
    char kind; /* 'M', 'J', 'n' */
    int month, week, weekday, day;
    int32_t second;
};

/* After the last change: `standard`, and between `begin` and `end` of each year `summer`. */
struct after {
    bool has_summer;
    int32_t standard, summer;
    struct rule begin, end;
};

struct change {
    int64_t utc;
    int32_t offset; /* from then on */
};

struct zone {
    char name[ZONE_NAME_MAX + 1];
    uint64_t used;
    int32_t before; /* the offset before the first change */
    struct after after;
    size_t n;
    struct change changes[];
};

/* --- the rule at the end --- */

struct text {
    const char *p, *end;
};

static bool take(struct text *t, char c)
{
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    return true;
}

static bool take_number(struct text *t, int max, int *v)
{
    const char *begin = t->p;
    *v = 0;
    while (t->p < t->end && isdigit((unsigned char)*t->p)) {
        *v = *v * 10 + (*t->p++ - '0');
        if (*v > max)
            return false;
    }
    return t->p > begin;
}

/* [+-]hh[:mm[:ss]] */
static bool take_time(struct text *t, int32_t *seconds)
{
    int hours, minutes = 0, rest = 0, sign = take(t, '-') ? -1 : 1;
    if (sign > 0)
        (void)take(t, '+');
    if (!take_number(t, 167, &hours))
        return false;
    if (take(t, ':') &&
        (!take_number(t, 59, &minutes) || (take(t, ':') && !take_number(t, 59, &rest))))
        return false;
    *seconds = sign * (hours * 3600 + minutes * 60 + rest);
    return true;
}

static bool take_abbreviation(struct text *t)
{
    const char *begin = t->p;
    if (take(t, '<')) {
        while (t->p < t->end && *t->p != '>')
            t->p++;
        return take(t, '>');
    }
    while (t->p < t->end && isalpha((unsigned char)*t->p))
        t->p++;
    return t->p - begin >= 3;
}

static bool take_rule(struct text *t, struct rule *r)
{
    *r = (struct rule){.kind = 'n', .second = 2 * 3600};
    if (take(t, 'M')) {
        r->kind = 'M';
        if (!take_number(t, 12, &r->month) || r->month < 1 || !take(t, '.') ||
            !take_number(t, 5, &r->week) || r->week < 1 || !take(t, '.') ||
            !take_number(t, 6, &r->weekday))
            return false;
    } else {
        if (take(t, 'J'))
            r->kind = 'J';
        if (!take_number(t, 365, &r->day) || (r->kind == 'J' && r->day < 1))
            return false;
    }
    return !take(t, '/') || take_time(t, &r->second);
}

static bool parse_after(const char *p, size_t n, struct after *a)
{
    struct text t = {p, p + n};
    int32_t west;
    if (!take_abbreviation(&t) || !take_time(&t, &west) || west > OFFSET_MAX || west < -OFFSET_MAX)
        return false;
    *a = (struct after){.standard = -west};
    if (t.p == t.end)
        return true;
    a->has_summer = true;
    a->summer = a->standard + 3600;
    if (!take_abbreviation(&t))
        return false;
    if (t.p < t.end && *t.p != ',') {
        if (!take_time(&t, &west) || west > OFFSET_MAX || west < -OFFSET_MAX)
            return false;
        a->summer = -west;
    }
    return take(&t, ',') && take_rule(&t, &a->begin) && take(&t, ',') && take_rule(&t, &a->end) &&
           t.p == t.end;
}

/* The local second (as if UTC) at which R comes in YEAR. */
static int64_t rule_at(const struct rule *r, int64_t year)
{
    int64_t day;
    if (r->kind == 'M') {
        int64_t first = calendar_day(year, r->month, 1);
        int to = (r->weekday - calendar_weekday(first) + 7) % 7 + (r->week - 1) * 7;
        day = first + (to < calendar_month_days(year, r->month) ? to : to - 7);
    } else if (r->kind == 'J') {
        day = calendar_day(year, 1, 1) + r->day - 1 +
              (r->day >= 60 && calendar_is_leap(year) ? 1 : 0);
    } else {
        day = calendar_day(year, 1, 1) + r->day;
    }
    return day * DAY + r->second;
}

static int64_t year_of(int64_t seconds)
{
    int64_t year, day = seconds / DAY - (seconds % DAY < 0 ? 1 : 0);
    int month, mday;
    calendar_date(day, &year, &month, &mday);
    return year;
}

static bool is_summer(int64_t begin, int64_t end, int64_t at)
{
    return begin < end ? begin <= at && at < end : !(end <= at && at < begin);
}

static int32_t after_at(const struct after *a, int64_t utc, int *fold)
{
    *fold = 0;
    if (!a->has_summer)
        return a->standard;
    int64_t year = year_of(utc), more = a->summer - a->standard;
    int64_t begin = rule_at(&a->begin, year) - a->standard;
    int64_t end = rule_at(&a->end, year) - a->summer;
    *fold = more > 0 ? end <= utc && utc < end + more : begin <= utc && utc < begin - more;
    return is_summer(begin, end, utc) ? a->summer : a->standard;
}

static int32_t after_of_local(const struct after *a, int64_t local)
{
    if (!a->has_summer)
        return a->standard;
    int64_t year = year_of(local), more = a->summer - a->standard;
    int64_t begin = rule_at(&a->begin, year), end = rule_at(&a->end, year);
    if (more >= 0) /* the rules are in the local time before the change: the gap counts as before */
        begin += more;
    else
        end -= more;
    return is_summer(begin, end, local) ? a->summer : a->standard;
}

/* --- the file --- */

static int64_t get_be64(const uint8_t *p)
{
    return (int64_t)((uint64_t)get_be32(p) << 32 | get_be32(p + 4));
}

struct counts {
    uint32_t isut, isstd, leap, changes, kinds, chars;
};

/* A header and the size of the block behind it, whose times have WIDTH bytes. */
static bool read_header(struct rd *r, size_t width, struct counts *c, size_t *block)
{
    const uint8_t *h = rd_bytes(r, 44);
    if (h == NULL || memcmp(h, "TZif", 4) != 0 || h[4] < '2')
        return false;
    *c = (struct counts){get_be32(h + 20), get_be32(h + 24), get_be32(h + 28),
                         get_be32(h + 32), get_be32(h + 36), get_be32(h + 40)};
    if (c->isut > 256 || c->isstd > 256 || c->leap > CHANGES_MAX || c->changes > CHANGES_MAX ||
        c->kinds < 1 || c->kinds > 256 || c->chars > 4096)
        return false;
    *block = c->changes * (width + 1) + c->kinds * 6 + c->chars + c->leap * (width + 4) + c->isstd +
             c->isut;
    return true;
}

/* The offset before the first change: the first kind that is no summer time, as Python has it. */
static int32_t offset_before(const uint8_t *kinds, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (kinds[i * 6 + 4] == 0)
            return (int32_t)get_be32(kinds + i * 6);
    return (int32_t)get_be32(kinds);
}

static bool read_changes(struct zone *z, const uint8_t *block, const struct counts *c)
{
    const uint8_t *of = block + (size_t)c->changes * 8, *kinds = of + c->changes;
    for (uint32_t i = 0; i < c->kinds; i++) {
        int32_t offset = (int32_t)get_be32(kinds + (size_t)i * 6);
        if (offset > OFFSET_MAX || offset < -OFFSET_MAX)
            return false;
    }
    z->before = offset_before(kinds, c->kinds);
    for (uint32_t i = 0; i < c->changes; i++) {
        z->changes[i].utc = get_be64(block + (size_t)i * 8);
        if (of[i] >= c->kinds || (i > 0 && z->changes[i].utc <= z->changes[i - 1].utc))
            return false;
        z->changes[i].offset = (int32_t)get_be32(kinds + (size_t)of[i] * 6);
    }
    z->n = c->changes;
    return true;
}

enum zone_result zone_parse(const void *file, size_t n, struct zone **zone, const char **why)
{
    struct rd r = rd_of(file, n);
    struct counts c;
    size_t block;
    *zone = NULL;
    *why = "is no time zone file (RFC 8536, version 2 or newer)";
    /* First the block for old readers, with times of 4 bytes: not for us. */
    if (!read_header(&r, 4, &c, &block) || rd_bytes(&r, block) == NULL ||
        !read_header(&r, 8, &c, &block))
        return ZONE_BROKEN;
    const uint8_t *data = rd_bytes(&r, block);
    if (data == NULL)
        return ZONE_BROKEN;
    struct zone *z = sqlite3_malloc64(sizeof *z + c.changes * sizeof z->changes[0]);
    if (z == NULL) {
        *why = "out of memory";
        return ZONE_NOMEM;
    }
    memset(z, 0, sizeof *z);
    const char *footer = (const char *)r.p;
    size_t left = rd_left(&r);
    bool good = read_changes(z, data, &c) && left >= 2 && footer[0] == '\n';
    const char *end = good ? memchr(footer + 1, '\n', left - 1) : NULL;
    if (end == NULL) {
        good = false;
    } else if (end == footer + 1) { /* no rule: the last offset stays */
        z->after.standard = z->n > 0 ? z->changes[z->n - 1].offset : z->before;
    } else {
        good = parse_after(footer + 1, (size_t)(end - footer - 1), &z->after);
    }
    if (!good) {
        sqlite3_free(z);
        return ZONE_BROKEN;
    }
    *zone = z;
    return ZONE_FOUND;
}

void zone_free(struct zone *zone)
{
    sqlite3_free(zone);
}

/* --- offsets --- */

/* How many changes are at or before UTC. */
static size_t changes_until(const struct zone *z, int64_t utc)
{
    size_t low = 0, high = z->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (z->changes[middle].utc <= utc)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* The first local second of the I-th change's offset, where the one before it has ended. */
static int64_t local_change(const struct zone *z, size_t i)
{
    int32_t from = i == 0 ? z->before : z->changes[i - 1].offset, to = z->changes[i].offset;
    return z->changes[i].utc + (from > to ? from : to);
}

int32_t zone_offset_at(const struct zone *z, int64_t utc, int *fold)
{
    *fold = 0;
    if (z->n == 0 || (utc > z->changes[z->n - 1].utc && z->after.has_summer))
        return after_at(&z->after, utc, fold);
    size_t i = changes_until(z, utc);
    if (i == 0)
        return z->before;
    int32_t now = z->changes[i - 1].offset;
    int32_t last = i == 1 ? z->before : z->changes[i - 2].offset;
    *fold = last - now > utc - z->changes[i - 1].utc;
    return now;
}

int32_t zone_offset_of_local(const struct zone *z, int64_t local)
{
    if (z->n == 0 || local > local_change(z, z->n - 1))
        return after_of_local(&z->after, local);
    size_t low = 0, high = z->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (local_change(z, middle) <= local)
            low = middle + 1;
        else
            high = middle;
    }
    return low == 0 ? z->before : z->changes[low - 1].offset;
}

/* --- the cache --- */

/* Letters, digits, + - _ and single slashes between parts that begin with a letter: no dots. */
static bool is_name(const char *name, size_t n)
{
    if (n == 0 || n > ZONE_NAME_MAX)
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name[i];
        bool begins = i == 0 || name[i - 1] == '/';
        if (c >= 0x80 || (begins ? !isalpha(c) : !isalnum(c) && strchr("+-_/", c) == NULL) ||
            c == 0)
            return false;
    }
    return name[n - 1] != '/';
}

static enum zone_result load(const char *name, struct zone **zone, const char **why)
{
    char path[sizeof DATABASE + 1 + ZONE_NAME_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", DATABASE, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0 || !S_ISREG(st.st_mode) || st.st_size > FILE_BYTES_MAX) {
        if (fd >= 0)
            (void)close(fd);
        *why = "is not in " DATABASE " (package tzdata)";
        return ZONE_UNKNOWN;
    }
    size_t n = (size_t)st.st_size;
    uint8_t *file = sqlite3_malloc64(n + 1);
    enum zone_result result = ZONE_NOMEM;
    *why = "out of memory";
    if (file != NULL) {
        ssize_t got = pread(fd, file, n, 0);
        *why = "cannot be read";
        result = got == (ssize_t)n ? zone_parse(file, n, zone, why) : ZONE_BROKEN;
    }
    sqlite3_free(file);
    (void)close(fd);
    return result;
}

/* UTC must work where no database is installed. */
static enum zone_result make_utc(struct zone **zone, const char **why)
{
    *zone = sqlite3_malloc64(sizeof **zone);
    if (*zone == NULL) {
        *why = "out of memory";
        return ZONE_NOMEM;
    }
    memset(*zone, 0, sizeof **zone);
    return ZONE_FOUND;
}

enum zone_result zones_find(struct zones *zs, const char *name, size_t n, const struct zone **zone,
                            const char **why)
{
    struct zone *z;
    if (!is_name(name, n)) {
        *why = "is no name of a time zone";
        return ZONE_UNKNOWN;
    }
    int oldest = 0;
    for (int i = 0; i < ZONES_KEPT; i++) {
        z = zs->kept[i];
        if (z != NULL && strlen(z->name) == n && memcmp(z->name, name, n) == 0) {
            z->used = ++zs->clock;
            *zone = z;
            return ZONE_FOUND;
        }
        if (zs->kept[oldest] != NULL && (z == NULL || z->used < zs->kept[oldest]->used))
            oldest = i;
    }
    char text[ZONE_NAME_MAX + 1];
    memcpy(text, name, n);
    text[n] = 0;
    if (strcmp(text, "localtime") == 0 || strcmp(text, "posixrules") == 0) {
        *why = "is another zone on each machine";
        return ZONE_UNKNOWN;
    }
    enum zone_result result = strcmp(text, "UTC") == 0 ? make_utc(&z, why) : load(text, &z, why);
    if (result != ZONE_FOUND)
        return result;
    memcpy(z->name, text, n + 1);
    z->used = ++zs->clock;
    zone_free(zs->kept[oldest]);
    zs->kept[oldest] = z;
    *zone = z;
    return ZONE_FOUND;
}

void zones_fini(struct zones *zs)
{
    for (int i = 0; i < ZONES_KEPT; i++)
        zone_free(zs->kept[i]);
    *zs = (struct zones){0};
}
