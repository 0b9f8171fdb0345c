/* Room: tests. The simulation: N members of one group in one process, over a virtual disk, network
 * and clock, all from one seed. The drivers are the production code (consensus/driver.c), messages
 * pass through the production codec. After every event a checker judges what Raft promises; a
 * broken promise prints the seed and ends the process.
 *
 * The state machine of a member is a counter: the index up to which it has applied; what is applied
 * where is compared entry by entry. Thread: one, in the role of the loop. */
#ifndef TESTS_SIM_SIM_H
#define TESTS_SIM_SIM_H

#include "base/rng.h"
#include "consensus/driver.h"

#define SIM_MEMBERS_MAX 16u /* ids that were ever given out */

struct sim;

struct sim_options {
    unsigned n; /* members 1..n, all voters */
    unsigned election_ms, heartbeat_ms;
    uint64_t net_us_min, net_us_max;   /* delay of a message */
    uint64_t disk_us_min, disk_us_max; /* of a write with its sync */
    uint64_t cache_bytes;              /* 0: the default */
    bool raw; /* messages by reference, not through the codec (benchmarks) */
};

struct sim_options sim_defaults(unsigned n);

/* A virtual disk. What is in `entries`, `term`, `vote` and the record is durable; jobs in the queue
 * are not. */
struct sim_disk {
    uint64_t term, vote;
    uint64_t base, base_term;   /* of the entry before the first */
    struct cns_snapshot record; /* index 0: none */
    struct cns_item *entries;   /* entries[i] has index base + i + 1 */
    unsigned n, cap;
    struct cns_disk_job *cut; /* under way, beside the queue */
    struct list queue;
    bool scheduled, held; /* held: nothing completes until it is let go */
    uint64_t extra_us;    /* added to every delay */
    uint64_t fail_after;  /* this many jobs succeed, then all fail; UINT64_MAX: never */
    enum err fail_with;
    uint64_t jobs, metas, appends, truncates, reads;
};

struct sim_member {
    struct sim *sim;
    uint64_t id;
    struct driver *d; /* NULL: down */
    uint64_t life;    /* counts restarts; events of an earlier life are void */
    struct sim_disk disk;
    bool paused;
    bool turn_scheduled;
    /* as the node sees it */
    enum cns_role role;
    uint64_t term, leader_id;
    uint64_t delivered, applied, barrier_term;
    uint64_t rooms, failures;
    enum err failed_with;
    bool slow_apply;   /* entries are applied only by sim_apply */
    uint64_t database; /* applied index that survives a crash, whatever happens */
    bool no_database;  /* it was lost: rebuilt from a whole log, else it must be fetched */
    bool held;         /* this life has none */
    bool gone;         /* for good: removed, or its machine is lost */
    bool told_removed; /* it knows */
    uint64_t behind;   /* where a leader's log begins, as it was told; 0: not told */
    bool peers[SIM_MEMBERS_MAX + 1];   /* who may connect */
    bool removed[SIM_MEMBERS_MAX + 1]; /* and who never again; durable */
    uint64_t holds;                    /* voids older releases of the disk */
    struct list reads;
};

/* Sees every message that is sent; false drops it. */
typedef bool (*sim_filter)(void *ctx, uint64_t from, uint64_t to, const struct raft_message *m,
                           const struct cns_item *items, unsigned n);

struct sim *sim_new(const struct sim_options *o, uint64_t seed);
void sim_free(struct sim *s);
struct sim_member *sim_member(struct sim *s, uint64_t id);
struct rng *sim_rng(struct sim *s);
uint64_t sim_now_us(const struct sim *s);
_Noreturn void sim_fail(struct sim *s, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Time. */
bool sim_step(struct sim *s); /* one event; false when there is none */
void sim_run_ms(struct sim *s, uint64_t ms);
typedef bool (*sim_until)(struct sim *s, void *ctx);
bool sim_run_until(struct sim *s, sim_until done, void *ctx, uint64_t max_ms);
/* Runs the member's turn if it has one to run. */
void sim_turn(struct sim_member *m);

/* Members. The leader: of the highest term that leads and is up; 0 when none does. */
uint64_t sim_leader(struct sim *s);
/* Waits for a leader that may serve; fails the simulation when there is none in time. */
uint64_t sim_elect(struct sim *s);
void sim_start(struct sim *s, uint64_t id);
/* Loses what is not synced: each waiting job reached the disk or not, in order, the last one
 * perhaps in part. The database keeps some of what was applied. */
void sim_crash(struct sim *s, uint64_t id);
/* As above with chosen losses: JOBS of the queue reached the disk; the database keeps all. */
void sim_crash_keep(struct sim *s, uint64_t id, unsigned jobs);
void sim_pause(struct sim *s, uint64_t id, bool on);

/* Makes the database durable up to a random index, and cuts the log there. */
void sim_cut_log(struct sim *s, uint64_t id, uint64_t keep_bytes);
/* ID is down and loses its database, not its log. */
void sim_lose_database(struct sim *s, uint64_t id);
/* The newest member that has a state at FIRST - 1 or later; 0: none. */
uint64_t sim_source(struct sim *s, uint64_t not_id, uint64_t first);
/* ID (down) gets the database of FROM (up) as it is now: cns_install. */
void sim_install(struct sim *s, uint64_t id, uint64_t from);
/* A new member ID, whose directory begins with the state of FROM; it is down. */
void sim_join(struct sim *s, uint64_t id, uint64_t from);
/* Its machine is lost, or it was told to go: it never comes back. */
void sim_gone(struct sim *s, uint64_t id);
/* ID was started with the address of OTHER: it may know nobody else who is left. */
void sim_meet(struct sim *s, uint64_t id, uint64_t other);
/* Ids in use: 1 to so many. */
unsigned sim_count(const struct sim *s);
/* ID is a voter or standby as M sees it. */
bool sim_receives(const struct sim_member *m, uint64_t id);

/* The disk. */
void sim_disk_hold(struct sim *s, uint64_t id, bool on);
void sim_disk_slow(struct sim *s, uint64_t id, uint64_t extra_us);
void sim_disk_fail(struct sim *s, uint64_t id, uint64_t after_jobs, enum err e);
/* Appends straight to the durable log of a member that is down. */
void sim_disk_put(struct sim *s, uint64_t id, uint64_t term, enum cns_kind kind,
                  struct cns_payload *payload);

/* The network. Cut: what FROM sends to TO is lost. A cut that heals is a new connection. */
void sim_cut(struct sim *s, uint64_t from, uint64_t to, bool on);
void sim_isolate(struct sim *s, uint64_t id, bool on);
void sim_heal(struct sim *s);
void sim_reset(struct sim *s, uint64_t a, uint64_t b); /* both connections break; both dial anew */
/* Bytes a millisecond from FROM to TO; 0: no limit. */
void sim_bandwidth(struct sim *s, uint64_t from, uint64_t to, uint64_t bytes_per_ms);
void sim_set_filter(struct sim *s, sim_filter filter, void *ctx);

/* The node's side. */
struct cns_payload *sim_payload(struct sim *s, size_t bytes);
enum err sim_propose(struct sim *s, uint64_t id, unsigned n, size_t bytes, uint64_t *first);
void sim_apply(struct sim *s, uint64_t id, uint64_t index);
/* Starts a read; the checker judges its index. */
void sim_read(struct sim *s, uint64_t id, uint64_t timeout_ms);
/* Reads that ended: with an index, and without. */
uint64_t sim_reads_ok(const struct sim *s);
uint64_t sim_reads_failed(const struct sim *s);
/* The highest index that any member has delivered: committed for sure. */
uint64_t sim_committed(const struct sim *s);
uint64_t sim_committed_term(const struct sim *s, uint64_t index); /* 0: not committed */
uint64_t sim_leaderships(const struct sim *s);
/* All that are up have delivered all that is committed. */
bool sim_settled(struct sim *s, void *ctx);
/* Compares all logs on the committed part, entry by entry; the members must be settled. */
void sim_compare_logs(struct sim *s);

/* --- the parts (world.c puts them together) ------------------------------------------------------
 */

enum sim_event_kind {
    SIM_DISK,
    SIM_READ,
    SIM_CUT,
    SIM_PACKET,
    SIM_TICK,
    SIM_TURN,
    SIM_UP,
    SIM_RELEASE
};
struct sim_event {
    uint64_t at_us, seq;
    enum sim_event_kind kind;
    uint64_t member, life, a, b;
    void *arg;
};
void sim_post(struct sim *s, uint64_t delay_us, enum sim_event_kind kind, uint64_t member,
              uint64_t a, uint64_t b, void *arg);
const struct sim_options *sim_opts(const struct sim *s);

void sim_disk_init(struct sim_disk *k);
void sim_disk_fini(struct sim_disk *k);
void sim_disk_submit(struct sim_member *m, struct cns_disk_job *job);
void sim_disk_submit_read(struct sim_member *m, struct cns_disk_read *read);
void sim_disk_event(struct sim_member *m);
void sim_disk_cut_event(struct sim_member *m);
/* The record S becomes the disk's; the log goes on behind it, emptied unless it has that entry. */
void sim_disk_install(struct sim_member *m, const struct cns_snapshot *s);
uint64_t sim_disk_last(const struct sim_disk *k);
/* NULL: not in the log. */
const struct cns_item *sim_disk_entry(const struct sim_disk *k, uint64_t index);
/* READ: the argument of the SIM_READ event; dropped when its member's life has ended. */
void sim_disk_read_event(struct sim_member *m, void *read);
void sim_disk_read_drop(void *read);
/* JOBS of the queue reach the disk, then PART items of the next append. */
void sim_disk_crash(struct sim_member *m, unsigned jobs, unsigned part);

struct sim_net;
struct sim_net *sim_net_new(struct sim *s);
void sim_net_free(struct sim_net *net);
struct sim_net *sim_net_of(struct sim *s);
void sim_net_send(struct sim_member *m, uint64_t to, const struct raft_message *msg,
                  const struct cns_item *items, unsigned n);
void sim_net_send_bytes(struct sim_member *m, uint64_t to, uint8_t type, const uint8_t *p,
                        size_t n);
uint64_t sim_net_queued(struct sim_member *m, uint64_t to);
void sim_net_packet_event(struct sim *s, void *packet);
/* It arrives later: so do those behind it. */
void sim_net_packet_defer(struct sim *s, const void *packet, uint64_t until_us);
void sim_net_packet_drop(void *packet);
void sim_net_up_event(struct sim *s, uint64_t from, uint64_t to, uint64_t epoch);
/* FROM has a new peer. */
void sim_net_dial(struct sim *s, uint64_t from, uint64_t to);
/* A member went down or came up: its connections are new. */
void sim_net_member(struct sim *s, uint64_t id, bool up);

struct sim_check;
struct sim_check *sim_check_new(struct sim *s);
void sim_check_free(struct sim_check *c);
struct sim_check *sim_check_of(const struct sim *s);
void sim_check_entry(struct sim_member *m, const struct cns_entry *e);
void sim_check_leader(struct sim_member *m);
void sim_check_logs(struct sim *s);
void sim_check_drop_reads(struct sim_member *m);

/* --- random runs --------------------------------------------------------------------------------
 */

struct sim_stats {
    uint64_t events, virtual_ms, committed, proposals, crashes, cuts, leaderships, reads_ok,
        reads_failed, disk_failures;
    uint64_t log_cuts, images, held, databases_lost, changes, joined, removed, waits;
};
/* One run: random members, load and faults over STEPS events, then all is healed and everything
 * must settle. Ends the process with the seed when a promise is broken. */
void sim_run(uint64_t seed, uint64_t steps, struct sim_stats *stats);

#endif
