/* Room: tests. A log on a loop, driven as the driver does it: jobs in, completions out; and the
 * model that says what it should hold. For log_test.c and log_damage_test.c. */
#ifndef TESTS_UNIT_CONSENSUS_LOG_RIG_H
#define TESTS_UNIT_CONSENSUS_LOG_RIG_H

#include "base/rng.h"
#include "base/sizes.h"
#include "consensus/log.h"
#include "tests/lib/test.h"

#define CLUSTER 0xabcdef12u
#define NODE    7u
#define MODEL   20000u

/* What the log should hold: entries 1..n. */
struct model {
    uint64_t term, vote, n;
    struct {
        uint64_t term, tag; /* the payload follows from the tag */
        enum cns_kind kind;
    } e[MODEL];
};

struct rig {
    uv_loop_t loop;
    struct cns_log *log;
    unsigned ended, failures;
    enum err last_error;
    bool closed;
    struct cns_log_file_calls calls;
};

struct read_ctx {
    struct cns_disk_read read;
    bool ended;
};

void model_put(struct model *m, uint64_t term, uint64_t tag);
bool model_has(const struct model *m, const struct cns_item *got);
MUST_USE enum err rig_try(struct rig *r, const char *dir, uint64_t segment_bytes,
                          const struct cns_log_file_calls *calls);
void rig_open(struct rig *r, const char *dir, uint64_t segment_bytes);
void rig_start(struct rig *r) ON_LOOP;
void rig_close(struct rig *r) ON_LOOP;
void rig_submit(struct rig *r, struct cns_disk_job job, unsigned *sent) ON_LOOP;
void rig_append(struct rig *r, const struct model *m, uint64_t from, unsigned n,
                unsigned *sent) ON_LOOP;
void rig_wait(struct rig *r, unsigned sent);
/* False: the log waits for room on the disk before SENT jobs have ended. */
bool rig_wait_or_full(struct rig *r, unsigned sent) ON_LOOP;
/* Starts a read; x->ended when x->read has the answer. */
void rig_read_later(struct rig *r, uint64_t index, uint64_t bytes, unsigned items,
                    struct read_ctx *x) ON_LOOP;
MUST_USE enum err rig_read(struct rig *r, uint64_t index, uint64_t bytes, unsigned items,
                           struct read_ctx *x) ON_LOOP;
void rig_expect(struct rig *r, const struct model *m) ON_LOOP;
void model_init(struct model *m);
int rig_create(void *ctx, const char *path, uint64_t bytes);
int rig_rename(void *ctx, const char *from, const char *to);
int rig_remove(void *ctx, const char *path);
int rig_sync_dir(void *ctx, const char *dir);
void rig_flip(const char *path, uint64_t offset, uint8_t mask);

#endif
