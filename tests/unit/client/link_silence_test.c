/* A connection whose other end says nothing: one timeout, whatever the reason. And several
 * addresses, of which some are silent. */
#include "client/link.h"

#include "base/clock.h"
#include "base/thread.h"
#include "tests/lib/test.h"
#include "tests/unit/client/fake_names.h"
#include "tests/unit/client/fake_node.h"
#include "tests/unit/client/link_seen.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

/* SYNs are dropped: the queue of connections that nobody accepts is full. */
TEST(link_to_a_black_hole_costs_one_timeout)
{
    struct by_hand h;
    struct seen filler[4] = {0}, s = {0};
    listen_by_hand(&h, 0);
    for (int i = 0; i < 4; i++) {
        open_link(&filler[i], h.address);
        turn_ms(&filler[i], 5);
    }
    uint64_t began = clock_mono_ms(), felt = test_felt_ms();
    open_link(&s, h.address);
    expect_down(&s, ERR_TIMEOUT, "no connection in time");
    uint64_t took = clock_mono_ms() - began;
    EXPECT(took >= LINK_CONNECT_MS && test_felt_ms() - felt < LINK_CONNECT_MS + 1500);
    for (int i = 0; i < 4; i++)
        close_link(&filler[i]);
    close_link(&s);
    end_by_hand(&h);
}

TEST(link_that_nobody_greets_costs_one_timeout)
{
    uint16_t port = fake_port_of_both();
    struct fake_node *v6 =
        fake_node_start(&(struct fake_options){.host = "::1", .port = port, .silent = true});
    struct fake_node *v4 = fake_node_start(&(struct fake_options){.port = port});
    struct seen s = {0};
    char address[32];
    fake_node_pause(v4, true);
    (void)snprintf(address, sizeof address, FAKE_NAME_THRICE ":%u", fake_node_port(v6));
    uint64_t began = clock_mono_ms(), felt = test_felt_ms();
    open_link(&s, address);
    expect_down(&s, ERR_TIMEOUT, "accepted the connection but said nothing");
    uint64_t took = clock_mono_ms() - began; /* for all addresses of the name together */
    EXPECT(took >= LINK_CONNECT_MS && test_felt_ms() - felt < LINK_CONNECT_MS + 1500);
    EXPECT_EQ(fake_node_accepted(v6), 2);
    close_link(&s);
    fake_node_stop(v4);
    fake_node_stop(v6);
}

/* --- silence ---------------------------------------------------------------------------------- */

TEST(link_to_a_paused_node_costs_one_timeout)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    fake_node_pause(n, true);
    uint64_t began = clock_mono_ms(), felt = test_felt_ms();
    query(s.link, 1);
    link_set_busy(s.link, true);
    for (uint32_t i = 2; s.down == 0 && i < 1000; i++) { /* others go on asking: no sign of life */
        turn_ms(&s, 100);
        if (s.down == 0)
            query(s.link, i);
    }
    uint64_t took = clock_mono_ms() - began;
    felt = test_felt_ms() - felt;
    expect_down(&s, ERR_TIMEOUT, "no answer for 2500 ms");
    EXPECT(took >= LINK_QUIET_MS + LINK_DEAD_MS && felt < LINK_QUIET_MS + LINK_DEAD_MS + 1000);
    close_link(&s);
    fake_node_stop(n);
}

static bool answer_nothing(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    (void)ctx;
    (void)p;
    return f->type == WIRE_QUERY;
}

/* A statement may take long: PONGs tell that the node lives. At rest nothing is sent. */
TEST(link_lives_while_the_node_works)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){.answer = answer_nothing});
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    query(s.link, 1);
    link_set_busy(s.link, true);
    turn_until(&s, &s.pongs, 2);
    EXPECT_EQ(s.down, 0);
    link_set_busy(s.link, false);
    turn_ms(&s, LINK_QUIET_MS + 200);
    EXPECT_EQ(fake_node_frames(n, WIRE_PING), 2);
    close_link(&s);
    fake_node_stop(n);
}

static void ignore(struct loop_watch *w, uint32_t events)
{
    (void)w;
    (void)events;
}

/* The program did not turn the loop for long, and when it does, others are ready first, more than
 * one turn handles: what has come for the link meanwhile counts. */
TEST(link_of_a_program_that_was_away_is_not_dead)
{
    enum { OTHERS = 300 };
    struct fake_node *n = fake_node_start(&(struct fake_options){.answer = answer_nothing});
    struct loop_watch others[OTHERS] = {0};
    struct seen s = {0};
    open_link(&s, fake_node_address(n));
    turn_until(&s, &s.ready, 1);
    query(s.link, 1);
    link_set_busy(s.link, true);
    fake_node_pause(n, true);
    turn_ms(&s, LINK_QUIET_MS + 100); /* the PING is on its way */
    for (int i = 0; i < OTHERS; i++) {
        others[i].ready = ignore;
        int fd = eventfd(1, EFD_CLOEXEC);
        EXPECT(fd >= 0);
        EXPECT_OK(loop_watch_add(s.loop, &others[i], fd, EPOLLIN));
    }
    EXPECT_OK(loop_turn(s.loop, 0));
    fake_node_pause(n, false);
    fake_node_wait(n, WIRE_PING, 1);
    (void)poll(NULL, 0, LINK_DEAD_MS + 300); /* busy elsewhere */
    turn_until(&s, &s.pongs, 1);
    EXPECT_EQ(s.down, 0);
    for (int i = 0; i < OTHERS; i++) {
        int fd = others[i].fd;
        loop_watch_remove(s.loop, &others[i]);
        (void)close(fd);
    }
    close_link(&s);
    fake_node_stop(n);
}

struct slow_reader {
    int fd;
    uint64_t until_ms, got;
};

#define BYTES_A_MS 1300u

/* Reads little by little, as a slow network delivers; no frame is complete, so no PONG is due. */
static void *read_slowly(void *arg)
{
    struct slow_reader *r = arg;
    static char bytes[65536];
    uint64_t began = clock_mono_ms();
    for (uint64_t now = began; now < r->until_ms; now = clock_mono_ms()) {
        if (r->got > (now - began) * BYTES_A_MS) { /* a loaded machine makes it no slower */
            (void)poll(NULL, 0, 50);
            continue;
        }
        ssize_t n = recv(r->fd, bytes, sizeof bytes, 0);
        if (n <= 0)
            break;
        r->got += (uint64_t)n;
    }
    return NULL;
}

TEST(link_over_a_slow_network_lives)
{
    struct by_hand h;
    struct seen s = {0};
    struct buf b;
    struct wire_welcome w = {.version = WIRE_VERSION, .server = "fake", .server_len = 4};
    pthread_t t;
    const uint64_t lasts_ms = LINK_QUIET_MS + LINK_DEAD_MS + 500;
    int little = 200000; /* holds the kernel, of 30 MB */
    listen_by_hand(&h, 5);
    EXPECT(setsockopt(h.listener, SOL_SOCKET, SO_RCVBUF, &little, sizeof little) == 0);
    open_link(&s, h.address);
    EXPECT_OK(loop_turn(s.loop, 100));
    h.fd = accept(h.listener, NULL, NULL);
    EXPECT(h.fd >= 0);
    buf_init(&b, 4096);
    wire_put_welcome(&b, &w);
    EXPECT(send(h.fd, b.data, b.len, 0) == (ssize_t)b.len);
    buf_fini(&b);
    turn_until(&s, &s.ready, 1);
    struct slow_reader r = {.fd = h.fd, .until_ms = clock_mono_ms() + lasts_ms};
    EXPECT_OK(thread_start(&t, "slow-reader", read_slowly, &r));
    for (uint32_t i = 1; i <= 30; i++)
        put_query(s.link, i, MIB(1));
    EXPECT_OK(link_send(s.link));
    link_set_busy(s.link, true);
    turn_ms(&s, lasts_ms - 200);
    EXPECT_EQ(s.down, 0);
    EXPECT(link_sent_total(s.link) < link_put_total(s.link)); /* it was slow indeed */
    EXPECT(pthread_join(t, NULL) == 0);
    EXPECT(r.got > MIB(1));
    expect_down(&s, ERR_TIMEOUT, "no answer"); /* and now nobody reads */
    close_link(&s);
    end_by_hand(&h);
}

/* --- several addresses ------------------------------------------------------------------------ */

TEST(link_tries_all_addresses_of_a_name)
{
    static const char *const hosts[] = {"127.0.0.1", "::1"};
    for (int i = 0; i < 2; i++) { /* one of the two answers; the other refuses */
        struct fake_node *n =
            fake_node_start(&(struct fake_options){.host = hosts[i], .port = fake_port_of_both()});
        struct seen s = {0};
        char address[32];
        (void)snprintf(address, sizeof address, FAKE_NAME_BOTH ":%u", fake_node_port(n));
        open_link(&s, address);
        turn_until(&s, &s.ready, 1);
        close_link(&s);
        fake_node_kill(n);
        open_link(&s, address);
        expect_down(&s, ERR_CLOSED, "refused");
        close_link(&s);
        fake_node_stop(n);
    }
}

TEST(link_leaves_an_address_that_does_not_answer)
{
    struct seen s = {0};
    char address[32];
    uint16_t port = fake_port_of_both();
    struct fake_node *deaf =
        fake_node_start(&(struct fake_options){.host = "::1", .port = port, .silent = true});
    struct fake_node *n = fake_node_start(&(struct fake_options){.port = port, .node_id = 9});
    (void)snprintf(address, sizeof address, FAKE_NAME_THRICE ":%u", fake_node_port(n));
    uint64_t began = clock_mono_ms(), felt = test_felt_ms();
    open_link(&s, address);
    turn_until(&s, &s.ready, 1);
    uint64_t took = clock_mono_ms() - began; /* the share of one of three */
    EXPECT_EQ(s.node_id, 9);
    EXPECT(took + 50 > LINK_CONNECT_MS / 3 && test_felt_ms() - felt < LINK_CONNECT_MS / 2);
    EXPECT_EQ(fake_node_accepted(deaf), 1);
    close_link(&s);
    fake_node_stop(n);
    fake_node_stop(deaf);
}

TEST(link_whose_name_is_not_looked_up_costs_one_timeout)
{
    struct seen s = {0};
    uint64_t began = clock_mono_ms(), felt = test_felt_ms();
    open_link(&s, FAKE_NAME_HANGS);
    expect_down(&s, ERR_TIMEOUT, "looking up the name");
    uint64_t took = clock_mono_ms() - began;
    EXPECT(took >= LINK_CONNECT_MS && test_felt_ms() - felt < LINK_CONNECT_MS + 1500);
    close_link(&s);
    let_names_end();
}
