/* Room: tests. consensus/transport: messages arrive whole and in order, or not at all; and nobody
 * outside the cluster gets further than the greeting. All on loopback, port 0, one loop. */
#include "base/mem.h"
#include "base/rng.h"
#include "consensus/peer_socket.h"
#include "tests/unit/consensus/free_ports.h"
#include "tests/unit/consensus/transport_rig.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* --- the plain life --------------------------------------------------------------------------- */

TEST(transport_carries_messages_both_ways_in_order)
{
    net_open();
    thread_expect_loop();
    net_mesh(2);
    struct node *a = &net.nodes[0], *b = &net.nodes[1];
    WAIT_FOR(a->ups == 1 && b->ups == 1);
    EXPECT_EQ(cns_transport_queued(a->t, 2), 0);
    uint64_t prev = 0, bytes = 0;
    for (unsigned i = 0; i < 200; i++) {
        unsigned n = i % 7;
        size_t len = i % 50 == 0 ? 300000 : i % 3 == 0 ? 0 : 100 + i;
        net_append(a, 2, prev, n, len);
        prev += n + 1;
        bytes += n * len;
        if (i % 10 == 0)
            net_append(b, 1, i, 1, 10);
    }
    WAIT_FOR(b->messages == 200 && a->messages == 20);
    EXPECT_EQ(b->payload_bytes, bytes);
    EXPECT_EQ(b->from, 1);
    cns_transport_send_bytes(b->t, 1, 1, (const uint8_t *)"hello", 5);
    cns_transport_send_bytes(b->t, 1, 1, NULL, 0);
    WAIT_FOR(a->bytes_messages == 2);
    EXPECT_EQ(a->bytes_n, 0);
    EXPECT_EQ(cns_transport_queued(a->t, 2), 0);
    EXPECT_EQ(cns_transport_queued(a->t, 9), UINT64_MAX);
    net_close();
}

TEST(transport_carries_every_type)
{
    net_open();
    thread_expect_loop();
    net_mesh(2);
    struct node *a = &net.nodes[0], *b = &net.nodes[1];
    WAIT_FOR(a->ups == 1);
    struct raft_server server = {1, (char[]){"x:1"}, RAFT_VOTER};
    uint8_t data[100] = {1, 2, 3};
    for (int type = RAFT_APPEND_ENTRIES; type <= RAFT_TIMEOUT_NOW; type++) {
        struct raft_message m;
        memset(&m, 0, sizeof m);
        m.type = (enum raft_message_type)type;
        if (type == RAFT_REQUEST_VOTE)
            m.request_vote.candidate_id = 1;
        if (type == RAFT_INSTALL_SNAPSHOT)
            m.install_snapshot = (struct raft_install_snapshot){.term = 5,
                                                                .last_index = 9,
                                                                .last_term = 4,
                                                                .conf = {&server, 1},
                                                                .conf_index = 1,
                                                                .data = {data, sizeof data}};
        cns_transport_send(a->t, 2, &m, NULL, 0);
    }
    WAIT_FOR(b->messages == 6);
    net_close();
}

TEST(transport_connects_three_and_answers_from_a_callback)
{
    net_open();
    thread_expect_loop();
    net_mesh(3);
    for (unsigned i = 0; i < 3; i++)
        net.nodes[i].echo = true;
    WAIT_FOR(net.nodes[0].ups == 2 && net.nodes[1].ups == 2 && net.nodes[2].ups == 2);
    for (unsigned i = 0; i < 3; i++)
        for (uint64_t to = 1; to <= 3; to++)
            net_append(&net.nodes[i], to, 1, 1, 5); /* to itself: nowhere */
    for (unsigned i = 0; i < 3; i++)
        WAIT_FOR(net.nodes[i].messages == 2 && net.nodes[i].bytes_messages == 2);
    EXPECT(memcmp(net.nodes[0].bytes, "pong", 4) == 0);
    net_close();
}

TEST(transport_reconnects_to_a_peer_that_comes_back)
{
    struct cns_server server;
    char address[1][FREE_PORT_ADDRESS_MAX]; /* nobody else takes it meanwhile */
    free_ports(&server, address, 1);
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0"), *b = net_listen(1, address[0]);
    EXPECT_OK(cns_transport_set_peer(a->t, 2, address[0]));
    EXPECT_OK(cns_transport_set_peer(b->t, 1, net_address(cns_transport_port(a->t))));
    for (unsigned round = 1; round <= 3; round++) {
        WAIT_FOR(a->ups == round);
        net_stop(1);
        WAIT_FOR(a->downs == round);
        EXPECT_EQ(cns_transport_queued(a->t, 2), UINT64_MAX);
        net_append(a, 2, 5, 1, 5); /* lost: that is allowed */
        (void)net_listen(1, address[0]);
        EXPECT_OK(cns_transport_set_peer(b->t, 1, net_address(cns_transport_port(a->t))));
    }
    WAIT_FOR(a->ups == 4);
    memset(b->last_index, 0, sizeof b->last_index);
    b->messages = 0;
    net_append(a, 2, 5, 1, 5);
    WAIT_FOR(b->messages == 1);
    net_close();
}

TEST(transport_follows_a_new_address_and_a_removal)
{
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0"), *b = net_listen(1, "127.0.0.1:0");
    EXPECT_OK(cns_transport_set_peer(b->t, 1, "127.0.0.1:1"));
    EXPECT_OK(cns_transport_set_peer(a->t, 2, "localhost:1")); /* nobody there */
    for (unsigned i = 0; i < 20; i++)
        (void)uv_run(&net.loop, UV_RUN_ONCE);
    EXPECT_EQ(a->ups, 0);
    EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(cns_transport_port(b->t))));
    WAIT_FOR(a->ups == 1);
    EXPECT_ERR(ERR_CONFIG, cns_transport_set_peer(a->t, 2, "nonsense"));
    net_append(a, 2, 5, 1, 5);
    WAIT_FOR(b->messages == 1);
    cns_transport_remove_peer(b->t, 1); /* and with it the right to connect */
    WAIT_FOR(a->downs == 1);
    cns_transport_remove_peer(a->t, 2);
    cns_transport_remove_peer(a->t, 2);
    EXPECT_EQ(cns_transport_queued(a->t, 2), UINT64_MAX);
    net_close();
}

TEST(transport_refuses_bad_addresses)
{
    struct peer_address a;
    const char *bad[] = {"",     "x",        ":1",     "x:",      "x:65536", "x:-1",
                         "x:1a", "x:999999", "::1:80", "[::1:80", "x: 1",    "[]:1"};
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++)
        EXPECT_ERR(ERR_CONFIG, peer_address_parse(bad[i], &a));
    EXPECT_OK(peer_address_parse("[::1]:80", &a));
    EXPECT(strcmp(a.host, "::1") == 0 && strcmp(a.port, "80") == 0);
    net_open();
    thread_expect_loop();
    struct cns_transport *t;
    EXPECT_ERR(ERR_IO, net_try(0, "203.0.113.1:1", &t)); /* not ours: cannot be bound */
    net_close();
}

/* --- strangers -------------------------------------------------------------------------------- */

TEST(transport_refuses_whom_it_does_not_know)
{
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0");
    EXPECT_OK(cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    struct peer_hello h = raw_hello(2, 1);
    EXPECT_EQ(raw_judged(a, &h), ERR_OK);
    h.version = 1;
    EXPECT_EQ(raw_judged(a, &h), ERR_VERSION);
    h = raw_hello(2, 1);
    h.cluster_id++;
    EXPECT_EQ(raw_judged(a, &h), ERR_CONFIG);
    h = raw_hello(2, 3);
    EXPECT_EQ(raw_judged(a, &h), ERR_CONFIG);
    h = raw_hello(1, 1);
    EXPECT_EQ(raw_judged(a, &h), ERR_CONFIG);
    h = raw_hello(3, 1);
    EXPECT_EQ(raw_judged(a, &h), ERR_FORBIDDEN);
    h = raw_hello(2, 1);
    h.frame_max = 1000;
    EXPECT_EQ(raw_judged(a, &h), ERR_VERSION);
    h = raw_hello(2, 1);
    h.incarnation = 0;
    EXPECT_EQ(raw_judged(a, &h), ERR_PROTOCOL);
    EXPECT_EQ(a->messages, 0);
    net_close();
}

TEST(transport_bounds_strangers_in_number_and_time)
{
    int fds[64];
    uint8_t byte;
    net_open();
    thread_expect_loop();
    net_mesh(2);
    struct node *a = &net.nodes[0];
    WAIT_FOR(a->ups == 1 && net.nodes[1].ups == 1);
    for (unsigned i = 0; i < 64; i++)
        fds[i] = raw_connect(a);
    unsigned closed = 0;
    uint64_t began = clock_mono_ms(), felt = test_felt_ms();
    for (unsigned i = 32; i < 64; i++) /* those above the limit go at once */
        closed += raw_receive(fds[i], &byte, 1) == 0;
    EXPECT_EQ(closed, 32);
    EXPECT(test_felt_ms() - felt < 1500);
    for (unsigned i = 0; i < 32; i++) /* the others when their time is over */
        EXPECT_EQ(raw_receive(fds[i], &byte, 1), 0);
    EXPECT(clock_mono_ms() - began >= 1500);
    for (unsigned i = 0; i < 64; i++)
        (void)close(fds[i]);
    net_append(a, 2, 1, 1, 5);
    WAIT_FOR(net.nodes[1].messages == 1); /* the members did not notice */
    EXPECT_EQ(a->downs, 0);
    net_close();
}

TEST(transport_survives_hostile_bytes)
{
    struct rng r = {test_seed()};
    uint8_t bytes[2000];
    net_open();
    thread_expect_loop();
    net_mesh(2);
    struct node *a = &net.nodes[0], *b = &net.nodes[1];
    WAIT_FOR(a->ups == 1 && b->ups == 1);
    for (uint64_t round = 0; round < test_rounds(300); round++) {
        int fd = raw_connect(a);
        size_t n = 1 + rng_below(&r, sizeof bytes);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)rng_u64(&r);
        struct peer_hello h = raw_hello(2, 1);
        if (rng_once_in(&r, 2) && n >= PEER_HELLO_BYTES) {
            peer_hello_encode(bytes, &h);
            bytes[rng_below(&r, PEER_HELLO_BYTES)] ^= (uint8_t)(1u << rng_below(&r, 8));
        }
        (void)raw_send(fd, bytes, n);
        (void)close(fd);
    }
    EXPECT(a->messages == 0 && a->bytes_messages == 0);
    net_append(b, 1, 1, 1, 5); /* the real peer's connection was not touched */
    WAIT_FOR(a->messages == 1);
    EXPECT_EQ(b->downs, 0);
    net_close();
}

TEST(transport_closes_at_the_first_bad_frame)
{
    struct rng r = {test_seed()};
    uint8_t frame[100], byte;
    struct peer_hello h = raw_hello(2, 1);
    struct peer_answer answer;
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0");
    EXPECT_OK(cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    int fd;
    EXPECT((fd = raw_greet(a, &h, &answer)) >= 0 && answer.code == ERR_OK);
    for (uint64_t seq = 1; seq <= 3; seq++)
        EXPECT(raw_send(fd, frame, raw_frame(frame, seq)));
    WAIT_FOR(a->bytes_messages == 3);
    EXPECT(raw_send(fd, frame, raw_frame(frame, 3))); /* a duplicate is not the next */
    EXPECT_EQ(raw_receive(fd, &byte, 1), 0);
    (void)close(fd);
    for (uint64_t round = 0; round < test_rounds(1000); round++) {
        EXPECT((fd = raw_greet(a, &h, &answer)) >= 0 && answer.code == ERR_OK);
        size_t n = raw_frame(frame, 1);
        frame[rng_below(&r, n)] ^= (uint8_t)(1u << rng_below(&r, 8));
        (void)raw_send(fd, frame, n);
        (void)shutdown(fd, SHUT_WR); /* a longer frame may have been announced */
        EXPECT_EQ(raw_receive(fd, &byte, 1), 0);
        (void)close(fd);
    }
    EXPECT_EQ(a->bytes_messages, 3);
    net_close();
}

TEST(transport_keeps_the_newest_connection_of_a_peer)
{
    struct peer_hello h = raw_hello(2, 1);
    struct peer_answer answer;
    uint8_t frame[100], byte;
    int old, new;
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0");
    EXPECT_OK(cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    old = raw_greet(a, &h, &answer); /* then its host vanished without a word */
    new = raw_greet(a, &h, &answer);
    EXPECT_EQ(raw_receive(old, &byte, 1), 0);
    EXPECT(raw_send(new, frame, raw_frame(frame, 1)));
    WAIT_FOR(a->bytes_messages == 1);
    (void)close(old);
    (void)close(new);
    net_close();
}

TEST(transport_sets_the_options_that_notice_a_dead_peer)
{
    net_open();
    uv_tcp_t tcp;
    int fd, value;
    socklen_t n = sizeof value;
    EXPECT(uv_tcp_init_ex(&net.loop, &tcp, AF_INET) == 0);
    peer_socket_tune(&tcp);
    EXPECT(uv_fileno((uv_handle_t *)&tcp, &fd) == 0);
    EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &n) == 0 && value != 0);
    EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &n) == 0 && value == 5000);
    EXPECT(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &value, &n) == 0 && value != 0);
    EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &n) == 0 && value == 2);
    EXPECT(getsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &value, &n) == 0 && value == 3);
    uv_close((uv_handle_t *)&tcp, NULL);
    thread_expect_loop();
    net_close();
}

/* --- slow and mute peers ---------------------------------------------------------------------- */

TEST(transport_bounds_the_queue_of_a_slow_reader)
{
    const struct peer_answer welcome = fake_welcome();
    unsigned port;
    uint8_t *sink = mem_alloc(1u << 20);
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0");
    int listener = fake_listen(&port), little = 200000; /* holds the kernel, of 80 MB */
    EXPECT(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &little, sizeof little) == 0);
    EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(port)));
    int fd = fake_accept(listener, &welcome);
    WAIT_FOR(a->ups == 1);
    struct cns_item *items = net_items(0, 1, 1000000);
    struct cns_payload *p = items[0].payload;
    struct raft_message m;
    memset(&m, 0, sizeof m);
    m.type = RAFT_APPEND_ENTRIES;
    m.append_entries.term = 1;
    for (unsigned i = 0; i < 80; i++) { /* soon: after 5 s without a reader the connection ends */
        cns_transport_send(a->t, 2, &m, items, 1);
        (void)uv_run(&net.loop, UV_RUN_NOWAIT);
        EXPECT(cns_transport_queued(a->t, 2) <= PEER_QUEUE_BYTES_MAX);
    }
    EXPECT(cns_transport_queued(a->t, 2) > PEER_QUEUE_BYTES_MAX / 2);
    EXPECT(atomic_load(&p->refs) > 20 && atomic_load(&p->refs) < 40); /* by reference, bounded */
    /* It reads: all goes out. */
    WAIT_FOR(recv(fd, sink, 1u << 20, MSG_DONTWAIT) != 0 && cns_transport_queued(a->t, 2) == 0);
    EXPECT_EQ(atomic_load(&p->refs), 1);
    cns_items_free(items, 1);
    (void)close(fd);
    WAIT_FOR(a->downs == 1);
    (void)close(listener);
    free(sink);
    net_close();
}

TEST(transport_gives_up_on_a_peer_that_does_not_answer)
{
    const struct peer_answer welcome = fake_welcome();
    unsigned port;
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0");
    int listener = fake_listen(&port);
    uint64_t began = clock_mono_ms();
    EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(port)));
    int mute = -1;
    WAIT_FOR((mute = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    struct peer_answer no = {
        .version = PEER_PROTOCOL_VERSION, .code = ERR_FORBIDDEN, .reason = "go \"away\"\n"};
    int rude = fake_accept(listener, &no); /* it dials again, and is refused */
    EXPECT(clock_mono_ms() - began >= 1500);
    int chatty = fake_accept(listener, &welcome); /* and again */
    WAIT_FOR(a->ups == 1);
    EXPECT(raw_send(chatty, (const uint8_t *)"?", 1)); /* nothing belongs on this way */
    WAIT_FOR(a->downs == 1);
    (void)close(mute);
    (void)close(rude);
    (void)close(chatty);
    (void)close(listener);
    net_close();
}

/* --- closing ---------------------------------------------------------------------------------- */

TEST(transport_closes_in_the_middle_of_traffic)
{
    struct rng r = {test_seed()};
    for (uint64_t round = 0; round < test_rounds(60); round++) {
        net_open();
        thread_expect_loop();
        net_mesh(3);
        uint64_t turns = rng_below(&r, 60);
        net.nodes[1].close_after = rng_below(&r, 40); /* from inside a callback */
        net.nodes[1].echo = net.nodes[2].echo = true;
        for (uint64_t i = 0; i < turns; i++) {
            net_append(&net.nodes[0], 2, i * 4, 3, rng_below(&r, 200000));
            net_append(&net.nodes[0], 3, i * 4, 1, 10);
            (void)uv_run(&net.loop, rng_once_in(&r, 2) ? UV_RUN_NOWAIT : UV_RUN_ONCE);
            if (rng_once_in(&r, 50) && net.nodes[2].t != NULL)
                cns_transport_remove_peer(net.nodes[2].t, 1);
        }
        net_close();
    }
}

/* --- speed ------------------------------------------------------------------------------------ */

TEST(transport_round_trips_are_fast)
{
    net_open();
    thread_expect_loop();
    net_mesh(2);
    struct node *a = &net.nodes[0], *b = &net.nodes[1];
    WAIT_FOR(a->ups == 1 && b->ups == 1);
    b->echo = true;
    unsigned n = (unsigned)test_rounds(2000);
    uint64_t began = clock_mono_ns();
    for (unsigned i = 0; i < n; i++) {
        net_append(a, 2, i, 1, 256);
        while (a->bytes_messages == i)
            (void)uv_run(&net.loop, UV_RUN_ONCE);
    }
    double us = (double)(clock_mono_ns() - began) / 1e3 / n;
    (void)printf("round trip: %.1f us\n", us);
    EXPECT(us < 5000); /* a delayed acknowledgement would be 40,000 */
    net_close();
}
