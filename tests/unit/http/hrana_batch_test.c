/* Room: tests. node/http/hrana_batch: conditions, and which batches are atomic. */
#include "node/http/hrana_batch.h"
#include "tests/lib/test.h"

#include <string.h>

static const struct hrana_cond ok0 = {.type = HRANA_OK, .step = 0};
static const struct hrana_cond ok1 = {.type = HRANA_OK, .step = 1};
static const struct hrana_cond ok2 = {.type = HRANA_OK, .step = 2};
static const struct hrana_cond error0 = {.type = HRANA_ERROR, .step = 0};
static const struct hrana_cond alone = {.type = HRANA_IS_AUTOCOMMIT};
static const struct hrana_cond *const alone_parts[] = {&alone};
static const struct hrana_cond within = {.type = HRANA_NOT, .n_parts = 1, .parts = alone_parts};

TEST(batch_conditions_hold_as_the_specification_says)
{
    static const enum hrana_outcome outcomes[] = {HRANA_SUCCEEDED, HRANA_FAILED, HRANA_NOT_RUN};
    static const struct hrana_cond error1 = {.type = HRANA_ERROR, .step = 1};
    static const struct hrana_cond error2 = {.type = HRANA_ERROR, .step = 2};
    const struct hrana_cond *yes_no[] = {&ok0, &ok1}, *not_ok1[] = {&ok1};
    struct hrana_cond and = {.type = HRANA_AND, .n_parts = 2, .parts = yes_no};
    struct hrana_cond or = {.type = HRANA_OR, .n_parts = 2, .parts = yes_no};
    struct hrana_cond not = {.type = HRANA_NOT, .n_parts = 1, .parts = not_ok1};
#define HOLDS(c) hrana_condition_holds(&(c), outcomes, true)
    EXPECT(HOLDS(ok0) && !HOLDS(ok1) && !HOLDS(ok2));
    EXPECT(!HOLDS(error0) && HOLDS(error1) && !HOLDS(error2)); /* not run: neither */
    EXPECT(!HOLDS(and) && HOLDS(or) && HOLDS(not ));
    EXPECT(HOLDS(alone) && !hrana_condition_holds(&alone, outcomes, false));
    and.n_parts = or.n_parts = 0;
    EXPECT(HOLDS(and) && !HOLDS(or));
}

/* A batch of these texts, with the conditions that drivers give, or with WRONG at step AT. */
static bool shape(const char *const *sql, uint32_t n, uint32_t at, const struct hrana_cond *wrong,
                  struct hrana_shape *out)
{
    struct hrana_step steps[8];
    struct hrana_text texts[8];
    struct hrana_cond ok[8], both[8], not [8];
    const struct hrana_cond *parts[8][2], *not_parts[8][1];
    memset(steps, 0, sizeof steps);
    for (uint32_t i = 0; i < n; i++) {
        texts[i] = (struct hrana_text){sql[i], strlen(sql[i])};
        if (i == 0)
            continue;
        ok[i] = (struct hrana_cond){.type = HRANA_OK, .step = i - 1};
        parts[i][0] = &ok[i];
        parts[i][1] = &within;
        both[i] = (struct hrana_cond){.type = HRANA_AND, .n_parts = 2, .parts = parts[i]};
        not_parts[i][0] = &ok[i];
        not [i] = (struct hrana_cond){.type = HRANA_NOT, .n_parts = 1, .parts = not_parts[i]};
        steps[i].condition = strcmp(sql[i], "ROLLBACK") == 0 ? &not [i]
                             : i % 2 == 0                    ? &both[i]
                                                             : &ok[i];
    }
    if (at < n)
        steps[at].condition = wrong;
    struct hrana_batch b = {.n_steps = n, .steps = steps};
    return hrana_shape_of(&b, texts, out);
}

TEST(batch_of_drivers_is_atomic)
{
    struct hrana_shape s;
    const char *write[] = {"BEGIN IMMEDIATE", "INSERT INTO t VALUES (1);", "SELECT 1", "COMMIT",
                           "ROLLBACK"};
    EXPECT(shape(write, 5, 9, NULL, &s) && s.first == 1 && s.n == 2 && !s.reads && !s.read_only);
    EXPECT(shape(write, 4, 9, NULL, &s) && s.n == 2); /* without ROLLBACK */
    const char *read[] = {"BEGIN TRANSACTION READONLY", "SELECT 1", "COMMIT", "ROLLBACK"};
    EXPECT(shape(read, 4, 9, NULL, &s) && s.n == 1 && s.reads && s.read_only);
    const char *deferred[] = {"BEGIN DEFERRED", "SELECT 1", "VALUES (1)", "COMMIT", "ROLLBACK"};
    EXPECT(shape(deferred, 5, 9, NULL, &s) && s.reads && !s.read_only);
    const char *nothing[] = {"BEGIN", "COMMIT"};
    EXPECT(shape(nothing, 2, 9, NULL, &s) && s.n == 0);
}

TEST(batch_that_is_only_like_it_is_not)
{
    struct hrana_shape s;
    const char *write[] = {"BEGIN", "DELETE FROM t", "DELETE FROM u", "COMMIT", "ROLLBACK"};
    EXPECT(shape(write, 5, 9, NULL, &s));
    EXPECT(!shape(write, 5, 0, &ok0, &s));
    EXPECT(!shape(write, 5, 1, NULL, &s));
    EXPECT(!shape(write, 5, 1, &error0, &s));
    EXPECT(!shape(write, 5, 2, &ok0, &s)); /* it runs also when step 1 failed */
    EXPECT(!shape(write, 5, 3, &ok1, &s)); /* commits in spite of a failure */
    EXPECT(!shape(write, 5, 3, &within, &s));
    EXPECT(!shape(write, 5, 4, NULL, &s));
    EXPECT(!shape(write, 5, 4, &ok2, &s));
    EXPECT(!shape(write, 3, 9, NULL, &s)); /* no COMMIT */
    EXPECT(!shape(write, 1, 9, NULL, &s));
    static const char *const middle[] = {"COMMIT",
                                         "SAVEPOINT a",
                                         "ROLLBACK TO a",
                                         "VACUUM",
                                         "PRAGMA foreign_keys=off",
                                         "",
                                         "-- nothing",
                                         "DELETE FROM t; DELETE FROM u",
                                         "BEGIN"};
    for (size_t i = 0; i < sizeof middle / sizeof *middle; i++) {
        const char *sql[] = {"BEGIN", middle[i], "COMMIT"};
        if (shape(sql, 3, 9, NULL, &s))
            test_fail(__FILE__, __LINE__, "%s", middle[i]);
    }
    const char *comment[] = {"BEGIN", "DELETE FROM t; -- that's all", "COMMIT"};
    EXPECT(shape(comment, 3, 9, NULL, &s));
}

static enum hrana_trace trace(const char *const *sql, uint32_t n)
{
    struct hrana_step steps[8];
    struct hrana_cond conditions[8], not_last;
    const struct hrana_cond *last[1];
    memset(steps, 0, sizeof steps);
    for (uint32_t i = 0; i < n; i++) {
        steps[i].stmt.sql = (struct hrana_text){sql[i], strlen(sql[i])};
        conditions[i] = (struct hrana_cond){.type = HRANA_OK, .step = i - 1};
        steps[i].condition = i == 0 ? NULL : &conditions[i];
    }
    last[0] = &conditions[n - 1];
    not_last = (struct hrana_cond){.type = HRANA_NOT, .n_parts = 1, .parts = last};
    if (n > 1 && strcmp(sql[n - 1], "ROLLBACK") == 0)
        steps[n - 1].condition = &not_last;
    return hrana_trace_of(&(struct hrana_batch){.n_steps = n, .steps = steps});
}

TEST(batch_whose_trace_is_known_before_it_runs)
{
    const char *plain[] = {"INSERT INTO t VALUES (1)", "SELECT 1"}, *pragma[] = {"PRAGMA a = 1"};
    EXPECT(trace(plain, 2) == HRANA_LEAVES_NO_TRANSACTION);
    EXPECT(trace(pragma, 1) == HRANA_LEAVES_NO_TRANSACTION);
    const char *whole[] = {"BEGIN", "INSERT INTO t VALUES (1)", "COMMIT", "ROLLBACK"};
    EXPECT(trace(whole, 4) == HRANA_LEAVES_NO_TRANSACTION);
    EXPECT(trace(whole, 3) == HRANA_LEAVES_ANY); /* the INSERT fails: the transaction stays */
    EXPECT(trace(whole, 2) == HRANA_LEAVES_ANY);
    const char *reads[] = {"SELECT 1", "VALUES (1)", "WITH a AS (SELECT 1) SELECT * FROM a"};
    EXPECT(trace(reads, 3) == HRANA_LEAVES_NOTHING);
    const char *snapshot[] = {"BEGIN", "SELECT 1", "COMMIT", "ROLLBACK"};
    EXPECT(trace(snapshot, 4) == HRANA_LEAVES_NOTHING && trace(snapshot, 3) == HRANA_LEAVES_ANY);
    const char *savepoint[] = {"SAVEPOINT a"}, *setting[] = {"PRAGMA foreign_keys = off"};
    EXPECT(trace(savepoint, 1) == HRANA_LEAVES_ANY && trace(setting, 1) == HRANA_LEAVES_ANY);
    const char *several[] = {"SELECT 1; BEGIN"};
    EXPECT(trace(several, 1) == HRANA_LEAVES_ANY);
    struct hrana_step stored = {.stmt = {.by_id = true, .sql_id = 1}};
    EXPECT(hrana_trace_of(&(struct hrana_batch){.n_steps = 1, .steps = &stored}) ==
           HRANA_LEAVES_ANY);
}
