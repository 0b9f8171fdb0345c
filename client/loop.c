/* Room: client.   Thread: one at a time; loop_wake from any, also from a signal handler.
 * Owns: an epoll descriptor, a timerfd, an eventfd. Watches, timers and tasks are their owners'.
 *
 * Invariants:
 *  - outside of loop_turn the timerfd is set for the earliest timer or before, and the eventfd is
 *    readable while a task waits: so the epoll descriptor tells a foreign loop all there is to do;
 *  - a watch that was removed is in no batch of events any more, so its memory may be gone;
 *  - a timer or task that comes up while its kind is handled waits for the next round: no turn
 * lasts for ever.
 *
 * The timers are a pairing heap (Fredman, Sedgewick, Sleator, Tarjan 1986): its links lie in the
 * timers, so setting one cannot fail for want of memory; ten thousand of them, one for each call,
 * cost a few steps each. Deadlines are mostly set and stopped, seldom reached: stopping one leaves
 * the timerfd as it is, so most calls need no system call for theirs. */
#include "client/loop.h"

#include "base/check.h"
#include "base/clock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define BATCH 64

struct loop {
    int epoll_fd, timer_fd, wake_fd;
    struct epoll_event batch[BATCH];
    int batch_len;
    unsigned watches;
    struct loop_timer *first; /* the heap */
    uint64_t timers_set;      /* ever */
    uint64_t armed_ms;        /* what the timerfd is set for; 0: nothing */
    uint64_t now_ms;          /* while timers are fired, else 0 */
    struct list tasks;
    bool turning;
    bool nudged; /* wake_fd was written for the tasks, and not read since */
};

/* In place of a watch in the events of our own descriptors. */
static struct loop_watch the_timers, the_wake_up;

/* --- the heap of timers ----------------------------------------------------------------------- */

static bool before(const struct loop_timer *a, const struct loop_timer *b)
{
    return a->at_ms != b->at_ms ? a->at_ms < b->at_ms : a->number < b->number;
}

/* Two trees, each without siblings: the later becomes the first child of the earlier. */
static struct loop_timer *meld(struct loop_timer *a, struct loop_timer *b)
{
    if (a == NULL || b == NULL)
        return a == NULL ? b : a;
    if (before(b, a)) {
        struct loop_timer *t = a;
        a = b;
        b = t;
    }
    b->next = a->child;
    if (b->next != NULL)
        b->next->prev = b;
    b->prev = a;
    a->child = b;
    return a;
}

static struct loop_timer *cut_off(struct loop_timer *t)
{
    struct loop_timer *next = t->next;
    t->next = t->prev = NULL;
    return next;
}

/* Siblings to one tree: in pairs from the left, then all pairs from the right. */
static struct loop_timer *meld_all(struct loop_timer *t)
{
    struct loop_timer *pairs = NULL, *all = NULL;
    while (t != NULL) {
        struct loop_timer *a = t, *b = cut_off(a);
        t = b == NULL ? NULL : cut_off(b);
        a = meld(a, b);
        a->next = pairs;
        pairs = a;
    }
    while (pairs != NULL) {
        struct loop_timer *a = pairs;
        pairs = cut_off(a);
        all = meld(all, a);
    }
    return all;
}

static void take_out(struct loop *l, struct loop_timer *t)
{
    if (t == l->first) {
        l->first = NULL;
    } else {
        if (t->prev->child == t)
            t->prev->child = t->next;
        else
            t->prev->next = t->next;
        if (t->next != NULL)
            t->next->prev = t->prev;
    }
    l->first = meld(l->first, meld_all(t->child));
    t->child = t->next = t->prev = NULL;
    t->at_ms = 0;
}

/* --- timers ----------------------------------------------------------------------------------- */

/* The timerfd may be early, never late. */
static void arm(struct loop *l)
{
    uint64_t at = l->first == NULL ? 0 : l->first->at_ms;
    if (at == 0 || (l->armed_ms != 0 && l->armed_ms <= at))
        return;
    struct itimerspec t = {
        .it_value = {.tv_sec = (time_t)(at / 1000), .tv_nsec = (long)(at % 1000) * 1000000}};
    /* Cannot fail: the descriptor and the numbers are right. */
    CHECK(timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &t, NULL) == 0);
    l->armed_ms = at;
}

void loop_timer_set(struct loop *l, struct loop_timer *t, uint64_t at_ms)
{
    const uint64_t latest = (uint64_t)INT32_MAX * 1000; /* 68 years: a time_t of any width */
    loop_timer_stop(l, t);
    /* A time long past would always come first, and keep those that are due from their turn. */
    uint64_t earliest = l->now_ms == 0 ? 1 : l->now_ms;
    t->at_ms = at_ms < earliest ? earliest : at_ms > latest ? latest : at_ms;
    t->number = ++l->timers_set;
    t->child = t->next = t->prev = NULL;
    l->first = meld(l->first, t);
    if (!l->turning)
        arm(l);
}

void loop_timer_stop(struct loop *l, struct loop_timer *t)
{
    if (t->at_ms != 0)
        take_out(l, t);
}

static void fire_timers(struct loop *l)
{
    uint64_t last = l->timers_set;
    if (l->first == NULL)
        return;
    l->now_ms = clock_mono_ms();
    while (l->first != NULL && l->first->at_ms <= l->now_ms && l->first->number <= last) {
        struct loop_timer *t = l->first;
        take_out(l, t);
        t->fire(t);
    }
    l->now_ms = 0;
}

/* --- tasks and waking ------------------------------------------------------------------------- */

/* Keeps errno, for signal handlers. A counter that is full is readable, too. */
void loop_wake(struct loop *l)
{
    uint64_t one = 1;
    int kept = errno;
    (void)!write(l->wake_fd, &one, sizeof one);
    errno = kept;
}

static void drain(int fd)
{
    uint64_t count;
    (void)!read(fd, &count, sizeof count); /* nothing there: as good */
}

/* The foreign loop is to come back. */
static void nudge(struct loop *l)
{
    if (!l->nudged)
        loop_wake(l);
    l->nudged = true;
}

void loop_task_defer(struct loop *l, struct loop_task *t)
{
    if (t->waiting)
        return;
    t->waiting = true;
    list_push_back(&l->tasks, &t->link);
    if (!l->turning)
        nudge(l);
}

void loop_task_cancel(struct loop_task *t)
{
    if (!t->waiting)
        return;
    t->waiting = false;
    list_remove(&t->link);
}

static void run_tasks(struct loop *l)
{
    struct list now;
    list_init(&now);
    list_splice(&now, &l->tasks);
    while (!list_empty(&now)) {
        struct loop_task *t = LIST_ENTRY(list_pop_front(&now), struct loop_task, link);
        t->waiting = false;
        t->run(t);
    }
}

/* --- watches ---------------------------------------------------------------------------------- */

static enum err add_to_epoll(struct loop *l, int fd, uint32_t events, struct loop_watch *w)
{
    struct epoll_event e = {.events = events, .data.ptr = w};
    if (epoll_ctl(l->epoll_fd, EPOLL_CTL_ADD, fd, &e) == 0)
        return ERR_OK;
    return err_fail(errno == ENOMEM ? ERR_NOMEM : ERR_IO, "cannot watch a socket: %s",
                    strerror(errno));
}

enum err loop_watch_add(struct loop *l, struct loop_watch *w, int fd, uint32_t events)
{
    CHECK(!w->added);
    TRY(add_to_epoll(l, fd, events, w));
    w->fd = fd;
    w->added = true;
    l->watches++;
    return ERR_OK;
}

void loop_watch_change(struct loop *l, struct loop_watch *w, uint32_t events)
{
    struct epoll_event e = {.events = events, .data.ptr = w};
    CHECK(w->added);
    CHECK(epoll_ctl(l->epoll_fd, EPOLL_CTL_MOD, w->fd, &e) == 0); /* allocates nothing */
}

void loop_watch_remove(struct loop *l, struct loop_watch *w)
{
    if (!w->added)
        return;
    CHECK(epoll_ctl(l->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL) == 0);
    w->added = false;
    l->watches--;
    for (int i = 0; i < l->batch_len; i++)
        if (l->batch[i].data.ptr == w)
            l->batch[i].data.ptr = NULL;
}

/* --- turning ---------------------------------------------------------------------------------- */

static void handle_batch(struct loop *l)
{
    for (int i = 0; i < l->batch_len; i++) {
        struct loop_watch *w = l->batch[i].data.ptr;
        if (w == &the_timers) {
            drain(l->timer_fd);
            l->armed_ms = 0;
        } else if (w == &the_wake_up) {
            drain(l->wake_fd);
            l->nudged = false;
        } else if (w != NULL) {
            w->ready(w, l->batch[i].events);
        }
    }
    l->batch_len = 0;
}

enum err loop_turn(struct loop *l, int wait_ms)
{
    enum err e = ERR_OK;
    CHECK(!l->turning);
    l->turning = true;
    run_tasks(l); /* they nudged: this turn does not wait, what they did may be waited for */
    arm(l);
    int n = epoll_wait(l->epoll_fd, l->batch, BATCH, wait_ms);
    if (n < 0 && errno != EINTR)
        e = err_fail(ERR_IO, "epoll_wait: %s", strerror(errno));
    l->batch_len = n < 0 ? 0 : n;
    handle_batch(l);
    fire_timers(l);
    run_tasks(l);
    arm(l);
    if (!list_empty(&l->tasks))
        nudge(l);
    l->turning = false;
    return e;
}

int loop_fd(const struct loop *l)
{
    return l->epoll_fd;
}

static enum err open_descriptors(struct loop *l)
{
    l->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    l->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    l->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epoll_fd < 0 || l->timer_fd < 0 || l->wake_fd < 0)
        return err_fail(errno == ENOMEM ? ERR_NOMEM : ERR_IO,
                        "no descriptor for the event loop: %s", strerror(errno));
    TRY(add_to_epoll(l, l->timer_fd, EPOLLIN, &the_timers));
    return add_to_epoll(l, l->wake_fd, EPOLLIN, &the_wake_up);
}

static void close_descriptors(struct loop *l)
{
    const int fds[] = {l->epoll_fd, l->timer_fd, l->wake_fd};
    for (int i = 0; i < 3; i++)
        if (fds[i] >= 0)
            (void)close(fds[i]);
}

enum err loop_new(struct loop **out)
{
    struct loop *l = calloc(1, sizeof *l);
    *out = NULL;
    if (l == NULL)
        return err_fail(ERR_NOMEM, "out of memory for an event loop");
    list_init(&l->tasks);
    enum err e = open_descriptors(l);
    if (e != ERR_OK) {
        close_descriptors(l);
        free(l);
        return e;
    }
    *out = l;
    return ERR_OK;
}

void loop_free(struct loop *l)
{
    if (l == NULL)
        return;
    CHECK(!l->turning && l->watches == 0 && l->first == NULL && list_empty(&l->tasks));
    close_descriptors(l);
    free(l);
}
