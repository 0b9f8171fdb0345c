/* Room: node. Thread: any.
 * Owns: a fixed number of blocks of counters.
 * Invariants: a thread adds to one block, for its life; the sum over the blocks is the count. Two
 * threads share a block when there are more of them than blocks: they stay right, and disturb each
 * other. Nothing orders a count with anything else: all is relaxed.
 * Not here: what is told of them (http/metrics.c). */
#include "node/meters.h"

#include "base/check.h"
#include "base/clock.h"

#include <stdalign.h>
#include <stdbool.h>
#include <string.h>

#define BLOCKS     16u /* loop, owner, readers, and some more */
#define CACHE_LINE 64

struct block {
    alignas(CACHE_LINE) _Atomic uint64_t counters[METER_COUNTERS];
    _Atomic uint64_t levels[METER_LEVELS]; /* modulo 2^64: one thread's may be below 0 */
    _Atomic uint64_t errors[METER_ERRORS];
    _Atomic uint64_t accepted[METER_DOORS], received[METER_DOORS], sent[METER_DOORS];
    _Atomic uint64_t requests[METER_DOORS][METER_REQUESTS];
    struct histogram request_ns[METER_REQUESTS], stage_ns[METER_STAGES];
    struct histogram batch, read_waited_ns, read_ran_ns;
};

#define ERR(name, number, sqlite, retry, text)                                                     \
    _Static_assert((number) < METER_ERRORS, "each error has its counter");
#include "base/err.def"
#undef ERR

static struct block blocks[BLOCKS];
static _Atomic unsigned n_threads;

static struct block *mine(void)
{
    static _Thread_local struct block *block;
    if (block == NULL)
        block = &blocks[atomic_fetch_add_explicit(&n_threads, 1, memory_order_relaxed) % BLOCKS];
    return block;
}

static void add(_Atomic uint64_t *to, uint64_t n)
{
    (void)atomic_fetch_add_explicit(to, n, memory_order_relaxed);
}

void meters_count(enum meter_counter c, uint64_t n)
{
    add(&mine()->counters[c], n);
}

void meters_move(enum meter_level l, int by)
{
    add(&mine()->levels[l], (uint64_t)(int64_t)by);
}

void meters_error(enum err code)
{
    CHECK((unsigned)code < METER_ERRORS);
    add(&mine()->errors[code], 1);
}

void meters_accepted(enum meter_door d)
{
    add(&mine()->accepted[d], 1);
}

void meters_received(enum meter_door d, uint64_t bytes)
{
    add(&mine()->received[d], bytes);
}

void meters_sent(enum meter_door d, uint64_t bytes)
{
    add(&mine()->sent[d], bytes);
}

void meters_request(enum meter_door d, enum meter_request kind, uint64_t ns)
{
    struct block *b = mine();
    add(&b->requests[d][kind], 1);
    histogram_add_ns(&b->request_ns[kind], ns);
}

void meters_stage(enum meter_stage s, uint64_t ns)
{
    histogram_add_ns(&mine()->stage_ns[s], ns);
}

void meters_batch(uint64_t requests)
{
    histogram_add(&mine()->batch, requests);
}

void meters_read_waited(uint64_t ns)
{
    histogram_add_ns(&mine()->read_waited_ns, ns);
}

void meters_read_ran(uint64_t ns)
{
    histogram_add_ns(&mine()->read_ran_ns, ns);
}

/* --- sums --- */

static void collect(const _Atomic uint64_t *from, uint64_t *to, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        to[i] += atomic_load_explicit(&from[i], memory_order_relaxed);
}

static void collect_block(const struct block *b, struct meters *out)
{
    collect(b->counters, out->counters, METER_COUNTERS);
    for (unsigned i = 0; i < METER_LEVELS; i++)
        out->levels[i] += (int64_t)atomic_load_explicit(&b->levels[i], memory_order_relaxed);
    collect(b->errors, out->errors, METER_ERRORS);
    collect(b->accepted, out->accepted, METER_DOORS);
    collect(b->received, out->received, METER_DOORS);
    collect(b->sent, out->sent, METER_DOORS);
    for (unsigned d = 0; d < METER_DOORS; d++)
        collect(b->requests[d], out->requests[d], METER_REQUESTS);
    for (unsigned i = 0; i < METER_REQUESTS; i++)
        histogram_collect(&b->request_ns[i], &out->request_ns[i]);
    for (unsigned i = 0; i < METER_STAGES; i++)
        histogram_collect(&b->stage_ns[i], &out->stage_ns[i]);
    histogram_collect(&b->batch, &out->batch);
    histogram_collect(&b->read_waited_ns, &out->read_waited_ns);
    histogram_collect(&b->read_ran_ns, &out->read_ran_ns);
}

static uint64_t began_ms;

__attribute__((constructor)) static void note_beginning(void)
{
    began_ms = clock_mono_ms();
}

uint64_t meters_age_ms(void)
{
    return clock_mono_ms() - began_ms;
}

void meters_collect(struct meters *out)
{
    *out = (struct meters){0};
    for (unsigned i = 0; i < BLOCKS; i++)
        collect_block(&blocks[i], out);
}
