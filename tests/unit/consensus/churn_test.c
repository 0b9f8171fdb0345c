/* Room: tests. Members come and go at run time: in every state of their connections, and from
 * inside every callback of the transport. */
#include "base/rng.h"
#include "tests/unit/consensus/transport_rig.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static void turns(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        (void)uv_run(&net.loop, UV_RUN_NOWAIT);
}

static unsigned port_of(unsigned i) ON_LOOP
{
    return cns_transport_port(net.nodes[i].t);
}

/* --- every state ------------------------------------------------------------------------------ */

/* What is done to a peer in some state: removed, moved elsewhere, or all is closed. */
enum deed { REMOVE, MOVE, MOVE_AND_REMOVE, CLOSE, DEEDS };

static void do_to_peer(struct node *a, enum deed deed) ON_LOOP
{
    unsigned ups = a->ups, downs = a->downs;
    if (deed == MOVE || deed == MOVE_AND_REMOVE)
        EXPECT_OK(cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    if (deed == REMOVE || deed == MOVE_AND_REMOVE) {
        cns_transport_remove_peer(a->t, 2);
        EXPECT_EQ(a->downs, ups); /* told at once, and once */
        EXPECT_EQ(cns_transport_queued(a->t, 2), UINT64_MAX);
    }
    if (deed == CLOSE) {
        net_stop(0);
        EXPECT_EQ(a->downs, downs); /* nothing is told of a closed transport */
        return;
    }
    net_append(a, 2, 1, 1, 10);
    turns(20);
    EXPECT(a->ups == ups && a->downs == ups);
}

TEST(churn_a_peer_that_waits_resolves_or_connects)
{
    net_open();
    thread_expect_loop();
    for (enum deed deed = REMOVE; deed < DEEDS; deed++)
        for (unsigned n = 0; n < 12; n++) { /* N turns of the loop: all of these states */
            struct node *a = net_listen(0, "127.0.0.1:0");
            EXPECT_OK(cns_transport_set_peer(a->t, 2, n % 2 == 0 ? "localhost:1" : "127.0.0.1:1"));
            turns(n);
            do_to_peer(a, deed);
            if (deed != CLOSE)
                net_stop(0);
        }
    net_close();
}

/* The backlog of a listener that never accepts is full: connecting to it takes for ever. */
TEST(churn_a_peer_whose_host_does_not_answer)
{
    int full[8];
    net_open();
    thread_expect_loop();
    struct sockaddr_in addr = {.sin_family = AF_INET};
    socklen_t len = sizeof addr;
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(listener >= 0 && bind(listener, (struct sockaddr *)&addr, sizeof addr) == 0);
    EXPECT(listen(listener, 0) == 0);
    EXPECT(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
    for (unsigned i = 0; i < 8; i++) {
        full[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        int rc = connect(full[i], (struct sockaddr *)&addr, sizeof addr);
        EXPECT(rc == 0 || errno == EINPROGRESS);
    }
    for (enum deed deed = REMOVE; deed < DEEDS; deed++) {
        struct node *a = net_listen(0, "127.0.0.1:0");
        EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(ntohs(addr.sin_port))));
        for (unsigned i = 0; i < 10; i++)
            (void)uv_run(&net.loop, UV_RUN_ONCE);
        do_to_peer(a, deed);
        if (deed != CLOSE)
            net_stop(0);
    }
    for (unsigned i = 0; i < 8; i++)
        (void)close(full[i]);
    (void)close(listener);
    net_close();
}

TEST(churn_a_peer_that_is_greeted)
{
    unsigned port;
    uint8_t hello[PEER_HELLO_BYTES], byte;
    net_open();
    thread_expect_loop();
    int listener = fake_listen(&port);
    for (enum deed deed = REMOVE; deed < DEEDS; deed++) {
        struct node *a = net_listen(0, "127.0.0.1:0");
        EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(port)));
        int fd = -1;
        WAIT_FOR((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
        EXPECT_EQ(raw_receive(fd, hello, sizeof hello), sizeof hello);
        do_to_peer(a, deed);
        EXPECT_EQ(raw_receive(fd, &byte, 1), 0);
        (void)close(fd);
        if (deed != CLOSE)
            net_stop(0);
    }
    (void)close(listener);
    net_close();
}

/* Its answer and its greeting are there, and wait for the disk. */
TEST(churn_a_peer_that_waits_to_be_remembered)
{
    unsigned port;
    uint8_t hello[PEER_HELLO_BYTES], byte;
    struct peer_answer welcome = fake_welcome();
    struct peer_hello h = raw_hello(2, 1);
    net_open();
    thread_expect_loop();
    net.nodes[0].dir = test_dir();
    EXPECT(mkdir(test_path("peers.new"), 0700) == 0); /* in the way of the file */
    int listener = fake_listen(&port);
    peer_hello_encode(hello, &h);
    for (enum deed deed = REMOVE; deed < DEEDS; deed++) {
        struct node *a = net_listen(0, "127.0.0.1:0");
        EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(port)));
        int out = fake_accept(listener, &welcome), in = raw_connect(a);
        EXPECT(raw_send(in, hello, sizeof hello));
        turns(20);
        EXPECT_EQ(a->ups, 0);
        do_to_peer(a, deed);
        EXPECT_EQ(raw_receive(out, &byte, 1), 0);
        if (deed == REMOVE) { /* its greeting is judged when the disk is back: removed meanwhile */
            uint8_t bytes[PEER_ANSWER_BYTES];
            struct peer_answer answer;
            EXPECT(rmdir(test_path("peers.new")) == 0);
            EXPECT_EQ(raw_receive(in, bytes, sizeof bytes), sizeof bytes);
            EXPECT_OK(peer_answer_decode(bytes, &answer));
            EXPECT(answer.code == ERR_CONFIG && answer.standing == PEER_STANDING_REMOVED);
            net_stop(0);
            EXPECT(unlink(test_path("peers")) == 0 && mkdir(test_path("peers.new"), 0700) == 0);
        } else if (deed != CLOSE)
            net_stop(0);
        (void)close(in);
        (void)close(out);
    }
    (void)close(listener);
    net_close();
}

TEST(churn_a_peer_that_is_up_and_full)
{
    net_open();
    thread_expect_loop();
    for (enum deed deed = REMOVE; deed < DEEDS; deed++)
        for (unsigned full = 0; full < 2; full++) {
            net.nodes[0].ups = net.nodes[0].downs = net.nodes[1].downs = net.nodes[1].ups = 0;
            net_mesh(2);
            struct node *a = &net.nodes[0], *b = &net.nodes[1];
            WAIT_FOR(a->ups == 1 && b->ups == 1);
            for (unsigned i = 0; full != 0 && i < 24; i++) /* more than the socket takes */
                net_append(a, 2, i, 1, 1000000);
            turns(1); /* a write is under way */
            if (deed == MOVE || deed == MOVE_AND_REMOVE)
                a->downs = 0;
            do_to_peer(a, deed);
            WAIT_FOR(deed == MOVE || b->downs == 1);
            memset(b->last_index, 0, sizeof b->last_index);
            net_stop(1);
            if (deed != CLOSE)
                net_stop(0);
        }
    net_close();
}

/* --- inside callbacks ------------------------------------------------------------------------- */

static struct {
    struct rng r;
    uint64_t next_id; /* ids are never used again */
    uint64_t index;   /* rises with each message: what arrives must be in order */
    unsigned done;
} churn;

static void remove_the_other(struct node *n)
{
    thread_expect_loop();
    cns_transport_remove_peer(n->t, n->id % 2 + 1);
}

/* set_peer tells on_peer(down), which removes the peer: set_peer must not touch it any more. */
TEST(churn_a_move_that_leads_to_a_removal)
{
    net_open();
    thread_expect_loop();
    net_mesh(2);
    struct node *a = &net.nodes[0], *b = &net.nodes[1];
    WAIT_FOR(a->ups == 1 && b->ups == 1);
    a->meanwhile = remove_the_other;
    EXPECT_OK(cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    EXPECT_EQ(a->downs, 1);
    EXPECT_ERR(ERR_CONFIG, cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    WAIT_FOR(b->refusals > 0);
    net_close();
}

TEST(churn_everybody_removes_everybody_at_once)
{
    for (unsigned which = 0; which < 4; which++) {
        net_open();
        thread_expect_loop();
        net_mesh(2);
        struct node *a = &net.nodes[0], *b = &net.nodes[1];
        if (which > 0)
            WAIT_FOR(a->ups == 1 && b->ups == 1);
        a->meanwhile = remove_the_other; /* at up, or at the first message, or when refused */
        b->meanwhile = which % 2 == 0 ? remove_the_other : NULL;
        if (which > 0)
            net_append(b, 1, 1, 1, 10);
        WAIT_FOR((a->downs == 1 || a->refusals > 0) && (b->downs == 1 || b->refusals > 0));
        net_close();
    }
}

static void set_peer(struct node *n, uint64_t id, unsigned port) ON_LOOP
{
    enum err e = cns_transport_set_peer(n->t, id, net_address(port));
    EXPECT(e == ERR_OK || e == ERR_CONFIG); /* it was removed */
}

/* Whatever happens, in whatever callback: the members of the list change at random. */
static void at_random(struct node *n)
{
    thread_expect_loop();
    uint64_t other = 1 + rng_below(&churn.r, 3);
    unsigned port = port_of((unsigned)other - 1);
    if (++churn.done > 4000 || !rng_once_in(&churn.r, 3))
        return;
    switch (rng_below(&churn.r, 8)) {
    case 0: /* a newcomer, who is another one in truth */
        set_peer(n, churn.next_id++, port);
        break;
    case 1: /* and away with it */
        cns_transport_remove_peer(n->t, 10 + rng_below(&churn.r, churn.next_id - 9));
        break;
    case 2: /* moves to the wrong place, */
        set_peer(n, other, 1);
        break;
    case 3:
    case 4:
    case 5: /* and back */
        set_peer(n, other, port);
        break;
    case 6:
        for (uint64_t id = 1; id < churn.next_id; id++)
            net_append(n, id, churn.index++, 1, rng_below(&churn.r, 50000));
        break;
    default:
        if (rng_once_in(&churn.r, 40))
            cns_transport_remove_peer(n->t, other);
        break;
    }
}

TEST(churn_at_random_in_every_callback)
{
    for (uint64_t round = 0; round < test_rounds(40); round++) {
        net_open();
        thread_expect_loop();
        churn.r.state = test_seed() + round;
        churn.next_id = 10;
        churn.done = 0;
        churn.index = 1;
        net_mesh(3);
        for (unsigned i = 0; i < 3; i++) {
            net.nodes[i].meanwhile = at_random;
            net.nodes[i].echo = true;
        }
        for (unsigned i = 0; i < 150; i++) {
            struct node *n = &net.nodes[rng_below(&churn.r, 3)];
            net_append(n, 1 + rng_below(&churn.r, 3), churn.index++, 1,
                       rng_below(&churn.r, 100000));
            at_random(n);
            (void)uv_run(&net.loop, rng_once_in(&churn.r, 3) ? UV_RUN_ONCE : UV_RUN_NOWAIT);
        }
        for (unsigned i = 0; i < 3; i++)
            net.nodes[i].meanwhile = NULL;
        net_close();
    }
}
