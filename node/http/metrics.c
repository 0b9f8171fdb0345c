/* Room: node/http.   Thread: loop.   Owns: nothing.
 * Invariants: each family is there in every state of a node, so that a query never finds a name
 * missing; what a node has not (no database while it fetches one) is 0. Nothing here waits, and
 * nothing grows with the number of connections.
 * Not here: who counts (meters.c, gossip.c and others); the format (metrics_text.c). */
#include "node/http/metrics.h"

#include "base/clock.h"
#include "node/disk_watch.h"
#include "node/gossip.h"
#include "node/http/health.h"
#include "node/http/http_listener.h"
#include "node/http/metrics_text.h"
#include "node/meters.h"
#include "node/node.h"
#include "node/status.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

#define TEXT "text/plain; version=0.0.4; charset=utf-8"

#define BATCH_LAST 10 /* batches are of 512 requests at most: lane_batch.c */

/* What is asked for once. */
struct facts {
    struct node *node;
    struct meters meters;
    struct cns_status cns;
    struct repl_stats db;
    struct readers_state readers;
    struct gossip_news self;
};

/* --- cluster --- */

static void put_info(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    const struct config *c = f->node->config;
    struct buf labels;
    buf_init(&labels, SIZE_MAX);
    buf_printf(&labels, "node=\"%" PRIu64 "\",cluster=\"%" PRIu64 "\",", c->id, c->cluster_id);
    metrics_label(&labels, "version", f->self.version);
    buf_put(&labels, ",", 1);
    metrics_label(&labels, "sqlite", f->self.sqlite);
    buf_put_u8(&labels, 0);
    metrics_family(t, "lectern_info", "gauge", "1; the labels tell which node runs what");
    metrics_sample(t, (const char *)labels.data, 1);
    buf_fini(&labels);
}

static void put_roles(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    static const struct {
        enum cns_role role;
        const char *label;
    } roles[] = {{CNS_FOLLOWER, "role=\"follower\""},
                 {CNS_CANDIDATE, "role=\"candidate\""},
                 {CNS_LEADER, "role=\"leader\""},
                 {CNS_STOPPED, "role=\"stopped\""}};
    metrics_family(t, "lectern_role", "gauge", "1 for the role of this node in Raft, 0 for others");
    for (size_t i = 0; i < sizeof roles / sizeof roles[0]; i++)
        metrics_sample(t, roles[i].label, f->self.role == roles[i].role);
}

static void put_conditions(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    struct node *n = f->node;
    char why[ERR_TEXT_MAX];
    const struct ready_wish wish = {.max_lag_ms = READY_LAG_MS};
    metrics_gauge(t, "lectern_ready", "1 when /readyz says 200", !health_is_unready(n, &wish, why));
    metrics_gauge(t, "lectern_is_leader", "1 on the leader that takes writes", f->self.serving);
    metrics_gauge(t, "lectern_has_leader", "1 when this node knows a leader",
                  f->self.leader_id != 0);
    metrics_gauge(t, "lectern_failed", "1 when the database or the log of this node stopped",
                  n->failed);
    metrics_gauge(t, "lectern_fetching", "1 while this node fetches a database", n->fetch != NULL);
    metrics_gauge(t, "lectern_term", "Raft's term", f->self.term);
    metrics_counter(t, "lectern_elections_total", "Elections that this node began",
                    f->cns.elections);
    metrics_counter(t, "lectern_leader_changes_total",
                    "How often this node heard of a leader it did not know before",
                    f->meters.counters[METER_LEADER_SEEN]);
}

static void put_positions(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    struct node *n = f->node;
    const struct gossip_news *leader = gossip_of(n->gossip, n->leader_id);
    uint64_t newest = f->self.commit_index;
    if (leader != NULL && leader->commit_index > newest)
        newest = leader->commit_index;
    metrics_gauge(t, "lectern_commit_index", "Newest entry known to be committed",
                  f->self.commit_index);
    metrics_gauge(t, "lectern_applied_index", "Newest entry in the database",
                  f->self.applied_index);
    metrics_gauge(t, "lectern_published_sequence", "Newest transaction that readers see",
                  f->self.seq);
    metrics_gauge(t, "lectern_lag_entries", "Committed entries that are not in the database",
                  newest > f->self.applied_index ? newest - f->self.applied_index : 0);
    metrics_gauge_ms(t, "lectern_lag_seconds", "How old the state of the database is at most",
                     gossip_lag_ms(n->gossip, n->config->id));
}

/* As this node knows them: the leader knows them best. */
static void put_members(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    struct node *n = f->node;
    struct status_row rows[STATUS_ROWS_MAX];
    char label[64];
    unsigned n_rows = status_collect(n, rows), roles[CNS_SPARE + 1] = {0};
    for (unsigned i = 0; i < n_rows; i++)
        roles[rows[i].member.role] += rows[i].listed;
    metrics_family(t, "lectern_members", "gauge", "Members of the cluster");
    metrics_sample(t, "role=\"voter\"", roles[CNS_VOTER]);
    metrics_sample(t, "role=\"replica\"", roles[CNS_STANDBY]);
    metrics_sample(t, "role=\"spare\"", roles[CNS_SPARE]);
    metrics_family(t, "lectern_member_reachable", "gauge",
                   "1 when this node heard of that member lately");
    for (unsigned i = 0; i < n_rows; i++) {
        (void)snprintf(label, sizeof label, "member=\"%" PRIu64 "\"", rows[i].news.id);
        metrics_sample(t, label, !rows[i].silent);
    }
    metrics_family(t, "lectern_member_known", "gauge",
                   "0: this node never heard of that member, so it may never have been there");
    for (unsigned i = 0; i < n_rows; i++) {
        (void)snprintf(label, sizeof label, "member=\"%" PRIu64 "\"", rows[i].news.id);
        metrics_sample(t, label, member_was_heard(n, rows[i].news.id));
    }
    metrics_family(t, "lectern_member_lag_entries", "gauge",
                   "Entries committed here that a member, by its last word, has not applied");
    for (unsigned i = 0; i < n_rows; i++) {
        uint64_t has = rows[i].news.applied_index;
        (void)snprintf(label, sizeof label, "member=\"%" PRIu64 "\"", rows[i].news.id);
        metrics_sample(t, label, f->self.commit_index > has ? f->self.commit_index - has : 0);
    }
    metrics_family(
        t, "lectern_member_lag_seconds", "gauge",
        "On the leader: how old a member's state is at most; elsewhere only this node's");
    for (unsigned i = 0; i < n_rows; i++) {
        uint64_t id = rows[i].news.id, lag = gossip_lag_ms(n->gossip, id);
        if (lag == UINT64_MAX || (id != n->config->id && !f->self.serving))
            continue;
        (void)snprintf(label, sizeof label, "member=\"%" PRIu64 "\"", id);
        metrics_sample_ns(t, label, lag * 1000000);
    }
}

/* --- writes and reads --- */

static void put_stages(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    static const char *const stages[METER_STAGES] = {[METER_STAGE_QUEUE] = "stage=\"queue\"",
                                                     [METER_STAGE_RUN] = "stage=\"run\"",
                                                     [METER_STAGE_SEAL] = "stage=\"seal\"",
                                                     [METER_STAGE_COMMIT] = "stage=\"commit\"",
                                                     [METER_STAGE_PUBLISH] = "stage=\"publish\""};
    metrics_family(t, "lectern_write_stage_seconds", "histogram",
                   "Where the time of writes goes, on the leader");
    for (unsigned i = 0; i < METER_STAGES; i++)
        metrics_seconds(t, stages[i], &f->meters.stage_ns[i]);
}

static void put_writes(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    const struct meters *m = &f->meters;
    struct histogram_copy syncs = {0};
    if (f->node->cns != NULL)
        cns_sync_times(f->node->cns, &syncs);
    metrics_counter(t, "lectern_commits_total", "Transactions committed and published, as leader",
                    m->counters[METER_COMMITS]);
    metrics_counter(t, "lectern_commit_bytes_total", "Bytes of their pages",
                    m->counters[METER_COMMIT_BYTES]);
    metrics_counter(t, "lectern_applied_entries_total", "Entries of a leader applied here",
                    m->counters[METER_APPLIED]);
    metrics_family(t, "lectern_batch_requests", "histogram",
                   "Requests that one transaction of the log carries");
    metrics_numbers(t, NULL, &m->batch, BATCH_LAST);
    put_stages(t, f);
    metrics_family(t, "lectern_log_sync_seconds", "histogram", "Syncs of the log");
    metrics_seconds(t, NULL, &syncs);
    metrics_gauge(t, "lectern_write_queue", "Requests that the writer has or that wait for it",
                  f->node->n_in_lane);
    metrics_gauge(t, "lectern_inflight_bytes", "Bytes of entries that wait for a majority",
                  f->cns.inflight_bytes);
    metrics_gauge(
        t, "lectern_transactions_open", "Interactive transactions open at the writer",
        (uint64_t)(m->levels[METER_TRANSACTIONS] > 0 ? m->levels[METER_TRANSACTIONS] : 0));
    metrics_counter(t, "lectern_forwarded_total", "Requests passed on to the leader",
                    m->counters[METER_FORWARDED]);
}

static void put_reads(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    const struct readers_state *r = &f->readers;
    metrics_family(t, "lectern_read_stage_seconds", "histogram",
                   "Where the time of reads goes: waiting for a reader, running");
    metrics_seconds(t, "stage=\"queue\"", &f->meters.read_waited_ns);
    metrics_seconds(t, "stage=\"run\"", &f->meters.read_ran_ns);
    metrics_gauge(t, "lectern_readers_busy", "Read-only statements under way", r->busy);
    metrics_gauge(t, "lectern_readers_waiting", "Read-only statements that wait", r->waiting);
    metrics_gauge(t, "lectern_snapshots_open", "Read transactions (BEGIN READONLY) open",
                  r->snapshots);
    metrics_gauge(t, "lectern_snapshots_waiting", "Read transactions that wait",
                  r->snapshots_waiting);
    metrics_counter(t, "lectern_reads_ended_total",
                    "Statements ended because they kept the WAL from starting over, or readers "
                    "from others",
                    f->meters.counters[METER_READS_ENDED]);
}

/* --- storage --- */

static void put_database(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    struct histogram_copy checkpoints = {0};
    if (f->node->lane != NULL)
        repl_db_checkpoint_times(lane_db(f->node->lane), &checkpoints);
    metrics_gauge(t, "lectern_database_bytes", "Size of the database",
                  (uint64_t)f->db.pages * f->db.page_size);
    metrics_gauge(t, "lectern_wal_bytes", "Bytes of the WAL in use", f->db.wal_bytes);
    metrics_gauge(t, "lectern_wal_checkpointed_bytes", "Of these, in the database file, too",
                  f->db.wal_backfilled_bytes);
    metrics_gauge_ms(t, "lectern_wal_held_seconds",
                     "For so long readers keep the WAL from starting over; 0: they do not",
                     f->db.restart_waits_ms);
    metrics_counter(t, "lectern_wal_restarts_total", "How often the WAL started over",
                    f->db.wal_restarts);
    metrics_family(t, "lectern_checkpoint_seconds", "histogram", "Checkpoints of the database");
    metrics_seconds(t, NULL, &checkpoints);
}

static void put_storage(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    struct node *n = f->node;
    bool aged = f->self.snapshot_index != 0 && f->self.snapshot_age_s != GOSSIP_AGE_UNKNOWN;
    put_database(t, f);
    metrics_gauge(t, "lectern_log_bytes", "Size of the log on disk", f->cns.log_bytes);
    metrics_gauge(t, "lectern_log_segments", "Files of the log", f->cns.log_segments);
    metrics_gauge(t, "lectern_log_cache_bytes", "Bytes of the log in memory", f->cns.cache_bytes);
    metrics_gauge(t, "lectern_log_first_index", "First entry of the log", f->self.first_index);
    metrics_gauge(t, "lectern_log_last_index", "Last entry of the log", f->self.last_index);
    metrics_gauge(t, "lectern_snapshot_index", "The log was cut behind this entry",
                  f->self.snapshot_index);
    metrics_gauge(t, "lectern_snapshot_age_seconds", "Since that cut",
                  aged ? f->self.snapshot_age_s : 0);
    metrics_gauge(t, "lectern_disk_free_bytes", "Room left for the data directory",
                  f->self.disk_free == UINT64_MAX ? 0 : f->self.disk_free);
    metrics_gauge(t, "lectern_disk_reserve_bytes", "With less room writes are refused",
                  n->config->disk_reserve_bytes);
    metrics_gauge(t, "lectern_disk_low", "1 while writes are refused for want of room",
                  disk_watch_is_low(n->disk));
    metrics_gauge(t, "lectern_disk_waits", "1 while the log or the database waits for room",
                  f->cns.log_waits || f->db.waits_for_room);
    metrics_counter(t, "lectern_repairs_total",
                    "Databases made anew from other nodes or the log: damaged, or too far behind",
                    f->self.repairs);
}

/* --- clients --- */

static const char *const doors[METER_DOORS] = {
    [METER_NATIVE] = "native", [METER_HTTP] = "http", [METER_NODE] = "node"};

static void put_by_door(struct metrics_text *t, const char *name, const char *help,
                        const uint64_t *values, unsigned n) ON_LOOP
{
    char label[32];
    metrics_family(t, name, "counter", help);
    for (unsigned d = 0; d < n; d++) {
        (void)snprintf(label, sizeof label, "door=\"%s\"", doors[d]);
        metrics_sample(t, label, values[d]);
    }
}

static uint64_t count_links(const struct node *n) ON_LOOP
{
    uint64_t found = 0;
    for (const struct list *i = n->leader_links.next; i != &n->leader_links; i = i->next)
        found++;
    return found;
}

static void put_connections(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    const struct node *n = f->node;
    const int64_t *levels = f->meters.levels;
    metrics_family(t, "lectern_connections", "gauge",
                   "Connections; of http some are websockets; node: ours to the leader");
    metrics_sample(t, "kind=\"native\"", n->n_connections);
    metrics_sample(t, "kind=\"http\"", n->door == NULL ? 0 : http_listener_connections(n->door));
    metrics_sample(t, "kind=\"websocket\"", (uint64_t)levels[METER_WEBSOCKETS]);
    metrics_sample(t, "kind=\"node\"", count_links(n));
    metrics_family(t, "lectern_connections_limit", "gauge", "With more, connections are refused");
    metrics_sample(t, "kind=\"native\"", n->config->connections_max);
    metrics_sample(t, "kind=\"http\"", n->config->http_connections_max);
    put_by_door(t, "lectern_accepted_total", "Connections accepted", f->meters.accepted,
                METER_NODE);
    put_by_door(t, "lectern_connections_refused_total", "Connections refused: over the limit",
                f->meters.counters + METER_REFUSED_NATIVE, METER_NODE);
    put_by_door(t, "lectern_received_bytes_total", "Bytes received", f->meters.received,
                METER_DOORS);
    put_by_door(t, "lectern_sent_bytes_total", "Bytes sent", f->meters.sent, METER_DOORS);
    metrics_gauge(t, "lectern_sessions", "Streams of clients", (uint64_t)levels[METER_SESSIONS]);
    metrics_gauge(t, "lectern_waiting_bytes", "Bytes of requests and answers that wait",
                  n->waiting.bytes);
    metrics_gauge(t, "lectern_waiting_bytes_max", "With more, requests are refused",
                  n->waiting.limit);
}

static void put_requests(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    static const char *const kinds[METER_REQUESTS] = {
        [METER_READ] = "read",         [METER_WRITE] = "write",
        [METER_BATCH] = "batch",       [METER_TRANSACTION] = "transaction",
        [METER_DESCRIBE] = "describe", [METER_STATUS] = "status",
        [METER_CLUSTER] = "cluster",   [METER_IMAGE] = "image"};
    char label[64];
    metrics_family(t, "lectern_requests_total", "counter", "Requests answered");
    for (unsigned d = 0; d < METER_DOORS; d++)
        for (unsigned k = 0; k < METER_REQUESTS; k++) {
            (void)snprintf(label, sizeof label, "door=\"%s\",kind=\"%s\"", doors[d], kinds[k]);
            metrics_sample(t, label, f->meters.requests[d][k]);
        }
    metrics_family(t, "lectern_request_seconds", "histogram",
                   "From a request's arrival until its answer can leave");
    for (unsigned k = 0; k <= METER_DESCRIBE; k++) {
        (void)snprintf(label, sizeof label, "kind=\"%s\"", kinds[k]);
        metrics_seconds(t, label, &f->meters.request_ns[k]);
    }
}

static void put_errors(struct metrics_text *t, const struct facts *f) ON_LOOP
{
    static const struct {
        enum err code;
        const char *label;
    } errors[] = {
#define ERR(name, number, sqlite, retry, text) {ERR_##name, "code=\"" #name "\""},
#include "base/err.def"
#undef ERR
    };
    static const char *const classes[] = {"status=\"1xx\"", "status=\"2xx\"", "status=\"3xx\"",
                                          "status=\"4xx\"", "status=\"5xx\""};
    metrics_family(t, "lectern_errors_total", "counter", "Requests answered with an error");
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++)
        if (errors[i].code != ERR_OK)
            metrics_sample(t, errors[i].label, f->meters.errors[errors[i].code]);
    metrics_family(t, "lectern_http_answers_total", "counter", "HTTP answers, by status");
    for (unsigned i = 0; i < sizeof classes / sizeof classes[0]; i++)
        metrics_sample(t, classes[i], f->meters.counters[METER_HTTP_INFORMED + i]);
    metrics_counter(t, "lectern_checks_refused_total", "Answers 503 of /readyz and /leader",
                    f->meters.counters[METER_CHECKS_REFUSED]);
    metrics_counter(t, "lectern_http_foreign_total",
                    "Answers 501 and 505 to what is no HTTP that is spoken here",
                    f->meters.counters[METER_HTTP_FOREIGN]);
}

/* --- process --- */

/* Pages in memory: the second number of the file; 0: it cannot be read. It is no file on a disk. */
static uint64_t resident_bytes(void) ON_LOOP
{
    char text[128] = "";
    uint64_t pages = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL)
        return 0;
    if (fgets(text, sizeof text, f) != NULL) {
        char *end = text;
        (void)strtoull(text, &end, 10);
        pages = strtoull(end, NULL, 10);
    }
    (void)fclose(f);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void put_process(struct metrics_text *t) ON_LOOP
{
    struct rusage u = {0};
    (void)getrusage(RUSAGE_SELF, &u);
    uint64_t seconds = (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec);
    uint64_t us = (uint64_t)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
    metrics_gauge(t, "lectern_memory_bytes", "Memory of the process (resident)", resident_bytes());
    metrics_family(t, "lectern_cpu_seconds_total", "counter", "Processor time of the process");
    metrics_sample_ns(t, NULL, seconds * 1000000000 + us * 1000);
    metrics_family(t, "lectern_uptime_seconds", "gauge", "Since the process began");
    metrics_sample_ns(t, NULL, meters_age_ms() * 1000000);
}

void metrics_put(struct node *n, struct buf *out)
{
    struct facts f = {.node = n};
    struct metrics_text t = metrics_text_of(out);
    meters_collect(&f.meters);
    gossip_self(n->gossip, &f.self);
    if (n->cns != NULL)
        cns_get_status(n->cns, &f.cns);
    if (n->lane != NULL)
        repl_db_stats(lane_db(n->lane), &f.db);
    if (n->readers != NULL)
        readers_look(n->readers, &f.readers);
    put_info(&t, &f);
    put_roles(&t, &f);
    put_conditions(&t, &f);
    put_positions(&t, &f);
    put_members(&t, &f);
    put_writes(&t, &f);
    put_reads(&t, &f);
    put_storage(&t, &f);
    put_connections(&t, &f);
    put_requests(&t, &f);
    put_errors(&t, &f);
    put_process(&t);
}

static void on_metrics(struct exchange *x)
{
    struct buf b;
    thread_expect_loop();
    buf_init(&b, SIZE_MAX);
    metrics_put(x->node, &b);
    exchange_answer(x, 200, TEXT, &b);
    buf_fini(&b);
}

const struct handler metrics_handler = {.on_end = on_metrics, .only_tells = true};
