/* Room: base. Thread: any. */
#include "base/thread.h"

#include "base/check.h"

#include <signal.h>
#include <string.h>

struct thread_role thread_loop = {THREAD_LOOP}, thread_owner = {THREAD_OWNER},
                   thread_reader = {THREAD_READER}, thread_disk = {THREAD_DISK};

static _Thread_local enum thread_kind self;

void thread_become(enum thread_kind kind)
{
    self = kind;
}

void thread_expect_loop(void)
{
    CHECK(self == THREAD_LOOP);
}

void thread_expect_owner(void)
{
    CHECK(self == THREAD_OWNER);
}

void thread_expect_reader(void)
{
    CHECK(self == THREAD_READER);
}

void thread_expect_disk(void)
{
    CHECK(self == THREAD_DISK);
}

enum err thread_start(pthread_t *t, const char *name, void *(*main)(void *), void *arg)
{
    /* Signals belong to the loop: a new thread inherits the mask that is set here. */
    sigset_t all, old;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(t, NULL, main, arg);
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc != 0)
        return err_fail(ERR_NOMEM, "cannot start thread %s: %s", name, strerror(rc));
    (void)pthread_setname_np(*t, name);
    return ERR_OK;
}
