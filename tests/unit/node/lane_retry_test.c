/* Room: tests. Exactly once, as its clients see it: sessions whose messages and answers are lost or
 * late, over two nodes that lead in turn, lose what they had in flight, and start again.
 *
 * Each write leaves its own name in the table `done`, each time that it has an effect. In the end:
 *   C1  no name is there twice, also of writes that nobody waited for;
 *   C2  of an answered write the name is there if it had an effect, and only then. */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/lib/test.h"
#include "tests/unit/node/stage.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CLIENTS = 5, OPS_MAX = 3000, OPEN_MAX = 3, LATE_MAX = 64 };
#define LATE_ID 0x80000000u /* of a request whose answer nobody waits for */

enum op_state { WAITING, ANSWERED, GIVEN_UP };

struct op {
    unsigned client;
    struct wire_number number;
    unsigned attempts, kind, key;
    bool sent;   /* an attempt is with a node, as far as the client knows */
    unsigned at; /* which node */
    enum op_state state;
    bool effect; /* what the answer said */
};

struct play {
    struct rng r;
    struct stage node[2];
    unsigned leader;
    uint64_t term, known[CLIENTS], next[CLIENTS];
    struct op ops[OPS_MAX];
    unsigned n_ops, n_late, changes_of_leader, restarts, expired, repeated;
    struct request *late[LATE_MAX];
};

static struct stage *leader(struct play *p)
{
    return &p->node[p->leader];
}

/* --- the clients ------------------------------------------------------------------------------ */

/* All below the oldest one that is open. */
static uint64_t acked(const struct play *p, unsigned client)
{
    uint64_t lowest = p->next[client] + 1;
    for (unsigned i = 0; i < p->n_ops; i++)
        if (p->ops[i].client == client && p->ops[i].state == WAITING &&
            p->ops[i].number.number < lowest)
            lowest = p->ops[i].number.number;
    return lowest - 1;
}

static struct request *request_of(struct play *p, unsigned i, uint32_t id)
{
    struct op *op = &p->ops[i];
    char one[200], two[200];
    const char *const sql[] = {one, two};
    unsigned flags = WIRE_NUMBERED | (op->attempts > 0 ? WIRE_AGAIN : 0);
    op->number.acked = acked(p, op->client);
    if (op->kind == 0) /* fails when the key is there */
        (void)snprintf(one, sizeof one, "INSERT INTO u(k, name) VALUES (%u, 'op%u')", op->key, i);
    else if (op->kind == 1) /* does nothing when it is not */
        (void)snprintf(one, sizeof one, "UPDATE u SET name = 'op%u' WHERE k = %u", i, op->key);
    else
        (void)snprintf(one, sizeof one, "INSERT INTO done VALUES ('op%u') RETURNING name", i);
    (void)snprintf(two, sizeof two, "DELETE FROM u WHERE k = %u", op->key + 1);
    return stage_make(i, id, op->kind == 3 ? WIRE_BATCH : WIRE_QUERY, flags, &op->number, sql,
                      op->kind == 3 ? 2 : 1);
}

static void send_op(struct play *p, unsigned i) ON_LOOP
{
    struct op *op = &p->ops[i];
    bool late = rng_once_in(&p->r, 6) && p->n_late < LATE_MAX;
    struct request *r = request_of(p, i, late ? LATE_ID : i);
    op->attempts++;
    if (late) { /* it comes at any time later; its client thinks that it is lost */
        p->late[p->n_late++] = r;
        op->sent = false;
    } else {
        stage_send_request(leader(p), r);
        op->sent = true;
        op->at = p->leader;
    }
}

static void new_op(struct play *p) ON_LOOP
{
    unsigned client = (unsigned)rng_below(&p->r, CLIENTS), n_open = 0;
    for (unsigned i = 0; i < p->n_ops; i++)
        n_open += p->ops[i].client == client && p->ops[i].state == WAITING;
    if (n_open >= OPEN_MAX || p->n_ops == OPS_MAX)
        return;
    struct op *op = &p->ops[p->n_ops];
    *op = (struct op){.client = client,
                      .kind = (unsigned)rng_below(&p->r, 4),
                      .key = (unsigned)rng_below(&p->r, 4)};
    memset(op->number.writer, (int)client + 1, sizeof op->number.writer);
    op->number.number = ++p->next[client];
    op->number.since = p->known[client];
    send_op(p, p->n_ops++);
}

static void retry_some(struct play *p) ON_LOOP
{
    for (unsigned i = 0; i < p->n_ops; i++)
        if (p->ops[i].state == WAITING && !p->ops[i].sent && rng_once_in(&p->r, 3)) {
            p->repeated += p->ops[i].attempts > 1;
            send_op(p, i);
        }
}

static void deliver_late(struct play *p) ON_LOOP
{
    if (p->n_late == 0)
        return;
    unsigned i = (unsigned)rng_below(&p->r, p->n_late);
    stage_send_request(leader(p), p->late[i]);
    p->late[i] = p->late[--p->n_late];
}

static void on_answer(struct play *p, const struct request *r)
{
    if (r->id.request == LATE_ID)
        return;
    struct op *op = &p->ops[r->id.request];
    if (op->state != WAITING)
        return;
    op->sent = false;
    if (r->answer.code == ERR_NOT_LEADER) { /* its node's session runs it elsewhere */
        op->attempts--;
        return;
    }
    if (rng_once_in(&p->r, 4) || r->answer.code == ERR_UNKNOWN)
        return; /* lost */
    if (p->known[op->client] < r->answer.seq)
        p->known[op->client] = r->answer.seq;
    if (r->answer.code == ERR_EXPIRED) {
        p->expired++;
        if (op->attempts > 1) {
            op->state = GIVEN_UP;
        } else { /* surely not done yet */
            op->number.since = r->answer.seq;
            op->attempts = 0;
        }
        return;
    }
    EXPECT(r->answer.code == ERR_OK || (r->answer.code == ERR_SQL && op->kind == 0));
    op->state = ANSWERED;
    op->effect = r->answer.code == ERR_OK && (op->kind != 1 || r->answer.changes == 1);
}

static void take_answers(struct play *p) ON_LOOP
{
    for (unsigned i = 0; i < 2; i++) {
        struct list *link;
        stage_step(&p->node[i], 1);
        while ((link = list_pop_front(&p->node[i].answers)) != NULL) {
            struct request *r = LIST_ENTRY(link, struct request, letter.link);
            p->node[i].n_answers--;
            on_answer(p, r);
            request_free(r);
        }
    }
}

/* --- the cluster ------------------------------------------------------------------------------ */

static void follow(struct play *p) ON_LOOP
{
    stage_copy_log(&p->node[!p->leader], leader(p));
}

static void settle(struct play *p) ON_LOOP
{
    for (int i = 0; i < 30; i++)
        take_answers(p);
}

/* Some of what flies is committed, the rest is lost; the other node goes on. */
static void change_leader(struct play *p) ON_LOOP
{
    struct stage *old = leader(p);
    unsigned survive = old->cut ? (unsigned)rng_below(&p->r, old->n_outstanding + 1) : 0;
    if (survive > 0) {
        old->cut_after = survive;
        old->cut = false;
    }
    for (int i = 0; i < 200 && survive > 0 && !old->cut; i++)
        take_answers(p);
    EXPECT(survive == 0 || old->cut);
    old->cut = true;
    stage_depose(old, ++p->term);
    settle(p);
    follow(p);
    p->leader = !p->leader;
    stage_lead(leader(p), ++p->term);
    follow(p);
    p->changes_of_leader++;
}

static void restart(struct play *p, unsigned i) ON_LOOP
{
    struct stage *s = &p->node[i];
    for (int k = 0; k < 200 && s->n_outstanding > 0 && !s->cut; k++)
        take_answers(p);
    if (i == p->leader) { /* what it had in flight is lost */
        stage_depose(s, ++p->term);
        settle(p);
        follow(p);
    }
    s->replay_bytes_max = rng_once_in(&p->r, 3) ? rng_below(&p->r, 20000) : MIB(64);
    settle(p);
    stage_restart(s);
    /* What it had of its clients died with it. The other node's answers still come: a client that
     * sent again meanwhile would not listen to them. */
    for (unsigned k = 0; k < p->n_ops; k++)
        p->ops[k].sent = p->ops[k].sent && p->ops[k].at != i;
    if (i == p->leader) {
        stage_lead(s, ++p->term);
        follow(p);
    }
    p->restarts++;
}

static void step(struct play *p) ON_LOOP
{
    for (uint64_t k = rng_below(&p->r, 4); k > 0; k--)
        new_op(p);
    retry_some(p);
    if (rng_once_in(&p->r, 3))
        deliver_late(p);
    if (rng_once_in(&p->r, 10))
        leader(p)->cut = true;
    take_answers(p);
    if (rng_once_in(&p->r, 3))
        follow(p);
    if (rng_once_in(&p->r, leader(p)->cut ? 5 : 40))
        change_leader(p);
    else if (rng_once_in(&p->r, 40))
        restart(p, (unsigned)rng_below(&p->r, 2));
}

static void end_all(struct play *p) ON_LOOP
{
    change_leader(p);
    for (int round = 0; round < 500; round++) {
        unsigned waiting = 0;
        for (unsigned i = 0; i < p->n_ops; i++)
            waiting += p->ops[i].state == WAITING;
        if (waiting == 0 && p->n_late == 0)
            break;
        retry_some(p);
        deliver_late(p);
        take_answers(p);
    }
    settle(p);
    follow(p);
    settle(p);
}

/* --- judged ----------------------------------------------------------------------------------- */

static void judge(struct play *p, struct stage *s)
{
    unsigned answered = 0, with_effect = 0;
    EXPECT(stage_number(s, "SELECT count(*) - count(DISTINCT name) FROM done") == 0);
    for (unsigned i = 0; i < p->n_ops; i++) {
        char sql[100];
        (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM done WHERE name = 'op%u'", i);
        int64_t n = stage_number(s, sql);
        if (n > 1 || (p->ops[i].state == ANSWERED && n != (int64_t)p->ops[i].effect))
            test_fail(__FILE__, __LINE__,
                      "op%u of client %u, number %lu, kind %u: done %d times, "
                      "state %d, effect %d",
                      i, p->ops[i].client, (unsigned long)p->ops[i].number.number, p->ops[i].kind,
                      (int)n, (int)p->ops[i].state, p->ops[i].effect);
        EXPECT(p->ops[i].state != WAITING);
        answered += p->ops[i].state == ANSWERED;
        with_effect += n == 1;
    }
    EXPECT(answered > p->n_ops / 2 && with_effect > p->n_ops / 3);
}

TEST(retry_random_clients_have_each_write_done_once)
{
    struct play *p = MEM_NEW(struct play);
    p->r.state = test_seed();
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    for (unsigned i = 0; i < 2; i++) {
        const char *dir = test_path(i == 0 ? "a" : "b");
        EXPECT_OK(file_make_dirs(dir));
        stage_open(&p->node[i], dir);
        p->node[i].config.leader_wait_ms = 60000;
    }
    p->term = 2;
    stage_lead(leader(p), p->term);
    static const char *const schema[] = {
        "CREATE TABLE done(name)",
        "CREATE TABLE u(k UNIQUE, name)",
        "CREATE TRIGGER a AFTER INSERT ON u BEGIN INSERT INTO done VALUES (new.name); END",
        "CREATE TRIGGER b AFTER UPDATE ON u BEGIN INSERT INTO done VALUES (new.name); END",
    };
    for (unsigned i = 0; i < 4; i++)
        stage_expect(leader(p), 1, ERR_OK, schema[i]);
    for (uint64_t i = 0, n = 100 + test_rounds(100); i < n; i++)
        step(p);
    end_all(p);
    judge(p, &p->node[0]);
    judge(p, &p->node[1]);
    (void)printf("ops=%u repeated=%u leaders=%u restarts=%u expired=%u\n", p->n_ops, p->repeated,
                 p->changes_of_leader, p->restarts, p->expired);
    EXPECT(!p->node[0].failed && !p->node[1].failed);
    EXPECT(p->repeated > 5 && p->changes_of_leader > 0);
    stage_close(&p->node[0]);
    stage_close(&p->node[1]);
    free(p);
}
