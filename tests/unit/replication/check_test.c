/* Room: tests. repl_check on the files of a stopped node: whole, killed, damaged in each file. */
#include "base/mem.h"
#include "tests/lib/test.h"
#include "tests/unit/replication/replica.h"
#include "tests/unit/replication/stock.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct said {
    unsigned damages, notes;
    char first[ERR_TEXT_MAX]; /* damage */
    char note[ERR_TEXT_MAX];  /* the last one */
};

static void note(void *ctx, bool damage, const char *sentence)
{
    struct said *s = ctx;
    if (damage && s->damages++ == 0)
        (void)snprintf(s->first, sizeof s->first, "%s", sentence);
    s->notes += !damage;
    if (!damage)
        (void)snprintf(s->note, sizeof s->note, "%s", sentence);
}

static unsigned files_in(const char *dir)
{
    unsigned n = 0;
    DIR *d = opendir(dir);
    EXPECT(d != NULL);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n;
}

static struct repl_check check(const char *name, struct said *said)
{
    struct repl_check out;
    char *path = mem_printf("%s/%s/main.db", test_dir(), name);
    unsigned files = files_in(test_path(name));
    *said = (struct said){0};
    EXPECT_OK(repl_check(path, note, said, &out));
    EXPECT_EQ(out.damages, said->damages);
    EXPECT_EQ(files_in(test_path(name)), files);
    free(path);
    return out;
}

static void flip(const char *name, long at)
{
    FILE *f = fopen(test_path(name), "r+");
    EXPECT(f != NULL && fseek(f, at, SEEK_SET) == 0);
    int byte = fgetc(f);
    EXPECT(byte != EOF && fseek(f, -1, SEEK_CUR) == 0 && fputc(byte ^ 8, f) != EOF);
    EXPECT(fclose(f) == 0);
}

static void expect_said(const struct said *s, const char *words)
{
    if (s->damages == 0 || strstr(s->first, words) == NULL)
        test_fail(__FILE__, __LINE__, "%u damages, wanted \"%s\", said \"%s\"", s->damages, words,
                  s->first);
}

/* Pages in main.db, and some in the WAL. */
static struct repl_db *make(const char *name, struct repl_position *p) ON_OWNER
{
    struct repl_db *db = replica_open(name);
    struct replica_leader l;
    bool wants_quiet;
    replica_lead(&l, db);
    replica_write(&l, NULL, "CREATE TABLE t(k INTEGER PRIMARY KEY, a TEXT)");
    for (int i = 0; i < 600; i++)
        replica_write(&l, NULL, "INSERT INTO t VALUES(%d, printf('%%.*c', 700, 'x'))", i);
    while (!db->holds_readers)
        EXPECT_OK(repl_db_upkeep(db, true, &wants_quiet));
    for (int i = 0; i < 5; i++)
        replica_write(&l, NULL, "UPDATE t SET a = 'new' WHERE k = %d", i * 50);
    replica_unlead(&l);
    *p = repl_db_position(db);
    EXPECT(db->pages > 513); /* two blocks of hashes */
    return db;
}

TEST(check_of_a_clean_stop_and_of_a_kill)
{
    replica_become_owner();
    struct said said;
    struct repl_position p;
    struct repl_db *db = make("a", &p);
    uint32_t pages = db->pages, frames = db->frames;
    database_free(db); /* as a kill leaves it */
    struct repl_check c = check("a", &said);
    EXPECT(c.position_known && c.seq == p.seq && c.checksum == p.checksum && !c.closed);
    EXPECT(c.hashes_fit && c.damages == 0 && c.page_size == 1024);
    EXPECT_EQ(c.pages, pages);
    EXPECT_EQ(c.wal_frames, frames);
    EXPECT_EQ(c.wal_commits, 5);
    EXPECT_EQ(c.database_id, REPLICA_DATABASE_ID);
    EXPECT_OK(repl_db_close(replica_open("a")));
    c = check("a", &said);
    EXPECT(c.position_known && c.seq == p.seq && c.checksum == p.checksum && c.closed);
    EXPECT(c.hashes_fit && c.damages == 0 && said.notes == 0);
}

TEST(check_names_each_damage)
{
    replica_become_owner();
    struct said said;
    struct repl_position p;
    EXPECT_OK(repl_db_close(make("a", &p)));
    flip("a/main.db", 99 * 1024 + 77);
    struct repl_check c = check("a", &said);
    expect_said(&said, "page 100 in ");
    EXPECT(!c.hashes_fit && !c.closed);
    flip("a/main.db", 99 * 1024 + 77);

    flip("a/hashes", 4096 + 4096 + 8);
    c = check("a", &said);
    expect_said(&said, "hashes: block 1, of pages 512 to ");
    EXPECT(!c.hashes_fit && c.closed && c.damages == 1);
    flip("a/hashes", 4096 + 4096 + 8);

    flip("a/hashes", 17);
    c = check("a", &said);
    expect_said(&said, "hashes: its head is damaged");
    EXPECT(!c.hashes_fit && c.closed);
    flip("a/hashes", 17);

    flip("a/main.db-wal", 32 + 1048 + 24 + 900);
    c = check("a", &said);
    expect_said(&said, "frame 2 in ");
    EXPECT(!c.closed && c.wal_frames == 1);
    flip("a/main.db-wal", 32 + 1048 + 24 + 900);

    flip("a/main.db-wal", 5); /* main.db has it all */
    c = check("a", &said);
    EXPECT(c.closed && c.wal_frames == 0 && c.damages == 0 && said.notes == 1);
    EXPECT(strstr(said.note, "its header is damaged") != NULL);
    flip("a/main.db-wal", 5);

    EXPECT(unlink(test_path("a/hashes")) == 0);
    c = check("a", &said);
    EXPECT(!c.hashes_fit && c.closed && c.damages == 0 && said.notes == 1);

    struct repl_check out;
    flip("a/position", 30);
    flip("a/position", 4096 + 30);
    EXPECT_ERR(ERR_CORRUPT, repl_check(test_path("a/main.db"), note, &said, &out));
    EXPECT(unlink(test_path("a/position")) == 0);
    EXPECT_ERR(ERR_CORRUPT, repl_check(test_path("a/main.db"), note, &said, &out));
    EXPECT_ERR(ERR_NOT_FOUND, repl_check(test_path("a/none.db"), note, &said, &out));
}
