/* Room: tests. GET /dump: how long it may take, and how many there may be. What it writes:
 * tests/cluster/test_hrana_v1.py. */
#include "node/channel.h"
#include "node/http/hrana_wish.h"
#include "tests/lib/asked.h"
#include "tests/lib/test.h"
#include "tests/unit/http/door_stage.h"

#include <stdlib.h>
#include <unistd.h>

/* The dump that waits longest ends before it began. */
static void end_dump(struct door_stage *d, int fd)
{
    thread_expect_loop();
    asked_error(door_asked(d, "BEGIN READONLY"), ERR_BUSY, 0, "not now", false);
    free(door_answer(d, fd, 503));
    (void)close(fd);
}

static int ask_dump(struct door_stage *d, const char *query)
{
    int fd = client_dial(&d->http);
    client_say_text(&d->http, fd, "GET /dump");
    client_say_text(&d->http, fd, query);
    client_say_text(&d->http, fd, " HTTP/1.1\r\nHost: localhost\r\n\r\n");
    return fd;
}

/* Its client takes it as fast as it can: neither the time of a statement nor a session's patience
 * is the measure of that. */
TEST(dump_takes_as_long_as_its_client)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fd = ask_dump(&d, "");
    struct request *r = door_asked(&d, "BEGIN READONLY");
    EXPECT_EQ(r->query.timeout_ms, HRANA_WISH_MS_MAX);
    EXPECT(r->session->channel->judged && r->session->snapshot_lasts);
    end_dump(&d, fd);
    fd = ask_dump(&d, "?timeout=5000");
    EXPECT_EQ(door_asked(&d, "BEGIN READONLY")->query.timeout_ms, 5000);
    end_dump(&d, fd);
    door_stage_close(&d);
}

/* So that slow ones leave read transactions to others. */
TEST(dumps_have_a_share_of_read_transactions)
{
    struct door_stage d;
    door_stage_open(&d);
    thread_expect_loop();
    int fds[3];
    d.config.read_transactions = 12;
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 3; i++)
            fds[i] = ask_dump(&d, "");
        stage_turn(&d.http);
        EXPECT_EQ(d.node.n_dumps, 3);
        int more = ask_dump(&d, "");
        char *a = door_answer(&d, more, 503);
        char *code = door_find(a, "code");
        EXPECT(strcmp(code, "BUSY") == 0);
        free(code);
        free(a);
        (void)close(more);
        for (int i = 0; i < 3; i++)
            end_dump(&d, fds[i]);
        EXPECT_EQ(d.node.n_dumps, 0);
    }
    d.config.read_transactions = 1; /* one there may always be */
    fds[0] = ask_dump(&d, "");
    end_dump(&d, fds[0]);
    door_stage_close(&d);
}
