/* Room: tests. base/arena: pieces are apart, aligned and unmoved; the maximum is one. */
#include "base/arena.h"
#include "base/sizes.h"
#include "tests/lib/test.h"

#include <malloc.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PIECES 2000u

TEST(arena_pieces_are_apart_and_stay_where_they_are)
{
    struct arena a;
    uint8_t *pieces[PIECES];
    arena_init(&a, MIB(64));
    for (unsigned i = 0; i < PIECES; i++) {
        size_t n = i % 97 * (i % 50 == 0 ? 1000 : 1); /* also larger than any block yet */
        pieces[i] = arena_take(&a, n);
        EXPECT(pieces[i] != NULL);
        EXPECT_EQ((uintptr_t)pieces[i] % _Alignof(max_align_t), 0);
        memset(pieces[i], (int)(i % 251), n);
    }
    for (unsigned i = 0; i < PIECES; i++)
        for (size_t k = 0; k < i % 97 * (i % 50 == 0 ? 1000 : 1); k++)
            EXPECT_EQ(pieces[i][k], i % 251);
    arena_fini(&a);
    EXPECT_EQ(a.used, 0);
}

TEST(arena_wastes_little_of_its_blocks)
{
    struct arena a;
    size_t before = mallinfo2().uordblks + mallinfo2().hblkhd; /* sanitizers do not tell: 0 */
    arena_init(&a, MIB(64));
    for (unsigned i = 0; i < 1000; i++)
        EXPECT(arena_take(&a, i % 2 == 0 ? KIB(33) : 100) != NULL);
    size_t has = mallinfo2().uordblks + mallinfo2().hblkhd - before;
    EXPECT(has < a.used + a.used / 3);
    arena_fini(&a);
}

TEST(arena_has_a_maximum_and_no_more_after_it)
{
    struct arena a;
    arena_init(&a, 1000);
    EXPECT(arena_take(&a, 1001) == NULL && a.failed);
    EXPECT(arena_take(&a, 1) == NULL);
    arena_fini(&a);
    EXPECT(!a.failed);

    size_t taken = 0;
    while (arena_take(&a, 10) != NULL)
        taken += 10;
    EXPECT(a.failed && a.used <= 1000 && taken >= 500 && taken <= 1000);
    arena_fini(&a);

    EXPECT(arena_take(&a, 1000) != NULL);
    EXPECT(arena_take(&a, 0) != NULL);
    EXPECT(arena_take(&a, SIZE_MAX) == NULL && arena_take(&a, 0) == NULL);
    arena_fini(&a);
}

TEST(arena_copies_have_their_zero)
{
    struct arena a;
    arena_init(&a, KIB(4));
    char *some = arena_copy(&a, "abcdef", 3), *none = arena_copy(&a, NULL, 0);
    EXPECT(strcmp(some, "abc") == 0 && strcmp(none, "") == 0);
    EXPECT(arena_copy(&a, some, SIZE_MAX) == NULL); /* not a piece of 0 bytes */
    arena_fini(&a);
    uint8_t *dirty = arena_take(&a, 512);
    memset(dirty, 0xff, 512);
    arena_fini(&a);
    const uint8_t *zeros = arena_zeroed(&a, 512);
    for (unsigned i = 0; i < 512; i++)
        EXPECT_EQ(zeros[i], 0);
    arena_fini(&a);
}
