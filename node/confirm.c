/* Room: node. Thread: loop. Owns: the answers that wait (node.confirms). */
#include "node/confirm.h"

#include "base/mem.h"
#include "node/session.h"

#include <stdlib.h>

struct confirm {
    struct list link; /* of node.confirms */
    struct cns_read read;
    struct node *node;
    struct request *request;
};

static bool still_leads(const struct node *n, const struct request *r) ON_LOOP
{
    return node_is_serving(n) && n->term == r->ran_in_term;
}

static void refuse(struct request *r) ON_LOOP
{
    bool interactive = r->interactive;
    r->answer.in_transaction = false;
    request_fail(r, interactive ? ERR_TXN_LOST : ERR_NOT_LEADER,
                 interactive ? "the transaction was rolled back: the leader changed"
                             : "the leader changed while the statement ran");
    session_answer(r->session, r);
}

static void on_confirmed(struct cns_read *read, enum err e, uint64_t index)
{
    struct confirm *c = read->ctx;
    struct request *r = c->request;
    thread_expect_loop();
    (void)index; /* what this leader saw is not older than its own commit index */
    bool good = e == ERR_OK && still_leads(c->node, r);
    list_remove(&c->link);
    free(c);
    if (good)
        session_answer(r->session, r);
    else
        refuse(r);
}

void confirm_answer(struct node *n, struct request *r)
{
    if (n->cns == NULL || !still_leads(n, r)) {
        refuse(r);
        return;
    }
    struct confirm *c = MEM_NEW(struct confirm);
    c->node = n;
    c->request = r;
    c->read.ctx = c;
    c->read.done = on_confirmed;
    list_init(&c->read.link);
    list_push_back(&n->confirms, &c->link);
    cns_read_index(n->cns, &c->read, n->config->leader_wait_ms);
}

void confirm_refuse_all(struct node *n, enum err code, const char *sentence)
{
    struct list waiting, *i;
    list_init(&waiting);
    list_splice(&waiting, &n->confirms);
    while ((i = list_pop_front(&waiting)) != NULL) {
        struct confirm *c = LIST_ENTRY(i, struct confirm, link);
        struct request *r = c->request;
        cns_read_cancel(n->cns, &c->read);
        free(c);
        r->answer.in_transaction = false;
        request_fail(r, code, sentence);
        session_answer(r->session, r);
    }
}
