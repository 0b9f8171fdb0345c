/* Room: node. Time zones by name, from the system's database (Debian's tzdata).
 *
 * libc's own way (TZ, tzset) is one zone for the whole process. Results are those of Python's
 * zoneinfo. Thread: the owner's of the cache. */
#ifndef NODE_FUNCTIONS_ZONE_H
#define NODE_FUNCTIONS_ZONE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ZONES_KEPT    16 /* for each connection: the largest zone takes 5 KB */
#define ZONE_NAME_MAX 64

struct zone;

/* Zones used last; all zero is an empty one. */
struct zones {
    struct zone *kept[ZONES_KEPT];
    uint64_t clock;
};

enum zone_result { ZONE_FOUND, ZONE_UNKNOWN, ZONE_BROKEN, ZONE_NOMEM };

void zones_fini(struct zones *z);
/* *zone is valid until the next call. Other results than ZONE_FOUND: *why is a static text. */
enum zone_result zones_find(struct zones *z, const char *name, size_t n, const struct zone **zone,
                            const char **why);
/* What to add to UTC (seconds since 1970) for local time; *fold: this local time comes a second
 * time. */
int32_t zone_offset_at(const struct zone *zone, int64_t utc, int *fold);
/* The same for the local time LOCAL, seconds as if it were UTC: the first of two, and across a gap
 * the offset from before it (fold=0 of Python's PEP 495). */
int32_t zone_offset_of_local(const struct zone *zone, int64_t local);

/* A file of the database (RFC 8536), for tests: freed by zone_free. */
enum zone_result zone_parse(const void *file, size_t n, struct zone **zone, const char **why);
void zone_free(struct zone *zone);

#endif
