/* Room: client.   Thread: the loop's.   Owns: the cluster's own question for STATUS.
 *
 * Invariants: one question at a time, and not more often than NEWS_GAP_MS; an answer that is not
 * to the newest question is dropped; an idle cluster asks nothing.
 *
 * Asked of the connected nodes in turn: one that is cut off knows old news only, and the highest
 * term wins. Not here: what the rows mean (members.c). */
#include "client/call_state.h"

#include <string.h>

static void ask_soon(struct lectern_cluster *c)
{
    uint64_t now = clock_mono_ms(), earliest = c->news.asked_ms + NEWS_GAP_MS;
    if (c->news.at == NULL && c->news.wanted)
        loop_timer_set(c->loop, &c->news.timer, earliest > now ? earliest : now);
}

void news_wanted(struct lectern_cluster *c)
{
    if (c->news.wanted)
        return;
    c->news.wanted = true;
    ask_soon(c);
}

void news_elsewhere(struct lectern_cluster *c)
{
    if (clock_mono_ms() >= c->news.asked_ms + NEWS_ELSEWHERE_MS)
        news_wanted(c);
}

void news_in_use(struct lectern_cluster *c, uint64_t now_ms)
{
    bool soon = c->news.refused || c->members.news_unheard;
    uint64_t period = soon ? NEWS_ELSEWHERE_MS : NEWS_PERIOD_MS;
    if (now_ms >= c->news.asked_ms + period || c->news.asked_ms == 0)
        news_wanted(c);
}

void news_link_ready(struct lectern_cluster *c)
{
    if (c->news.asked_ms == 0)
        c->news.wanted = true;
    ask_soon(c);
}

void news_link_down(struct lectern_cluster *c, struct member *m)
{
    if (c->news.at == m)
        c->news.at = NULL;
    c->news.wanted = true;
    ask_soon(c);
}

/* A silent one when there is no other. */
static struct member *next_ready(struct lectern_cluster *c)
{
    struct members *ms = &c->members;
    struct member *found = NULL;
    for (unsigned i = 0; i < ms->n && (found == NULL || found->silent); i++) {
        struct member *m = &ms->all[(c->news.next + i) % ms->n];
        if (m->used && m->ready && (found == NULL || !m->silent))
            found = m;
    }
    if (found != NULL)
        c->news.next = found->index + 1;
    return found;
}

/* Done with the node that was asked, well or not. */
static void leave(struct lectern_cluster *c)
{
    struct member *m = c->news.at;
    c->news.at = NULL;
    if (m != NULL)
        cluster_awaited(m);
    loop_timer_stop(c->loop, &c->news.timer);
}

void news_silent(struct lectern_cluster *c, struct member *m)
{
    if (c->news.at == m)
        leave(c);
    c->news.wanted = true;
    ask_soon(c);
}

void news_timer(struct loop_timer *t)
{
    struct lectern_cluster *c = LIST_ENTRY(t, struct lectern_cluster, news.timer);
    if (c->news.at != NULL) /* it did not answer in time */
        cluster_suspect(c->news.at, NEWS_ANSWER_MS);
    leave(c);
    struct member *m = next_ready(c);
    if (m == NULL)
        return; /* news_link_ready goes on */
    c->news.request++;
    c->news.asked_ms = clock_mono_ms();
    c->news.has_columns = false;
    wire_put_status(link_out(m->link), (struct wire_id){STREAM_OF_NEWS, c->news.request});
    if (link_send(m->link) == ERR_OK) { /* else: no memory just now, the timer tries again */
        c->news.at = m;
        cluster_await(m);
        members_begin_news(&c->members);
    }
    loop_timer_set(c->loop, &c->news.timer, c->news.asked_ms + NEWS_ANSWER_MS);
}

static void credit(struct lectern_cluster *c, struct member *m, struct wire_frame *f)
{
    uint32_t bytes = (uint32_t)rd_left(&f->body) + WIRE_HEAD_BYTES;
    wire_put_credit(link_out(m->link), STREAM_OF_NEWS, bytes);
    if (link_send(m->link) != ERR_OK)
        c->news.wanted = true; /* no memory; the window lasts for many more answers */
}

void news_wake_parked(struct lectern_cluster *c)
{
    struct list parked;
    list_init(&parked);
    list_splice(&parked, &c->parked);
    for (struct list *l; (l = list_pop_front(&parked)) != NULL;) {
        struct call *call = LIST_ENTRY(l, struct call, in_member);
        call->retry_ms = 0;
        call->avoid = NULL;
        call_advance(call);
    }
}

static void take_end(struct lectern_cluster *c, bool done)
{
    leave(c);
    c->news.wanted = false;
    c->news.refused = !done;
    if (!done)
        return; /* asked again as soon as somebody needs it, or the cluster is used */
    for (unsigned i = 0; i < c->members.n; i++) {
        const struct member *m = &c->members.all[i];
        if (m->used && !m->gone && !m->same && !m->sick && m->rtt_us == 0)
            c->settled = false; /* a new one */
    }
    if (members_end_news(&c->members))
        news_wake_parked(c);
}

enum err news_frame(struct lectern_cluster *c, struct member *m, struct wire_frame *f)
{
    bool ours = c->news.at == m && f->id.request == c->news.request;
    uint32_t n;
    struct rd range;
    struct wire_done d;
    struct wire_error e;
    switch ((int)f->type) {
    case WIRE_COLUMNS:
        TRY(wire_get_columns(f, &n, &range));
        if (ours) {
            member_columns_find(&c->news.columns, n, range);
            c->news.has_columns = true;
        }
        return ERR_OK;
    case WIRE_ROWS:
        credit(c, m, f);
        if (!ours)
            return ERR_OK;
        if (!c->news.has_columns)
            return err_fail(ERR_PROTOCOL, "rows of STATUS before its columns");
        TRY(wire_get_rows(f, c->news.columns.n, &n, &range));
        members_take_rows(&c->members, m, &c->news.columns, n, range);
        return ERR_OK;
    case WIRE_DONE:
        TRY(wire_get_done(f, &d));
        if (ours)
            take_end(c, true);
        return ERR_OK;
    case WIRE_ERROR:
        TRY(wire_get_error(f, &e));
        if (ours)
            take_end(c, false);
        return ERR_OK;
    default:
        return err_fail(ERR_PROTOCOL, "a frame of type %d answers STATUS", (int)f->type);
    }
}
