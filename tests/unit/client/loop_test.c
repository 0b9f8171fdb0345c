/* The library's event loop: order, removal from callbacks, and a descriptor that tells all. */
#include "client/loop.h"

#include "base/clock.h"
#include "base/rng.h"
#include "base/thread.h"
#include "tests/lib/test.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

/* What a foreign loop sees within WAIT_MS. */
static bool readable(struct loop *l, int wait_ms)
{
    struct pollfd p = {.fd = loop_fd(l), .events = POLLIN};
    return poll(&p, 1, wait_ms) == 1;
}

/* As a foreign loop does it, until nothing is left to do. A timerfd may be early: not for ever. */
static void settle(struct loop *l)
{
    for (int i = 0; i < 100 && readable(l, 0); i++)
        EXPECT_OK(loop_turn(l, 0));
    EXPECT(!readable(l, 0));
}

/* --- timers ----------------------------------------------------------------------------------- */

struct alarm {
    struct loop_timer timer;
    struct loop *loop;
    unsigned fired, *count;
    uint64_t wanted, when, order;
    struct alarm *stop, *set;
};

static void on_alarm(struct loop_timer *t)
{
    struct alarm *a = (struct alarm *)(void *)t;
    static uint64_t order;
    a->fired++;
    a->when = clock_mono_ms();
    a->order = ++order;
    EXPECT(t->at_ms == 0);
    if (a->count != NULL)
        ++*a->count;
    if (a->stop != NULL)
        loop_timer_stop(a->loop, &a->stop->timer);
    if (a->set != NULL)
        loop_timer_set(a->loop, &a->set->timer, a->wanted);
}

TEST(loop_ten_thousand_timers_fire_in_order)
{
    enum { N = 10000 };
    struct loop *l;
    struct alarm *a = calloc(N, sizeof *a);
    struct rng r = {test_seed()};
    unsigned fired = 0, stopped = 0;
    EXPECT(a != NULL);
    EXPECT_OK(loop_new(&l));
    uint64_t now = clock_mono_ms(), began = clock_mono_ns();
    for (int i = 0; i < N; i++) {
        a[i] = (struct alarm){.timer.fire = on_alarm, .loop = l, .count = &fired};
        a[i].wanted = now + 1 + rng_below(&r, 200);
        loop_timer_set(l, &a[i].timer, now + 1000 + rng_below(&r, 1000));
        loop_timer_set(l, &a[i].timer, a[i].wanted); /* set anew */
    }
    for (int i = 0; i < N; i += 3, stopped++)
        loop_timer_stop(l, &a[i].timer);
    EXPECT(clock_mono_ns() - began < 2000000000u); /* quadratic: 10^8 steps and far more */
    while (fired < N - stopped)
        EXPECT_OK(loop_turn(l, -1));
    for (int i = 0; i < N; i++) {
        EXPECT_EQ(a[i].fired, i % 3 != 0);
        EXPECT(a[i].fired == 0 || a[i].when >= a[i].wanted);
    }
    for (int i = 1; i < N; i++) { /* a sample of pairs: equal times in the order of setting */
        int j = (int)rng_below(&r, (uint64_t)i);
        if (i % 3 != 0 && j % 3 != 0)
            EXPECT((a[j].wanted <= a[i].wanted) == (a[j].order < a[i].order));
    }
    settle(l);
    loop_free(l);
    free(a);
}

/* The heap against a plain array: random sets, stops and turns of a clock that stands still. */
TEST(loop_timers_agree_with_a_plain_list)
{
    enum { N = 50 };
    struct loop *l;
    struct alarm a[N] = {0};
    struct rng r = {test_seed()};
    EXPECT_OK(loop_new(&l));
    uint64_t far = clock_mono_ms() + 1000000;
    for (uint64_t round = test_rounds(20000); round > 0; round--) {
        struct alarm *x = &a[rng_below(&r, N)];
        x->timer.fire = on_alarm;
        unsigned before = x->fired;
        switch (rng_below(&r, 4)) {
        case 0:
            loop_timer_stop(l, &x->timer);
            EXPECT(x->timer.at_ms == 0);
            break;
        case 1: /* long past */
            loop_timer_set(l, &x->timer, rng_below(&r, 3));
            EXPECT(readable(l, 1000));
            EXPECT_OK(loop_turn(l, 0));
            EXPECT_EQ(x->fired, before + 1);
            break;
        default:
            loop_timer_set(l, &x->timer, far + rng_below(&r, 100));
        }
    }
    for (int i = 0; i < N; i++)
        loop_timer_stop(l, &a[i].timer);
    settle(l);
    loop_free(l);
}

TEST(loop_timer_stops_and_sets_others_from_its_callback)
{
    struct loop *l;
    EXPECT_OK(loop_new(&l));
    struct alarm c = {.timer.fire = on_alarm, .loop = l};
    struct alarm b = {.timer.fire = on_alarm, .loop = l};
    struct alarm a = {.timer.fire = on_alarm, .loop = l, .stop = &b, .set = &a, .wanted = 0};
    loop_timer_set(l, &a.timer, 1);
    loop_timer_set(l, &b.timer, 1);
    loop_timer_set(l, &c.timer, clock_mono_ms()); /* due, too, but after all that is long past */
    for (unsigned i = 1; i <= 3; i++) { /* it sets itself for a time long past: once in a turn */
        EXPECT(readable(l, 1000));
        EXPECT_OK(loop_turn(l, 0));
        EXPECT_EQ(a.fired, i);
        EXPECT_EQ(b.fired, 0);
        EXPECT_EQ(c.fired, 1);
    }
    loop_timer_stop(l, &a.timer);
    settle(l);
    loop_free(l);
}

TEST(loop_timer_never_is_not_now)
{
    struct loop *l;
    struct alarm a = {.timer.fire = on_alarm}, soon = {.timer.fire = on_alarm};
    EXPECT_OK(loop_new(&l));
    loop_timer_set(l, &a.timer, UINT64_MAX);
    EXPECT(!readable(l, 0));
    loop_timer_set(l, &soon.timer, clock_mono_ms() + 20);
    EXPECT(readable(l, 5000));
    while (soon.fired == 0)
        EXPECT_OK(loop_turn(l, 1000));
    settle(l);
    EXPECT_EQ(a.fired, 0);
    loop_timer_stop(l, &a.timer);
    loop_free(l);
}

/* --- watches ---------------------------------------------------------------------------------- */

struct bell {
    struct loop_watch watch;
    struct loop *loop;
    int fd;
    unsigned rung;
    struct bell **others; /* removed and freed at the first ring, with this one */
    int n_others;
};

static struct bell *bell_new(struct loop *l)
{
    struct bell *b = calloc(1, sizeof *b);
    EXPECT(b != NULL);
    b->loop = l;
    b->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    EXPECT(b->fd >= 0);
    return b;
}

static void bell_free(struct bell *b)
{
    loop_watch_remove(b->loop, &b->watch);
    (void)close(b->fd);
    free(b);
}

static void ring(const struct bell *b)
{
    uint64_t one = 1;
    EXPECT(write(b->fd, &one, sizeof one) == sizeof one);
}

static void on_ring(struct loop_watch *w, uint32_t events)
{
    struct bell *b = (struct bell *)(void *)w;
    uint64_t count;
    EXPECT((events & EPOLLIN) != 0);
    EXPECT(read(b->fd, &count, sizeof count) == sizeof count);
    b->rung++;
}

static unsigned massacres;

static void on_massacre(struct loop_watch *w, uint32_t events)
{
    struct bell *b = (struct bell *)(void *)w, **others = b->others;
    (void)events;
    massacres++;
    for (int i = 0, n = b->n_others; i < n; i++)
        bell_free(others[i]); /* B among them */
}

TEST(loop_a_watch_frees_all_others_that_are_ready)
{
    enum { N = 20 };
    struct loop *l;
    struct bell *all[N];
    EXPECT_OK(loop_new(&l));
    for (int i = 0; i < N; i++) {
        all[i] = bell_new(l);
        all[i]->others = all;
        all[i]->n_others = N;
        all[i]->watch.ready = on_massacre;
        EXPECT_OK(loop_watch_add(l, &all[i]->watch, all[i]->fd, EPOLLIN));
        ring(all[i]);
    }
    EXPECT_OK(loop_turn(l, 1000));
    EXPECT_EQ(massacres, 1);
    settle(l);
    loop_free(l);
}

TEST(loop_watches_more_than_a_batch)
{
    enum { N = 200 };
    struct loop *l;
    struct bell *all[N];
    EXPECT_OK(loop_new(&l));
    for (int i = 0; i < N; i++) {
        all[i] = bell_new(l);
        all[i]->watch.ready = on_ring;
        EXPECT_OK(loop_watch_add(l, &all[i]->watch, all[i]->fd, 0));
        ring(all[i]);
    }
    EXPECT(!readable(l, 0)); /* nobody asked for EPOLLIN */
    for (int i = 0; i < N; i++)
        loop_watch_change(l, &all[i]->watch, EPOLLIN);
    settle(l);
    for (int i = 0; i < N; i++) {
        EXPECT_EQ(all[i]->rung, 1);
        bell_free(all[i]);
    }
    loop_free(l);
}

/* --- tasks ------------------------------------------------------------------------------------ */

struct chore {
    struct loop_task task;
    struct loop *loop;
    unsigned done;
    struct chore *defer, *cancel;
};

static void on_chore(struct loop_task *t)
{
    struct chore *c = (struct chore *)(void *)t;
    c->done++;
    if (c->defer != NULL)
        loop_task_defer(c->loop, &c->defer->task);
    if (c->cancel != NULL)
        loop_task_cancel(&c->cancel->task);
}

TEST(loop_tasks_run_once_and_make_it_readable)
{
    struct loop *l;
    EXPECT_OK(loop_new(&l));
    struct chore b = {.task.run = on_chore, .loop = l};
    struct chore a = {.task.run = on_chore, .loop = l, .cancel = &b};
    EXPECT(!readable(l, 0));
    loop_task_defer(l, &a.task);
    loop_task_defer(l, &b.task);
    loop_task_defer(l, &a.task);
    EXPECT(readable(l, 0));
    EXPECT_OK(loop_turn(l, 0));
    EXPECT_EQ(a.done, 1);
    EXPECT_EQ(b.done, 0);
    EXPECT(!readable(l, 0));
    /* A task that defers itself runs in every turn, twice: before the wait and after it. */
    a = (struct chore){.task.run = on_chore, .loop = l, .defer = &a};
    loop_task_defer(l, &a.task);
    EXPECT_OK(loop_turn(l, -1)); /* does not wait */
    EXPECT_EQ(a.done, 2);
    EXPECT(readable(l, 0));
    loop_task_cancel(&a.task);
    settle(l);
    EXPECT_EQ(a.done, 2);
    loop_free(l);
}

static void wait_is_not_cut_short(struct loop *l, int ms)
{
    uint64_t began = clock_mono_ms();
    EXPECT_OK(loop_turn(l, ms));
    EXPECT(clock_mono_ms() - began + 2 >= (uint64_t)ms); /* epoll rounds to its own ticks */
}

/* Whoever waits for what a task does must be asked before the loop waits for something else. */
TEST(loop_a_turn_that_ran_tasks_does_not_wait)
{
    struct loop *l;
    struct chore a = {.task.run = on_chore};
    EXPECT_OK(loop_new(&l));
    loop_task_defer(l, &a.task);
    EXPECT_OK(loop_turn(l, -1));
    EXPECT_EQ(a.done, 1);
    wait_is_not_cut_short(l, 30); /* its nudge is gone */
    EXPECT_EQ(a.done, 1);
    loop_free(l);
}

/* --- waking ----------------------------------------------------------------------------------- */

static struct loop *to_wake;

static void on_signal(int number)
{
    (void)number;
    loop_wake(to_wake);
}

TEST(loop_is_woken_from_a_signal_handler)
{
    struct loop *l;
    struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
    EXPECT_OK(loop_new(&l));
    to_wake = l;
    EXPECT(sigaction(SIGUSR1, &act, NULL) == 0);
    EXPECT(raise(SIGUSR1) == 0);
    EXPECT(readable(l, 0));
    EXPECT_OK(loop_turn(l, -1));
    settle(l);
    /* Before a turn with a task waiting: the task must not swallow it. */
    struct chore a = {.task.run = on_chore};
    loop_task_defer(l, &a.task);
    EXPECT(raise(SIGUSR1) == 0);
    EXPECT_OK(loop_turn(l, -1));
    settle(l);
    wait_is_not_cut_short(l, 20);
    loop_free(l);
}

struct waker {
    struct loop *loop;
    int answer[2];
    unsigned rounds;
};

static void *wake_often(void *arg)
{
    struct waker *w = arg;
    char c;
    for (unsigned i = 0; i < w->rounds; i++) {
        loop_wake(w->loop);
        EXPECT(read(w->answer[0], &c, 1) == 1);
    }
    return NULL;
}

/* Each wake ends a wait without a limit: one that got lost would hang here. */
TEST(loop_no_wake_is_lost)
{
    struct waker w = {.rounds = (unsigned)test_rounds(2000)};
    struct chore a = {.task.run = on_chore};
    struct rng r = {test_seed()};
    pthread_t t;
    EXPECT_OK(loop_new(&w.loop));
    EXPECT(pipe(w.answer) == 0);
    EXPECT_OK(thread_start(&t, "waker", wake_often, &w));
    for (unsigned i = 0; i < w.rounds; i++) {
        if (rng_once_in(&r, 2))
            loop_task_defer(w.loop, &a.task);
        EXPECT_OK(loop_turn(w.loop, -1));
        EXPECT(write(w.answer[1], "x", 1) == 1);
    }
    EXPECT(pthread_join(t, NULL) == 0);
    settle(w.loop);
    loop_free(w.loop);
    (void)close(w.answer[0]);
    (void)close(w.answer[1]);
}

TEST(loop_without_descriptors_is_an_error)
{
    struct rlimit before, few;
    struct loop *l;
    EXPECT(getrlimit(RLIMIT_NOFILE, &before) == 0);
    int next = dup(0);
    EXPECT(next >= 0);
    (void)close(next);
    for (rlim_t n = 0; n < 3; n++) {
        few = (struct rlimit){.rlim_cur = (rlim_t)next + n, .rlim_max = before.rlim_max};
        EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
        enum err e = loop_new(&l);
        EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0);
        EXPECT_ERR(ERR_IO, e);
        EXPECT(l == NULL);
    }
    EXPECT_EQ(dup(0), next); /* nothing leaked */
    EXPECT_OK(loop_new(&l));
    loop_free(l);
    loop_free(NULL);
}
