/* Room: node. Thread: loop.
 * Invariants: a node fetches only while it serves nothing; it is opened anew in this process before
 *   (to let go of its database) and after (to take up the new one), so there is one way into every
 *   state. Two repairs within a minute mean that something else is broken: growing pauses. */
#include "node/repair.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/fetch.h"
#include "node/gossip.h"
#include "node/startup.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEARD_MS      3000    /* a node not heard of for so long is not asked */
#define QUIET_MS      60000   /* a repair is followed by another one sooner: pauses */
#define PAUSE_MAX_MS  3600000 /* between two repairs */
#define DOUBLINGS_MAX 6

/* --- fetching --------------------------------------------------------------------------------- */

/* Whoever is heard of; those that are behind, or not well, last. */
static void tell_sources(struct node *n) ON_LOOP
{
    struct fetch_source sources[FETCH_SOURCES_MAX];
    unsigned count = 0, members = 0;
    uint64_t now = clock_mono_ms(), newest = 0;
    const struct cns_server *servers = cns_members(n->cns, &members);
    for (unsigned i = 0; i < members && count < FETCH_SOURCES_MAX; i++) {
        const struct gossip_news *news = gossip_of(n->gossip, servers[i].id);
        if (servers[i].id == n->config->id || news == NULL || now > news->heard_ms + HEARD_MS ||
            news->address[0] == 0)
            continue;
        struct fetch_source *s = &sources[count++];
        *s = (struct fetch_source){.id = servers[i].id, .leads = news->role == CNS_LEADER};
        s->lag = strcmp(news->state, "ok") == 0 ? news->seq : 0; /* its sequence, for now */
        newest = news->seq > newest ? news->seq : newest;
        (void)snprintf(s->address, sizeof s->address, "%s", news->address);
    }
    for (unsigned i = 0; i < count; i++)
        sources[i].lag = newest - sources[i].lag;
    fetch_sources(n->fetch, sources, count);
}

enum err repair_begin(struct node *n)
{
    char *path = mem_printf("%s/main.db", n->config->data);
    struct fetch_config c = {.path = path,
                             .own_id = n->config->id,
                             .cluster_id = n->config->cluster_id,
                             .database_id = n->config->database_id,
                             .index_min = n->past->index_min,
                             .contacts = n->cns == NULL ? n->past->who.contacts : NULL,
                             .loop = &n->mail};
    enum err e = fetch_start(&c, &n->fetch);
    free(path);
    return e;
}

void repair_ended(struct node *n)
{
    char sentence[ERR_TEXT_MAX];
    enum err e = fetch_result(n->fetch, sentence);
    bool joins = n->cns == NULL && n->stage == NODE_SERVING;
    fetch_free(n->fetch);
    n->fetch = NULL;
    if (e == ERR_OK) {
        struct node_past *past = n->past;
        past->damaged = false;
        past->index_min = 0;
        past->reason[0] = 0;
        if (!joins) {
            past->repairs++;
            past->repaired_ms = clock_mono_ms();
        }
        log_info("repair", "fetched repairs=%" PRIu64, past->repairs);
        node_restart(n);
    } else if (e != ERR_CANCELLED) {
        node_fail(n, e, sentence);
    }
}

/* --- when ------------------------------------------------------------------------------------- */

void node_refetch(struct node *n, uint64_t index_min, const char *reason)
{
    struct node_past *past = n->past;
    past->damaged = true;
    past->index_min = index_min;
    (void)snprintf(past->reason, sizeof past->reason, "%s", reason);
    n->repair_ms = 0;
    log_warn("repair", "restart reason=\"%s\"", reason);
    node_restart(n);
}

void repair_behind(struct node *n, uint64_t leader_id, uint64_t first)
{
    char reason[ERR_TEXT_MAX];
    if (n->failed || n->fetch != NULL || n->stage != NODE_SERVING)
        return;
    (void)snprintf(reason, sizeof reason,
                   "this node's log ends before that of the leader %" PRIu64
                   " begins (entry %" PRIu64 "): it was away for too long for --log-keep",
                   leader_id, first);
    node_refetch(n, first - 1, reason);
}

/* How long to wait: a database that was repaired a moment ago and is damaged again is a sign that
 * the disk, or this program, damages it. */
static uint64_t pause_before(struct node_past *past, uint64_t now_ms)
{
    if (past->repaired_ms == 0 || now_ms > past->repaired_ms + QUIET_MS) {
        past->repairs_fast = 0;
        return 0;
    }
    unsigned doublings = past->repairs_fast < DOUBLINGS_MAX ? past->repairs_fast : DOUBLINGS_MAX;
    past->repairs_fast++;
    uint64_t pause = (uint64_t)QUIET_MS << doublings;
    return pause < PAUSE_MAX_MS ? pause : PAUSE_MAX_MS;
}

/* The time of day IN_MS from now, HH:MM:SS: the sentence is written once and read later. */
static void clock_text(uint64_t in_ms, char *out, size_t n)
{
    struct tm tm = {0};
    time_t at = time(NULL) + (time_t)((in_ms + 999) / 1000);
    (void)gmtime_r(&at, &tm);
    (void)snprintf(out, n, "%02d:%02d:%02d", tm.tm_hour, tm.tm_min, tm.tm_sec);
}

void repair_damage(struct node *n, enum err code, const char *sentence)
{
    uint64_t now = clock_mono_ms();
    bool damage = code == ERR_CORRUPT || code == ERR_DIVERGED;
    if (!damage || n->stage != NODE_SERVING || n->lane == NULL || !startup_may_fetch(n))
        return;
    (void)snprintf(n->past->reason, sizeof n->past->reason, "%s", sentence);
    uint64_t pause = pause_before(n->past, now);
    n->repair_ms = now + pause;
    if (pause > 0) {
        size_t used = strlen(n->failure);
        char at[16];
        clock_text(pause, at, sizeof at);
        (void)snprintf(n->failure + used, sizeof n->failure - used,
                       "; it was repaired a moment ago and is damaged again: the next repair "
                       "begins at %s UTC",
                       at);
        log_error("repair",
                  "waits ms=%" PRIu64 " reason=\"damaged again %" PRIu64
                  " ms after the last repair: look at the disk\"",
                  pause, now - n->past->repaired_ms);
    }
}

void repair_timer(struct node *n, uint64_t now_ms)
{
    if (n->fetch != NULL && n->cns != NULL)
        tell_sources(n);
    if (n->repair_ms != 0 && now_ms >= n->repair_ms && n->stage == NODE_SERVING) {
        char reason[ERR_TEXT_MAX];
        (void)snprintf(reason, sizeof reason, "%s", n->past->reason);
        node_refetch(n, 0, reason);
    }
}
