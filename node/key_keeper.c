/* Room: node.   Thread: loop; saving runs in libuv's pool, on a copy.
 * Invariants: one saving at a time; what changes meanwhile is saved after it, what could not be
 *   saved a little later. */
#include "node/key_keeper.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

#define RETRY_MS 3000 /* the disk may have room by then */

struct key_keeper {
    struct node *node;
    uint64_t failed_ms; /* the last saving did, then; 0: it did not */
    bool sure;          /* the newest is the cluster's */
    bool saved;         /* the file has n->keys, or will have at the end of `saving` */
    bool saving;
};

struct saving {
    uv_work_t work;
    struct key_keeper *keeper;
    const char *dir; /* of the configuration */
    struct cluster_keys keys;
    enum err result;
    char text[ERR_TEXT_MAX];
};

struct key_keeper *key_keeper_new(struct node *n)
{
    struct key_keeper *k = MEM_NEW(struct key_keeper);
    k->node = n;
    enum err e = cluster_keys_load(n->config->data, &n->keys);
    if (e != ERR_OK)
        log_warn(
            "node",
            "the cluster's key cannot be read reason=\"%s\": nothing is to be done, the leader "
            "tells the key and the file is written anew",
            err_text());
    k->saved = k->sure = e == ERR_OK && n->keys.n > 0;
    if (e != ERR_OK)
        n->keys = (struct cluster_keys){0};
    (void)cluster_keys_make(&n->keys);
    return k;
}

void key_keeper_free(struct key_keeper *k)
{
    CHECK(k == NULL || !k->saving);
    free(k);
}

static void save(uv_work_t *work)
{
    struct saving *s = work->data;
    s->result = cluster_keys_save(s->dir, &s->keys);
    (void)snprintf(s->text, sizeof s->text, "%s", s->result == ERR_OK ? "" : err_text());
}

static void begin_save(struct key_keeper *k) ON_LOOP;

static void on_saved(uv_work_t *work, int status)
{
    struct saving *s = work->data;
    struct key_keeper *k = s->keeper;
    thread_expect_loop();
    k->saving = false;
    bool failed = status != 0 || s->result != ERR_OK;
    if (failed)
        log_warn(
            "node",
            "the cluster's key is not saved reason=\"%s\": it is tried again; has the disk room, "
            "and may this node's user write to --data?",
            status != 0 ? uv_strerror(status) : s->text);
    k->failed_ms = failed ? clock_mono_ms() : 0;
    k->saved = k->saved && !failed;
    free(s);
    if (!k->saved)
        begin_save(k);
}

static void begin_save(struct key_keeper *k)
{
    k->saved = false;
    if (k->saving || k->node->stage != NODE_SERVING ||
        (k->failed_ms != 0 && clock_mono_ms() < k->failed_ms + RETRY_MS))
        return;
    struct saving *s = MEM_NEW(struct saving);
    s->work.data = s;
    s->keeper = k;
    s->dir = k->node->config->data;
    s->keys = k->node->keys;
    if (uv_queue_work(&k->node->loop, &s->work, save, on_saved) != 0) {
        k->failed_ms = clock_mono_ms();
        free(s);
        return;
    }
    k->saving = k->saved = true;
}

bool key_keeper_is_sure(const struct key_keeper *k)
{
    return k->sure;
}

void key_keeper_lead(struct key_keeper *k)
{
    k->sure = true;
    if (!k->saved)
        begin_save(k);
}

void key_keeper_hear(struct key_keeper *k, const uint8_t key[CLUSTER_KEY_BYTES])
{
    k->sure = true;
    if (cluster_keys_take(&k->node->keys, key) || !k->saved)
        begin_save(k);
}
