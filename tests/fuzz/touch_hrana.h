/* Room: tests. For fuzz targets of Hrana's forms: what was decoded is touched to its last byte, and
 * its conditions are walked. */
#ifndef TESTS_FUZZ_TOUCH_HRANA_H
#define TESTS_FUZZ_TOUCH_HRANA_H

#include "base/check.h"
#include "node/http/hrana.h"
#include "tests/fuzz/touch.h"

static inline void touch_text(const struct hrana_text *t)
{
    if (t->p != NULL)
        touch(t->p, t->n);
}

static inline void touch_args(const struct hrana_arg *args, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        const struct wire_value *v = &args[i].value;
        touch_text(&args[i].name);
        CHECK(v->type <= WIRE_BLOB);
        if (v->type == WIRE_TEXT || v->type == WIRE_BLOB)
            touch(v->text.bytes, v->text.len);
    }
}

static inline void touch_stmt(const struct hrana_stmt *s)
{
    CHECK(!s->by_id || s->sql.p == NULL);
    touch_text(&s->sql);
    touch_args(s->args, s->n_args);
    touch_args(s->named_args, s->n_named_args);
}

static inline void walk(const struct hrana_cond *c, uint32_t own)
{
    CHECK(c->type <= HRANA_IS_AUTOCOMMIT);
    CHECK((c->type != HRANA_OK && c->type != HRANA_ERROR) || c->step < own);
    CHECK(c->type != HRANA_NOT || c->n_parts == 1);
    for (uint32_t i = 0; i < c->n_parts; i++)
        walk(c->parts[i], own);
}

static inline void touch_request(const struct hrana_request *q)
{
    CHECK(q->type <= HRANA_FETCH_CURSOR);
    touch_stmt(&q->stmt);
    CHECK(q->batch.n_steps <= HRANA_STEPS_MAX);
    for (uint32_t i = 0; i < q->batch.n_steps; i++) {
        if (q->batch.steps[i].condition != NULL)
            walk(q->batch.steps[i].condition, i);
        touch_stmt(&q->batch.steps[i].stmt);
    }
}

static inline void touch_body(const struct hrana_body *body)
{
    touch_text(&body->baton);
    for (uint32_t i = 0; i < body->n_requests; i++)
        touch_request(&body->requests[i]);
}

static inline void touch_message(const struct hrana_message *m)
{
    touch_text(&m->jwt);
    touch_request(&m->request);
}

#endif
