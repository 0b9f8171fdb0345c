/* Room: node. Dates and times as Django's SQLite backend reads them from text.
 *
 * Its typecast_date, typecast_time and typecast_timestamp are built from str.split and int, so they
 * take " 2020-1-2  3:4:5 ", and end in three ways that differ to the caller. Thread: any. */
#ifndef NODE_FUNCTIONS_MOMENT_H
#define NODE_FUNCTIONS_MOMENT_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOMENT_US 1000000LL

struct moment {
    bool is_date; /* without a time */
    int64_t year;
    int month, day, hour, minute, second, us, fold;
};

enum moment_result {
    MOMENT_READ,
    MOMENT_NONE,   /* the empty text: None */
    MOMENT_BAD,    /* ValueError, TypeError: caught by most functions, which then are NULL */
    MOMENT_RAISED, /* anything else: never caught */
};

/* V is not NULL. */
enum moment_result moment_of_timestamp(sqlite3_value *v, struct moment *m);
enum moment_result moment_of_time(sqlite3_value *v, struct moment *m);

/* Seconds since 1970 as if the moment were UTC, and back; false: not in the years 1 to 9999. */
int64_t moment_seconds(const struct moment *m);
bool moment_set_seconds(struct moment *m, int64_t seconds);

/* The text P[0..N) as Python's str.strip() leaves it: Unicode's white space goes. */
void moment_strip(const char **p, size_t *n);

#endif
