/* Room: node.   Thread: loop.   Owns: nothing; its lists link sessions.
 * Invariants: `n_requests` counts the requests of all sessions, waiting, running and being sent.
 * Not here: the bytes' way to the client (connection.c; http/hrana_stream.c). */
#include "node/channel.h"

#include "base/check.h"
#include "base/sizes.h"
#include "node/node.h"
#include "node/session.h"

#define BACKLOG_MAX KIB(512) /* not taken by the client: nothing more is sent */
#define BACKLOG_MIN KIB(64)  /* the same, while the node holds as much as it may */

void channel_init(struct channel *c, struct node *n, const struct channel_outlet *outlet)
{
    *c = (struct channel){.node = n, .outlet = outlet, .id = ++n->next_connection_id};
    list_init(&c->stalled);
    list_init(&c->closed);
}

void channel_fini(struct channel *c)
{
    struct list *i;
    while ((i = list_pop_front(&c->closed)) != NULL)
        LIST_ENTRY(i, struct session, stall)->counted_at = NULL;
    CHECK(list_empty(&c->stalled) && c->n_requests == 0 && c->n_sessions == 0);
    waiting_set(&c->node->waiting, &c->kept_bytes, 0);
}

void channel_drain(struct channel *c)
{
    struct list *i;
    while (!channel_is_full(c) && (i = list_pop_front(&c->stalled)) != NULL)
        session_resume(LIST_ENTRY(i, struct session, stall));
}

void channel_take(struct channel *c, struct session *s, struct request *r)
{
    c->n_requests++;
    session_take(s, r);
}

void channel_send(struct channel *c, struct buf *b)
{
    c->outlet->send(c, b);
}

bool channel_is_full(const struct channel *c)
{
    const struct waiting *w = &c->node->waiting;
    return c->outlet->backlog(c) > (w->bytes > w->limit ? BACKLOG_MIN : BACKLOG_MAX);
}

enum err channel_need_room(const struct channel *c, size_t more)
{
    size_t own = c->request_bytes + c->held_bytes + c->kept_bytes + c->outlet->backlog(c) +
                 c->n_requests * sizeof(struct request) + c->n_sessions * sizeof(struct session);
    if (waiting_has_room(&c->node->waiting, own, more))
        return ERR_OK;
    return err_fail(ERR_BUSY, "this node holds as many bytes of waiting requests and answers as "
                              "it may (waiting-bytes)");
}

void channel_stall(struct channel *c, struct session *s)
{
    if (list_empty(&c->stalled))
        c->outlet->on_stall(c);
    list_remove(&s->stall);
    list_push_back(&c->stalled, &s->stall);
}

void channel_answered(struct channel *c)
{
    CHECK(c->n_requests > 0);
    c->n_requests--;
    c->outlet->on_answered(c);
}
