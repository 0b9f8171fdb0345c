/* Room: base. A mailbox: many senders, one receiving thread, first in first out.
 *
 * Letters are intrusive (struct list inside the message). The receiver takes all that waits in one
 * move. `wake` tells the receiver that the box was empty and is not any more: a loop thread gives
 * uv_async_send, a plain thread gives NULL and waits in mail_wait. */
#ifndef BASE_MAIL_H
#define BASE_MAIL_H

#include "base/list.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

struct mail {
    pthread_mutex_t lock;
    pthread_cond_t filled;
    struct list letters;
    void (*wake)(void *arg);
    void *wake_arg;
    bool nudged;
};

void mail_init(struct mail *m, void (*wake)(void *), void *wake_arg);
/* The box must be empty. */
void mail_fini(struct mail *m);
/* Thread: any. */
void mail_send(struct mail *m, struct list *letter);
/* Moves all of LETTERS into the box at once: the receiver sees all of them or none. Thread: any. */
void mail_send_all(struct mail *m, struct list *letters);
/* Makes a mail_wait return now, with or without letters. Thread: any. */
void mail_nudge(struct mail *m);
/* Moves all letters to OUT (initialised, may hold some); does not block. Thread: the receiver. */
void mail_take(struct mail *m, struct list *out);
/* As mail_take, but first waits until there is a letter or a nudge, or TIMEOUT_MS passed (0: do not
 * wait, UINT64_MAX: for ever). Thread: the receiver. */
void mail_wait(struct mail *m, struct list *out, uint64_t timeout_ms);

#endif
