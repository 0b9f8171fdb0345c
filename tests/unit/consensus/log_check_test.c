/* Room: tests. consensus/log_check: a stopped node's log is told as it is, and stays as it is. */
#include "tests/unit/consensus/log_rig.h"

#include "base/file.h"
#include "base/mem.h"
#include "consensus/log_segment.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct model model;

struct seen {
    uint64_t n, newest, oldest;
};

static bool count(void *ctx, uint64_t index, uint64_t term, const uint8_t *p, size_t n)
{
    struct seen *s = ctx;
    EXPECT(s->n == 0 || index < s->oldest);
    s->newest = s->n++ == 0 ? index : s->newest;
    s->oldest = index;
    struct cns_payload copy = {.len = n};
    copy.data = mem_alloc(n);
    memcpy(copy.data, p, n);
    struct cns_item got = {index, term, CNS_COMMAND, &copy};
    EXPECT(model_has(&model, &got));
    free(copy.data);
    return true;
}

static void make_log(const char *dir, uint64_t cut)
{
    struct rig r;
    unsigned sent = 0;
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    rig_start(&r);
    model.term = 3;
    model.vote = 2;
    rig_submit(&r, (struct cns_disk_job){.kind = CNS_DISK_META, .term = 3, .vote = 2}, &sent);
    for (unsigned i = 0; i < 400; i++)
        model_put(&model, 3, 50);
    rig_append(&r, &model, 2, 400, &sent);
    rig_wait(&r, sent);
    if (cut > 0)
        rig_cut(&r, &model, cut, 0, &sent);
    rig_close(&r);
}

/* Everything that a look must not change. */
static uint64_t fingerprint(const char *dir)
{
    char *names[64];
    uint64_t sum = 0;
    unsigned n = rig_list_files(dir, "", names, 64);
    for (unsigned i = 0; i < n; i++) {
        struct stat st;
        char *path = mem_printf("%s/%s", dir, names[i]);
        EXPECT(stat(path, &st) == 0);
        sum = sum * 31 + (uint64_t)st.st_mtim.tv_sec * 1000003 + (uint64_t)st.st_mtim.tv_nsec +
              (uint64_t)st.st_size + st.st_ino;
        free(path);
    }
    rig_free_names(names, n);
    return sum;
}

static struct cns_report check(const char *dir, struct seen *seen)
{
    struct cns_report out;
    uint64_t before = fingerprint(dir);
    *seen = (struct seen){0};
    EXPECT_OK(cns_check(dir, count, seen, &out));
    EXPECT(fingerprint(dir) == before);
    cns_payload_unref(out.snapshot.members);
    out.snapshot.members = NULL;
    return out;
}

TEST(check_tells_what_there_is)
{
    struct seen seen;
    for (uint64_t cut = 0; cut <= 250; cut += 250) {
        const char *dir = test_path(cut == 0 ? "whole" : "cut");
        make_log(dir, cut);
        struct cns_report c = check(dir, &seen);
        EXPECT_EQ(c.damage, ERR_OK);
        EXPECT(c.cluster_id == CLUSTER && c.id == NODE && c.incarnation != 0);
        EXPECT(c.term == 3 && c.vote == 2 && c.last_term == 3);
        EXPECT(c.first_index == model.first && c.last_index == 401 && c.snapshot.index == cut);
        EXPECT(c.segments > 1 && c.bytes == c.segments * 16384);
        EXPECT(!c.torn && !c.unfinished);
        EXPECT(seen.n > 0 && seen.newest == 401);
        EXPECT(cut == 0 ? seen.oldest == 2 : seen.oldest == model.first);
    }
}

TEST(check_refuses_a_running_node_and_what_is_no_log)
{
    struct rig r;
    struct cns_report out;
    const char *dir = test_path("raft");
    EXPECT_ERR(ERR_NOT_FOUND, cns_check(dir, NULL, NULL, &out));
    EXPECT_OK(file_make_dirs(dir));
    EXPECT_ERR(ERR_NOT_FOUND, cns_check(dir, NULL, NULL, &out));
    EXPECT(access(test_path("raft/lock"), F_OK) != 0);
    model_init(&model);
    rig_open(&r, dir, 16384);
    thread_expect_loop();
    EXPECT_ERR(ERR_LOCKED, cns_check(dir, NULL, NULL, &out));
    rig_close(&r);
    EXPECT_OK(cns_check(dir, NULL, NULL, &out));
    rig_flip(test_path("raft/identity"), 8, 0x2 ^ 0x3);
    EXPECT_ERR(ERR_FORMAT, cns_check(dir, NULL, NULL, &out));
    EXPECT(unlink(test_path("raft/identity")) == 0);
    EXPECT_OK(cns_check(dir, NULL, NULL, &out)); /* there was a log */
    EXPECT(out.damage == ERR_CORRUPT && strstr(out.sentence, "no identity") != NULL);
}

TEST(check_names_the_first_damage)
{
    struct seen seen;
    char *names[64];
    const char *dir = test_path("raft");
    make_log(dir, 250);
    unsigned n = rig_list_files(dir, ".seg", names, 64);
    EXPECT(n > 1);
    char *path = mem_printf("%s/%s", dir, names[0]);
    rig_flip(path, LOG_RECORDS_AT + LOG_RECORD_HEAD_BYTES + 3, 4);
    struct cns_report c = check(dir, &seen);
    char *entry = mem_printf("entry %llu ", (unsigned long long)model.first);
    EXPECT(c.damage == ERR_CORRUPT && seen.n == 0);
    EXPECT(strstr(c.sentence, path) != NULL && strstr(c.sentence, "offset 4096") != NULL &&
           strstr(c.sentence, entry) != NULL);
    EXPECT(c.id == NODE && c.term == 3 && c.snapshot.index == 250); /* what was found before it */
    EXPECT(c.first_index == model.first && c.last_index == model.first - 1);
    free(entry);
    rig_flip(path, LOG_RECORDS_AT + LOG_RECORD_HEAD_BYTES + 3, 4);
    c = check(dir, &seen);
    EXPECT_EQ(c.damage, ERR_OK);
    rig_flip(test_path("raft/snapshot"), 33, 1);
    c = check(dir, &seen);
    EXPECT(c.damage == ERR_CORRUPT && strstr(c.sentence, "snapshot is damaged") != NULL);
    rig_flip(test_path("raft/snapshot"), 33, 1);
    EXPECT(unlink(path) == 0);
    c = check(dir, &seen);
    EXPECT(c.damage == ERR_CORRUPT && strstr(c.sentence, "is missing") != NULL);
    free(path);
    rig_free_names(names, n);
}

/* What the next start repairs is told, and left to it. */
TEST(check_tells_what_the_next_start_will_do)
{
    struct rig r;
    struct seen seen;
    char *names[64];
    const char *dir = test_path("raft"), *copy = test_path("copy");
    make_log(dir, 0);
    rig_copy_dir(dir, copy);
    struct cns_snapshot s = rig_snapshot(900, 3);
    rig_open(&r, copy, 16384);
    thread_expect_loop();
    EXPECT_OK(cns_log_install(r.log, &s));
    rig_close(&r);
    cns_payload_unref(s.members);
    unsigned n = rig_list_files(dir, ".seg", names, 64);
    char *path = mem_printf("%s/%s", dir, names[n - 1]);
    rig_flip(path, 16384 - 8, 1); /* scraps where nothing was written: a torn write */
    struct cns_report c = check(dir, &seen);
    EXPECT(c.damage == ERR_OK && c.torn && c.last_index == 401 && seen.newest == 401);
    rig_copy_file(test_path("copy/snapshot"), test_path("raft/snapshot"));
    rig_copy_file(test_path("copy/identity"), test_path("raft/segment.new")); /* a left over */
    c = check(dir, &seen);
    EXPECT(c.damage == ERR_OK && c.unfinished && c.first_index == 901 && c.last_index == 900);
    EXPECT(seen.n == 0 && c.segments == 0);
    free(path);
    rig_free_names(names, n);
}
