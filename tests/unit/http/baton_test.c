/* Room: tests. node/http/baton and node/cluster_key: what is signed comes back, nothing else does.
 */
#include "base/file.h"
#include "node/http/baton.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct baton some = {.held = true,
                                  .node_id = 3,
                                  .process = UINT64_MAX,
                                  .stream = 77,
                                  .count = 4000000000u,
                                  .foreign_keys = true,
                                  .seq = 123456789012345u,
                                  .last_insert_rowid = INT64_MIN};

static void expect_same(const struct baton *a, const struct baton *b)
{
    EXPECT(a->held == b->held && a->node_id == b->node_id && a->process == b->process &&
           a->stream == b->stream && a->count == b->count && a->foreign_keys == b->foreign_keys &&
           a->seq == b->seq && a->last_insert_rowid == b->last_insert_rowid);
}

TEST(baton_comes_back_with_any_key_of_the_ring)
{
    struct cluster_keys keys = {0};
    char text[BATON_TEXT_MAX];
    struct baton b;
    EXPECT(cluster_keys_make(&keys) && !cluster_keys_make(&keys));
    baton_write(&keys, &some, text);
    for (unsigned i = 1; i < CLUSTER_KEYS_KEPT; i++) {
        uint8_t other[CLUSTER_KEY_BYTES] = {(uint8_t)i};
        EXPECT(cluster_keys_take(&keys, other) && !cluster_keys_take(&keys, other));
        EXPECT(baton_read(&keys, text, strlen(text), &b));
        expect_same(&b, &some);
    }
    uint8_t last[CLUSTER_KEY_BYTES] = {99};
    EXPECT(cluster_keys_take(&keys, last) && keys.n == CLUSTER_KEYS_KEPT);
    EXPECT(!baton_read(&keys, text, strlen(text), &b)); /* the first key is gone */
    const uint8_t again[CLUSTER_KEY_BYTES] = {2};
    EXPECT(cluster_keys_take(&keys, again) && keys.n == CLUSTER_KEYS_KEPT);
    EXPECT(keys.keys[0][0] == 2 && keys.keys[1][0] == 99 && keys.keys[2][0] == 3);
}

TEST(baton_with_any_other_character_is_refused)
{
    struct cluster_keys keys = {0}, foreign = {0};
    char text[BATON_TEXT_MAX];
    struct baton b;
    (void)cluster_keys_make(&keys);
    (void)cluster_keys_make(&foreign);
    baton_write(&keys, &some, text);
    size_t n = strlen(text);
    EXPECT(!baton_read(&foreign, text, n, &b));
    EXPECT(!baton_read(&(struct cluster_keys){0}, text, n, &b));
    EXPECT(!baton_read(&keys, text, n - 1, &b) && !baton_read(&keys, text, 0, &b));
    for (size_t i = 0; i < n; i++) {
        char was = text[i];
        for (int c = 0; c < 256; c++) {
            text[i] = (char)c;
            EXPECT(baton_read(&keys, text, n, &b) == ((char)c == was));
        }
        text[i] = was;
    }
}

TEST(cluster_keys_are_kept_in_a_file_of_their_own)
{
    struct cluster_keys keys, back;
    struct stat st;
    char *path = file_beside(test_path("x"), "key");
    EXPECT_OK(cluster_keys_load(test_dir(), &keys));
    EXPECT_EQ(keys.n, 0);
    (void)cluster_keys_make(&keys);
    (void)cluster_keys_take(&keys, (const uint8_t[CLUSTER_KEY_BYTES]){0xab});
    EXPECT_OK(cluster_keys_save(test_dir(), &keys));
    EXPECT_OK(cluster_keys_load(test_dir(), &back));
    EXPECT(back.n == 2 && memcmp(&back, &keys, sizeof back) == 0);
    EXPECT(stat(path, &st) == 0 && (st.st_mode & 077) == 0);
    for (off_t size = st.st_size - 1; size >= 0; size--) { /* cut short: never taken for whole */
        EXPECT(truncate(path, size) == 0);
        enum err e = cluster_keys_load(test_dir(), &back);
        EXPECT(e == ERR_CORRUPT || (e == ERR_OK && back.n == 1));
    }
    free(path);
}
