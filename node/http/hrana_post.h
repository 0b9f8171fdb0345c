/* Room: node/http. What all of Hrana's POST requests begin with: the wishes in the head, and a
 * body, decoded; and where they do what takes long. Thread: loop.
 *
 *     begin -> feed* -> end -> on_read    (aside_do* -> then)    over */
#ifndef NODE_HTTP_HRANA_POST_H
#define NODE_HTTP_HRANA_POST_H

#include "base/arena.h"
#include "node/http/aside.h"
#include "node/http/exchange.h"
#include "node/http/hrana_form.h"
#include "node/http/hrana_held.h"
#include "node/http/hrana_stream.h"

/* What a body becomes in memory: a tree of small values takes about this much more. */
#define HRANA_ARENA_FACTOR 8u

struct hrana_post;
typedef void hrana_post_step(struct hrana_post *p);

/* The first in the struct of who answers. */
struct hrana_post {
    struct aside aside;
    hrana_post_step *task, *then;
    struct exchange *x;
    struct node *node;
    struct asides *asides;
    struct hrana_wish wish;
    struct arena arena; /* all of `body` lives there */
    struct hrana_reader reader;
    struct hrana_body body;
    size_t counted; /* of all that, in node.waiting */
    hrana_decoder *decode;
    hrana_post_step *on_read;
    enum err read; /* what reading the body said, and why */
    char *why;
};

/* False: X was answered, and P needs no hrana_post_fini. Any number of fini do no harm. */
bool hrana_post_begin(struct hrana_post *p, struct exchange *x, const struct hrana_form *form,
                      enum hrana_version version) ON_LOOP;
void hrana_post_fini(struct hrana_post *p) ON_LOOP;
/* More of the body; what is wrong with it is answered, and on_over follows. */
void hrana_post_feed(struct hrana_post *p, const uint8_t *bytes, size_t n) ON_LOOP;
/* P holds MORE bytes beside its body: the answer, as far as it is made. Counted in node.waiting. */
void hrana_post_count(struct hrana_post *p, size_t more) ON_LOOP;
/* The body is complete. ON_READ: it is decoded; at once, or later when it is long. What is wrong
 * with it is answered instead, and on_over follows. */
void hrana_post_end(struct hrana_post *p, hrana_decoder *decode, hrana_post_step *on_read) ON_LOOP;
/* TASK, in another thread, then THEN on the loop, unless X is over by then. */
void hrana_post_aside(struct hrana_post *p, hrana_post_step *task, hrana_post_step *then) ON_LOOP;
/* X is over: FREE_ALL now, or when the task under way is done. X is not there then. */
void hrana_post_over(struct hrana_post *p, hrana_post_step *free_all) ON_LOOP;
/* The request is done: S is given away, for its client's next one, which names it by BATON. False:
 * S had a transaction or texts, and ends, for its client left and most likely heard no baton. */
bool hrana_post_give(struct hrana_post *p, struct hrana_stream *s, char baton[BATON_TEXT_MAX],
                     const char **base_url) ON_LOOP;
/* Answers with ERROR (taken) and STATUS. */
void hrana_post_fail(struct exchange *x, int status, struct hrana_error *error) ON_LOOP;

#endif
