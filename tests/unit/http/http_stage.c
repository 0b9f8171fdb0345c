/* Room: tests.   Thread: the test's.   Owns: nothing. */
#include "tests/unit/http/http_stage.h"

#include "base/clock.h"
#include "base/mem.h"
#include "tests/lib/test.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void stage_open(struct http_stage *s, struct http_options options)
{
    (void)signal(SIGPIPE, SIG_IGN); /* as lecternd does */
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    memset(s, 0, sizeof *s);
    EXPECT(uv_loop_init(&s->loop) == 0);
    waiting_init(&s->waiting, WAITING_LIMIT_MIN, 100);
    options.listen = "127.0.0.1:0";
    options.waiting = &s->waiting;
    EXPECT_OK(http_listener_open(&s->loop, &options, &s->listener));
}

void stage_close(struct http_stage *s)
{
    thread_expect_loop();
    if (s->listener != NULL)
        http_listener_close(s->listener);
    EXPECT(uv_run(&s->loop, UV_RUN_DEFAULT) == 0);
    EXPECT_EQ(s->waiting.bytes, 0);
    EXPECT(uv_loop_close(&s->loop) == 0);
}

void stage_turn(struct http_stage *s)
{
    (void)uv_run(&s->loop, UV_RUN_NOWAIT);
}

void stage_until(struct http_stage *s, const bool *done)
{
    uint64_t begun = clock_mono_ms();
    while (!*done) {
        stage_turn(s);
        EXPECT(clock_mono_ms() - begun < TEST_HANG_MS);
    }
}

void stage_for(struct http_stage *s, uint64_t ms)
{
    uint64_t begun = clock_mono_ms();
    while (clock_mono_ms() - begun < ms) {
        stage_turn(s);
        (void)poll(NULL, 0, 1);
    }
}

int client_dial(struct http_stage *s)
{
    thread_expect_loop();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(http_listener_port(s->listener)),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    EXPECT(fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0);
    int yes = 1;
    EXPECT(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes) == 0);
    EXPECT(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    stage_turn(s);
    return fd;
}

void client_say(struct http_stage *s, int fd, const void *p, size_t n, size_t piece)
{
    const char *at = p;
    uint64_t begun = clock_mono_ms();
    while (n > 0) {
        ssize_t sent = send(fd, at, piece == 0 || piece > n ? n : piece, MSG_NOSIGNAL);
        stage_turn(s);
        if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
            return; /* it was refused: what came back says so */
        if (sent < 0)
            EXPECT(errno == EAGAIN && clock_mono_ms() - begun < TEST_HANG_MS);
        if (sent > 0) {
            at += sent;
            n -= (size_t)sent;
        }
    }
}

void client_say_text(struct http_stage *s, int fd, const char *text)
{
    client_say(s, fd, text, strlen(text), 0);
}

char *client_hear(struct http_stage *s, int fd, const char *wanted, size_t *n)
{
    struct buf b;
    size_t want = wanted == NULL ? 0 : strlen(wanted);
    uint64_t begun = clock_mono_ms();
    buf_init(&b, SIZE_MAX);
    while (want == 0 || b.len < want || memmem(b.data, b.len, wanted, want) == NULL) {
        char room[65536];
        stage_turn(s);
        ssize_t got = recv(fd, room, sizeof room, 0);
        if (got == 0 || (got < 0 && errno != EAGAIN))
            break;
        if (got > 0)
            buf_put(&b, room, (size_t)got);
        if (clock_mono_ms() - begun > TEST_HANG_MS)
            test_fail(__FILE__, __LINE__, "waited for \"%s\", got %.*s",
                      wanted == NULL ? "the end" : wanted, (int)(b.len < 2000 ? b.len : 2000),
                      b.data == NULL ? "" : (const char *)b.data);
    }
    if (n != NULL)
        *n = b.len;
    buf_put_u8(&b, 0);
    size_t len;
    return (char *)buf_take(&b, &len);
}

char *client_hear_all(struct http_stage *s, int fd, size_t *n)
{
    return client_hear(s, fd, NULL, n);
}

bool client_is_ended(struct http_stage *s, int fd)
{
    size_t n;
    char *all = client_hear_all(s, fd, &n);
    free(all);
    return true;
}
