/* Room: node/http. Metrics as text, in Prometheus's exposition format 0.0.4: each family once, with
 * its HELP and TYPE, then its samples. Thread: any, one at a time.
 *
 *     metrics_family(t, "lectern_role", "gauge", "The node's role in Raft");
 *     metrics_sample(t, "role=\"leader\"", 1);                                              */
#ifndef NODE_HTTP_METRICS_TEXT_H
#define NODE_HTTP_METRICS_TEXT_H

#include "base/buf.h"
#include "base/histogram.h"

#include <stdint.h>

struct metrics_text {
    struct buf *out;
    const char *name; /* of the family */
};

struct metrics_text metrics_text_of(struct buf *out);
/* Begins a family; NAME, TYPE and HELP are ours: nothing in them needs an escape. */
void metrics_family(struct metrics_text *t, const char *name, const char *type, const char *help);
/* One sample; LABELS as they stand between the braces, or NULL. */
void metrics_sample(struct metrics_text *t, const char *labels, uint64_t value);
void metrics_sample_ns(struct metrics_text *t, const char *labels, uint64_t ns);
/* A family with one sample. */
void metrics_gauge(struct metrics_text *t, const char *name, const char *help, uint64_t value);
void metrics_gauge_ms(struct metrics_text *t, const char *name, const char *help, uint64_t ms);
void metrics_counter(struct metrics_text *t, const char *name, const char *help, uint64_t value);
/* A histogram of durations (histogram_add_ns), in seconds: buckets from 8 us to 67 s. */
void metrics_seconds(struct metrics_text *t, const char *labels, const struct histogram_copy *h);
/* A histogram of numbers (histogram_add): buckets from 1 to 2^LAST. */
void metrics_numbers(struct metrics_text *t, const char *labels, const struct histogram_copy *h,
                     unsigned last);
/* `NAME="VALUE"` into B, with what the format wants escaped. */
void metrics_label(struct buf *b, const char *name, const char *value);

#endif
