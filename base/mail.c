/* Room: base. Thread: senders any, one receiver. */
#include "base/mail.h"

#include "base/check.h"

#include <errno.h>
#include <time.h>

void mail_init(struct mail *m, void (*wake)(void *), void *wake_arg)
{
    pthread_condattr_t attr;
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_mutex_init(&m->lock, NULL);
    (void)pthread_cond_init(&m->filled, &attr);
    (void)pthread_condattr_destroy(&attr);
    list_init(&m->letters);
    m->wake = wake;
    m->wake_arg = wake_arg;
    m->nudged = false;
}

void mail_fini(struct mail *m)
{
    CHECK(list_empty(&m->letters));
    (void)pthread_cond_destroy(&m->filled);
    (void)pthread_mutex_destroy(&m->lock);
}

void mail_send_all(struct mail *m, struct list *letters)
{
    if (list_empty(letters))
        return;
    (void)pthread_mutex_lock(&m->lock);
    bool was_empty = list_empty(&m->letters);
    list_splice(&m->letters, letters);
    /* Signal under the lock: the receiver may free the box once it has the letter. */
    if (was_empty && m->wake != NULL)
        m->wake(m->wake_arg);
    else if (was_empty)
        (void)pthread_cond_signal(&m->filled);
    (void)pthread_mutex_unlock(&m->lock);
}

void mail_send(struct mail *m, struct list *letter)
{
    struct list one;
    list_init(&one);
    list_push_back(&one, letter);
    mail_send_all(m, &one);
}

void mail_nudge(struct mail *m)
{
    (void)pthread_mutex_lock(&m->lock);
    m->nudged = true;
    if (m->wake != NULL)
        m->wake(m->wake_arg);
    else
        (void)pthread_cond_signal(&m->filled);
    (void)pthread_mutex_unlock(&m->lock);
}

void mail_take(struct mail *m, struct list *out)
{
    (void)pthread_mutex_lock(&m->lock);
    list_splice(out, &m->letters);
    m->nudged = false;
    (void)pthread_mutex_unlock(&m->lock);
}

void mail_wait(struct mail *m, struct list *out, uint64_t timeout_ms)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    if (timeout_ms != UINT64_MAX) {
        until.tv_sec += (time_t)(timeout_ms / 1000);
        until.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
        until.tv_sec += until.tv_nsec / 1000000000;
        until.tv_nsec %= 1000000000;
    }
    (void)pthread_mutex_lock(&m->lock);
    int rc = timeout_ms == 0 ? ETIMEDOUT : 0;
    while (list_empty(&m->letters) && !m->nudged && rc != ETIMEDOUT)
        rc = timeout_ms == UINT64_MAX ? pthread_cond_wait(&m->filled, &m->lock)
                                      : pthread_cond_timedwait(&m->filled, &m->lock, &until);
    list_splice(out, &m->letters);
    m->nudged = false;
    (void)pthread_mutex_unlock(&m->lock);
}
