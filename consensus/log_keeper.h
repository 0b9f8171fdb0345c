/* Room: consensus. The log's second thread: reads, cuts, the spare segment. What it does, the
 * writer never waits for. */
#ifndef CONSENSUS_LOG_KEEPER_H
#define CONSENSUS_LOG_KEEPER_H

#include "base/mail.h"
#include "consensus/log_store.h"

struct log_keeper {
    struct log_store *store;
    struct mail reads;                  /* to it; a nudge means: look at what follows */
    _Atomic(struct cns_disk_job *) cut; /* asked for, not yet taken */
    _Atomic bool wants_spare, stop;
    _Atomic bool waits;                    /* a cut, for room on the disk */
    struct mail *ended_reads, *ended_jobs; /* back, to the loop */
    pthread_t thread;
    void (*ends)(void *ctx); /* the last thing that the thread does */
    void *ctx;
    pthread_mutex_t text_lock;
    char read_failure[ERR_TEXT_MAX]; /* the last one */
};

void log_keeper_init(struct log_keeper *k, struct log_store *store, struct mail *ended_reads,
                     struct mail *ended_jobs);
void log_keeper_fini(struct log_keeper *k);
MUST_USE enum err log_keeper_start(struct log_keeper *k, void (*ends)(void *ctx), void *ctx);
/* Ends what was asked for, then the thread: a cut that waits for room with ERR_FULL. Gives the
 * spare back. */
void log_keeper_stop(struct log_keeper *k);
void log_keeper_join(struct log_keeper *k);

/* Thread: loop. One cut at a time. */
void log_keeper_read(struct log_keeper *k, struct cns_disk_read *read);
void log_keeper_cut(struct log_keeper *k, struct cns_disk_job *job);
/* Makes E and the sentence of the last failed read this thread's. */
void log_keeper_tell_failure(struct log_keeper *k, enum err e);
/* Thread: writer. */
void log_keeper_want_spare(struct log_keeper *k);
/* Thread: any. */
bool log_keeper_waits(const struct log_keeper *k);

#endif
