/* Room: client.   Thread: any, under the cluster's lock.   Owns: nothing; waiters are on the stacks
 * of those who wait.
 *
 * The role of the turner is held only inside poll(2). Whoever comes back from it has the lock, and
 * turns the loop; then it waits again and takes the role again, or it ends and hands it on.
 *
 * Invariants:
 *  - whenever the lock is free and somebody waits, there is a turner in poll(2), or somebody was
 *    woken who becomes the turner or hands on: no deadline of a sleeping thread is missed;
 *  - what somebody waits for is only done under the lock, and whoever does it wakes him;
 *  - a turner that is called stays called until it has the lock: another thread's turn may swallow
 *    the wake-up before poll(2) looks again, so it is repeated after each turn, and before who
 *    turned is away.
 *
 * Not here: what is waited for (run.c, handle.c, start.c). */
#include "client/wait.h"

#include "base/check.h"
#include "base/clock.h"
#include "client/run.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>

static struct turns *turns_of(const struct waiter *w)
{
    return &face_of(w->cluster)->turns;
}

static struct waiter *waiter_of(struct list *l)
{
    return LIST_ENTRY(l, struct waiter, link);
}

void turns_init(struct turns *t)
{
    *t = (struct turns){0};
    list_init(&t->waiting);
}

void waiter_begin(struct waiter *w, struct lectern_cluster *c)
{
    *w = (struct waiter){.cluster = c};
    list_init(&w->link);
    pthread_condattr_t monotonic;
    CHECK(pthread_condattr_init(&monotonic) == 0);
    CHECK(pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC) == 0);
    CHECK(pthread_cond_init(&w->wake, &monotonic) == 0); /* takes no memory */
    (void)pthread_condattr_destroy(&monotonic);
    turns_of(w)->waiters++;
}

void waiter_end(struct waiter *w)
{
    struct turns *t = turns_of(w);
    (void)pthread_cond_destroy(&w->wake);
    CHECK(t->waiters > 0);
    t->waiters--;
    turns_hand_on(t);
}

static void call_turner(struct turns *t)
{
    t->called = true;
    loop_wake(cluster_loop(t->turner->cluster));
}

void waiter_wake(struct waiter *w)
{
    struct turns *t = turns_of(w);
    if (w == t->turner)
        call_turner(t);
    else
        (void)pthread_cond_signal(&w->wake);
}

void turns_wake_all(struct turns *t)
{
    LIST_EACH(l, &t->waiting) {
        waiter_wake(waiter_of(l));
    }
}

void turns_turned(struct turns *t)
{
    if (t->pollers != 0) {
        LIST_EACH(l, &t->waiting) {
            if (waiter_of(l)->any)
                waiter_wake(waiter_of(l));
        }
    }
    if (t->turner != NULL && t->called)
        call_turner(t);
}

void turns_hand_on(struct turns *t)
{
    if (t->turner != NULL && t->called)
        call_turner(t);
    else if (t->turner == NULL && !list_empty(&t->waiting))
        waiter_wake(waiter_of(t->waiting.next));
}

/* For poll(2): rounded up, never less than what is left. */
static int left_ms(uint64_t until_ms)
{
    if (until_ms == WAIT_FOR_EVER)
        return -1;
    uint64_t now = clock_mono_ms();
    if (until_ms <= now)
        return 0;
    return until_ms - now > INT_MAX ? INT_MAX : (int)(until_ms - now);
}

static enum err wait_as_turner(struct waiter *w, uint64_t until_ms)
{
    struct turns *t = turns_of(w);
    struct pollfd p = {.fd = loop_fd(cluster_loop(w->cluster)), .events = POLLIN};
    t->turner = w;
    t->called = false;
    unsigned levels = cluster_release(w->cluster);
    int n = poll(&p, 1, left_ms(until_ms));
    int why = errno;
    cluster_regain(w->cluster, levels);
    t->turner = NULL;
    t->called = false;
    if (n < 0 && why != EINTR)
        return err_fail(ERR_IO, "poll: %s", strerror(why));
    return ERR_OK;
}

enum err waiter_wait(struct waiter *w, uint64_t until_ms)
{
    struct turns *t = turns_of(w);
    if (face_is_behind(w->cluster)) /* that does not wait for the next event */
        return face_turn(w->cluster);
    bool turns = t->turner == NULL;
    enum err e = ERR_OK;
    list_push_back(&t->waiting, &w->link);
    t->pollers += w->any;
    if (turns)
        e = wait_as_turner(w, until_ms);
    else
        cluster_sleep(w->cluster, &w->wake, until_ms);
    t->pollers -= w->any;
    list_remove(&w->link);
    return turns && e == ERR_OK ? face_turn(w->cluster) : e;
}
