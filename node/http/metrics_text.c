/* Room: node/http.   Thread: any, one at a time.   Owns: nothing.
 * Not here: which metrics there are (metrics.c). */
#include "node/http/metrics_text.h"

#include "base/check.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define FIRST_SECONDS 3 /* 2^3 us */
#define LAST_SECONDS  26

_Static_assert(LAST_SECONDS < HISTOGRAM_BOUNDS, "each bound has a bucket");

struct metrics_text metrics_text_of(struct buf *out)
{
    return (struct metrics_text){.out = out};
}

void metrics_family(struct metrics_text *t, const char *name, const char *type, const char *help)
{
    t->name = name;
    buf_printf(t->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* NAME, what follows it (_bucket ...), the labels and one more. */
static void put_name(struct metrics_text *t, const char *suffix, const char *labels)
{
    CHECK(t->name != NULL);
    if (labels == NULL || labels[0] == 0)
        buf_printf(t->out, "%s%s", t->name, suffix);
    else
        buf_printf(t->out, "%s%s{%s}", t->name, suffix, labels);
}

static void put_ns(struct metrics_text *t, uint64_t ns)
{
    buf_printf(t->out, " %" PRIu64 ".%09" PRIu64 "\n", ns / 1000000000, ns % 1000000000);
}

void metrics_sample(struct metrics_text *t, const char *labels, uint64_t value)
{
    put_name(t, "", labels);
    buf_printf(t->out, " %" PRIu64 "\n", value);
}

void metrics_sample_ns(struct metrics_text *t, const char *labels, uint64_t ns)
{
    put_name(t, "", labels);
    put_ns(t, ns);
}

void metrics_gauge(struct metrics_text *t, const char *name, const char *help, uint64_t value)
{
    metrics_family(t, name, "gauge", help);
    metrics_sample(t, NULL, value);
}

void metrics_gauge_ms(struct metrics_text *t, const char *name, const char *help, uint64_t ms)
{
    metrics_family(t, name, "gauge", help);
    buf_printf(t->out, "%s %" PRIu64 ".%03" PRIu64 "\n", name, ms / 1000, ms % 1000);
}

void metrics_counter(struct metrics_text *t, const char *name, const char *help, uint64_t value)
{
    metrics_family(t, name, "counter", help);
    metrics_sample(t, NULL, value);
}

/* --- histograms --- */

static void put_bucket(struct metrics_text *t, const char *labels, const char *le, uint64_t count)
{
    bool none = labels == NULL || labels[0] == 0;
    buf_printf(t->out, "%s_bucket{%s%sle=\"%s\"} %" PRIu64 "\n", t->name, none ? "" : labels,
               none ? "" : ",", le, count);
}

static uint64_t sum_below(const struct histogram_copy *h, unsigned first)
{
    uint64_t sum = 0;
    for (unsigned k = 0; k < first; k++)
        sum += h->buckets[k];
    return sum;
}

static void put_count(struct metrics_text *t, const char *labels, uint64_t count)
{
    put_name(t, "_count", labels);
    buf_printf(t->out, " %" PRIu64 "\n", count);
}

void metrics_seconds(struct metrics_text *t, const char *labels, const struct histogram_copy *h)
{
    char le[32];
    uint64_t sum = sum_below(h, FIRST_SECONDS);
    for (unsigned k = FIRST_SECONDS; k <= LAST_SECONDS; k++) {
        uint64_t us = UINT64_C(1) << k;
        sum += h->buckets[k];
        (void)snprintf(le, sizeof le, "%" PRIu64 ".%06" PRIu64, us / 1000000, us % 1000000);
        put_bucket(t, labels, le, sum);
    }
    put_bucket(t, labels, "+Inf", h->count);
    put_name(t, "_sum", labels);
    put_ns(t, h->sum);
    put_count(t, labels, h->count);
}

void metrics_numbers(struct metrics_text *t, const char *labels, const struct histogram_copy *h,
                     unsigned last)
{
    char le[32];
    uint64_t sum = 0;
    CHECK(last < HISTOGRAM_BOUNDS);
    for (unsigned k = 0; k <= last; k++) {
        sum += h->buckets[k];
        (void)snprintf(le, sizeof le, "%" PRIu64, UINT64_C(1) << k);
        put_bucket(t, labels, le, sum);
    }
    put_bucket(t, labels, "+Inf", h->count);
    put_name(t, "_sum", labels);
    buf_printf(t->out, " %" PRIu64 "\n", h->sum);
    put_count(t, labels, h->count);
}

void metrics_label(struct buf *b, const char *name, const char *value)
{
    buf_printf(b, "%s=\"", name);
    for (; *value != 0; value++) {
        if (*value == '\\' || *value == '"')
            buf_put(b, "\\", 1);
        if (*value == '\n')
            buf_put(b, "\\n", 2);
        else
            buf_put(b, value, 1);
    }
    buf_put(b, "\"", 1);
}
