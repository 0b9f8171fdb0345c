/* Room: tests. replication/txn_codec: what goes in comes out; nothing else is believed. */
#include "base/buf.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "replication/txn_codec.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

/* Offsets of docs/FORMATS.md. */
#define AT_VERSION  4u
#define AT_FLAGS    6u
#define AT_SECTION  64u
#define AT_PAGES    68u /* without a section */
#define AT_BODY     72u
#define BYTES_EMPTY 80u

/* --- transactions to pack --------------------------------------------------------------------- */

struct txn {
    struct repl_entry head;
    uint32_t n_pages;
    uint32_t *page_no;
    uint8_t *pages;
    uint8_t section[300]; /* head.section */
};

/* From zeros over text-like to noise: some gain by LZ4 and some do not. */
static void page_fill(uint8_t *p, uint32_t n, struct rng *r)
{
    const uint64_t noise = rng_below(r, 5);
    const uint32_t period = 1 + (uint32_t)rng_below(r, 100);
    for (uint32_t i = 0; i < n; i++)
        p[i] = noise == 4                ? (uint8_t)rng_u64(r)
               : rng_below(r, 8) < noise ? (uint8_t)rng_u64(r)
                                         : (uint8_t)(i % period);
}

static struct txn txn_make(uint32_t page_size, uint32_t n_pages, struct rng *r)
{
    struct txn t = {.n_pages = n_pages};
    t.page_no = mem_alloc(n_pages * sizeof *t.page_no);
    t.pages = mem_alloc((size_t)n_pages * page_size);
    uint32_t last = 0;
    for (uint32_t i = 0; i < n_pages; i++) {
        last += 1 + (uint32_t)rng_below(r, rng_once_in(r, 10) ? 100000 : 3);
        t.page_no[i] = last;
        page_fill(t.pages + (size_t)i * page_size, page_size, r);
    }
    t.head = (struct repl_entry){
        .database_id = rng_u64(r),
        .seq = 1 + rng_below(r, UINT64_MAX),
        .wall_ms = rng_u64(r),
        .checksum_before = rng_u64(r),
        .checksum_after = rng_u64(r),
        .pages_after = last + (uint32_t)rng_below(r, 3) + (n_pages == 0),
        .page_size = page_size,
        .section_len = rng_below(r, sizeof t.section + 1),
    };
    for (size_t i = 0; i < t.head.section_len; i++)
        t.section[i] = (uint8_t)rng_u64(r);
    return t;
}

static void txn_free(struct txn *t)
{
    free(t->page_no);
    free(t->pages);
}

struct txn_part {
    uint8_t *bytes;
    size_t len;
};

static struct txn_part txn_pack_one(const struct txn *t, unsigned part, unsigned parts,
                                    uint32_t first, uint32_t n)
{
    struct txn_part p;
    struct repl_entry head = t->head;
    head.part = part;
    head.parts = parts;
    head.section = t->section;
    if (part + 1 < parts)
        head.section_len = 0;
    struct txn_encoder *e = txn_encoder_new(&head, n);
    for (uint32_t i = first; i < first + n; i++)
        txn_encoder_page(e, t->page_no[i], t->pages + (size_t)i * t->head.page_size);
    p.bytes = txn_encoder_finish(e, &p.len);
    return p;
}

/* PART_MAX: without the section. */
static struct txn_part *txn_pack(const struct txn *t, size_t part_max, unsigned *n)
{
    const uint32_t each = txn_part_pages(t->head.page_size, part_max);
    *n = t->n_pages == 0 ? 1 : (t->n_pages - 1) / each + 1;
    struct txn_part *parts = mem_alloc(*n * sizeof *parts);
    for (unsigned i = 0; i < *n; i++) {
        const uint32_t left = t->n_pages - i * each;
        parts[i] = txn_pack_one(t, i, *n, i * each, left < each ? left : each);
    }
    return parts;
}

static void parts_free(struct txn_part *parts, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(parts[i].bytes);
    free(parts);
}

static void expect_head(const struct repl_entry *got, const struct repl_entry *want, unsigned part,
                        unsigned parts)
{
    EXPECT_EQ(got->database_id, want->database_id);
    EXPECT_EQ(got->seq, want->seq);
    EXPECT_EQ(got->wall_ms, want->wall_ms);
    EXPECT_EQ(got->checksum_before, want->checksum_before);
    EXPECT_EQ(got->checksum_after, want->checksum_after);
    EXPECT_EQ(got->pages_after, want->pages_after);
    EXPECT_EQ(got->page_size, want->page_size);
    EXPECT_EQ(got->part, part);
    EXPECT_EQ(got->parts, parts);
}

static void expect_unpacks(const struct txn *t, const struct txn_part *parts, unsigned n)
{
    const uint32_t size = t->head.page_size;
    uint8_t *page = mem_alloc(size);
    uint32_t at = 0, last = 0;
    for (unsigned i = 0; i < n; i++) {
        /* A copy of just its size, so that a read beyond the end is seen. */
        uint8_t *bytes = mem_alloc(parts[i].len);
        memcpy(bytes, parts[i].bytes, parts[i].len);
        struct repl_entry head;
        EXPECT_OK(repl_entry_read(bytes, parts[i].len, &head));
        expect_head(&head, &t->head, i, n);
        EXPECT_EQ(head.section_len, i + 1 == n ? t->head.section_len : 0);
        EXPECT(memcmp(head.section, t->section, head.section_len) == 0);
        struct txn_decoder d;
        EXPECT_OK(txn_decoder_init(&d, bytes, parts[i].len));
        expect_head(&d.head, &t->head, i, n);
        d.last_page_no = last;
        for (;;) {
            bool done;
            uint32_t page_no;
            EXPECT_OK(txn_decoder_page(&d, &page_no, page, &done));
            if (done)
                break;
            EXPECT(at < t->n_pages && page_no == t->page_no[at]);
            EXPECT(memcmp(page, t->pages + (size_t)at * size, size) == 0);
            at++;
        }
        last = d.last_page_no;
        free(bytes);
    }
    EXPECT_EQ(at, t->n_pages);
    free(page);
}

/* --- round trips ------------------------------------------------------------------------------ */

TEST(txn_codec_round_trip_of_random_transactions)
{
    struct rng r = {test_seed()};
    for (uint64_t i = 0, n = test_rounds(500); i < n; i++) {
        const uint32_t page_size = 512u << (rng_once_in(&r, 4) ? rng_below(&r, 8) : 3);
        struct txn t = txn_make(page_size, (uint32_t)rng_below(&r, 40), &r);
        const size_t part_max = page_size + 128 + rng_below(&r, 10 * page_size);
        unsigned parts;
        struct txn_part *p = txn_pack(&t, part_max, &parts);
        for (unsigned j = 0; j < parts; j++)
            EXPECT(p[j].len <= part_max + (j + 1 == parts ? t.head.section_len : 0));
        expect_unpacks(&t, p, parts);
        parts_free(p, parts);
        p = txn_pack(&t, ENTRY_BYTES_MAX + page_size * 40ul, &parts);
        EXPECT_EQ(parts, 1);
        expect_unpacks(&t, p, parts);
        parts_free(p, parts);
        txn_free(&t);
    }
}

TEST(txn_codec_cuts_parts_full)
{
    struct rng r = {test_seed()};
    struct txn t = txn_make(4096, 1000, &r);
    t.head.section_len = 0;
    for (size_t i = 0; i < 1000 * 4096ul; i++)
        t.pages[i] = (uint8_t)rng_u64(&r);
    unsigned parts;
    struct txn_part *p = txn_pack(&t, KIB(256), &parts);
    /* 63 raw pages of 4,105 bytes fit into each. */
    EXPECT_EQ(parts, (1000 + 62) / 63);
    for (unsigned i = 0; i + 1 < parts; i++)
        EXPECT_EQ(p[i].len, BYTES_EMPTY + 63 * 4105);
    expect_unpacks(&t, p, parts);
    parts_free(p, parts);
    txn_free(&t);
}

/* However badly the pages pack: the last part has room for the largest section. */
TEST(txn_codec_a_full_section_fits_the_last_part)
{
    struct rng r = {test_seed()};
    uint8_t *section = mem_zalloc(OUTCOMES_SECTION_MAX);
    static uint8_t noise[PAGE_SIZE_MAX];
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)rng_u64(&r);
    for (uint32_t page_size = 512; page_size <= PAGE_SIZE_MAX; page_size *= 2) {
        const uint32_t n = txn_part_pages(page_size, ENTRY_BYTES_MAX - OUTCOMES_SECTION_MAX);
        const struct repl_entry head = {.seq = 1,
                                        .pages_after = n,
                                        .page_size = page_size,
                                        .part = 1,
                                        .parts = 2,
                                        .section = section,
                                        .section_len = OUTCOMES_SECTION_MAX};
        struct txn_encoder *e = txn_encoder_new(&head, n);
        for (uint32_t i = 1; i <= n; i++)
            txn_encoder_page(e, i, noise);
        size_t len;
        uint8_t *bytes = txn_encoder_finish(e, &len);
        EXPECT(n > 0 && len <= ENTRY_BYTES_MAX);
        struct repl_entry got;
        EXPECT_OK(repl_entry_read(bytes, len, &got));
        EXPECT_EQ(got.section_len, OUTCOMES_SECTION_MAX);
        free(bytes);
    }
    free(section);
}

TEST(txn_codec_drops_an_unfinished_encoder)
{
    struct rng r = {test_seed()};
    struct txn t = txn_make(4096, 100, &r);
    t.head.parts = 1;
    t.head.section = t.section;
    struct txn_encoder *e = txn_encoder_new(&t.head, t.n_pages);
    for (uint32_t i = 0; i < t.n_pages; i++)
        txn_encoder_page(e, t.page_no[i], t.pages + i * 4096ul);
    txn_encoder_free(e);
    txn_free(&t);
}

/* --- the format ------------------------------------------------------------------------------- */

static void fix_checksum(uint8_t *p, size_t n)
{
    set_le64(p + n - 8, hash64(p, n - 8, 0));
}

/* The bytes of docs/FORMATS.md. */
TEST(txn_codec_layout_is_the_documented_one)
{
    struct rng r = {1};
    uint8_t noise[512], zeros[512] = {0};
    for (size_t i = 0; i < sizeof noise; i++)
        noise[i] = (uint8_t)rng_u64(&r);
    const struct repl_entry head = {.database_id = 0x0102030405060708u,
                                    .seq = 9,
                                    .wall_ms = 10,
                                    .checksum_before = 11,
                                    .checksum_after = 12,
                                    .pages_after = 20,
                                    .page_size = 512,
                                    .parts = 1};
    struct txn_encoder *e = txn_encoder_new(&head, 2);
    txn_encoder_page(e, 3, noise);
    txn_encoder_page(e, 20, zeros);
    size_t len;
    uint8_t *bytes = txn_encoder_finish(e, &len);
    const uint8_t *p = bytes;
    EXPECT(memcmp(p, "LTXN", 4) == 0);
    EXPECT_EQ(get_le16(p + AT_VERSION), 1);
    EXPECT_EQ(get_le16(p + AT_FLAGS), 0);
    EXPECT_EQ(get_le64(p + 8), head.database_id);
    EXPECT_EQ(get_le32(p + 16), 512);
    EXPECT_EQ(get_le32(p + 20), 20);
    EXPECT_EQ(get_le64(p + 24), 9);
    EXPECT_EQ(get_le32(p + 32), 0);
    EXPECT_EQ(get_le32(p + 36), 1);
    EXPECT_EQ(get_le64(p + 40), 10);
    EXPECT_EQ(get_le64(p + 48), 11);
    EXPECT_EQ(get_le64(p + 56), 12);
    EXPECT_EQ(get_le32(p + AT_SECTION), 0);
    EXPECT_EQ(get_le32(p + AT_PAGES), 2);
    EXPECT(get_le32(p + AT_BODY) == 3 && p[AT_BODY + 4] == 0);
    EXPECT_EQ(get_le32(p + AT_BODY + 5), 512);
    EXPECT(memcmp(p + AT_BODY + 9, noise, 512) == 0);
    const uint8_t *second = p + AT_BODY + 9 + 512;
    EXPECT(get_le32(second) == 20 && second[4] == 1);
    EXPECT(get_le32(second + 5) < 20);
    EXPECT_EQ(len, (size_t)(second - p) + 9 + get_le32(second + 5) + 8);
    EXPECT_EQ(get_le64(p + len - 8), hash64(p, len - 8, 0));
    free(bytes);
}

/* Reads an entry to its end as apply.c does; every page must keep the rules. */
static enum err read_all(const uint8_t *bytes, size_t n)
{
    struct txn_decoder d;
    struct repl_entry head;
    enum err e = repl_entry_read(bytes, n, &head);
    EXPECT_EQ(e, txn_decoder_init(&d, bytes, n));
    TRY(e);
    EXPECT(head.page_size >= 512 && head.page_size <= 65536 && head.part < head.parts);
    uint8_t *page = mem_alloc(head.page_size);
    bool done = false;
    uint32_t last = 0, page_no = 0;
    while (e == ERR_OK && !done) {
        e = txn_decoder_page(&d, &page_no, page, &done);
        if (e != ERR_OK || done)
            break;
        EXPECT(page_no > last && page_no <= head.pages_after);
        last = page_no;
        (void)hash64(page, head.page_size, 0); /* every byte was written: valgrind sees it */
    }
    free(page);
    return e;
}

TEST(txn_codec_refuses_what_it_does_not_know)
{
    struct rng r = {test_seed()};
    struct txn t = txn_make(512, 3, &r);
    t.head.section_len = 0;
    unsigned n;
    struct txn_part *part = txn_pack(&t, 4096, &n);
    const size_t len = part->len;
    uint8_t *p = mem_alloc(len);
    EXPECT_EQ(get_le32(part->bytes + AT_SECTION), 0);
    static const struct {
        uint32_t at, bytes, value;
        enum err want;
    } cases[] = {
        {0, 4, 0x12345678, ERR_CORRUPT}, /* magic */
        {AT_VERSION, 2, 2, ERR_FORMAT},
        {AT_VERSION, 2, 0, ERR_FORMAT},
        {AT_FLAGS, 2, 1, ERR_FORMAT},
        {16, 4, 0, ERR_CORRUPT}, /* page size */
        {16, 4, 256, ERR_CORRUPT},
        {16, 4, 513, ERR_CORRUPT},
        {16, 4, 131072, ERR_CORRUPT},
        {16, 4, 1024, ERR_CORRUPT},
        {20, 4, 0, ERR_CORRUPT}, /* database size */
        {20, 4, 2, ERR_CORRUPT},
        {32, 4, 1, ERR_CORRUPT}, /* part 1 of 1 */
        {36, 4, 0, ERR_CORRUPT},
        {AT_SECTION, 4, 1, ERR_CORRUPT}, /* its length */
        {AT_SECTION, 4, UINT32_MAX, ERR_CORRUPT},
        {AT_SECTION, 4, OUTCOMES_SECTION_MAX + 1, ERR_CORRUPT},
        {AT_PAGES, 4, 0, ERR_CORRUPT},
        {AT_PAGES, 4, 2, ERR_CORRUPT},
        {AT_PAGES, 4, 4, ERR_CORRUPT},
        {AT_PAGES, 4, UINT32_MAX, ERR_CORRUPT},
        {AT_BODY, 4, 0, ERR_CORRUPT}, /* page number */
        {AT_BODY, 4, UINT32_MAX, ERR_CORRUPT},
        {AT_BODY + 4, 1, 2, ERR_CORRUPT}, /* encoding */
        {AT_BODY + 5, 4, 0, ERR_CORRUPT}, /* length */
        {AT_BODY + 5, 4, UINT32_MAX, ERR_CORRUPT},
        {AT_BODY + 5, 4, 0x80000000u, ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(p, part->bytes, len);
        memcpy(p + cases[i].at, &cases[i].value, cases[i].bytes);
        EXPECT_ERR(ERR_CORRUPT, read_all(p, len));
        fix_checksum(p, len);
        enum err got = read_all(p, len);
        if (got != cases[i].want)
            test_fail(__FILE__, __LINE__, "case %zu: %s (%s)", i, err_name((int)got), err_text());
    }
    memcpy(p, part->bytes, len); /* sequence 0 is the empty database */
    set_le64(p + 24, 0);
    fix_checksum(p, len);
    EXPECT_ERR(ERR_CORRUPT, read_all(p, len));
    free(p);
    parts_free(part, n);
    txn_free(&t);
}

TEST(txn_codec_refuses_every_flipped_bit_and_every_cut)
{
    struct rng r = {test_seed()};
    struct txn t = txn_make(512, 2, &r);
    unsigned n;
    struct txn_part *part = txn_pack(&t, 4096, &n);
    EXPECT_OK(read_all(part->bytes, part->len));
    for (size_t bit = 0; bit < part->len * 8; bit++) {
        part->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
        EXPECT_ERR(ERR_CORRUPT, read_all(part->bytes, part->len));
        part->bytes[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < part->len; len++) {
        uint8_t *p = mem_alloc(len);
        memcpy(p, part->bytes, len);
        EXPECT_ERR(ERR_CORRUPT, read_all(p, len));
        if (len >= 8) { /* also when the last bytes were a checksum */
            fix_checksum(p, len);
            EXPECT(read_all(p, len) != ERR_OK);
        }
        free(p);
    }
    parts_free(part, n);
    txn_free(&t);
}

/* The parts of a transaction in the wrong order, or one twice. */
TEST(txn_codec_pages_rise_over_parts)
{
    struct rng r = {test_seed()};
    struct txn t = txn_make(512, 30, &r);
    unsigned n;
    struct txn_part *parts = txn_pack(&t, 700, &n);
    EXPECT(n > 2);
    struct txn_decoder d;
    uint8_t page[512];
    uint32_t page_no;
    bool done;
    EXPECT_OK(txn_decoder_init(&d, parts[1].bytes, parts[1].len));
    EXPECT_OK(txn_decoder_page(&d, &page_no, page, &done));
    const uint32_t last = d.last_page_no;
    EXPECT(!done && last == page_no);
    for (unsigned i = 0; i < 2; i++) {
        EXPECT_OK(txn_decoder_init(&d, parts[i].bytes, parts[i].len));
        d.last_page_no = last;
        EXPECT_ERR(ERR_CORRUPT, txn_decoder_page(&d, &page_no, page, &done));
    }
    EXPECT_OK(txn_decoder_init(&d, parts[2].bytes, parts[2].len));
    parts_free(parts, n);
    txn_free(&t);
}

/* --- mutations -------------------------------------------------------------------------------- */

/* Changes P (capacity CAP) somehow and returns its new length. */
static size_t mutate(uint8_t *p, size_t n, size_t cap, struct rng *r)
{
    static const uint32_t nasty[] = {0,      1,          9,           255,        511,
                                     512,    65536,      0x7fffffff,  0x80000000, 0xffffffff,
                                     0xfffe, 0x10000000, 0xfffffff6u, 4096,       80};
    for (uint64_t i = 0, times = 1 + rng_below(r, 3); i < times && n > 0; i++) {
        size_t at = rng_below(r, n), more = rng_below(r, 100);
        /* Mostly where the structure is: the head and the first page's head. */
        if (rng_once_in(r, 2))
            at = rng_below(r, n < 90 ? n : 90);
        switch (rng_below(r, 6)) {
        case 0:
            p[at] ^= (uint8_t)(1u << rng_below(r, 8));
            break;
        case 1:
            p[at] = (uint8_t)rng_u64(r);
            break;
        case 2:
            if (at + 4 <= n)
                set_le32(p + at, nasty[rng_below(r, sizeof nasty / sizeof *nasty)]);
            break;
        case 3: /* a piece twice */
            if (n + more <= cap && at + more <= n) {
                memmove(p + at + more, p + at, n - at);
                n += more;
            }
            break;
        case 4: /* a piece less */
            if (at + more <= n) {
                memmove(p + at, p + at + more, n - at - more);
                n -= more;
            }
            break;
        default:
            n = at;
        }
    }
    return n;
}

TEST(txn_codec_believes_no_mutation)
{
    struct rng r = {test_seed()};
    uint64_t reached = 0, accepted = 0;
    for (uint64_t i = 0, rounds = test_rounds(4000); i < rounds; i++) {
        struct txn t = txn_make(512, (uint32_t)rng_below(&r, 8), &r);
        unsigned n;
        struct txn_part *part = txn_pack(&t, 8192, &n);
        const size_t len = part->len, cap = len + 512;
        uint8_t *room = mem_alloc(cap);
        for (int j = 0; j < 40; j++) {
            memcpy(room, part->bytes, len);
            const size_t now = mutate(room, len, cap, &r);
            uint8_t *p = mem_alloc(now); /* of just its size, for the sanitizer */
            memcpy(p, room, now);
            const bool same = now == len && memcmp(p, part->bytes, len) == 0;
            if (same)
                EXPECT_OK(read_all(p, now));
            else
                EXPECT_ERR(ERR_CORRUPT, read_all(p, now));
            if (now >= 8) {
                fix_checksum(p, now);
                enum err e = read_all(p, now);
                EXPECT(e == ERR_OK || e == ERR_CORRUPT || e == ERR_FORMAT);
                struct repl_entry head;
                reached += repl_entry_read(p, now, &head) == ERR_OK;
                accepted += e == ERR_OK;
            }
            free(p);
        }
        free(room);
        parts_free(part, n);
        txn_free(&t);
    }
    /* The inner checks were reached, and they refused something. */
    EXPECT(reached > 1000 && accepted > 100 && accepted < reached);
}
