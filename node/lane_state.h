/* Room: node. What the files of the writer lane share; nobody else includes this. Thread: owner. */
#ifndef NODE_LANE_STATE_H
#define NODE_LANE_STATE_H

#include "node/lane.h"
#include "node/outcomes.h"
#include "node/sqlconn.h"

#define IDLE_CONNS_MAX 8 /* connections kept for the next interactive transactions */

/* A sealed transaction on its way through the log, with the requests that wait for it. */
struct flight {
    struct list link;
    struct repl_txn *txn; /* NULL once the view is gone */
    uint64_t term, seq, sent_ns;
    uint64_t bytes;
    unsigned parts, parts_sent, parts_seen; /* handed to the loop; committed */
    struct list requests;
};

/* An interactive transaction: a session between BEGIN and COMMIT. */
struct itxn {
    struct list link;
    uint64_t session_id, began_ms, used_ms;
    bool busy;                         /* a request of it is under way: not idle */
    uint8_t writer[WIRE_WRITER_BYTES]; /* of its numbered requests; zeros: none yet */
    struct sqlconn *conn;              /* NULL: lost */
    char reason[ERR_TEXT_MAX];
    bool time_up; /* it was lost to a limit of time */
};

struct lane {
    struct mail inbox;
    struct list outbox; /* the loop's: requests on their way to the inbox */
    struct mail *loop;
    pthread_t thread;
    bool started, stopping, failed;
    const struct config *config;
    struct repl_db *db;
    struct outcomes *outcomes;
    struct buf section; /* of the entry that is being sealed */

    struct list letters; /* taken from the inbox, not yet handled */

    /* Leading: `term` is the term of the view, 0 when there is none. */
    bool leader;
    uint64_t role_term, term;
    struct repl_view *view;
    struct sqlconn *group; /* autocommit requests run here, in batches */
    bool group_foreign_keys;

    uint64_t run_ns;     /* when what runs now began (monotonic); 0: nothing */
    struct list queue;   /* autocommit requests that wait */
    struct list stalled; /* interactive requests that wait for the writer */

    struct list flights;  /* in the order of their sequences */
    struct list doubtful; /* of a lost leadership: the log will tell */
    unsigned n_flights;
    uint64_t flight_bytes;
    size_t handed_bytes; /* parts that the loop has and consensus has not */

    bool waits_for_room; /* the first entry or role of `letters` does, and all behind it */
    uint64_t room_tried_ms;

    struct list itxns;
    struct itxn *holder; /* the one that writes; NULL: the lane is free */
    struct sqlconn *idle_conns[IDLE_CONNS_MAX];
    unsigned n_idle_conns;

    bool wants_quiet; /* nothing new runs until the WAL was restarted: milliseconds */
    bool bars_begins; /* no new transaction begins */
    uint64_t queue_looked_ms;
    uint64_t applied_index, told_index;
    uint64_t clean_index; /* lane_durable.c: what is published is the state at this entry */
    bool half;            /* the first parts of a transaction are here, not the last */
    struct lane_cut *cut; /* waits until the files hold its state; NULL: none */
    struct lane_stop *stop;
};

/* lane.c */
void lane_fail(struct lane *l, enum err code) ON_OWNER;
/* The answer leaves now. */
void lane_answer(struct lane *l, struct request *r) ON_OWNER;
/* All of them (the list is empty then), with one wake-up of the loop. */
void lane_answer_all(struct lane *l, struct list *requests) ON_OWNER;
bool lane_tick(void *lane);
/* The loop hears what was applied, if it has not yet. */
void lane_tell_applied(struct lane *l) ON_OWNER;
/* May more be added to what flies? */
bool lane_has_room(const struct lane *l) ON_OWNER;

/* lane_flight.c */
/* Seals what was just committed, if anything; the answers of REQUESTS (emptied) leave when it and
 * all before it are published. */
void lane_depart(struct lane *l, struct list *requests) ON_OWNER;
/* Hands the loop more of what is sealed, in order, as far as it may hold it. */
void lane_ship(struct lane *l) ON_OWNER;
/* The loop's word: consensus has taken it. */
void lane_proposed(struct lane *l, const struct lane_proposal *p) ON_OWNER;
/* A committed entry of the lane's own term. False: there is no room to publish it, nothing
 * happened.
 */
bool lane_arrive(struct lane *l) ON_OWNER;
/* The leadership was lost: gives the database the committed parts of a cut transaction whose other
 * parts may come through the next leader. False: there is no room, nothing happened. */
bool lane_keep_parts(struct lane *l) ON_OWNER;
/* And then: what is under way becomes doubtful, or is surely lost. */
void lane_doubt(struct lane *l) ON_OWNER;
/* Removes it from its list, too. */
void lane_free_flight(struct flight *f) ON_OWNER;
/* A committed entry after it was applied as a follower: tells the fate of doubtful flights. */
void lane_judge(struct lane *l, const struct lane_entry *e) ON_OWNER;
/* Answers "unknown" to what waited too long for the log's word. */
void lane_give_up(struct lane *l, uint64_t now_ms) ON_OWNER;

/* lane_run.c */
/* Runs R's statement or batch on C; the answer holds the error. *wrote: it may have changed
 * something, were it only that it could. An error in a batch leaves what ran before it: roll back
 * to a savepoint. */
enum err lane_run(struct lane *l, struct sqlconn *c, struct request *r, bool *wrote) ON_OWNER;
/* The same in a transaction that is open, or opens with it; a batch undoes itself. */
enum err lane_run_inside(struct lane *l, struct sqlconn *c, struct request *r) ON_OWNER;

/* lane_number.c */
/* Is R numbered, and not to be run? Then the answer is made: what it answered the first time, or
 * why it is not run. It must wait for what it saw, like any other. */
bool lane_knows(struct lane *l, struct request *r) ON_OWNER;
/* R, if numbered, was done in the transaction that is open, and this is its answer. */
void lane_note_done(struct lane *l, const struct request *r) ON_OWNER;
/* R failed, and nothing of it is left: its other attempts are to fail like it. Or it is not known
 * what became of it, and it must not be run again. */
void lane_note_failed(struct lane *l, const struct request *r) ON_OWNER;
/* A commit that changes no more than page 1's counter; SQLite's code. */
int lane_write_as_is(struct lane *l) ON_OWNER;
/* The outcomes of REQUESTS, which wrote nothing, are in no entry. */
void lane_cannot_note(struct lane *l, struct list *requests) ON_OWNER;
/* WIRE_RESOLVE, while leading: takes R. */
void lane_resolve(struct lane *l, struct request *r) ON_OWNER;

/* lane_durable.c */
/* E was applied or published. */
void lane_note_entry(struct lane *l, const struct lane_entry *e) ON_OWNER;
/* The loop wants to cut the log: the state of now, made durable. */
void lane_begin_cut(struct lane *l, struct lane_cut *c) ON_OWNER;
/* Tells the loop when it is. */
void lane_finish_cut(struct lane *l) ON_OWNER;
/* Pins what is published, for another node. */
void lane_open_image(struct lane *l, struct lane_image *i) ON_OWNER;

/* lane_batch.c */
bool lane_can_run(const struct lane *l) ON_OWNER;
void lane_run_batch(struct lane *l) ON_OWNER;
/* Answers what need not run any more: cancelled, or over its time. */
void lane_drop_overdue(struct lane *l, struct list *queue, uint64_t now_ms) ON_OWNER;

/* lane_txn.c */
/* Transactions that are open, not those that are lost and only wait to tell their clients. */
unsigned lane_open_transactions(const struct lane *l) ON_OWNER;
bool lane_has_transaction(struct lane *l, uint64_t session_id) ON_OWNER;
/* Is R's transaction the one that writes? */
bool lane_is_holder(struct lane *l, const struct request *r) ON_OWNER;
/* R's answer leaves: its transaction is idle from now on, or over when the answer says so. */
void lane_note_answer(struct lane *l, const struct request *r) ON_OWNER;
/* The session's transaction, if it has one, is not idle. */
void lane_note_use(struct lane *l, uint64_t session_id) ON_OWNER;
void lane_run_interactive(struct lane *l, struct request *r) ON_OWNER;
void lane_retry_stalled(struct lane *l) ON_OWNER;
void lane_end_overdue(struct lane *l, uint64_t now_ms) ON_OWNER;
void lane_end_session(struct lane *l, uint64_t session_id) ON_OWNER;
/* The transaction of WRITER, if it is open and known as such: its client gave it up. */
void lane_lose_writer(struct lane *l, const uint8_t *writer) ON_OWNER;
/* The view goes away: all transactions are lost, for REASON. */
void lane_end_all(struct lane *l, const char *reason) ON_OWNER;
void lane_free_itxns(struct lane *l) ON_OWNER;

#endif
