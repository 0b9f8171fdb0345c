/* Room: tests. replication/position: torn writes at every byte, damage, other versions. */
#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/rng.h"
#include "replication/position.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#define SLOT        512u
#define STRIDE      4096u
#define FILE_BYTES  (2 * STRIDE)
#define AT_CHECKSUM 504u

static struct position_record record_of(uint64_t n)
{
    struct position_record r = {
        .database_id = 0x1122334455667788u,
        .page_size = 4096,
        .n_wals = (unsigned)(n % 3),
        .closed = n % 2 == 1,
    };
    for (unsigned i = 0; i < r.n_wals; i++)
        r.wals[i] = (struct position_wal){
            .salt = {(uint32_t)n * 7 + i, (uint32_t)n * 11 + i},
            .seq = n * 1000 + i,
            .checksum = ~n - i,
        };
    if (r.closed) {
        r.closed_seq = n << 33;
        r.closed_checksum = n * 0x9e3779b97f4a7c15u;
    }
    return r;
}

static bool same(const struct position_record *a, const struct position_record *b)
{
    if (a->database_id != b->database_id || a->page_size != b->page_size ||
        a->n_wals != b->n_wals || a->closed != b->closed || a->closed_seq != b->closed_seq ||
        a->closed_checksum != b->closed_checksum)
        return false;
    for (unsigned i = 0; i < a->n_wals; i++)
        if (a->wals[i].salt[0] != b->wals[i].salt[0] || a->wals[i].salt[1] != b->wals[i].salt[1] ||
            a->wals[i].seq != b->wals[i].seq || a->wals[i].checksum != b->wals[i].checksum)
            return false;
    return true;
}

static void file_get(const char *path, uint8_t p[FILE_BYTES])
{
    int fd;
    size_t got;
    EXPECT_OK(file_open(path, O_RDONLY, 0, &fd));
    EXPECT_OK(file_read_at(fd, path, p, FILE_BYTES, 0, &got));
    EXPECT_EQ(got, FILE_BYTES);
    EXPECT(close(fd) == 0);
}

/* In place: the torn-write loop needs thousands of them, and a file system flushes what was cut to
 * nothing and written again. */
static void file_put(const char *path, const uint8_t *p, size_t n)
{
    int fd;
    EXPECT_OK(file_open(path, O_WRONLY | O_CREAT, 0644, &fd));
    EXPECT_OK(file_write_at(fd, path, p, n, 0));
    EXPECT(ftruncate(fd, (off_t)n) == 0);
    EXPECT(close(fd) == 0);
}

static void expect_content(const char *path, uint64_t n)
{
    struct position_file *p;
    struct position_record want = record_of(n), got;
    EXPECT_OK(position_open(path, &p, &got));
    EXPECT(same(&want, &got));
    position_close(p);
}

/* Writes records 0..N and returns the file's bytes. */
static void make(const char *path, uint64_t n, uint8_t bytes[FILE_BYTES])
{
    struct position_file *p;
    struct position_record r = record_of(0);
    EXPECT_OK(position_create(path, &r, &p));
    for (uint64_t i = 1; i <= n; i++) {
        r = record_of(i);
        EXPECT_OK(position_write(p, &r));
    }
    position_close(p);
    file_get(path, bytes);
}

static void fix_checksum(uint8_t *slot)
{
    set_le64(slot + AT_CHECKSUM, hash64(slot, AT_CHECKSUM, 0));
}

TEST(position_keeps_what_was_written)
{
    const char *path = test_path("position");
    struct position_file *p;
    struct position_record r, got;
    EXPECT_ERR(ERR_NOT_FOUND, position_open(path, &p, &got));
    r = record_of(0);
    EXPECT_OK(position_create(path, &r, &p));
    position_close(p);
    expect_content(path, 0);
    for (uint64_t i = 1; i < 12; i++) {
        EXPECT_OK(position_open(path, &p, &got));
        r = record_of(i);
        EXPECT_OK(position_write(p, &r));
        if (i % 3 == 0) { /* several writes by one opener */
            r = record_of(++i);
            EXPECT_OK(position_write(p, &r));
        }
        position_close(p);
        expect_content(path, i);
    }
    /* Creating again replaces all. */
    r = record_of(5);
    EXPECT_OK(position_create(path, &r, &p));
    position_close(p);
    expect_content(path, 5);
}

TEST(position_survives_a_write_torn_at_any_byte)
{
    uint8_t old[FILE_BYTES], new[FILE_BYTES], torn[FILE_BYTES];
    for (uint64_t n = 1; n <= 4; n++) {
        make(test_path("old"), n - 1, old);
        make(test_path("new"), n, new);
        const size_t at = n % 2 * STRIDE;
        EXPECT(memcmp(old + (STRIDE - at), new + (STRIDE - at), SLOT) == 0);
        for (size_t done = 0; done <= SLOT; done++) {
            memcpy(torn, old, FILE_BYTES);
            memcpy(torn + at, new + at, done);
            file_put(test_path("torn"), torn, FILE_BYTES);
            const bool whole = memcmp(torn, new, FILE_BYTES) == 0;
            expect_content(test_path("torn"), whole ? n : n - 1);
        }
        /* And the next write after a torn one goes to the torn slot. */
        memcpy(torn, old, FILE_BYTES);
        memset(torn + at, 0xa5, SLOT);
        file_put(test_path("torn"), torn, FILE_BYTES);
        struct position_file *p;
        struct position_record r;
        EXPECT_OK(position_open(test_path("torn"), &p, &r));
        r = record_of(n);
        EXPECT_OK(position_write(p, &r));
        position_close(p);
        file_get(test_path("torn"), torn);
        EXPECT(memcmp(torn, new, FILE_BYTES) == 0);
    }
}

static void limit_file_size(rlim_t bytes)
{
    struct rlimit l;
    EXPECT(getrlimit(RLIMIT_FSIZE, &l) == 0);
    l.rlim_cur = bytes;
    EXPECT(setrlimit(RLIMIT_FSIZE, &l) == 0);
}

/* A write that the system refuses half-way: the sentence says it, the older record stands, and the
 * next one, by the same opener, goes to the torn slot again. */
TEST(position_repeats_a_failed_write_into_the_same_slot)
{
    const char *path = test_path("position");
    uint8_t bytes[FILE_BYTES], want[FILE_BYTES];
    struct position_file *p;
    struct position_record r;
    make(test_path("want"), 3, want);
    make(path, 2, bytes);
    EXPECT_OK(position_open(path, &p, &r));
    EXPECT(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    r = record_of(3);
    for (rlim_t done = 0; done < SLOT; done += 50) {
        limit_file_size(STRIDE + done);
        EXPECT_ERR(ERR_IO, position_write(p, &r));
        expect_content(path, 2);
    }
    limit_file_size(RLIM_INFINITY);
    EXPECT_OK(position_write(p, &r));
    position_close(p);
    expect_content(path, 3);
    file_get(path, bytes);
    EXPECT(memcmp(bytes, want, FILE_BYTES) == 0);
}

TEST(position_refuses_damage)
{
    struct rng rng = {test_seed()};
    const char *path = test_path("position");
    uint8_t good[FILE_BYTES], bad[FILE_BYTES];
    struct position_file *p = NULL;
    struct position_record r;
    make(path, 3, good);
    /* One flipped bit anywhere in the newest record: the older one counts; in both: none. */
    for (uint64_t i = 0, n = test_rounds(2000); i < n; i++) {
        memcpy(bad, good, FILE_BYTES);
        uint64_t bit = rng_below(&rng, SLOT * 8);
        bad[STRIDE + bit / 8] ^= (uint8_t)(1u << bit % 8);
        file_put(path, bad, FILE_BYTES);
        expect_content(path, 2);
        bit = rng_below(&rng, SLOT * 8);
        bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
        file_put(path, bad, FILE_BYTES);
        EXPECT_ERR(ERR_CORRUPT, position_open(path, &p, &r));
        EXPECT(p == NULL);
    }
    for (size_t n = 0; n < FILE_BYTES; n += 128) { /* cut short */
        file_put(path, good, n);
        if (n >= STRIDE + SLOT)
            expect_content(path, 3);
        else if (n >= SLOT)
            expect_content(path, 2);
        else
            EXPECT_ERR(ERR_CORRUPT, position_open(path, &p, &r));
    }
    /* A record in the other's slot: somebody copied sectors around. */
    memset(bad, 0, FILE_BYTES);
    memcpy(bad, good + STRIDE, SLOT);
    file_put(path, bad, FILE_BYTES);
    EXPECT_ERR(ERR_CORRUPT, position_open(path, &p, &r));
}

TEST(position_refuses_what_it_does_not_know)
{
    const char *path = test_path("position");
    uint8_t good[FILE_BYTES], bad[FILE_BYTES];
    struct position_file *p = NULL;
    struct position_record r;
    make(path, 3, good);
    static const struct {
        size_t at;
        uint32_t value;
        enum err want;
    } cases[] = {
        {8, 2, ERR_FORMAT},
        {8, 0, ERR_FORMAT},
        {12, 3, ERR_CORRUPT},
        {36, 3, ERR_CORRUPT},
        {36, UINT32_MAX, ERR_CORRUPT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        memcpy(bad, good, FILE_BYTES);
        set_le32(bad + STRIDE + cases[i].at, cases[i].value);
        fix_checksum(bad + STRIDE);
        file_put(path, bad, FILE_BYTES);
        EXPECT_ERR(cases[i].want, position_open(path, &p, &r));
        EXPECT(p == NULL);
    }
    /* The older slot may be anything as long as the newest is ours. */
    memcpy(bad, good, FILE_BYTES);
    set_le32(bad + 8, 9);
    fix_checksum(bad);
    file_put(path, bad, FILE_BYTES);
    expect_content(path, 3);
}

/* The bytes of docs/FORMATS.md. */
TEST(position_layout_is_the_documented_one)
{
    uint8_t f[FILE_BYTES];
    make(test_path("position"), 5, f); /* 2 WALs, closed */
    const uint8_t *s = f + STRIDE;
    const struct position_record r = record_of(5);
    EXPECT(memcmp(s, "LECTPOS", 8) == 0);
    EXPECT_EQ(get_le32(s + 8), 1);
    EXPECT_EQ(get_le32(s + 12), 1);
    EXPECT_EQ(get_le64(s + 16), 5);
    EXPECT_EQ(get_le64(s + 24), r.database_id);
    EXPECT_EQ(get_le32(s + 32), 4096);
    EXPECT_EQ(get_le32(s + 36), 2);
    EXPECT_EQ(get_le32(s + 40), r.wals[0].salt[0]);
    EXPECT_EQ(get_le32(s + 44), r.wals[0].salt[1]);
    EXPECT_EQ(get_le64(s + 48), r.wals[0].seq);
    EXPECT_EQ(get_le64(s + 56), r.wals[0].checksum);
    EXPECT_EQ(get_le64(s + 72), r.wals[1].seq);
    EXPECT_EQ(get_le64(s + 88), r.closed_seq);
    EXPECT_EQ(get_le64(s + 96), r.closed_checksum);
    for (size_t i = 104; i < AT_CHECKSUM; i++)
        EXPECT_EQ(s[i], 0);
    EXPECT_EQ(get_le64(s + AT_CHECKSUM), hash64(s, AT_CHECKSUM, 0));
}
