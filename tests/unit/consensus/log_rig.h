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

/* What the log should hold: entries first..n, behind the record of entry `cut` (0: none). */
struct model {
    uint64_t term, vote, first, n, cut;
    struct {
        uint64_t term, tag; /* the payload follows from the tag */
        enum cns_kind kind;
    } e[MODEL];
};

struct rig {
    uv_loop_t loop;
    struct cns_log *log;
    unsigned submitted, ended, in_order, failures; /* submitted, in_order: without CUTs */
    uint64_t cut_first;                            /* what the last CUT said */
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
/* The same; a new directory begins behind BASE. */
MUST_USE enum err rig_try_base(struct rig *r, const char *dir, const struct cns_snapshot *base);
void rig_open(struct rig *r, const char *dir, uint64_t segment_bytes);
void rig_start(struct rig *r) ON_LOOP;
void rig_close(struct rig *r) ON_LOOP;
void rig_submit(struct rig *r, struct cns_disk_job job, unsigned *sent) ON_LOOP;
/* The record of entry INDEX, whose data follow from it. The caller unrefs its members. */
struct cns_snapshot rig_snapshot(uint64_t index, uint64_t term);
bool rig_is_snapshot(const struct cns_snapshot *s, uint64_t index, uint64_t term);
/* Cuts at INDEX and lets the model know when it is done; waits. */
void rig_cut(struct rig *r, struct model *m, uint64_t index, uint64_t keep_bytes,
             unsigned *sent) ON_LOOP;
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
void rig_copy_file(const char *from, const char *to);
/* Copies the files of FROM to TO, made or emptied before. */
void rig_copy_dir(const char *from, const char *to);
void rig_empty_dir(const char *dir);
/* Names of the files of DIR with SUFFIX, sorted; free each. */
unsigned rig_list_files(const char *dir, const char *suffix, char **names, unsigned max);
void rig_free_names(char **names, unsigned n);

#endif
