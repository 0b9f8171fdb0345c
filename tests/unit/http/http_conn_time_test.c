/* Room: tests. Who keeps a connection waiting loses it: with a head, a body, an answer that is not
 * taken, or nothing at all. The times are short here, and nothing depends on how short. */
#include "base/clock.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/http/http_handlers.h"
#include "tests/unit/http/http_stage.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SHORT_MS 80
#define LONG_MS  60000
/* Where the client is in time first, also on a machine that stands still for a moment. */
#define UNHURRIED_MS 600

static struct http_options options(void)
{
    struct http_options o = http_options_default();
    o.router = &test_router;
    o.head_ms = o.body_ms = o.take_ms = o.idle_ms = LONG_MS;
    return o;
}

TEST(http_ends_an_idle_connection)
{
    struct http_stage s;
    struct http_options o = options();
    o.idle_ms = UNHURRIED_MS;
    stage_open(&s, o);
    int quiet = client_dial(&s), fd = client_dial(&s);
    uint64_t begun = clock_mono_ms();
    client_say_text(&s, fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    char *a = client_hear_all(&s, fd, NULL);
    EXPECT(clock_mono_ms() - begun >= UNHURRIED_MS);
    EXPECT(strstr(a, "200 OK") != NULL && strstr(a, "408") == NULL);
    free(a);
    a = client_hear_all(&s, quiet, NULL);
    EXPECT(*a == 0); /* no answer that nobody asked for */
    free(a);
    (void)close(fd);
    (void)close(quiet);
    stage_close(&s);
}

TEST(http_ends_a_head_that_crawls)
{
    struct http_stage s;
    struct http_options o = options();
    o.head_ms = SHORT_MS;
    stage_open(&s, o);
    int fd = client_dial(&s);
    /* A byte now and then keeps nothing alive. */
    uint64_t begun = clock_mono_ms();
    client_say_text(&s, fd, "GET /echo HTTP/1.1\r\nX: ");
    while (clock_mono_ms() - begun < 2 * SHORT_MS) {
        stage_for(&s, 10);
        client_say(&s, fd, "x", 1, 0);
    }
    char *a = client_hear_all(&s, fd, NULL);
    EXPECT(strncmp(a, "HTTP/1.1 408 ", 13) == 0);
    EXPECT(strstr(a, "\"code\":\"TIMEOUT\"") != NULL);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_ends_a_body_that_crawls)
{
    struct http_stage s;
    struct http_options o = options();
    o.body_ms = SHORT_MS;
    stage_open(&s, o);
    int fd = client_dial(&s);
    uint64_t begun = clock_mono_ms();
    client_say_text(&s, fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    while (clock_mono_ms() - begun < 2 * SHORT_MS) {
        stage_for(&s, 10);
        client_say(&s, fd, "x", 1, 0);
    }
    char *a = client_hear_all(&s, fd, NULL);
    EXPECT(strncmp(a, "HTTP/1.1 408 ", 13) == 0 && test_overs == 1);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_waits_for_a_body_that_comes_slowly)
{
    static char part[2000];
    struct http_stage s;
    struct http_options o = options();
    o.body_ms = 2000;
    stage_open(&s, o);
    int fd = client_dial(&s);
    uint64_t begun = clock_mono_ms();
    client_say_text(&s, fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n");
    memset(part, 'x', sizeof part);
    for (unsigned i = 0; i < 30; i++) {
        client_say(&s, fd, part, sizeof part, 0);
        stage_for(&s, 100);
    }
    char *a = client_hear(&s, fd, "body=xxx", NULL);
    EXPECT(clock_mono_ms() - begun > 2000);
    EXPECT(strncmp(a, "HTTP/1.1 200 ", 13) == 0);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_ends_a_client_that_takes_nothing)
{
    struct http_stage s;
    struct http_options o = options();
    o.take_ms = SHORT_MS;
    stage_open(&s, o);
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /flood HTTP/1.1\r\nHost: h\r\n\r\n");
    for (unsigned i = 0; i < 1000 && test_overs == 0; i++)
        stage_for(&s, 10);
    EXPECT(test_overs == 1 && test_flood_left > 0);
    thread_expect_loop();
    EXPECT_EQ(http_listener_connections(s.listener), 0);
    (void)close(fd);
    stage_close(&s);
}

/* The kernel takes two seconds' worth and more of what it reads, and asks for no more meanwhile. */
TEST(http_waits_for_a_client_that_takes_slowly_and_steadily)
{
    static char part[KIB(4)];
    struct http_stage s;
    struct http_options o = options();
    o.take_ms = 1500;
    stage_open(&s, o);
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /flood HTTP/1.1\r\nHost: h\r\n\r\n");
    for (unsigned i = 0; i < 300; i++) {
        stage_for(&s, 10);
        EXPECT(recv(fd, part, sizeof part, 0) > 0);
    }
    EXPECT(test_overs == 0 && test_flood_left > 0);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_waits_for_its_handler)
{
    struct http_stage s;
    struct http_options o = options();
    o.head_ms = o.body_ms = o.take_ms = o.idle_ms = UNHURRIED_MS;
    stage_open(&s, o);
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    stage_for(&s, 2 * UNHURRIED_MS);
    EXPECT(test_later != NULL);
    test_answer_later();
    char *a = client_hear(&s, fd, "body=", NULL);
    EXPECT(strstr(a, "200 OK") != NULL);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

/* An answer of old HTTP ends with its connection: a part must not look like the whole. */
TEST(http_breaks_an_answer_that_is_not_taken_before_the_node_ends)
{
    struct http_stage s;
    char room[65536];
    ssize_t n;
    size_t all = 0;
    stage_open(&s, options());
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /large HTTP/1.0\r\n\r\n");
    stage_turn(&s);
    thread_expect_loop();
    http_listener_close(s.listener);
    s.listener = NULL;
    EXPECT(uv_run(&s.loop, UV_RUN_DEFAULT) == 0);
    while ((n = recv(fd, room, sizeof room, 0)) > 0)
        all += (size_t)n;
    EXPECT(n < 0 && errno == ECONNRESET && all < TEST_FLOOD_BYTES);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_gives_a_slow_client_the_whole_answer_before_it_closes)
{
    static const char *const asks[] = {
        "GET /large HTTP/1.0\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        "GET /large HTTP/1.1\r\nHost: h\r\n\r\n"};
    struct http_stage s;
    int fds[3];
    stage_open(&s, options());
    for (unsigned i = 0; i < 3; i++) {
        fds[i] = client_dial(&s);
        client_say_text(&s, fds[i], asks[i]);
    }
    stage_turn(&s);
    EXPECT(shutdown(fds[2], SHUT_WR) == 0);
    stage_for(&s, 2500); /* more than the end of a connection may take */
    for (unsigned i = 0; i < 3; i++) {
        size_t n;
        free(client_hear_all(&s, fds[i], &n));
        EXPECT(n > TEST_FLOOD_BYTES);
        (void)close(fds[i]);
    }
    stage_close(&s);
}
