/* Room: tests. A wiped node never comes back under its old id: what peer_book.c remembers, and what
 * the transport makes of it, while members come and go. */
#include "base/file.h"
#include "base/mem.h"
#include "base/rng.h"
#include "consensus/peer_book.h"
#include "tests/unit/consensus/transport_rig.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* --- the book --------------------------------------------------------------------------------- */

struct reader {
    struct peer_book *b;
    unsigned told;
    bool closed;
};

static void on_durable(void *ctx)
{
    ((struct reader *)ctx)->told++;
}

static void on_book_closed(void *ctx)
{
    ((struct reader *)ctx)->closed = true;
}

static enum err book_try(struct reader *r, uint64_t self, uint64_t incarnation) ON_LOOP
{
    struct peer_book_config c = {.loop = &net.loop,
                                 .dir = test_dir(),
                                 .cluster_id = CLUSTER,
                                 .self = self,
                                 .incarnation = incarnation,
                                 .ctx = r,
                                 .on_durable = on_durable};
    *r = (struct reader){0};
    return peer_book_open(&c, &r->b);
}

static void book_open(struct reader *r) ON_LOOP
{
    EXPECT_OK(book_try(r, 1, 11));
}

static void book_close(struct reader *r) ON_LOOP
{
    peer_book_close(r->b, on_book_closed, r);
    WAIT_FOR(r->closed);
}

static void meet(struct reader *r, uint64_t id, uint64_t incarnation) ON_LOOP
{
    EXPECT_EQ(peer_book_meet(r->b, id, incarnation), PEER_WAITS);
    WAIT_FOR(peer_book_meet(r->b, id, incarnation) == PEER_KNOWN);
}

TEST(book_remembers_the_first_incarnation)
{
    struct reader r;
    net_open();
    thread_expect_loop();
    book_open(&r);
    meet(&r, 2, 22);
    EXPECT_EQ(peer_book_meet(r.b, 2, 23), PEER_LOST_FILES);
    EXPECT_EQ(peer_book_meet(r.b, 2, 22), PEER_KNOWN);
    EXPECT_EQ(peer_book_meet(r.b, 3, 33), PEER_WAITS); /* two in one write, or the next */
    EXPECT_EQ(peer_book_meet(r.b, 4, 44), PEER_WAITS);
    EXPECT_EQ(peer_book_meet(r.b, 3, 34),
              PEER_LOST_FILES); /* not durable, and decided all the same */
    WAIT_FOR(peer_book_meet(r.b, 4, 44) == PEER_KNOWN);
    EXPECT_EQ(peer_book_meet(r.b, 3, 33), PEER_KNOWN);
    book_close(&r);
    book_open(&r); /* all of it is in the file */
    for (uint64_t id = 2; id <= 4; id++) {
        EXPECT_EQ(peer_book_meet(r.b, id, 11 * id), PEER_KNOWN);
        EXPECT_EQ(peer_book_meet(r.b, id, 11 * id + 1), PEER_LOST_FILES);
    }
    EXPECT_EQ(r.told, 0);
    book_close(&r);
    net_close();
}

TEST(book_remembers_who_was_removed)
{
    struct reader r;
    net_open();
    thread_expect_loop();
    book_open(&r);
    meet(&r, 2, 22);
    peer_book_remove(r.b, 2);
    peer_book_remove(r.b, 5); /* never met */
    peer_book_remove(r.b, 1); /* itself: not its own business */
    EXPECT_EQ(peer_book_meet(r.b, 2, 22), PEER_REMOVED);
    EXPECT(peer_book_removed(r.b, 5) && !peer_book_removed(r.b, 1) && !peer_book_removed(r.b, 7));
    EXPECT(peer_book_met(r.b, 2) && !peer_book_met(r.b, 5) && !peer_book_met(r.b, 3));
    meet(&r, 3, 33); /* a later edition is durable, so that one is */
    book_close(&r);
    book_open(&r);
    EXPECT_EQ(peer_book_meet(r.b, 2, 22), PEER_REMOVED);
    EXPECT(peer_book_met(r.b, 2) && !peer_book_met(r.b, 5) && peer_book_met(r.b, 3));
    EXPECT_EQ(peer_book_meet(r.b, 5, 1), PEER_REMOVED);
    EXPECT_EQ(peer_book_meet(r.b, 3, 33), PEER_KNOWN);
    book_close(&r);
    net_close();
}

TEST(book_of_another_directory_or_damaged_is_refused)
{
    struct reader r;
    struct buf good;
    const char *path = test_path("peers");
    buf_init(&good, KIB(64));
    net_open();
    thread_expect_loop();
    book_open(&r);
    meet(&r, 2, 22);
    meet(&r, 3, 33);
    book_close(&r);
    EXPECT_ERR(ERR_CONFIG, book_try(&r, 4, 11));
    EXPECT_ERR(ERR_CONFIG, book_try(&r, 1, 12));
    EXPECT(strstr(err_text(), "lecternd --join") != NULL);
    EXPECT_OK(file_read_all(path, &good));
    EXPECT_EQ(good.len, 48 + 2 * 24);
    for (size_t bit = 0; bit < good.len * 8; bit++) {
        good.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        EXPECT_OK(file_replace(path, good.data, good.len));
        enum err e = book_try(&r, 1, 11);
        EXPECT(e == ERR_CORRUPT || (e == ERR_FORMAT && bit >= 64 && bit < 96));
        good.data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t n = 0; n < good.len; n++) {
        EXPECT_OK(file_replace(path, good.data, n));
        EXPECT_ERR(ERR_CORRUPT, book_try(&r, 1, 11));
    }
    buf_put_u64(&good, 0);
    EXPECT_OK(file_replace(path, good.data, good.len));
    EXPECT_ERR(ERR_CORRUPT, book_try(&r, 1, 11));
    EXPECT(strstr(err_text(), "cluster remove 1") != NULL);
    uint8_t *huge = mem_zalloc(KIB(64));
    memcpy(huge, good.data, good.len);
    EXPECT_OK(file_replace(path, huge, KIB(64)));
    EXPECT_ERR(ERR_CORRUPT, book_try(&r, 1, 11));
    free(huge);
    EXPECT(unlink(path) == 0); /* what people may do */
    book_open(&r);
    book_close(&r);
    buf_fini(&good);
    net_close();
}

/* Where the new file would be written stands a directory: as a full disk, it goes away again. */
static void block_writes(void)
{
    EXPECT(mkdir(test_path("peers.new"), 0700) == 0);
}

static void allow_writes(void)
{
    EXPECT(rmdir(test_path("peers.new")) == 0);
}

TEST(book_that_cannot_be_written_lets_nobody_in_and_goes_on_later)
{
    struct reader r;
    net_open();
    thread_expect_loop();
    block_writes();
    book_open(&r);
    EXPECT_EQ(peer_book_meet(r.b, 2, 22), PEER_WAITS);
    uint64_t began = clock_mono_ms();
    WAIT_FOR(clock_mono_ms() - began > 700); /* a second attempt, at least */
    EXPECT_EQ(peer_book_meet(r.b, 2, 22), PEER_WAITS);
    EXPECT_EQ(peer_book_meet(r.b, 3, 33), PEER_WAITS);
    EXPECT_EQ(r.told, 0);
    allow_writes();
    WAIT_FOR(r.told > 0);
    EXPECT_EQ(peer_book_meet(r.b, 2, 22), PEER_KNOWN);
    WAIT_FOR(peer_book_meet(r.b, 3, 33) == PEER_KNOWN); /* in that write, or in the next */
    book_close(&r);
    net_close();
}

TEST(book_closes_at_any_time)
{
    struct reader r;
    net_open();
    thread_expect_loop();
    for (uint64_t i = 0; i < 50; i++) {
        book_open(&r);
        (void)peer_book_meet(r.b, 100 + i, i + 1);
        for (uint64_t k = 0; k < i % 4; k++)
            (void)uv_run(&net.loop, UV_RUN_NOWAIT);
        peer_book_remove(r.b, 50 + i);
        book_close(&r);
    }
    book_open(&r); /* each write that was begun was ended: nothing half is left */
    book_close(&r);
    net_close();
}

TEST(book_bounds_what_it_remembers)
{
    struct reader r;
    net_open();
    thread_expect_loop();
    book_open(&r);
    for (uint64_t id = 2; id < 1024; id++)
        (void)peer_book_meet(r.b, id, id);
    peer_book_remove(r.b, 500);
    peer_book_remove(r.b, 2000);
    peer_book_remove(r.b, 3000); /* the 1,024th */
    WAIT_FOR(peer_book_meet(r.b, 1023, 1023) == PEER_KNOWN);
    EXPECT_EQ(peer_book_meet(r.b, 4000, 4), PEER_WAITS); /* in the place of 500 */
    EXPECT(!peer_book_removed(r.b, 500) && peer_book_removed(r.b, 2000));
    EXPECT_EQ(peer_book_meet(r.b, 5000, 5), PEER_WAITS);
    EXPECT_EQ(peer_book_meet(r.b, 6000, 6), PEER_WAITS);
    EXPECT_EQ(peer_book_meet(r.b, 7000, 7), PEER_NO_ROOM);
    peer_book_remove(r.b, 8000); /* no room: still no member */
    WAIT_FOR(peer_book_meet(r.b, 6000, 6) == PEER_KNOWN);
    book_close(&r);
    book_open(&r);
    EXPECT_EQ(peer_book_meet(r.b, 6000, 6), PEER_KNOWN);
    EXPECT_EQ(peer_book_meet(r.b, 2, 3), PEER_LOST_FILES);
    book_close(&r);
    net_close();
}

/* --- the transport's use of it ---------------------------------------------------------------- */

/* Node I keeps its book in a directory of its own. */
static void give_dir(unsigned i)
{
    static char dirs[NODES][256];
    (void)snprintf(dirs[i], sizeof dirs[i], "%s/node%u", test_dir(), i + 1);
    EXPECT_OK(file_make_dirs(dirs[i]));
    net.nodes[i].dir = dirs[i];
}

static unsigned port_of(unsigned i) ON_LOOP
{
    return cns_transport_port(net.nodes[i].t);
}

/* Node I again, on its port of before, with its own files or (WIPED) without. */
static void restart(unsigned i, bool wiped, unsigned n) ON_LOOP
{
    struct node *x = &net.nodes[i];
    char address[32], path[300];
    (void)snprintf(address, sizeof address, "%s", net_address(port_of(i)));
    net_stop(i);
    x->ups = x->downs = x->messages = x->refusals = 0;
    if (wiped) {
        x->incarnation += 5000;
        (void)snprintf(path, sizeof path, "%s/peers", x->dir);
        EXPECT(unlink(path) == 0);
    }
    (void)net_listen(i, address);
    for (unsigned k = 0; k < n; k++)
        EXPECT_OK(cns_transport_set_peer(x->t, k + 1, net_address(port_of(k))));
}

TEST(identity_a_wiped_node_is_refused_by_all_and_told_so)
{
    net_open();
    thread_expect_loop();
    for (unsigned i = 0; i < 3; i++)
        give_dir(i);
    net_mesh(3);
    struct node *a = &net.nodes[0], *b = &net.nodes[1], *c = &net.nodes[2];
    WAIT_FOR(a->ups == 2 && b->ups == 2 && c->ups == 2);
    restart(1, false, 3); /* with its files: as ever */
    WAIT_FOR(b->ups == 2 && a->ups == 3 && c->ups == 3);
    EXPECT_EQ(b->refusals, 0);
    restart(1, true, 3);
    WAIT_FOR(b->refusals >= 2 && a->downs == 2 && c->downs == 2);
    EXPECT(strstr(b->refusal, "node 2 was known with other files") != NULL);
    EXPECT(strstr(b->refusal, "cluster remove 2") != NULL);
    for (unsigned i = 0; i < 40; i++) {
        net_append(a, 2, i, 1, 10);
        net_append(b, 1, i, 1, 10);
        (void)uv_run(&net.loop, UV_RUN_ONCE);
    }
    /* Neither way is open: the others' diallers do not like its answer either. */
    EXPECT(b->ups == 0 && b->messages == 0 && a->messages == 0);
    EXPECT(a->ups == 3 && c->ups == 3 && a->refusals == 0 && c->refusals == 0);
    restart(0, false, 3); /* the other's memory is on its disk */
    a->ups = 0;
    b->refusals = 0;
    WAIT_FOR(b->refusals > 3 && a->ups == 1);
    EXPECT(b->ups == 0 && b->messages == 0);
    net_append(a, 3, 1, 1, 10);
    WAIT_FOR(c->messages == 1);
    net_close();
}

TEST(identity_a_removed_member_is_told_so_for_ever)
{
    net_open();
    thread_expect_loop();
    for (unsigned i = 0; i < 2; i++)
        give_dir(i);
    net_mesh(2);
    struct node *a = &net.nodes[0], *b = &net.nodes[1];
    WAIT_FOR(a->ups == 1 && b->ups == 1);
    cns_transport_remove_peer(a->t, 2);
    cns_transport_remove_peer(a->t, 7); /* one that it did not have */
    cns_transport_remove_peer(a->t, 1); /* itself: ignored */
    EXPECT_EQ(a->downs, 1);
    EXPECT_ERR(ERR_CONFIG, cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    EXPECT_OK(cns_transport_set_peer(a->t, 1, "127.0.0.1:1"));
    WAIT_FOR(b->refusals >= 2);
    EXPECT(strstr(b->refusal, "node 1 says: node 2 was removed") != NULL);
    EXPECT_EQ(b->refused_by, 1);
    EXPECT_OK(cns_transport_set_peer(a->t, 3, "127.0.0.1:1"));
    struct peer_hello h = raw_hello(3, 1);
    EXPECT_EQ(raw_judged(a, &h), ERR_OK); /* durable: so is what was noted before */
    restart(0, false, 0);
    EXPECT_ERR(ERR_CONFIG, cns_transport_set_peer(a->t, 7, "127.0.0.1:1"));
    b->refusals = 0;
    WAIT_FOR(b->refusals >= 1);
    EXPECT(strstr(b->refusal, "was removed") != NULL);
    h = raw_hello(4, 1); /* who was never a member is not told that */
    EXPECT_EQ(raw_judged(a, &h), ERR_FORBIDDEN);
    net_close();
}

TEST(identity_nobody_is_heard_before_it_is_remembered)
{
    struct peer_hello h = raw_hello(2, 1);
    struct peer_answer answer;
    uint8_t hello[PEER_HELLO_BYTES], bytes[PEER_ANSWER_BYTES], frame[100];
    net_open();
    thread_expect_loop();
    net.nodes[0].dir = test_dir();
    struct node *a = net_listen(0, "127.0.0.1:0");
    EXPECT_OK(cns_transport_set_peer(a->t, 2, "127.0.0.1:1"));
    block_writes();
    int early = raw_connect(a), late;
    peer_hello_encode(hello, &h);
    uint64_t began = clock_mono_ms();
    EXPECT(raw_send(early, hello, sizeof hello));
    EXPECT(raw_send(early, frame, raw_frame(frame, 1))); /* it does not wait for the answer */
    EXPECT_EQ(raw_receive(early, bytes, sizeof bytes),
              0); /* in its 2 s the disk does not come back */
    EXPECT(clock_mono_ms() - began >= 1500);
    EXPECT_EQ(a->bytes_messages, 0);
    (void)close(early);
    late = raw_connect(a);
    EXPECT(raw_send(late, hello, sizeof hello));
    EXPECT(raw_send(late, frame, raw_frame(frame, 1)));
    for (unsigned i = 0; i < 20; i++)
        (void)uv_run(&net.loop, UV_RUN_ONCE);
    EXPECT_EQ(a->bytes_messages, 0);
    h.incarnation++; /* another one meanwhile: it was not the first */
    EXPECT_EQ(raw_judged(a, &h), ERR_CONFIG);
    allow_writes();
    EXPECT_EQ(raw_receive(late, bytes, sizeof bytes), sizeof bytes);
    EXPECT_OK(peer_answer_decode(bytes, &answer));
    EXPECT_EQ(answer.code, ERR_OK);
    WAIT_FOR(a->bytes_messages == 1); /* nothing was lost on the way */
    (void)close(late);
    net_close();
}

TEST(identity_the_dialler_judges_the_answer)
{
    unsigned port;
    net_open();
    thread_expect_loop();
    net.nodes[0].dir = test_dir();
    struct node *a = net_listen(0, "127.0.0.1:0");
    int listener = fake_listen(&port);
    struct peer_answer answer = fake_welcome();
    block_writes();
    EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(port)));
    int fd = fake_accept(listener, &answer);
    for (unsigned i = 0; i < 20; i++)
        (void)uv_run(&net.loop, UV_RUN_ONCE);
    EXPECT_EQ(a->ups, 0); /* not before it is remembered */
    allow_writes();
    WAIT_FOR(a->ups == 1);
    (void)close(fd);
    WAIT_FOR(a->downs == 1);
    answer.incarnation++;
    for (unsigned i = 0; i < 3; i++) { /* somebody else on that port now */
        fd = fake_accept(listener, &answer);
        uint8_t byte;
        EXPECT_EQ(raw_receive(fd, &byte, 1), 0);
        (void)close(fd);
    }
    answer.incarnation = 0;
    (void)close(fake_accept(listener, &answer));
    EXPECT_EQ(a->ups, 1);
    answer = fake_welcome();
    fd = fake_accept(listener, &answer);
    WAIT_FOR(a->ups == 2);
    EXPECT_EQ(a->refusals, 0);
    (void)close(fd);
    (void)close(listener);
    net_close();
}

/* Standings that no version sends, and refusals with other codes, are no verdict about our files.
 */
TEST(identity_only_the_two_verdicts_count)
{
    unsigned port;
    net_open();
    thread_expect_loop();
    struct node *a = net_listen(0, "127.0.0.1:0");
    int listener = fake_listen(&port);
    EXPECT_OK(cns_transport_set_peer(a->t, 2, net_address(port)));
    static const struct peer_answer idle[] = {
        {.version = 2, .code = ERR_CONFIG, .reason = "another cluster"},
        {.version = 2, .code = ERR_CONFIG, .standing = (enum peer_standing)3, .reason = "?"},
        {.version = 2, .code = ERR_FORBIDDEN, .standing = PEER_STANDING_REMOVED, .reason = "?"},
        {.version = 2, .code = ERR_VERSION, .standing = PEER_STANDING_LOST_FILES, .reason = "?"}};
    for (unsigned i = 0; i < sizeof idle / sizeof idle[0]; i++)
        (void)close(fake_accept(listener, &idle[i]));
    struct peer_answer no = {.version = 2, .code = ERR_CONFIG, .reason = "gone"};
    no.standing = PEER_STANDING_REMOVED;
    int fd = fake_accept(listener, &no);
    WAIT_FOR(a->refusals > 0);
    EXPECT(a->refusals == 1 && a->ups == 0 && a->refused_by == 2);
    EXPECT(strstr(a->refusal, "node 1 was removed") != NULL);
    (void)close(fd);
    (void)close(listener);
    net_close();
}
