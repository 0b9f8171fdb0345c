/* Room: node/http.   Thread: loop.   Owns: the decoded body.
 * Not here: what the requests are (hrana_form.h), how they are run (hrana_pipeline.c, hrana_v1.c,
 * hrana_cursor_http.c). */
#include "node/http/hrana_post.h"

#include "base/mem.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_wish.h"
#include "node/node.h"

#include <stdlib.h>

bool hrana_post_begin(struct hrana_post *p, struct exchange *x, const struct hrana_form *form,
                      enum hrana_version version)
{
    *p = (struct hrana_post){.x = x, .node = x->node, .asides = exchange_asides(x)};
    if (hrana_wish_of(x, &p->wish) != ERR_OK) {
        exchange_fail(x, 400, HRANA_PROTOCOL_ERROR, err_text());
        return false;
    }
    arena_init(&p->arena, x->node->config->http_body_bytes * HRANA_ARENA_FACTOR);
    hrana_reader_init(&p->reader, form, version, &p->arena);
    return true;
}

void hrana_post_fini(struct hrana_post *p)
{
    hrana_reader_fini(&p->reader);
    aside_free(p->asides, &p->arena, &p->node->waiting);
    free(p->why);
    p->why = NULL;
    waiting_set(&p->node->waiting, &p->counted, 0);
}

void hrana_post_count(struct hrana_post *p, size_t more)
{
    waiting_set(&p->node->waiting, &p->counted, p->arena.used + more);
}

/* What was read goes at once: P itself may stay until all bodies of this turn were read. */
static void refuse(struct hrana_post *p, int status, const char *code, const char *why) ON_LOOP
{
    struct exchange *x = p->x;
    char *text = mem_strdup(why); /* it may be P's */
    hrana_post_fini(p);
    exchange_fail(x, status, code, text);
    free(text);
}

/* E: what reading said, and WHY. False: X was answered. What was read is counted as it grows: a
 * body may become many times as long when it is decoded. */
static bool took(struct hrana_post *p, enum err e, const char *why) ON_LOOP
{
    size_t more = p->arena.used > p->counted ? p->arena.used - p->counted : 0;
    if (e != ERR_OK) {
        refuse(p, e == ERR_TOO_BIG ? 413 : 400, HRANA_PROTOCOL_ERROR, why);
        return false;
    }
    if (!waiting_has_room(&p->node->waiting, p->counted, more)) {
        refuse(p, 503, "SQLITE_BUSY",
               "this node holds as many bytes of waiting requests and answers as it may "
               "(waiting-bytes): try again later");
        return false;
    }
    hrana_post_count(p, 0);
    return true;
}

void hrana_post_feed(struct hrana_post *p, const uint8_t *bytes, size_t n)
{
    (void)took(p, hrana_reader_feed(&p->reader, bytes, n), err_text());
}

/* --- what takes long --- */

static void work(struct aside *a)
{
    struct hrana_post *p = LIST_ENTRY(a, struct hrana_post, aside);
    p->task(p);
}

/* THEN, or what its owner left. */
static void on_worked(struct aside *a)
{
    struct hrana_post *p = LIST_ENTRY(a, struct hrana_post, aside);
    p->then(p);
}

void hrana_post_aside(struct hrana_post *p, hrana_post_step *task, hrana_post_step *then)
{
    p->task = task;
    p->then = then;
    aside_do(p->asides, &p->aside, work, on_worked);
}

void hrana_post_over(struct hrana_post *p, hrana_post_step *free_all)
{
    p->then = free_all;
    if (!aside_leave(&p->aside, on_worked))
        free_all(p);
}

static void decode_body(struct hrana_post *p)
{
    p->read = p->decode(&p->reader, &p->body);
    p->why = p->read == ERR_OK ? NULL : mem_strdup(err_text());
}

static void on_decoded(struct hrana_post *p)
{
    thread_expect_loop();
    if (took(p, p->read, p->why))
        p->on_read(p);
}

void hrana_post_end(struct hrana_post *p, hrana_decoder *decode, hrana_post_step *on_read)
{
    p->decode = decode;
    p->on_read = on_read;
    if (p->arena.used >= ASIDE_MIN) {
        hrana_post_aside(p, decode_body, on_decoded);
    } else {
        decode_body(p);
        on_decoded(p);
    }
}

/* Held, each BEGIN of a client that lost its patience would keep the writer idle for
 * transaction-idle-timeout, and by then the others had lost theirs. */
bool hrana_post_give(struct hrana_post *p, struct hrana_stream *s, char baton[BATON_TEXT_MAX],
                     const char **base_url)
{
    if (exchange_client_left(p->x) && !hrana_stream_is_bare(s)) {
        hrana_stream_close(s);
        return false;
    }
    hrana_held_give(p->node->held, s, baton, base_url);
    return true;
}

void hrana_post_fail(struct exchange *x, int status, struct hrana_error *error)
{
    exchange_fail(x, status, error->code, error->message);
    hrana_error_free(error);
}
