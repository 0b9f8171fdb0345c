/* One connection to one node: greeting, frames, and every way to end it but silence. */
#include "client/link.h"

#include "base/clock.h"
#include "base/rng.h"
#include "tests/lib/fail_alloc.h"
#include "tests/lib/test.h"
#include "tests/unit/client/fake_names.h"
#include "tests/unit/client/fake_node.h"
#include "tests/unit/client/link_seen.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- as it should be -------------------------------------------------------------------------- */

TEST(link_is_greeted_asks_and_hears)
{
    struct fake_node *n = fake_node_start(
        &(struct fake_options){.node_id = 3, .cluster_id = 77, .seq = 12, .leader_id = 2});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    EXPECT_EQ(s.ready, 0); /* events come from loop_turn */
    EXPECT_EQ(link_rtt_us(s.link), 0);
    EXPECT(strcmp(link_address(s.link), fake_node_address(n)) == 0);
    turn_until(&s, &s.ready, 1);
    EXPECT(s.node_id == 3 && s.cluster_id == 77 && s.seq == 12);
    EXPECT(strcmp(s.server, "fake") == 0);
    uint64_t rtt = link_rtt_us(s.link);
    EXPECT(rtt > 0 && rtt < 5000000);
    for (uint32_t i = 1; i <= 100; i++)
        query(s.link, i);
    EXPECT(link_sent_total(s.link) < link_put_total(s.link));
    turn_until(&s, &s.done, 100);
    EXPECT_EQ(link_sent_total(s.link), link_put_total(s.link));
    EXPECT_EQ(s.last_done_seq, 12);
    fake_node_set_seq(n, 13);
    link_ping(s.link);
    link_ping(s.link); /* one is on its way */
    turn_until(&s, &s.pongs, 1);
    EXPECT_EQ(s.pong_seq, 13);
    link_ping(s.link);
    turn_until(&s, &s.pongs, 2);
    EXPECT_EQ(fake_node_frames(n, WIRE_PING), 2);
    EXPECT_EQ(fake_node_frames(n, WIRE_HELLO), 1);
    EXPECT_EQ(s.down, 0);
    close_link(&s);
    fake_node_stop(n);
}

/* A foreign loop needs no more than the descriptor. */
TEST(link_is_driven_by_poll_alone)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    struct pollfd p = {.fd = loop_fd(s.loop), .events = POLLIN};
    for (uint32_t sent = 0; s.done < 20;) {
        EXPECT(poll(&p, 1, 5000) == 1);
        EXPECT_OK(loop_turn(s.loop, 0));
        if (s.ready == 1 && sent == s.done)
            query(s.link, ++sent);
    }
    close_link(&s);
    fake_node_stop(n);
}

static bool answer_rows(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    const uint32_t *rows = ctx; /* in one frame, of 9 bytes each */
    if (f->type != WIRE_QUERY)
        return false;
    fake_integers(p, f->id, 1, *rows);
    wire_put_done(fake_out(p), f->id, &(struct wire_done){.seq = 1});
    return true;
}

TEST(link_carries_large_frames_both_ways)
{
    uint32_t rows = 1000000;
    struct fake_node *n =
        fake_node_start(&(struct fake_options){.answer = answer_rows, .ctx = &rows});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    uint64_t before = link_put_total(s.link);
    for (uint32_t i = 1; i <= 5; i++) {
        put_query(s.link, i, MIB(1));
        EXPECT_OK(link_send(s.link));
    }
    EXPECT(link_put_total(s.link) - before > 5 * MIB(1));
    turn_until(&s, &s.done, 5);
    EXPECT(s.bytes > 5 * 9000000);
    EXPECT_EQ(link_sent_total(s.link), link_put_total(s.link));
    EXPECT_EQ(s.down, 0);
    EXPECT(link_out(s.link)->cap <= KIB(512)); /* given back */
    close_link(&s);
    fake_node_stop(n);
}

TEST(link_takes_bytes_one_at_a_time)
{
    struct by_hand h;
    struct seen s = {0};
    struct buf b;
    struct wire_welcome w = {.version = WIRE_VERSION, .server = "fake", .server_len = 4};
    listen_by_hand(&h, 5);
    open_link(&s, h.address);
    EXPECT_OK(loop_turn(s.loop, 100));
    h.fd = accept(h.listener, NULL, NULL);
    EXPECT(h.fd >= 0);
    buf_init(&b, 4096);
    wire_put_welcome(&b, &w);
    for (uint32_t i = 1; i <= 5; i++)
        wire_put_done(&b, (struct wire_id){1, i}, &(struct wire_done){.seq = i});
    EXPECT_OK(buf_status(&b));
    for (size_t i = 0; i < b.len; i++) {
        EXPECT_EQ(s.done, i <= 70 ? 0 : s.done); /* 70: WELCOME and a DONE are longer */
        EXPECT(send(h.fd, b.data + i, 1, 0) == 1);
        EXPECT_OK(loop_turn(s.loop, 20));
    }
    turn_until(&s, &s.done, 5);
    EXPECT(s.ready == 1 && s.last_done_seq == 5);
    buf_fini(&b);
    close_link(&s);
    end_by_hand(&h);
}

TEST(link_knows_what_is_kept_there)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    EXPECT(!link_keeps(s.link, 5));
    EXPECT(link_keep(s.link, 5, 100));
    EXPECT(link_keeps(s.link, 5));
    link_forget(s.link, 4);
    link_forget(s.link, 5);
    EXPECT(!link_keeps(s.link, 5));
    while (fake_node_frames(n, WIRE_FORGET) == 0)
        EXPECT_OK(loop_turn(s.loop, 10));
    link_ping(s.link);
    turn_until(&s, &s.pongs, 1);
    EXPECT_EQ(fake_node_frames(n, WIRE_FORGET), 1);
    close_link(&s);
    fake_node_stop(n);
}

/* --- freed and failed from its events --------------------------------------------------------- */

TEST(link_is_freed_from_each_of_its_events)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    for (int at = AT_READY; at <= AT_DOWN; at++) {
        struct seen s = {.free_it = (unsigned)at};
        open_link(&s, fake_node_address(n));
        while (s.link != NULL && s.ready == 0)
            EXPECT_OK(loop_turn(s.loop, 100));
        if (at == AT_FRAME) {
            query(s.link, 1);
            query(s.link, 2); /* its answer is not handed on */
            while (s.link != NULL)
                EXPECT_OK(loop_turn(s.loop, 100));
            EXPECT_EQ(s.frames, 1);
        } else if (at == AT_DOWN) {
            fake_node_drop(n, false);
            turn_until(&s, &s.down, 1);
        }
        EXPECT(s.link == NULL);
        EXPECT_EQ(s.down, at == AT_DOWN);
        turn_ms(&s, 5);
        close_link(&s);
    }
    fake_node_stop(n);
}

TEST(link_is_failed_by_its_owner)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    for (int at = NEVER; at <= AT_FRAME; at++) {
        struct seen s = {.fail_it = (unsigned)at};
        open_link(&s, fake_node_address(n));
        if (at == NEVER) { /* while it connects */
            link_fail(s.link, ERR_PROTOCOL, "the test does not like it");
            EXPECT_EQ(s.down, 0);
        } else {
            turn_until(&s, &s.ready, 1);
            if (at == AT_FRAME) {
                query(s.link, 1);
                query(s.link, 2);
            }
        }
        expect_down(&s, ERR_PROTOCOL, "does not like it");
        EXPECT_EQ(s.frames, at == AT_FRAME);
        close_link(&s);
    }
    fake_node_stop(n);
}

TEST(link_is_freed_while_it_connects)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){.silent = true});
    for (int turns = 0; turns < 6; turns++) {
        struct seen s = {0};
        open_link(&s, turns > 3 ? FAKE_NAME_HANGS : fake_node_address(n));
        for (int i = 0; i < turns % 4; i++)
            EXPECT_OK(loop_turn(s.loop, 0));
        close_link(&s);
    }
    let_names_end();
    fake_node_stop(n);
}

/* --- somebody else is there ------------------------------------------------------------------- */

static void expect_refused(const struct fake_options *o, enum err code, const char *part)
{
    struct fake_node *n = fake_node_start(o);
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    expect_down(&s, code, part);
    EXPECT(strstr(s.why, fake_node_address(n)) != NULL);
    EXPECT_EQ(s.ready, 0);
    close_link(&s);
    fake_node_stop(n);
}

TEST(link_meets_servers_of_another_kind)
{
    static const struct {
        const char *raw;
        size_t len;
        const char *part;
    } strangers[] = {
        {"HTTP/1.1 400 Bad Request\r\n\r\n", 0,
         "no Lectern server (its first bytes look like HTTP)"},
        {"SSH-2.0-OpenSSH_9.2p1\r\n", 0, "look like SSH"},
        {"220 mail.example.org ESMTP\r\n", 0, "look like a mail or FTP server"},
        {"\x15\x03\x01\x00\x02\x02\x46", 7, "look like TLS"},
        {"hello", 0, "its first bytes: hello"},
        {"\xff\xff\xff\xff", 4, "its first bytes: ff ff ff ff"},
        {"\x03\x00\x00\x00\x42", 5, "its first bytes: 03 00 00 00 42"}, /* no room for its head */
        {"\x09\x00\x00\x00\x42\0\0\0\0\0\0\0\0", 13, "no Lectern server"},         /* no WELCOME */
        {"\x0b\x00\x00\x00\x41\0\0\0\0\0\0\0\0\x02\x00", 15, "no Lectern server"}, /* too short */
    };
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        expect_refused(&(struct fake_options){.raw = strangers[i].raw, .raw_len = strangers[i].len},
                       ERR_PROTOCOL, strangers[i].part);
    }
}

/* Says nothing before it has a line, and the end of a head. */
TEST(link_meets_a_server_that_reads_lines)
{
    uint64_t begun = test_felt_ms();
    expect_refused(&(struct fake_options){.raw = "HTTP/1.0 400 Bad\r\n", .after = "\r\n\r\n"},
                   ERR_PROTOCOL, "look like HTTP");
    EXPECT(test_felt_ms() - begun < LINK_CONNECT_MS / 2);
}

TEST(link_meets_another_version)
{
    expect_refused(&(struct fake_options){.version = 7}, ERR_VERSION,
                   "speaks version 7 of the protocol, this library speaks 2");
    expect_refused(&(struct fake_options){.refuse = ERR_VERSION}, ERR_VERSION, "no entry today");
    /* An ERROR with a head of nine bytes, as version 1 has it. */
    expect_refused(&(struct fake_options){.raw =
                                              "\x15\0\0\0\x45\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0\0\0"
                                              "\0\0\0",
                                          .raw_len = 25},
                   ERR_VERSION, "speaks another version of the protocol");
}

TEST(link_hears_why_it_is_refused)
{
    expect_refused(&(struct fake_options){.refuse = ERR_FORBIDDEN}, ERR_FORBIDDEN,
                   "no entry today");
    expect_refused(&(struct fake_options){.refuse = ERR_PROTOCOL}, ERR_PROTOCOL, "no entry today");
    expect_refused(&(struct fake_options){.refuse = ERR_BUSY}, ERR_BUSY, "no entry today");
}

/* After the greeting: each of these ends the connection, and nothing else. */
TEST(link_refuses_garbage)
{
    static const struct {
        const char *raw;
        size_t len;
    } garbage[] = {
        {"\xff\xff\xff\xff\xff", 5},                  /* too long */
        {"\x03\x00\x00\x00", 4},                      /* no room for its head */
        {"\x10\x00\x00\x00\xfe", 5},                  /* of an unknown type */
        {"\x09\x00\x00\x00\x02\1\0\0\0\1\0\0\0", 13}, /* a QUERY from a server */
        {"\x09\x00\x00\x00\x41\0\0\0\0\0\0\0\0", 13}, /* WELCOME again */
        {"\x09\x00\x00\x00\x48\0\0\0\0\0\0\0\0", 13}, /* an empty PONG */
        {"\x09\x00\x00\x00\x45\0\0\0\0\0\0\0\0", 13}, /* an empty ERROR */
    };
    for (size_t i = 0; i < sizeof garbage / sizeof garbage[0]; i++) {
        struct fake_node *n = fake_node_start(&(struct fake_options){0});
        struct seen s = {0};
        open_link(&s, fake_node_address(n));
        turn_until(&s, &s.ready, 1);
        fake_node_send(n, garbage[i].raw, garbage[i].len);
        expect_down(&s, ERR_PROTOCOL, "broke the protocol");
        EXPECT_EQ(s.frames, 0);
        close_link(&s);
        fake_node_stop(n);
    }
}

/* A conversation with some bytes changed, in random pieces: it ends, or goes on; nothing else. */
static void hear_noise(struct rng *r, unsigned *survived)
{
    struct by_hand h;
    struct seen s = {0};
    struct buf b;
    struct wire_welcome w = {.version = WIRE_VERSION, .server = "fake", .server_len = 4};
    buf_init(&b, 4096);
    wire_put_welcome(&b, &w);
    const size_t greeting = b.len;
    for (uint32_t i = 1; i <= 4; i++) {
        wire_put_pong(&b, i, &(struct wire_pong){.seq = i});
        wire_put_done(&b, (struct wire_id){1, i}, &(struct wire_done){.seq = i});
    }
    for (uint64_t i = rng_below(r, 3); i > 0; i--)
        b.data[rng_once_in(r, 4) ? rng_below(r, greeting)
                                 : greeting + rng_below(r, b.len - greeting)] = (uint8_t)rng_u64(r);
    listen_by_hand(&h, 5);
    open_link(&s, h.address);
    EXPECT_OK(loop_turn(s.loop, 100));
    h.fd = accept(h.listener, NULL, NULL);
    EXPECT(h.fd >= 0);
    for (size_t at = 0; at < b.len && s.down == 0;) {
        size_t n = 1 + rng_below(r, b.len - at);
        EXPECT(send(h.fd, b.data + at, n, MSG_NOSIGNAL) == (ssize_t)n);
        EXPECT_OK(loop_turn(s.loop, 20));
        at += n;
    }
    *survived += s.down == 0;
    (void)close(h.fd); /* what is half there is given up */
    h.fd = -1;
    turn_until(&s, &s.down, 1);
    EXPECT(s.why[0] != '\0');
    buf_fini(&b);
    close_link(&s);
    end_by_hand(&h);
}

TEST(link_hears_noise)
{
    struct rng r = {test_seed()};
    unsigned survived = 0;
    uint64_t rounds = test_rounds(1000);
    for (uint64_t i = 0; i < rounds; i++)
        hear_noise(&r, &survived);
    EXPECT(survived > 0 && survived < rounds);
}

/* --- nobody is there -------------------------------------------------------------------------- */

TEST(link_is_refused)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct seen s = {0};
    fake_node_kill(n);
    open_link(&s, fake_node_address(n));
    EXPECT_EQ(s.down, 0);
    expect_down(&s, ERR_CLOSED, "cannot connect: Connection refused");
    close_link(&s);
    fake_node_stop(n);
}

/* Nor does another program get its port meanwhile, which it could not come back to. */
TEST(link_to_a_node_that_died_and_lives_again)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(fake_node_port(n))};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fake_node_kill(n);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) != 0 && errno == EADDRINUSE);
    EXPECT_EQ(close(fd), 0);
    fake_node_revive(n);
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    close_link(&s);
    fake_node_stop(n);
}

TEST(link_wants_an_address)
{
    static const char *const wrong[] = {"",    "host:",   "a:b",      "[::1", "[::1]x", "[]:1",
                                        "h:0", "h:65536", "h:123456", "h:-1", "h: 1"};
    struct seen s = {0};
    for (size_t i = 1; i < sizeof wrong / sizeof wrong[0]; i++) {
        EXPECT_ERR(ERR_CONFIG, try_to_open(&s, wrong[i]));
        EXPECT(s.link == NULL);
    }
    open_link(&s, FAKE_NAME_NONE ":7701");
    turn_until(&s, &s.down, 1);
    EXPECT(s.code == ERR_NOT_FOUND && strstr(s.why, FAKE_NAME_NONE) != NULL);
    close_link(&s);
}

TEST(link_without_a_descriptor_is_down)
{
    struct rlimit before, none;
    struct seen s = {0};
    open_link(&s, "127.0.0.1:1");
    EXPECT(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    EXPECT(setrlimit(RLIMIT_NOFILE, &none) == 0);
    turn_until(&s, &s.down, 1);
    EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0); /* a sanitizer opens files at the end */
    expect_down(&s, ERR_CLOSED, "Too many open files");
    close_link(&s);
}

/* --- it ends ---------------------------------------------------------------------------------- */

TEST(link_is_closed_or_reset_by_the_node)
{
    for (int reset = 0; reset < 2; reset++) {
        struct fake_node *n = fake_node_start(&(struct fake_options){0});
        struct seen s = {0};
        open_link(&s, fake_node_address(n));
        turn_until(&s, &s.ready, 1);
        fake_node_drop(n, reset);
        expect_down(&s, ERR_CLOSED, reset ? "the connection broke" : "closed the connection");
        close_link(&s);
        fake_node_stop(n);
    }
}

static bool refuse_and_close(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    (void)ctx;
    if (f->type != WIRE_QUERY)
        return false;
    fake_error(p, (struct wire_id){0}, ERR_STOPPED, "this node\r\n\x1b[2J stops");
    fake_peer_close(p);
    return true;
}

/* The sentence is heard though sending fails: the other end is closed with bytes unread. */
TEST(link_hears_the_last_words)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){.answer = refuse_and_close});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    query(s.link, 1);
    expect_down(&s, ERR_STOPPED, "this node???[2J stops");
    close_link(&s);
    fake_node_stop(n);
}

TEST(link_hears_a_reset_while_it_sends)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    fake_node_drop(n, true);
    struct pollfd p = {.fd = loop_fd(s.loop), .events = POLLIN};
    EXPECT(poll(&p, 1, 5000) == 1); /* the reset has come */
    query(s.link, 1);
    expect_down(&s, ERR_CLOSED, fake_node_address(n));
    close_link(&s);
    fake_node_stop(n);
}

/* --- no room, no memory ----------------------------------------------------------------------- */

TEST(link_refuses_what_does_not_fit_and_goes_on)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    buf_put(link_out(s.link), "half a frame", 12); /* must not leave, either */
    put_query(s.link, 1, WIRE_FRAME_MAX);
    EXPECT_ERR(ERR_TOO_BIG, link_send(s.link));
    query(s.link, 1);
    turn_until(&s, &s.done, 1);
    /* A node that does not read: after four frames it is too much. */
    fake_node_pause(n, true);
    enum err e = ERR_OK;
    unsigned waiting = 0;
    for (; e == ERR_OK && waiting < 300; waiting++) {
        put_query(s.link, 2 + waiting, MIB(1));
        e = link_send(s.link);
    }
    EXPECT_ERR(ERR_BUSY, e);
    EXPECT_EQ(waiting, 256);
    fake_node_pause(n, false);
    turn_until(&s, &s.done, waiting); /* the refused one is not among them */
    query(s.link, 1000);
    turn_until(&s, &s.done, waiting + 1);
    EXPECT_EQ(s.down, 0);
    EXPECT_EQ(fake_node_frames(n, WIRE_QUERY), waiting + 1);
    close_link(&s);
    fake_node_stop(n);
}

/* Connects, asks, keeps, pings, closes. False: memory failed, and it was told so. */
static bool whole_life(const char *address)
{
    struct seen s = {0};
    enum err e = try_to_open(&s, address);
    for (int i = 0; e == ERR_OK && s.ready + s.down == 0 && i < 100; i++)
        EXPECT_OK(loop_turn(s.loop, 100));
    if (e == ERR_OK && s.ready == 1) {
        struct wire_query q = {0};
        size_t begun = wire_begin_query(link_out(s.link), WIRE_QUERY, (struct wire_id){1, 1}, &q);
        size_t statement = wire_begin_statement(link_out(s.link), 0, "SELECT 1", 8);
        wire_end_statement(link_out(s.link), statement, 0);
        if (buf_status(link_out(s.link)) == ERR_OK)
            wire_end_query(link_out(s.link), begun, 1);
        e = link_send(s.link);
        if (link_keep(s.link, 1, 8))
            link_forget(s.link, 1);
        link_ping(s.link);
    }
    for (int i = 0; e == ERR_OK && s.done + s.down == 0 && i < 100; i++)
        EXPECT_OK(loop_turn(s.loop, 100));
    if (e == ERR_OK && s.down != 0)
        e = s.code;
    EXPECT(e == ERR_NOMEM || (e == ERR_OK && s.done == 1));
    close_link(&s);
    return e == ERR_OK;
}

TEST(link_with_the_nth_allocation_failing)
{
    uint32_t rows = 30000; /* so that the input grows */
    struct fake_node *n =
        fake_node_start(&(struct fake_options){.answer = answer_rows, .ctx = &rows});
    char by_name[32];
    uint64_t tries[2] = {0}, told[2] = {0};
    (void)snprintf(by_name, sizeof by_name, FAKE_NAME_BOTH ":%u", fake_node_port(n));
    if (!fail_alloc_works())
        (void)printf("no allocation can fail here: not tested\n");
    for (int all = 0; all < 2; all++) {
        const char *address = all ? by_name : fake_node_address(n);
        for (uint64_t i = 1;; i++) {
            if (all)
                fail_alloc_from(i);
            else
                fail_alloc_at(i);
            bool lived = whole_life(address);
            bool failed = fail_alloc_end();
            EXPECT(lived || failed);
            tries[all]++;
            told[all] += !lived;
            if (!failed)
                break;
        }
    }
    EXPECT(!fail_alloc_works() || (told[0] >= 6 && tries[0] > 8 && told[1] >= 6));
    fake_node_stop(n);
}
