/* Room: tests. The lane on a bad disk. One that does not take the temporary file of a large
 * transaction: the lane says so and stops, and runs nothing twice (a directory in the file's place
 * makes the error). One that damages pages: the client hears which. */
#include "base/file.h"
#include "tests/lib/test.h"
#include "tests/unit/node/stage.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LARGE "INSERT INTO t(v) VALUES (randomblob(20000000))"

static void open_leading(struct stage *s)
{
    stage_open(s, test_dir());
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    EXPECT_EQ(mkdir(test_path("main.db.overlay"), 0700), 0);
    stage_lead(s, 2);
    stage_expect(s, 1, ERR_OK, "CREATE TABLE t(id INTEGER PRIMARY KEY, v)");
    stage_expect(s, 1, ERR_OK, "INSERT INTO t(v) VALUES (1)");
}

static void expect_answer(struct stage *s, uint32_t id, enum err code, const char *words)
{
    thread_expect_loop();
    struct request *r = stage_take(s, id);
    EXPECT(r != NULL);
    EXPECT_EQ(r->answer.code, code);
    EXPECT(strstr(r->answer.message, words) != NULL);
    EXPECT(!r->answer.in_transaction);
    request_free(r);
}

/* The loop hears of it with the answer, or a moment after. */
static void expect_failed(struct stage *s) ON_LOOP
{
    for (int i = 0; i < 500 && !s->failed; i++)
        stage_step(s, 10);
    EXPECT(s->failed);
    EXPECT_EQ(stage_number(s, "SELECT count(*) FROM t"), 1);
}

TEST(lane_stops_when_its_temporary_file_cannot_be_made)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 9, ERR_OK, "BEGIN IMMEDIATE");
    stage_expect(&s, 9, ERR_OK, "INSERT INTO t(v) VALUES (0)");
    stage_send(&s, 1, 1, "INSERT INTO t(v) VALUES (3)"); /* these three share a transaction */
    stage_send(&s, 2, 2, LARGE);
    stage_send(&s, 3, 3, "INSERT INTO t(v) VALUES (4)");
    stage_expect(&s, 9, ERR_OK, "ROLLBACK");
    stage_wait(&s, 3);
    expect_answer(&s, 2, ERR_IO, "main.db.overlay: Is a directory");
    expect_answer(&s, 1, ERR_NOT_LEADER, "the leader changed before this was run");
    expect_answer(&s, 3, ERR_NOT_LEADER, "the leader changed before this was run");
    expect_failed(&s);
    stage_expect(&s, 1, ERR_STOPPED, "INSERT INTO t(v) VALUES (5)");
    stage_close(&s);
}

TEST(lane_a_transaction_hears_that_the_temporary_file_cannot_be_made)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 9, ERR_OK, "BEGIN");
    stage_expect(&s, 9, ERR_OK, "INSERT INTO t(v) VALUES (3)");
    stage_send(&s, 1, 1, "BEGIN IMMEDIATE"); /* waits for the other one */
    stage_send(&s, 9, 2, LARGE);
    stage_wait(&s, 2);
    expect_answer(&s, 2, ERR_IO, "main.db.overlay: Is a directory");
    expect_answer(&s, 1, ERR_NOT_LEADER, "the leader changed");
    expect_failed(&s);
    stage_close(&s);
}

TEST(lane_a_statement_that_meets_a_damaged_page_says_which)
{
    struct stage s;
    open_leading(&s);
    thread_expect_loop();
    s.config.txn_idle_ms = 60000;
    stage_expect(&s, 1, ERR_OK, "INSERT INTO t(v) VALUES (randomblob(100000))");
    stage_expect(&s, 9, ERR_OK, "BEGIN"); /* a connection of its own: the pages are in no cache */
    int fd = open(test_path("main.db-wal"), O_RDWR | O_CLOEXEC);
    off_t size = lseek(fd, 0, SEEK_END);
    for (off_t page = 32 + 24; page < size; page += 24 + 4096) /* behind the head of each frame */
        EXPECT_EQ(pwrite(fd, "damage", 6, page + 2000), 6);
    (void)close(fd);
    stage_send(&s, 10, 2, "BEGIN"); /* another connection: reads page 1 */
    stage_send(&s, 9, 1, "SELECT length(v) FROM t");
    stage_wait(&s, 2);
    expect_answer(&s, 1, ERR_CORRUPT, "main.db-wal, frame ");
    expect_answer(&s, 2, ERR_CORRUPT, "page 1 in ");
    stage_close(&s);
}
