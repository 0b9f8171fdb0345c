/* Room: base. Threads: who may call what, checked twice.
 *
 * A prototype ends with ON_LOOP, ON_OWNER, ... : clang's -Wthread-safety then refuses a call from
 * code that has not shown that it runs there. Code shows it by being annotated itself, or by
 * thread_expect_*(), which also asserts at run time (the start of every callback and thread).
 *
 *   loop     the libuv loop: sockets, timers, consensus. Never blocks.
 *   owner    one per database: SQL writes, publish, apply. The only one that changes the files.
 *   reader   the pool that runs read-only SQL.
 *   disk     the Raft log's writes and syncs.
 */
#ifndef BASE_THREAD_H
#define BASE_THREAD_H

#include "base/err.h"

#include <pthread.h>

#if defined(__clang__)
#define THREAD_ROLE(name) __attribute__((capability(name)))
#define THREAD_NEEDS(x)   __attribute__((requires_capability(x)))
#define THREAD_SHOWS(x)   __attribute__((assert_capability(x)))
#else
#define THREAD_ROLE(name)
#define THREAD_NEEDS(x)
#define THREAD_SHOWS(x)
#endif

enum thread_kind { THREAD_ANY, THREAD_LOOP, THREAD_OWNER, THREAD_READER, THREAD_DISK };

struct THREAD_ROLE("thread") thread_role {
    enum thread_kind kind;
};

extern struct thread_role thread_loop, thread_owner, thread_reader, thread_disk;

#define ON_LOOP   THREAD_NEEDS(thread_loop)
#define ON_OWNER  THREAD_NEEDS(thread_owner)
#define ON_READER THREAD_NEEDS(thread_reader)
#define ON_DISK   THREAD_NEEDS(thread_disk)

/* Names the calling thread, once, at its start (unit tests and the simulation may switch). */
void thread_become(enum thread_kind kind);

/* Assert that this thread was named so. */
void thread_expect_loop(void) THREAD_SHOWS(thread_loop);
void thread_expect_owner(void) THREAD_SHOWS(thread_owner);
void thread_expect_reader(void) THREAD_SHOWS(thread_reader);
void thread_expect_disk(void) THREAD_SHOWS(thread_disk);

/* Starts a joinable thread with all signals blocked; NAME is at most 15 bytes (top -H shows it). */
MUST_USE enum err thread_start(pthread_t *t, const char *name, void *(*main)(void *), void *arg);

#endif
