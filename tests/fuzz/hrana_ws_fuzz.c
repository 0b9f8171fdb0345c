/* Room: tests. Fuzz target: Hrana over a WebSocket, above sessions whose requests this target
 * answers (tests/lib/asked.h). The first byte chooses the subprotocol. Each further line is a
 * message of the client, or, when it begins with none of its characters, a series of deeds of the
 * leader and the client:
 *
 *   1..9  the next deed is for that one of the requests that are asked
 *   c r R s  columns, short rows, long rows, the end of a statement
 *   d t   done, without and within a transaction      e l u  errors: SQL, of the transaction,
 * unknown g     the client reads what it was told           p      the loop goes on
 *
 * Whatever comes in whatever order: when the socket is gone, so is all that it had. */
#include "node/http/hrana_stream.h"
#include "node/http/hrana_ws.h"
#include "tests/fuzz/http_kit.h"
#include "tests/lib/asked.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct node node;
static const struct config config = {.id = 1,
                                     .http_url = "",
                                     .http_read = "session",
                                     .http_begin = "deferred",
                                     .waiting_bytes = WAITING_LIMIT_MIN,
                                     .http_body_bytes = 5000,
                                     .http_answer_bytes = 50000,
                                     .leader_wait_ms = 5000,
                                     .txn_idle_ms = 5000,
                                     .txn_total_ms = 30000};
static const struct route routes[] = {{HTTP_VERB_OTHER, NULL, NULL}};
static const struct router router = {.routes = routes, .websockets = &hrana_ws_handler};

static void turn(void)
{
    thread_expect_loop();
    (void)uv_run(&fuzz_loop, UV_RUN_NOWAIT);
    hrana_streams_go_on(&node);
    hrana_ws_go_on(&node);
}

static void hear(int fd)
{
    static char room[65536];
    while (recv(fd, room, sizeof room, 0) > 0)
        ;
}

static void say(int fd, bool text, const uint8_t *p, size_t n)
{
    uint8_t head[8] = {text ? 0x81 : 0x82, 0x80 | 126, (uint8_t)(n >> 8), (uint8_t)n};
    size_t n_head = 8;
    if (n < 126) { /* and a mask that changes nothing */
        head[1] = (uint8_t)(0x80 | n);
        head[2] = head[3] = 0;
        n_head = 6;
    }
    (void)send(fd, head, n_head, MSG_NOSIGNAL); /* it may be closed by now */
    (void)send(fd, p, n, MSG_NOSIGNAL);
    turn();
}

static void deed(int fd, char what, unsigned nth)
{
    thread_expect_loop();
    struct request *r = asked(&node, nth);
    if (what == 'g')
        hear(fd);
    if (what == 'p')
        turn();
    if (r == NULL)
        return;
    switch (what) {
    case 'c':
        asked_columns(r, 1);
        return;
    case 'r':
        asked_rows(r, 2, 10);
        return;
    case 'R':
        asked_rows(r, 10, 20000);
        return;
    case 's':
        asked_step(r, 1);
        return;
    case 'd':
    case 't':
        asked_done(r, 1, what == 't');
        return;
    case 'e':
        asked_error(r, asked_is_cancelled(r) ? ERR_CANCELLED : ERR_SQL, 0, "why", false);
        return;
    case 'l':
        asked_error(r, ERR_TXN_LOST, 0, "why", false);
        return;
    case 'u':
        asked_error(r, ERR_UNKNOWN, 0, "why", false);
        return;
    default:
        return;
    }
}

static void line(int fd, bool text, const uint8_t *p, size_t n)
{
    unsigned nth = 0;
    if (n > 0 && (!text || *p == '{')) {
        say(fd, text, p, n);
        return;
    }
    for (size_t i = 0; i < n && i < 200; i++) {
        bool number = p[i] >= '1' && p[i] <= '9';
        if (!number)
            deed(fd, (char)p[i], nth);
        nth = number ? (unsigned)p[i] - '1' : 0;
    }
}

/* A message of Protobuf may hold anything: behind 'B' and its length. */
static size_t binary(int fd, const uint8_t *p, size_t n)
{
    size_t len = n < 2 ? 0 : p[1];
    if (len > n - 2 || n < 2)
        return n;
    say(fd, false, p + 2, len);
    return 2 + len;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const protocols[] = {"hrana3", "hrana2", "hrana1", "hrana3-protobuf"};
    char upgrade[400];
    if (size < 2 || size > 20000)
        return 0;
    if (fuzz_node == NULL) {
        thread_become(THREAD_LOOP);
        thread_expect_loop();
        asked_open(&node, &config);
        fuzz_node = &node;
    }
    fuzz_open(&router);
    thread_expect_loop();
    int n = snprintf(upgrade, sizeof upgrade,
                     "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                     "Sec-WebSocket-Protocol: %s\r\n\r\n",
                     protocols[data[0] & 3]);
    int fd = fuzz_dial();
    CHECK(send(fd, upgrade, (size_t)n, MSG_NOSIGNAL) == n);
    turn();
    turn();
    for (size_t at = 1; at < size;) {
        const uint8_t *p = data + at, *end = memchr(p, '\n', size - at);
        size_t len = end == NULL ? size - at : (size_t)(end - p);
        if (*p == 'B') {
            at += binary(fd, p, size - at);
            continue;
        }
        line(fd, true, p, len);
        at += len + 1;
    }
    fuzz_hang_up(fd);
    turn();
    CHECK(list_empty(&node.sessions) && list_empty(&node.watched) && node.waiting.bytes == 0);
    CHECK(list_empty(&node.hrana_waits) && list_empty(&node.hrana_cancels) &&
          list_empty(&node.hrana_sockets));
    return 0;
}
