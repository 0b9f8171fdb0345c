/* Room: node. Thread: owner (before the owner starts: main).
 * Owns: struct outcomes: the writers, and what is known of each one's numbers.
 * Invariants:
 *   - for every numbered write of a transaction after `covers` and up to the newest one, either its
 *     outcome is here or the writer's mark is at or above it;
 *   - what is sealed is in the order of its sequences, and behind what is published;
 *   - a writer's mark only rises, whatever becomes of the request that brought it: the client has
 *     heard those answers;
 *   - only what is published is dropped for want of room, and `covers` or the mark then says so.
 * Not here: the bytes of a section (outcome_section.c), when what is called (lane*.c).
 *
 * Why a duplicate that is delayed for any time is not run. Its first attempt was done at a sequence
 * above its `since`. If that outcome is here, it is found. If it was dropped because the writer
 * acknowledged it, the writer is here with its mark, or was dropped itself, and then `covers` is at
 * or above the writer's newest sequence, and that above `since`. If the table never knew it, it is
 * of before `covers`. */
#include "node/outcomes.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/list.h"
#include "base/mem.h"

#include <stdlib.h>
#include <string.h>

#define BUCKETS_MIN 64u

enum stage { TENTATIVE, SEALED, PUBLISHED, VOID };

/* What is known of one number. */
struct known {
    struct list of_writer; /* in the order of the numbers */
    struct list staged;    /* in `tentative`, `sealed` or `voids`; alone when published */
    struct writer *writer;
    uint64_t number, acked;
    uint64_t seq; /* sealed, published: its transaction; void: what had been seen */
    enum stage stage;
    bool always;
    struct outcome done; /* frames: the bytes behind this struct */
    uint8_t frames[];
};

struct writer {
    struct writer *next; /* in its bucket */
    struct list by_age;
    uint8_t name[WIRE_WRITER_BYTES];
    uint64_t acked;
    uint64_t newest_seq; /* of its published outcomes; 0: none yet */
    struct list known;
    unsigned n_known, n_staged;
};

struct outcomes {
    struct writer **buckets;
    size_t n_buckets, n_writers, n_known, bytes, bytes_max;
    uint64_t hash_seed;
    struct list by_age; /* writers, by newest_seq */
    struct list tentative, sealed, voids;
    unsigned n_tentative, n_voids;
    size_t section_bytes; /* of the tentative ones */
    uint64_t covers, newest;
    uint64_t void_floor; /* COMMITs of who had not seen this sequence are void */
};

/* --- writers ---------------------------------------------------------------------------------- */

static struct writer **bucket_of(const struct outcomes *o, const uint8_t *name)
{
    return &o->buckets[hash64(name, WIRE_WRITER_BYTES, o->hash_seed) & (o->n_buckets - 1)];
}

static struct writer *writer_get(const struct outcomes *o, const uint8_t *name)
{
    struct writer *w = *bucket_of(o, name);
    while (w != NULL && memcmp(w->name, name, WIRE_WRITER_BYTES) != 0)
        w = w->next;
    return w;
}

static void make_buckets(struct outcomes *o, size_t n)
{
    struct writer **old = o->buckets;
    size_t n_old = o->n_buckets;
    o->buckets = mem_zalloc(n * sizeof *o->buckets);
    o->n_buckets = n;
    for (size_t i = 0; i < n_old; i++)
        for (struct writer *w = old[i], *next; w != NULL; w = next) {
            struct writer **bucket = bucket_of(o, w->name);
            next = w->next;
            w->next = *bucket;
            *bucket = w;
        }
    free(old);
}

static struct writer *writer_make(struct outcomes *o, const uint8_t *name)
{
    struct writer *w = writer_get(o, name);
    if (w != NULL)
        return w;
    if (o->n_writers >= o->n_buckets)
        make_buckets(o, o->n_buckets * 2);
    struct writer **bucket = bucket_of(o, name);
    w = MEM_NEW(struct writer);
    memcpy(w->name, name, sizeof w->name);
    w->next = *bucket;
    *bucket = w;
    list_init(&w->known);
    list_push_back(&o->by_age, &w->by_age);
    o->n_writers++;
    o->bytes += sizeof *w;
    return w;
}

static void writer_free(struct outcomes *o, struct writer *w)
{
    struct writer **at = bucket_of(o, w->name);
    CHECK(w->n_known == 0 && w->n_staged == 0);
    while (*at != w)
        at = &(*at)->next;
    *at = w->next;
    list_remove(&w->by_age);
    o->n_writers--;
    o->bytes -= sizeof *w;
    free(w);
}

/* --- what is known of a number ---------------------------------------------------------------- */

static size_t known_bytes(const struct known *k)
{
    return sizeof *k + k->done.frames_len;
}

static struct known *known_get(const struct writer *w, uint64_t number)
{
    /* From the newest: a retry is among the last ones sent. */
    for (struct list *i = w->known.prev; i != &w->known; i = i->prev) {
        struct known *k = LIST_ENTRY(i, struct known, of_writer);
        if (k->number <= number)
            return k->number == number ? k : NULL;
    }
    return NULL;
}

/* There is none of this number yet. */
static struct known *known_add(struct outcomes *o, struct writer *w, uint64_t number,
                               const struct outcome *done)
{
    struct known *k = mem_zalloc(sizeof *k + done->frames_len);
    struct list *behind = w->known.prev;
    while (behind != &w->known && LIST_ENTRY(behind, struct known, of_writer)->number > number)
        behind = behind->prev;
    list_init(&k->staged);
    list_push_front(behind, &k->of_writer);
    k->writer = w;
    k->number = number;
    k->done = *done;
    if (done->frames_len > 0)
        memcpy(k->frames, done->frames, done->frames_len);
    k->done.frames = k->frames;
    w->n_known++;
    o->n_known++;
    o->bytes += known_bytes(k);
    return k;
}

static void known_free(struct outcomes *o, struct known *k)
{
    list_remove(&k->staged);
    list_remove(&k->of_writer);
    o->bytes -= known_bytes(k);
    o->n_known--;
    k->writer->n_known--;
    k->writer->n_staged -= k->stage != PUBLISHED;
    free(k);
}

/* K, not published, is gone; so is its writer, if nothing is known of it. */
static void known_drop(struct outcomes *o, struct known *k)
{
    struct writer *w = k->writer;
    known_free(o, k);
    if (w->n_known == 0 && w->newest_seq == 0)
        writer_free(o, w);
}

/* Drops what W has acknowledged and, beyond the limit, its lowest: the mark stands for them. */
static void writer_trim(struct outcomes *o, struct writer *w)
{
    LIST_EACH(i, &w->known) {
        struct known *k = LIST_ENTRY(i, struct known, of_writer);
        if (k->number > w->acked && w->n_known <= WRITER_OUTCOMES_MAX)
            return;
        if (k->stage != PUBLISHED)
            continue;
        if (k->number > w->acked)
            w->acked = k->number;
        known_free(o, k);
    }
}

static void writer_ack(struct outcomes *o, struct writer *w, uint64_t acked)
{
    if (acked <= w->acked)
        return;
    w->acked = acked;
    writer_trim(o, w);
}

/* Makes room: the writers that were silent longest are forgotten. */
static void evict(struct outcomes *o)
{
    LIST_EACH(i, &o->by_age) {
        struct writer *w = LIST_ENTRY(i, struct writer, by_age);
        if (o->bytes <= o->bytes_max)
            return;
        if (w->n_staged > 0)
            continue;
        CHECK(w->newest_seq > 0 && w->newest_seq <= o->newest);
        if (w->newest_seq > o->covers)
            o->covers = w->newest_seq;
        LIST_EACH(k, &w->known)
            known_free(o, LIST_ENTRY(k, struct known, of_writer));
        writer_free(o, w);
    }
}

/* W wrote in the transaction SEQ. */
static void writer_touch(struct outcomes *o, struct writer *w, uint64_t seq)
{
    CHECK(seq >= w->newest_seq);
    w->newest_seq = seq;
    list_remove(&w->by_age);
    list_push_back(&o->by_age, &w->by_age);
}

/* --- begin and end ---------------------------------------------------------------------------- */

struct outcomes *outcomes_new(size_t bytes_max)
{
    struct outcomes *o = MEM_NEW(struct outcomes);
    o->bytes_max = bytes_max;
    /* Not known to who chooses the writers' names. */
    o->hash_seed = clock_wall_ms() * 0x9e3779b97f4a7c15u ^ (uint64_t)(uintptr_t)o;
    list_init(&o->by_age);
    list_init(&o->tentative);
    list_init(&o->sealed);
    list_init(&o->voids);
    make_buckets(o, BUCKETS_MIN);
    return o;
}

static void clear(struct outcomes *o)
{
    LIST_EACH(i, &o->by_age) {
        struct writer *w = LIST_ENTRY(i, struct writer, by_age);
        LIST_EACH(k, &w->known)
            known_free(o, LIST_ENTRY(k, struct known, of_writer));
        writer_free(o, w);
    }
    CHECK(o->n_writers == 0 && o->n_known == 0 && o->bytes == 0);
}

void outcomes_free(struct outcomes *o)
{
    if (o == NULL)
        return;
    clear(o);
    free(o->buckets);
    free(o);
}

void outcomes_begin(struct outcomes *o, uint64_t seq)
{
    CHECK(o->n_tentative == 0 && list_empty(&o->sealed) && o->n_voids == 0);
    clear(o);
    o->covers = o->newest = seq;
}

uint64_t outcomes_covers(const struct outcomes *o)
{
    return o->covers;
}

void outcomes_get_stats(const struct outcomes *o, struct outcomes_stats *out)
{
    *out = (struct outcomes_stats){o->covers, o->newest, o->n_writers, o->n_known, o->bytes};
}

/* --- asking ----------------------------------------------------------------------------------- */

enum outcome_known outcomes_find(const struct outcomes *o, const struct wire_number *n,
                                 struct outcome *out)
{
    const struct writer *w = writer_get(o, n->writer);
    const struct known *k = w == NULL ? NULL : known_get(w, n->number);
    if (k != NULL && k->stage == VOID)
        return OUTCOME_VOID;
    if (k != NULL) {
        *out = k->done;
        return OUTCOME_DONE;
    }
    if (w != NULL && w->acked >= n->number)
        return OUTCOME_EXPIRED;
    return n->since < o->covers ? OUTCOME_EXPIRED : OUTCOME_NONE;
}

/* --- the leader ------------------------------------------------------------------------------- */

void outcomes_note(struct outcomes *o, const struct wire_number *n, const struct outcome *done,
                   bool always)
{
    struct outcome kept = *done;
    CHECK(n->number > 0 && n->acked < n->number);
    if (kept.frames_len > OUTCOME_ROWS_MAX) {
        CHECK(!kept.failed);
        kept.frames_len = 0;
        kept.rows_lost = true;
    }
    struct writer *w = writer_make(o, n->writer);
    writer_ack(o, w, n->acked);
    if (known_get(w, n->number) != NULL)
        return; /* a client that gives one number to two writes: the first one counts */
    struct known *k = known_add(o, w, n->number, &kept);
    k->acked = n->acked;
    k->always = always;
    k->stage = TENTATIVE;
    w->n_staged++;
    list_push_back(&o->tentative, &k->staged);
    o->n_tentative++;
    o->section_bytes += OUTCOME_BYTES + kept.frames_len;
}

bool outcomes_have_room(const struct outcomes *o)
{
    return SECTION_HEAD_BYTES + o->section_bytes + OUTCOME_BYTES + OUTCOME_ROWS_MAX <=
           OUTCOMES_SECTION_MAX;
}

unsigned outcomes_mark(const struct outcomes *o)
{
    return o->n_tentative;
}

/* K is tentative no more. */
static void unstage_tentative(struct outcomes *o, struct known *k)
{
    list_remove(&k->staged);
    o->n_tentative--;
    o->section_bytes -= OUTCOME_BYTES + k->done.frames_len;
}

void outcomes_undo(struct outcomes *o, unsigned mark)
{
    CHECK(mark <= o->n_tentative);
    while (o->n_tentative > mark) {
        struct known *k = LIST_ENTRY(o->tentative.prev, struct known, staged);
        unstage_tentative(o, k);
        known_drop(o, k);
    }
}

bool outcomes_need_entry(const struct outcomes *o)
{
    LIST_EACH(i, &o->tentative)
        if (LIST_ENTRY(i, struct known, staged)->always)
            return true;
    return false;
}

void outcomes_put_section(const struct outcomes *o, struct buf *section)
{
    if (o->n_tentative == 0)
        return;
    section_put_head(section, o->n_tentative);
    LIST_EACH(i, &o->tentative) {
        const struct known *k = LIST_ENTRY(i, struct known, staged);
        struct outcome_record r = {.number = k->number, .acked = k->acked, .done = k->done};
        memcpy(r.writer, k->writer->name, sizeof r.writer);
        section_put(section, &r);
    }
}

void outcomes_seal(struct outcomes *o, uint64_t seq)
{
    CHECK(seq > o->newest);
    CHECK(list_empty(&o->sealed) || LIST_ENTRY(o->sealed.prev, struct known, staged)->seq < seq);
    while (o->n_tentative > 0) {
        struct known *k = LIST_ENTRY(o->tentative.next, struct known, staged);
        unstage_tentative(o, k);
        k->stage = SEALED;
        k->seq = seq;
        list_push_back(&o->sealed, &k->staged);
    }
}

void outcomes_publish(struct outcomes *o, uint64_t seq)
{
    CHECK(seq > o->newest);
    o->newest = seq;
    while (!list_empty(&o->sealed)) {
        struct known *k = LIST_ENTRY(o->sealed.next, struct known, staged);
        struct writer *w = k->writer;
        if (k->seq > seq)
            break;
        list_remove(&k->staged);
        k->stage = PUBLISHED;
        w->n_staged--;
        writer_touch(o, w, k->seq);
        writer_trim(o, w);
    }
    evict(o);
}

void outcomes_lose(struct outcomes *o)
{
    outcomes_undo(o, 0);
    LIST_EACH(i, &o->sealed)
        known_drop(o, LIST_ENTRY(i, struct known, staged));
    LIST_EACH(i, &o->voids)
        known_drop(o, LIST_ENTRY(i, struct known, staged));
    o->n_voids = 0;
    o->void_floor = 0;
}

/* --- numbers that were promised never to be done ---------------------------------------------- */

void outcomes_void(struct outcomes *o, const struct wire_number *n, uint64_t seq)
{
    struct writer *w = writer_make(o, n->writer);
    writer_ack(o, w, n->acked);
    if (known_get(w, n->number) != NULL)
        return;
    struct known *k = known_add(o, w, n->number, &(struct outcome){0});
    k->stage = VOID;
    k->seq = seq;
    w->n_staged++;
    list_push_back(&o->voids, &k->staged);
    if (++o->n_voids <= OUTCOMES_VOIDS_MAX)
        return;
    /* The oldest one goes: a COMMIT that it stands for was sent before it was voided. */
    k = LIST_ENTRY(o->voids.next, struct known, staged);
    if (k->seq + 1 > o->void_floor)
        o->void_floor = k->seq + 1;
    o->n_voids--;
    known_drop(o, k);
}

bool outcomes_is_void(const struct outcomes *o, const struct wire_number *n)
{
    const struct writer *w = writer_get(o, n->writer);
    const struct known *k = w == NULL ? NULL : known_get(w, n->number);
    return (k != NULL && k->stage == VOID) || (w != NULL && w->acked >= n->number) ||
           n->since < o->void_floor;
}

/* --- what the log says ------------------------------------------------------------------------ */

static enum err check_section(const uint8_t *section, size_t len, uint32_t *n)
{
    struct rd r = rd_of(section, len);
    struct outcome_record record;
    TRY(section_get_head(&r, n));
    for (uint32_t i = 0; i < *n; i++)
        TRY(section_get(&r, &record));
    return section_get_end(&r);
}

static void apply_record(struct outcomes *o, uint64_t seq, const struct outcome_record *r)
{
    struct writer *w = writer_make(o, r->writer);
    writer_touch(o, w, seq);
    writer_ack(o, w, r->acked);
    if (r->number <= w->acked || known_get(w, r->number) != NULL)
        return;
    struct known *k = known_add(o, w, r->number, &r->done);
    k->acked = r->acked;
    k->seq = seq;
    k->stage = PUBLISHED;
    writer_trim(o, w);
}

enum err outcomes_apply(struct outcomes *o, uint64_t seq, const uint8_t *section, size_t len)
{
    uint32_t n = 0;
    if (seq <= o->newest)
        return ERR_OK;
    CHECK(o->n_tentative == 0 && list_empty(&o->sealed));
    if (len > 0)
        TRY(check_section(section, len, &n));
    o->newest = seq;
    struct rd r = rd_of(section, len);
    uint32_t again;
    if (n > 0 && section_get_head(&r, &again) != ERR_OK)
        UNREACHABLE("it was checked");
    for (uint32_t i = 0; i < n; i++) {
        struct outcome_record record;
        enum err e = section_get(&r, &record);
        CHECK(e == ERR_OK); /* it was checked */
        apply_record(o, seq, &record);
    }
    evict(o);
    return ERR_OK;
}
