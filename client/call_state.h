/* Room: client. What cluster.c, stream.c and call*.c share of a cluster, a session and a call; seen
 * by nobody else. Thread: the loop's.
 *
 *     cluster ---- members ---- link          frames come in: cluster -> stream -> call
 *        |            |
 *     streams      calls in flight, waiting; streams with a transaction there
 *        |
 *      calls
 *
 * A call's states, and what its timer stands for:
 *
 *   NEW -> QUEUED -> PARKED <-> LINKING -> SENT -> STOPPING -> ENDING -> OVER
 *          (turn)    (later)   (a link)          (CANCEL out)  (on_end)
 *
 *   QUEUED: deadline; PARKED: next attempt or deadline; LINKING: is another node quicker, or
 *   deadline; SENT: deadline; STOPPING: the grace; ENDING: now. */
#ifndef CLIENT_CALL_STATE_H
#define CLIENT_CALL_STATE_H

#include "base/clock.h"
#include "client/members.h"
#include "client/stream.h"
#include "client/wire_cluster.h"

#include <pthread.h>
#include <stdatomic.h>

/* A node that was asked to end a request answers within this, or its session is given up. */
#define CALL_GRACE_MS 500u
/* Between attempts, doubled, with jitter. */
#define CALL_RETRY_MIN_MS 10u
#define CALL_RETRY_MAX_MS 1000u
/* Our own side is full: many calls may be waiting for that. */
#define CALL_BUSY_MS 50u
/* Streams of this cluster that one node is to know at once: a little below what it takes, for a
 * CLOSE may have found no memory. A session at rest needs none: all that it carries travels with
 * its next request. */
#define STREAMS_AT_NODE (WIRE_STREAMS_MAX - 384)
/* Between two questions for STATUS: when something looks wrong; could be better; is well. */
#define NEWS_GAP_MS       100u
#define NEWS_ELSEWHERE_MS 1000u
#define NEWS_PERIOD_MS    5000u
/* One question is given up after this. */
#define NEWS_ANSWER_MS 1500u
/* Nodes that are being started listen within this: until then an address at which nobody is may
 * still become one. */
#define CLUSTER_START_MS 2000u
/* A cluster that is used for longer than this gets to know the distance of all members. */
#define EXPLORE_AFTER_MS 1000u

/* A stream's number: its slot, and how often the slot was given away. A frame that belongs to an
 * earlier owner finds nobody. Slot 0 is the connection, slot 1 the cluster's own questions. */
#define STREAM_SLOT_BITS 20u
#define STREAM_SLOTS_MAX (1u << STREAM_SLOT_BITS)
#define STREAM_OF_NEWS   1u

struct stream_slot {
    struct stream *stream; /* NULL: free */
    uint32_t given;        /* times */
    uint32_t next_free;    /* 0: none */
};

struct lectern_cluster {
    pthread_mutex_t lock; /* recursive, for callbacks and calls inside of calls */
    unsigned locked;      /* times, by the thread that has it */
    struct loop *loop;
    struct url url;
    struct members members;
    uint64_t id, newest_seq, born_ms, serials;
    uint32_t last_keep;
    unsigned n_streams;
    bool settled; /* the distance of all members is known */

    struct stream_slot *slots;
    uint32_t n_slots, slots_cap, first_free;

    struct list parked; /* calls that wait for better times: news of a leader wakes them */

    struct { /* the question for STATUS */
        struct loop_timer timer;
        struct member *at; /* whom it was put to; NULL: nobody now */
        bool wanted, has_columns;
        bool refused; /* the last answer was an error */
        uint32_t request;
        uint64_t asked_ms;
        unsigned next; /* entry to begin the search with */
        struct member_columns columns;
    } news;

    enum err trouble; /* of the connection that failed last */
    char trouble_text[ERR_TEXT_MAX];
    void *face; /* of the public calls (client/run.h) */
};

struct stream {
    struct lectern_cluster *cluster;
    uint32_t number;
    struct list calls; /* in their order; the first one runs */
    unsigned n_calls;  /* that are not freed */
    uint32_t last_request;

    uint8_t writer[WIRE_WRITER_BYTES];
    uint64_t numbered; /* the last number that was given */
    uint64_t seen;     /* newest sequence that a node told it of */
    uint64_t position; /* that its reads see; the program may set it */
    int64_t last_insert_rowid;
    bool foreign_keys_off;

    struct member *txn; /* where a transaction is open; NULL: none */
    struct list in_txn; /* of that member */
    bool txn_lost;      /* and the program has not heard of it yet */

    struct member *answered; /* last */
    uint64_t opened;         /* members that know this stream, by their index */
    struct {                 /* bytes used up, and not given back yet */
        struct member *member;
        uint64_t serial;
        uint32_t number, bytes;
    } owed;
};
_Static_assert(MEMBERS_MAX <= 64, "one bit each");

enum call_state {
    CALL_NEW,
    CALL_QUEUED,
    CALL_PARKED,
    CALL_LINKING,
    CALL_SENT,
    CALL_STOPPING,
    CALL_ENDING,
    CALL_OVER,
};

struct call_statement {
    uint32_t keep, n_params;
    size_t sql, sql_len, params, params_len; /* offsets in `bytes` */
};

struct call {
    struct stream *stream;
    enum wire_type type;
    enum call_kind kind;
    struct call_events events;
    enum call_state state;
    struct list in_stream;
    struct list in_member; /* its in_flight or waiting, or the cluster's parked */
    struct loop_timer timer;
    uint64_t begun_ms, deadline_ms, retry_ms;

    /* What is asked. */
    struct call_statement *statements;
    uint32_t n_statements, statements_cap;
    struct buf bytes; /* texts and parameters */
    struct wire_cluster *change;
    enum wire_level level;
    uint32_t bound_ms;
    bool for_write; /* DESCRIBE of a statement that is to run at the leader */
    bool savepoint; /* no new transaction where one was lost */

    /* The numbered write. */
    uint64_t number, since; /* 0: not numbered yet */
    bool resolving;         /* a COMMIT that was lost: only its outcome is asked for */
    unsigned renewed;       /* times that `since` had to be newer */

    /* The attempt under way, or the last one. */
    struct member *member;
    uint64_t serial, put_end;
    uint32_t number_of_stream, request, n_columns, steps;
    unsigned attempts;
    struct member *wanted; /* whose link it waited for last */
    struct member *avoid;  /* was no good to it just now */

    /* What came of all attempts. */
    bool doubt;      /* one was lost that may have been done, or may be yet */
    bool sent;       /* to a node, once at least */
    bool was_in_txn; /* sent as a part of a transaction */
    bool had_parts;  /* columns or steps were handed on */
    bool had_rows;
    bool restart;            /* parts were handed on that come again */
    unsigned handed, skip;   /* frames handed on; how many of the next ones were handed on before */
    uint32_t handed_columns; /* what the rows that are handed on now have */
    uint64_t given;          /* bytes of ROWS handed on, and not given back with call_took */
    uint64_t kept;           /* a write: what was handed on takes so much memory */
    enum err stop;           /* ERR_CANCELLED, ERR_TIMEOUT: it is to end; else ERR_OK */
    enum err trouble;        /* why the last attempt failed */
    struct buf said;         /* the sentence of that, or of the end */
    struct call_end end;
};

/* --- cluster.c: links, and whose frames are whose --- */

/* Whom to ask now, connected or connecting. NULL: nobody before *until_ms. SINCE_MS: when the call
 * began. An error: no node was ever found, and none is at any address; ERR_NOMEM. */
MUST_USE enum err cluster_route(struct lectern_cluster *c, const struct member_wish *wish,
                                uint64_t since_ms, uint64_t now_ms, struct member **out,
                                uint64_t *until_ms);
/* An answer more is awaited from M, or one less. */
void cluster_await(struct member *m);
void cluster_awaited(struct member *m);
/* M owes an answer. If no byte came from it for MS, it is avoided until it gives a sign of life,
 * which is asked for. */
void cluster_suspect(struct member *m, uint64_t ms);
void cluster_saw_seq(struct lectern_cluster *c, uint64_t seq);
/* Gives S a number under which its frames are found. ERR_NOMEM, ERR_TOO_BIG: no more streams. */
MUST_USE enum err cluster_add_stream(struct lectern_cluster *c, struct stream *s);
/* Another number; frames for the old one find nobody. */
void cluster_renumber_stream(struct lectern_cluster *c, struct stream *s);
void cluster_remove_stream(struct lectern_cluster *c, struct stream *s);

/* --- cluster_news.c --- */

/* Who leads may have changed, or more than that. */
void news_wanted(struct lectern_cluster *c);
/* A node passed a write on: another one leads. It may be out of our reach, so this is no hurry. */
void news_elsewhere(struct lectern_cluster *c);
/* It is in use: asks when the last answer is old. */
void news_in_use(struct lectern_cluster *c, uint64_t now_ms);
void news_link_ready(struct lectern_cluster *c);
/* M is silent: others know more. */
void news_silent(struct lectern_cluster *c, struct member *m);
/* Who leads is known again: calls that wait for that need not wait longer. */
void news_wake_parked(struct lectern_cluster *c);
void news_link_down(struct lectern_cluster *c, struct member *m);
MUST_USE enum err news_frame(struct lectern_cluster *c, struct member *m, struct wire_frame *f);
void news_timer(struct loop_timer *t);

/* --- stream.c --- */

MUST_USE enum err stream_frame(struct stream *s, struct member *m, struct wire_frame *f);
/* Before a request to M, which keeps no more than STREAMS_AT_NODE. ERR_BUSY: all of them are in
 * use, or were a moment ago. */
MUST_USE enum err stream_open_at(struct stream *s, struct member *m, uint64_t now_ms);
/* M's connection is no more, and with it the streams there. */
void streams_lost(struct lectern_cluster *c, struct member *m);
/* The state of the session after an answer from M. */
void stream_answered(struct stream *s, struct member *m, bool in_transaction, uint64_t seq);
/* The transaction is gone with its node, or given up. What is queued up to the next BEGIN was
 * meant to be in it, and must not run outside. */
void stream_lose_transaction(struct stream *s);
/* The node does not end what runs: the session goes on under another number. */
void stream_give_up(struct stream *s);
/* So many bytes of ROWS from this link were used up. */
void stream_credit(struct stream *s, struct member *m, uint64_t serial, uint32_t number,
                   uint32_t bytes);
/* The first call, if there is one, has its turn. */
void stream_next(struct stream *s);

/* --- call.c --- */

/* Goes on with what the call waits for: its turn, a node, a link. */
void call_advance(struct call *c);
/* Again, a little later or at once, elsewhere if there is a choice. The reason is kept for the case
 * that there is no time for it. */
void call_park(struct call *c, enum err why, const char *sentence, size_t len, bool at_once);
/* The connection is down. */
void call_lost(struct call *c, enum err why, const char *sentence);
/* Ends: on_end comes from the next turn of the loop, or here and now. E's text is copied. */
void call_finish(struct call *c, const struct call_end *e);
void call_finish_now(struct call *c, const struct call_end *e);
/* The same, with a sentence. */
void call_fail(struct call *c, enum err code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
bool call_is_write(const struct call *c);
/* STATUS and CLUSTER are in no transaction, even while one is open. */
bool call_is_of_session(const struct call *c);
void call_set_timer(struct call *c, uint64_t at_ms);

/* --- call_send.c --- */

/* Puts the request to M's link. ERR_NOMEM, ERR_TOO_BIG; ERR_BUSY: the link is full. */
MUST_USE enum err call_send(struct call *c, struct member *m, uint64_t now_ms);

/* --- call_answer.c --- */

MUST_USE enum err call_frame(struct call *c, struct wire_frame *f);

#endif
