/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: a condition names only steps before its own (the decoders see to that).
 * Not here: running anything (hrana_run.c). */
#include "node/http/hrana_batch.h"

#include "base/check.h"
#include "base/mem.h"
#include "client/sql_split.h"
#include "node/sqltext.h"

#include <stdlib.h>

bool hrana_condition_holds(const struct hrana_cond *c, const enum hrana_outcome *outcomes,
                           bool autocommit)
{
    switch (c->type) {
    case HRANA_OK:
        return outcomes[c->step] == HRANA_SUCCEEDED;
    case HRANA_ERROR:
        return outcomes[c->step] == HRANA_FAILED;
    case HRANA_NOT:
        return !hrana_condition_holds(c->parts[0], outcomes, autocommit);
    case HRANA_AND:
        for (uint32_t i = 0; i < c->n_parts; i++)
            if (!hrana_condition_holds(c->parts[i], outcomes, autocommit))
                return false;
        return true;
    case HRANA_OR:
        for (uint32_t i = 0; i < c->n_parts; i++)
            if (hrana_condition_holds(c->parts[i], outcomes, autocommit))
                return true;
        return false;
    case HRANA_IS_AUTOCOMMIT:
        return autocommit;
    }
    UNREACHABLE("the decoder checked the type");
}

/* --- the atomic shape --- */

static bool is_in_transaction(const struct hrana_cond *c)
{
    return c->type == HRANA_NOT && c->parts[0]->type == HRANA_IS_AUTOCOMMIT;
}

/* C without a `not is_autocommit` beside it; NULL: more than that. */
static const struct hrana_cond *main_part(const struct hrana_cond *c)
{
    if (c == NULL || c->type != HRANA_AND)
        return c;
    if (c->n_parts != 2)
        return NULL;
    if (is_in_transaction(c->parts[1]))
        return c->parts[0];
    return is_in_transaction(c->parts[0]) ? c->parts[1] : NULL;
}

static bool needs(const struct hrana_cond *condition, uint32_t step)
{
    const struct hrana_cond *c = main_part(condition);
    return c != NULL && c->type == HRANA_OK && c->step == step;
}

static bool needs_failure_of(const struct hrana_cond *condition, uint32_t step)
{
    const struct hrana_cond *c = main_part(condition);
    if (c == NULL)
        return false;
    if (c->type == HRANA_ERROR)
        return false; /* it would not hold when COMMIT was not run */
    return c->type == HRANA_NOT && c->parts[0]->type == HRANA_OK && c->parts[0]->step == step;
}

bool hrana_is_one_statement(const struct hrana_text *t)
{
    size_t first = sql_split_first(t->p, t->n);
    if (first == 0)
        first = t->n; /* without a semicolon */
    return sql_classify(t->p + first, t->n - first) == SQL_EMPTY;
}

/* May it stand in the middle? */
static bool is_plain(const struct hrana_text *t, bool *reads)
{
    enum sql_kind kind = sql_classify(t->p, t->n);
    *reads = kind == SQL_READ;
    return (kind == SQL_READ || kind == SQL_WRITE) && hrana_is_one_statement(t);
}

static enum sql_step step_of(const struct hrana_text *t)
{
    return sql_step_of(t->p, t->n);
}

bool hrana_shape_of(const struct hrana_batch *b, const struct hrana_text *texts,
                    struct hrana_shape *out)
{
    uint32_t n = b->n_steps;
    if (n < 2 || b->steps[0].condition != NULL)
        return false;
    enum sql_step begin = step_of(&texts[0]);
    if (begin != SQL_STEP_BEGIN && begin != SQL_STEP_WRITE && begin != SQL_STEP_READONLY)
        return false;
    uint32_t commit = n - 1;
    bool rolls_back = step_of(&texts[commit]) == SQL_STEP_ROLLBACK;
    if (rolls_back) {
        if (!needs_failure_of(b->steps[commit].condition, commit - 1))
            return false;
        commit--;
    }
    if (commit == 0 || step_of(&texts[commit]) != SQL_STEP_COMMIT)
        return false;
    *out = (struct hrana_shape){.first = 1,
                                .n = commit - 1,
                                .reads = begin != SQL_STEP_WRITE && rolls_back,
                                .surely = true,
                                .read_only = begin == SQL_STEP_READONLY};
    for (uint32_t i = 1; i <= commit; i++) {
        bool reads = true;
        if (!needs(b->steps[i].condition, i - 1))
            return false;
        if (i < commit && !is_plain(&texts[i], &reads))
            return false;
        out->reads = out->reads && reads;
        out->surely = out->surely && (i == commit || sql_is_query(texts[i].p, texts[i].n));
    }
    out->surely = out->surely && out->reads;
    return true;
}

/* None by an id: a stream with stored texts is held anyhow. */
static bool texts_of(const struct hrana_batch *b, struct hrana_text *out)
{
    for (uint32_t i = 0; i < b->n_steps; i++) {
        if (b->steps[i].stmt.by_id || b->steps[i].stmt.sql.p == NULL)
            return false;
        out[i] = b->steps[i].stmt.sql;
    }
    return true;
}

static bool all_are_plain(const struct hrana_text *texts, uint32_t n, bool *queries)
{
    *queries = true;
    for (uint32_t i = 0; i < n; i++) {
        bool reads;
        if (!is_plain(&texts[i], &reads))
            return false;
        *queries = *queries && reads && sql_is_query(texts[i].p, texts[i].n);
    }
    return true;
}

/* An atomic batch that fails ends its transaction only with its ROLLBACK. */
enum hrana_trace hrana_trace_of(const struct hrana_batch *b)
{
    enum hrana_trace trace = HRANA_LEAVES_ANY;
    struct hrana_shape shape;
    struct hrana_text *texts = mem_zalloc((b->n_steps + 1) * sizeof *texts);
    if (texts_of(b, texts)) {
        bool queries;
        if (all_are_plain(texts, b->n_steps, &queries))
            trace = queries ? HRANA_LEAVES_NOTHING : HRANA_LEAVES_NO_TRANSACTION;
        else if (hrana_shape_of(b, texts, &shape) && shape.first + shape.n + 1 < b->n_steps)
            trace = shape.surely ? HRANA_LEAVES_NOTHING : HRANA_LEAVES_NO_TRANSACTION;
    }
    free(texts);
    return trace;
}
