/* The file DIR/node: what was written is read; every single wrong byte is noticed. */
#include "node/identity.h"

#include "base/buf.h"
#include "base/file.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <string.h>

static const struct identity someone = {
    .id = 4,
    .cluster_id = 7,
    .database_id = 3,
    .peer = "10.0.0.4:7801",
    .contacts = "10.0.0.1:7701,10.0.0.2:7701",
    .since = 1234,
    .wish = WISH_VOTER,
    .replace = 2,
    .joined = true,
};

TEST(identity_comes_back_as_it_was_written)
{
    const char *dir = test_dir();
    struct identity a = someone, b;
    EXPECT(!identity_exists(dir));
    EXPECT_ERR(ERR_NOT_FOUND, identity_read(dir, &b));
    EXPECT_OK(identity_write(dir, &a));
    EXPECT(identity_exists(dir));
    EXPECT_OK(identity_read(dir, &b));
    EXPECT(memcmp(&a, &b, sizeof a) == 0);
    EXPECT_OK(identity_note_begun(dir, &a));
    EXPECT_OK(identity_read(dir, &b));
    EXPECT(b.begun);
}

/* Without a sync: there are hundreds. */
static void put(const char *path, const void *p, size_t n)
{
    FILE *f = fopen(path, "wb");
    EXPECT(f != NULL && fwrite(p, 1, n, f) == n && fclose(f) == 0);
}

TEST(identity_with_any_byte_changed_or_cut_is_refused)
{
    const char *dir = test_dir();
    struct identity out;
    char path[300];
    struct buf b;
    (void)snprintf(path, sizeof path, "%s/node", dir);
    EXPECT_OK(identity_write(dir, &someone));
    buf_init(&b, 10000);
    EXPECT_OK(file_read_all(path, &b));
    for (size_t i = 0; i < b.len; i++) {
        for (unsigned bit = 1; bit < 256; bit <<= 3) {
            b.data[i] ^= (uint8_t)bit;
            put(path, b.data, b.len);
            enum err e = identity_read(dir, &out);
            EXPECT(e == ERR_CORRUPT || e == ERR_FORMAT);
            b.data[i] ^= (uint8_t)bit;
        }
        put(path, b.data, i);
        EXPECT_ERR(ERR_CORRUPT, identity_read(dir, &out));
    }
    buf_fini(&b);
}
