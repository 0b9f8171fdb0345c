/* Room: tests.   Thread: one.   Owns: what struct seen says. */
#include "tests/unit/client/link_seen.h"

#include "base/clock.h"
#include "tests/lib/test.h"
#include "tests/unit/client/fake_names.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static void may_end(struct seen *s, int now)
{
    if ((int)s->free_it == now) {
        link_free(s->link);
        s->link = NULL;
    }
    if ((int)s->fail_it == now)
        link_fail(s->link, ERR_PROTOCOL, "the test does not like it");
}

static void on_ready(void *ctx, const struct wire_welcome *w)
{
    struct seen *s = ctx;
    s->ready++;
    s->node_id = w->node_id;
    s->cluster_id = w->cluster_id;
    s->seq = w->seq;
    (void)snprintf(s->server, sizeof s->server, "%.*s", (int)w->server_len, w->server);
    EXPECT(link_is_ready(s->link));
    may_end(s, AT_READY);
}

static void on_frame(void *ctx, struct wire_frame *f)
{
    struct seen *s = ctx;
    struct wire_pong p;
    struct wire_done d;
    EXPECT(s->link != NULL && s->down == 0);
    s->frames++;
    s->bytes += rd_left(&f->body);
    if (f->type == WIRE_PONG) {
        EXPECT_OK(wire_get_pong(f, &p));
        s->pongs++;
        s->pong_seq = p.seq;
    } else if (f->type == WIRE_DONE) {
        if (wire_get_done(f, &d) != ERR_OK) { /* as a call does it */
            link_fail(s->link, ERR_PROTOCOL, err_text());
            return;
        }
        s->done++;
        s->last_done_seq = d.seq;
    }
    may_end(s, AT_FRAME);
}

static void on_down(void *ctx, enum err code, const char *why)
{
    struct seen *s = ctx;
    EXPECT(!link_is_ready(s->link));
    s->down++;
    s->code = code;
    (void)snprintf(s->why, sizeof s->why, "%s", why);
    may_end(s, AT_DOWN);
}

enum err try_to_open(struct seen *s, const char *address)
{
    struct link_events events = {
        .ctx = s, .on_ready = on_ready, .on_frame = on_frame, .on_down = on_down};
    if (s->loop == NULL)
        TRY(loop_new(&s->loop));
    return link_new(s->loop, address, "link-test", &events, &s->link);
}

void open_link(struct seen *s, const char *address)
{
    EXPECT_OK(try_to_open(s, address));
}

void close_link(struct seen *s)
{
    link_free(s->link);
    loop_free(s->loop);
    s->link = NULL;
    s->loop = NULL;
}

void turn_until(struct seen *s, const unsigned *count, unsigned n)
{
    uint64_t until = clock_mono_ms() + TEST_HANG_MS;
    while (*count < n) {
        if (clock_mono_ms() > until)
            test_fail(__FILE__, __LINE__, "%u of %u; down %u: %s", *count, n, s->down, s->why);
        EXPECT_OK(loop_turn(s->loop, 100));
    }
}

void turn_ms(struct seen *s, uint64_t ms)
{
    for (uint64_t until = clock_mono_ms() + ms, now; (now = clock_mono_ms()) < until;)
        EXPECT_OK(loop_turn(s->loop, (int)(until - now)));
}

void expect_down(struct seen *s, enum err code, const char *part)
{
    turn_until(s, &s->down, 1);
    if (s->code != code || strstr(s->why, part) == NULL)
        test_fail(__FILE__, __LINE__, "down with %s (%s)", err_name((int)s->code), s->why);
    if (s->link != NULL) {
        buf_put(link_out(s->link), "x", 1);
        EXPECT_ERR(ERR_CLOSED, link_send(s->link));
        link_ping(s->link);
        link_set_busy(s->link, true);
    }
    turn_ms(s, 5);
    EXPECT_EQ(s->down, 1);
}

void put_query(struct link *k, uint32_t request, size_t sql_len)
{
    char *sql = malloc(sql_len + 1);
    struct wire_query q = {0};
    EXPECT(sql != NULL);
    memset(sql, ' ', sql_len + 1);
    size_t begun = wire_begin_query(link_out(k), WIRE_QUERY, (struct wire_id){1, request}, &q);
    size_t statement = wire_begin_statement(link_out(k), 0, sql, sql_len);
    wire_end_statement(link_out(k), statement, 0);
    wire_end_query(link_out(k), begun, 1);
    free(sql);
}

void query(struct link *k, uint32_t request)
{
    put_query(k, request, 8);
    EXPECT_OK(link_send(k));
}

void listen_by_hand(struct by_hand *h, int backlog)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    h->fd = -1;
    h->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(h->listener >= 0 && bind(h->listener, (struct sockaddr *)&a, size) == 0);
    EXPECT(listen(h->listener, backlog) == 0);
    EXPECT(getsockname(h->listener, (struct sockaddr *)&a, &size) == 0);
    (void)snprintf(h->address, sizeof h->address, "127.0.0.1:%u", ntohs(a.sin_port));
}

void end_by_hand(struct by_hand *h)
{
    (void)close(h->listener);
    if (h->fd >= 0)
        (void)close(h->fd);
}

void let_names_end(void)
{
    fake_names_release();
    while (fake_names_hanging() > 0)
        (void)poll(NULL, 0, 1);
}
