/* Room: tests. Tables of numbers, kept statements, and the statements of a request. */
#include "base/rng.h"
#include "base/sizes.h"
#include "client/wire.h"
#include "node/kept.h"
#include "node/request.h"
#include "node/table.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

#define NUMBERS 512u

TEST(table_is_what_a_plain_array_is)
{
    static char objects[NUMBERS];
    void *model[NUMBERS] = {NULL};
    struct table t;
    struct rng rng = {test_seed()};
    uint32_t n = 0;
    table_init(&t);
    for (uint64_t i = 0; i < test_rounds(200000); i++) {
        /* Phases of growing and of shrinking; numbers far apart, and neighbours. */
        uint32_t at = (uint32_t)rng_below(&rng, NUMBERS);
        uint32_t number = at % 2 == 0 ? at : at * 0x01000193u;
        bool grows = (i / 3000) % 2 == 0;
        EXPECT(table_get(&t, number) == model[at]);
        if (model[at] == NULL && (grows || rng_below(&rng, 8) == 0)) {
            table_put(&t, number, model[at] = &objects[at]);
            n++;
        } else if (model[at] != NULL && (!grows || rng_below(&rng, 8) == 0)) {
            EXPECT(table_take(&t, number) == model[at]);
            EXPECT(table_take(&t, number) == NULL);
            model[at] = NULL;
            n--;
        }
        EXPECT_EQ(t.n, n);
    }
    uint32_t number;
    while (table_any(&t, &number) != NULL) {
        EXPECT(table_take(&t, number) != NULL);
        n--;
    }
    EXPECT_EQ(n, 0);
    EXPECT(t.slots == NULL); /* an empty one has no memory */
    table_fini(&t);
}

TEST(kept_texts_outlive_their_number)
{
    struct keeper *k = keeper_new();
    struct kept *first, *second, *none;
    size_t len;
    EXPECT_OK(keeper_put(k, 7, "SELECT 1", 8));
    EXPECT_OK(keeper_get(k, 7, &first));
    EXPECT_OK(keeper_put(k, 7, "SELECT 22", 9)); /* in place of the older one */
    EXPECT_OK(keeper_get(k, 7, &second));
    keeper_forget(k, 7);
    keeper_forget(k, 8); /* never heard of */
    EXPECT_ERR(ERR_NOT_FOUND, keeper_get(k, 7, &none));
    keeper_free(k);
    EXPECT(memcmp(kept_text(first, &len), "SELECT 1", 8) == 0 && len == 8);
    EXPECT(memcmp(kept_text(second, &len), "SELECT 22", 9) == 0 && len == 9);
    kept_unref(first);
    kept_unref(second);
}

TEST(kept_texts_have_limits)
{
    struct keeper *k = keeper_new();
    char *large = calloc(1, WIRE_KEPT_BYTES_MAX);
    EXPECT(large != NULL);
    for (uint32_t i = 1; i <= WIRE_KEPT_MAX; i++)
        EXPECT_OK(keeper_put(k, i, "x", 1));
    EXPECT_ERR(ERR_TOO_BIG, keeper_put(k, WIRE_KEPT_MAX + 1, "x", 1));
    EXPECT_OK(keeper_put(k, WIRE_KEPT_MAX, "y", 1)); /* one of them anew */
    for (uint32_t i = 2; i <= WIRE_KEPT_MAX; i++)
        keeper_forget(k, i);
    EXPECT_ERR(ERR_TOO_BIG, keeper_put(k, 2, large, WIRE_KEPT_BYTES_MAX));
    EXPECT_OK(keeper_put(k, 2, large, WIRE_KEPT_BYTES_MAX - 1));
    EXPECT_ERR(ERR_TOO_BIG, keeper_put(k, 3, "x", 1));
    keeper_forget(k, 2); /* and there is room again */
    EXPECT_OK(keeper_put(k, 3, "x", 1));
    free(large);
    keeper_free(k);
}

/* A BATCH that came over the wire: texts 1 and 3 of its own, the second kept under 5. */
static struct request *batch_of_three(struct keeper *keeper)
{
    struct wire_id id = {1, 1};
    struct wire_query q = {.level = WIRE_SESSION};
    struct wire_frame f;
    struct buf b;
    size_t used;
    buf_init(&b, KIB(64));
    size_t begun = wire_begin_query(&b, WIRE_BATCH, id, &q);
    wire_end_statement(&b, wire_begin_statement(&b, 0, "first", 5), 0);
    wire_end_statement(&b, wire_begin_statement(&b, 5, "", 0), 0);
    wire_end_statement(&b, wire_begin_statement(&b, 6, "third", 5), 0);
    wire_end_query(&b, begun, 3);
    EXPECT_OK(wire_next(b.data, b.len, KIB(64), &f, &used));
    const uint8_t *body = f.body.p;
    size_t body_len = rd_left(&f.body);
    EXPECT_OK(wire_get_query(&f, &q));
    struct request *r = request_new(NULL, 1, id, &q, body, body_len);
    struct kept **kept = calloc(1, sizeof(struct kept *));
    EXPECT(kept != NULL);
    EXPECT_OK(keeper_get(keeper, 5, &kept[0]));
    request_use_kept(r, kept, 1);
    r->is_batch = true;
    buf_fini(&b);
    return r;
}

static bool says(const struct request *r, const char *text)
{
    return r->statement.sql_len == strlen(text) &&
           memcmp(r->statement.sql, text, r->statement.sql_len) == 0;
}

TEST(request_walks_its_statements_again_and_again)
{
    struct keeper *keeper = keeper_new();
    EXPECT_OK(keeper_put(keeper, 5, "second", 6));
    struct request *r = batch_of_three(keeper);
    keeper_free(keeper); /* the connection is gone: the request has what it needs */
    for (int i = 0; i < 3; i++) {
        EXPECT(says(r, "first") && r->statement_at == 0);
        EXPECT(request_next_statement(r));
        EXPECT(says(r, "second") && r->statement_at == 1);
        if (i == 1) { /* in the middle: another attempt begins anew */
            request_first_statement(r);
            continue;
        }
        EXPECT(request_next_statement(r));
        EXPECT(says(r, "third") && r->statement_at == 2);
        EXPECT(!request_next_statement(r));
        EXPECT(says(r, "third") && r->statement_at == 2);
        request_first_statement(r);
    }
    request_free(r);
}
