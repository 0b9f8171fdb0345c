/* Room: tests. What a connection does with requests that are right: in pieces of any size, one
 * after the other, kept or ended.   Not here: wrong ones (http_conn_bad_test.c), times
 * (http_conn_time_test.c). */
#include "base/mem.h"
#include "node/http/door.h"
#include "node/http/exchange.h"
#include "tests/lib/test.h"
#include "tests/unit/http/http_handlers.h"
#include "tests/unit/http/http_stage.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static struct http_options options(void)
{
    struct http_options o = http_options_default();
    o.router = &test_router;
    return o;
}

static unsigned times(const char *text, const char *part)
{
    unsigned n = 0;
    for (const char *p = text; (p = strstr(p, part)) != NULL; p += strlen(part))
        n++;
    return n;
}

/* Says REQUEST in pieces of PIECE on a new connection, hears until WANTED. */
static char *ask(struct http_stage *s, const char *request, size_t piece, const char *wanted)
{
    int fd = client_dial(s);
    client_say(s, fd, request, strlen(request), piece);
    char *answer = client_hear(s, fd, wanted, NULL);
    (void)close(fd);
    stage_turn(s);
    return answer;
}

static void expect_in(const char *answer, const char *part)
{
    if (strstr(answer, part) == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\" is not in: %s", part, answer);
}

TEST(http_answers_a_get)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s, "GET /echo?x=1 HTTP/1.1\r\nHost: h\r\n\r\n", 0, "body=");
    EXPECT(strncmp(a, "HTTP/1.1 200 OK\r\ndate: ", 23) == 0);
    expect_in(a, " GMT\r\ncontent-type: text/plain\r\n");
    EXPECT(strstr(a, "access-control-") == NULL);
    expect_in(a, "\r\n\r\nverb=1 path=/echo query=x=1 body=");
    EXPECT(strstr(a, "connection:") == NULL);
    free(a);
    stage_close(&s);
}

TEST(http_reads_requests_in_pieces_of_any_size)
{
    static const char text[] =
        "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
        "\r\nPOST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3\r\nabc\r\n0a;x=y\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n"
        "GET /echo?end HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    struct http_stage s;
    stage_open(&s, options());
    enum { PIECES = 40 };
    for (size_t piece = 1; piece <= PIECES; piece++) {
        char *a = ask(&s, text, piece, NULL);
        EXPECT_EQ(times(a, "HTTP/1.1 200 OK"), 3);
        expect_in(a, "body=hello");
        expect_in(a, "body=abc0123456789");
        expect_in(a, "query=end body=");
        expect_in(a, "connection: close\r\n");
        free(a);
    }
    EXPECT_EQ(test_overs, 3 * PIECES);
    stage_close(&s);
}

TEST(http_cuts_a_stream_of_requests_anywhere)
{
    static const char text[] = "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc"
                               "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
    struct http_stage s;
    stage_open(&s, options());
    for (size_t cut = 1; cut < sizeof text - 1; cut++) {
        int fd = client_dial(&s);
        client_say(&s, fd, text, cut, 0);
        client_say(&s, fd, text + cut, sizeof text - 1 - cut, 0);
        char *a = client_hear_all(&s, fd, NULL);
        EXPECT_EQ(times(a, "200 OK"), 2);
        EXPECT_EQ(times(a, "body=abc"), 1);
        free(a);
        (void)close(fd);
    }
    stage_close(&s);
}

TEST(http_gives_headers_and_parameters_to_the_handler)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s,
                  "GET /headers?a=%41b+c&bad=%4&zero=%00&long=12345678901234567890 HTTP/1.1\r\n"
                  "HOST:h\r\nX-One:  first \t\r\nX-Empty:\r\nx-one: second\r\n\r\n",
                  0, "end");
    expect_in(a, "one=<first> empty=<> none=0 a=<Ab c> bad=1 zero=1 long=1 none=0 end");
    free(a);
    a = ask(&s, "GET http://h/echo?q HTTP/1.1\r\nHost: h\r\n\r\n", 0, "body=");
    expect_in(a, "path=/echo query=q");
    free(a);
    a = ask(&s, "GET http://h?q HTTP/1.1\r\nHost: h\r\n\r\n", 0, "code");
    expect_in(a, "404 Not Found");
    free(a);
    stage_close(&s);
}

TEST(http_answers_head_without_a_body)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s,
                  "HEAD /echo HTTP/1.1\r\nHost: h\r\n\r\n"
                  "HEAD /stream?3 HTTP/1.1\r\nHost: h\r\n\r\n"
                  "GET /version HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                  0, NULL);
    EXPECT_EQ(times(a, "HTTP/1.1 200 OK"), 3);
    expect_in(a, "content-length: 30\r\n");
    EXPECT(strstr(a, "body=") == NULL && strstr(a, "piece") == NULL);
    expect_in(a, "\r\n\r\nversion");
    free(a);
    stage_close(&s);
}

TEST(http_keeps_old_clients_only_when_they_ask)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s, "GET /echo HTTP/1.0\r\n\r\n", 0, NULL);
    expect_in(a, "connection: close\r\n");
    free(a);
    a = ask(&s,
            "GET /echo HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
            "GET /stream?2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            0, NULL);
    expect_in(a, "connection: keep-alive\r\n");
    expect_in(a, "connection: close\r\n\r\npiece piece ");
    EXPECT(strstr(a, "chunked") == NULL);
    free(a);
    stage_close(&s);
}

TEST(http_streams_in_chunks)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s, "GET /stream?2 HTTP/1.1\r\nHost: h\r\n\r\n", 0, "0\r\n\r\n");
    expect_in(a, "transfer-encoding: chunked\r\n\r\n6\r\npiece \r\n6\r\npiece \r\n0\r\n\r\n");
    EXPECT(strstr(a, "content-length") == NULL);
    free(a);
    a = ask(&s, "GET /broken HTTP/1.1\r\nHost: h\r\n\r\n", 0, NULL);
    EXPECT(strstr(a, "0\r\n\r\n") == NULL);
    free(a);
    stage_close(&s);
}

TEST(http_waits_for_a_client_that_takes_nothing)
{
    struct http_stage s;
    stage_open(&s, options());
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /flood HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    stage_for(&s, 50);
    EXPECT(test_flood_left > 0); /* its maker was told to wait */
    EXPECT(s.waiting.bytes < 2 * TEST_FLOOD_PIECE + 2 * 262144);
    size_t n;
    char *a = client_hear_all(&s, fd, &n);
    EXPECT(test_flood_left == 0 && n > TEST_FLOOD_BYTES);
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_answers_pipelined_requests_in_order)
{
    struct http_stage s;
    struct buf b;
    stage_open(&s, options());
    buf_init(&b, SIZE_MAX);
    enum { N = 3000 };
    for (unsigned i = 0; i < N; i++)
        buf_printf(&b, "GET /echo?%06u HTTP/1.1\r\nHost: h\r\n%s\r\n", i,
                   i == N - 1 ? "Connection: close\r\n" : "");
    int fd = client_dial(&s);
    client_say(&s, fd, b.data, b.len, 0);
    char *a = client_hear_all(&s, fd, NULL), *at = a;
    for (unsigned i = 0; i < N; i++) {
        char want[32];
        (void)snprintf(want, sizeof want, "query=%06u ", i);
        at = strstr(at, want);
        EXPECT(at != NULL);
    }
    EXPECT_EQ(times(a, "HTTP/1.1 200 OK"), N);
    free(a);
    buf_fini(&b);
    (void)close(fd);
    stage_close(&s);
}

/* However much one client asks ahead, the loop is for all. */
TEST(http_gives_the_others_their_turn)
{
    enum { ASKED = 300 };
    struct http_stage s;
    struct buf b;
    stage_open(&s, options());
    buf_init(&b, SIZE_MAX);
    for (unsigned i = 0; i < ASKED; i++)
        buf_printf(&b, "GET /busy HTTP/1.1\r\nHost: h\r\n%s\r\n",
                   i + 1 < ASKED ? "" : "Connection: close\r\n");
    int greedy = client_dial(&s), other = client_dial(&s);
    EXPECT(write(greedy, b.data, b.len) == (ssize_t)b.len);
    EXPECT(shutdown(greedy, SHUT_WR) == 0);
    while (test_begins == 0)
        stage_turn(&s);
    EXPECT(test_begins < 20);
    client_say_text(&s, other, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    free(client_hear(&s, other, "body=", NULL));
    EXPECT(test_begins < 50);
    char *a = client_hear_all(&s, greedy, NULL);
    EXPECT_EQ(times(a, "HTTP/1.1 200 OK"), ASKED);
    free(a);
    (void)close(greedy);
    (void)close(other);
    buf_fini(&b);
    stage_close(&s);
}

TEST(http_looks_at_no_request_before_the_answer_to_the_one_before)
{
    struct http_stage s;
    stage_open(&s, options());
    int fd = client_dial(&s);
    client_say_text(&s, fd,
                    "GET /later HTTP/1.1\r\nHost: h\r\n\r\nGET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    stage_for(&s, 20);
    EXPECT(test_later != NULL && test_begins == 1);
    /* What comes ahead is kept up to a bound; then it stays with its sender. */
    char *ahead = mem_zalloc(8u << 20);
    memset(ahead, 'x', 8u << 20);
    for (unsigned i = 0; i < 200; i++) {
        (void)send(fd, ahead, 8u << 20, MSG_NOSIGNAL);
        stage_turn(&s);
    }
    EXPECT(s.waiting.bytes > 0 && s.waiting.bytes < 512 * 1024);
    test_answer_later();
    char *a = client_hear_all(&s, fd, NULL); /* the third request is rubbish */
    EXPECT_EQ(times(a, "200 OK"), 2);
    EXPECT_EQ(times(a, "400 Bad Request"), 1);
    free(a);
    free(ahead);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_tells_a_handler_that_its_client_is_gone)
{
    struct http_stage s;
    stage_open(&s, options());
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    stage_for(&s, 10);
    struct linger reset = {1, 0};
    EXPECT(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    (void)close(fd);
    for (unsigned i = 0; i < 100 && test_overs == 0; i++)
        stage_for(&s, 10);
    EXPECT_EQ(test_overs, 1);
    /* In the middle of a body. */
    fd = client_dial(&s);
    client_say_text(&s, fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf");
    (void)close(fd);
    for (unsigned i = 0; i < 100 && test_overs == 1; i++)
        stage_for(&s, 10);
    EXPECT_EQ(test_overs, 2);
    stage_close(&s);
}

TEST(http_answers_a_client_that_says_no_more)
{
    struct http_stage s;
    stage_open(&s, options());
    int fd = client_dial(&s);
    client_say_text(&s, fd, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(shutdown(fd, SHUT_WR) == 0);
    stage_for(&s, 20);
    EXPECT(test_later != NULL && test_overs == 0);
    test_answer_later();
    char *a = client_hear_all(&s, fd, NULL);
    EXPECT_EQ(times(a, "200 OK"), 1);
    expect_in(a, "connection: close");
    free(a);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_says_continue_when_it_is_waited_for)
{
    struct http_stage s;
    stage_open(&s, options());
    int fd = client_dial(&s);
    client_say_text(&s, fd,
                    "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: 100-Continue\r\n"
                    "Content-Length: 4\r\n\r\n");
    char *a = client_hear(&s, fd, "\r\n\r\n", NULL);
    EXPECT(strcmp(a, "HTTP/1.1 100 Continue\r\n\r\n") == 0);
    free(a);
    client_say_text(&s, fd, "body");
    a = client_hear(&s, fd, "body=body", NULL);
    expect_in(a, "200 OK");
    free(a);
    (void)close(fd);
    /* A final answer at once, and then the end: the body may come or not. */
    a = ask(&s,
            "POST /early HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
            0, NULL);
    EXPECT(strstr(a, "100 Continue") == NULL);
    expect_in(a, "connection: close");
    free(a);
    a = ask(&s, "POST /echo HTTP/1.1\r\nHost: h\r\nExpect: tea\r\nContent-Length: 4\r\n\r\n", 0,
            NULL);
    expect_in(a, "417 Expectation Failed");
    free(a);
    stage_close(&s);
}

TEST(http_drops_the_rest_of_a_body_behind_an_early_answer)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s,
                  "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"
                  "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
                  1, NULL);
    EXPECT_EQ(times(a, "HTTP/1.1 200 OK"), 2);
    EXPECT_EQ(times(a, "connection: close"), 1);
    EXPECT_EQ(test_bodies, 0);
    free(a);
    /* Too much of it, or nobody knows how much: the connection ends, and the answer is read. */
    struct buf b;
    buf_init(&b, SIZE_MAX);
    buf_printf(&b, "POST /early HTTP/1.1\r\nHost: h\r\nContent-Length: 8000000\r\n\r\n");
    memset(buf_extend(&b, 8000000), 'x', 8000000);
    int fd = client_dial(&s);
    client_say(&s, fd, b.data, b.len, 0);
    a = client_hear_all(&s, fd, NULL);
    expect_in(a, "200 OK");
    expect_in(a, "connection: close");
    free(a);
    buf_fini(&b);
    (void)close(fd);
    stage_close(&s);
}

TEST(http_routes_by_path_and_method)
{
    struct http_stage s;
    stage_open(&s, options());
    char *a = ask(&s, "GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n", 0, "code");
    expect_in(a, "404 Not Found");
    expect_in(a, "{\"error\":\"there is nothing at this path\",\"message\":\"there is nothing");
    free(a);
    a = ask(&s, "DELETE /echo HTTP/1.1\r\nHost: h\r\n\r\n", 0, "code");
    expect_in(a, "405 Method Not Allowed");
    expect_in(a, "allow: GET, HEAD, POST, OPTIONS\r\n");
    free(a);
    a = ask(&s, "GET /dev/name/echo HTTP/1.1\r\nHost: h\r\n\r\n", 0, "body=");
    expect_in(a, "path=/dev/name/echo");
    free(a);
    a = ask(&s, "GET /dev//echo HTTP/1.1\r\nHost: h\r\n\r\n", 0, "code");
    expect_in(a, "404");
    free(a);
    a = ask(&s, "GET /below/a/b HTTP/1.1\r\nHost: h\r\n\r\n", 0, "body=");
    expect_in(a, "path=/below/a/b");
    free(a);
    stage_close(&s);
}

TEST(http_answers_browsers_of_allowed_origins)
{
    struct http_stage s;
    struct http_options o = options();
    o.cors = "*";
    stage_open(&s, o);
    char *a = ask(&s,
                  "OPTIONS /echo HTTP/1.1\r\nHost: h\r\nOrigin: http://a\r\n"
                  "Access-Control-Request-Method: POST\r\n"
                  "Access-Control-Request-Headers: authorization,content-type\r\n\r\n",
                  0, "\r\n\r\n");
    expect_in(a, "204 No Content");
    expect_in(a, "access-control-allow-origin: *\r\n");
    expect_in(a, "access-control-allow-headers: authorization,content-type\r\n");
    expect_in(a, "access-control-allow-methods: GET, HEAD, POST, OPTIONS\r\n");
    EXPECT(strstr(a, "content-length") == NULL);
    free(a);
    stage_close(&s);

    o.cors = "http://a, http://b";
    stage_open(&s, o);
    a = ask(&s, "GET /echo HTTP/1.1\r\nHost: h\r\nOrigin: http://b\r\n\r\n", 0, "body=");
    expect_in(a, "access-control-allow-origin: http://b\r\n");
    expect_in(a, "vary: origin\r\n");
    free(a);
    a = ask(&s, "GET /large HTTP/1.1\r\nHost: h\r\nOrigin: http://c\r\n\r\n", 0, "\r\n\r\n");
    expect_in(a, "200 OK");
    EXPECT(strstr(a, "access-control") == NULL);
    expect_in(a, "vary: origin\r\n");
    free(a);
    stage_close(&s);
}

/* The status of METHOD /echo from a page of ORIGIN, which knows this node as HOST. */
static int status_for(struct http_stage *s, const char *method, const char *origin,
                      const char *host)
{
    unsigned begun = test_begins;
    char *request =
        mem_printf("%s /echo HTTP/1.1\r\nHost: %s\r\n%s%s%s"
                   "Content-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi",
                   method, host, origin == NULL ? "" : "Origin: ", origin == NULL ? "" : origin,
                   origin == NULL ? "" : "\r\n");
    char *a = ask(s, request, 0, origin == NULL ? "body=" : "\r\n\r\n");
    int status = (int)strtol(a + 9, NULL, 10);
    EXPECT_EQ(test_begins - begun, status == 200); /* nothing is done of what is refused */
    if (status == 403)
        expect_in(a, "vary: origin\r\n");
    free(request);
    free(a);
    return status;
}

TEST(http_runs_nothing_for_pages_of_other_origins)
{
    static const char *const own = "127.0.0.1:8081";
    struct http_stage s;
    struct http_options o = options();
    stage_open(&s, o);
    EXPECT_EQ(status_for(&s, "POST", NULL, own), 200);
    EXPECT_EQ(status_for(&s, "POST", "https://evil.example", own), 403);
    EXPECT_EQ(status_for(&s, "GET", "https://evil.example", own), 403);
    EXPECT_EQ(status_for(&s, "POST", "null", own), 403);
    EXPECT_EQ(status_for(&s, "POST", "", own), 403);
    /* A page of this very address; another port is another page. */
    EXPECT_EQ(status_for(&s, "POST", "http://127.0.0.1:8081", own), 200);
    EXPECT_EQ(status_for(&s, "POST", "http://127.0.0.1:3000", own), 403);
    EXPECT_EQ(status_for(&s, "POST", "http://[::1]:8081", "[::1]:8081"), 200);
    EXPECT_EQ(status_for(&s, "POST", "http://localhost:8081", "localhost:8081"), 200);
    /* Whoever owns a name can let it point here. */
    EXPECT_EQ(status_for(&s, "POST", "http://evil.example:8081", "evil.example:8081"), 403);
    EXPECT_EQ(status_for(&s, "POST", "http://127.0.0.1.evil.example", "127.0.0.1.evil.example"),
              403);
    stage_close(&s);
    o.cors = "https://app.example,http://localhost:3000";
    stage_open(&s, o);
    EXPECT_EQ(status_for(&s, "POST", "https://app.example", own), 200);
    EXPECT_EQ(status_for(&s, "POST", "http://localhost:3000", own), 200);
    EXPECT_EQ(status_for(&s, "POST", "http://app.example", own), 403);
    EXPECT_EQ(status_for(&s, "POST", "https://app.example.evil.example", own), 403);
    stage_close(&s);
    o.cors = "*";
    stage_open(&s, o);
    EXPECT_EQ(status_for(&s, "POST", "https://evil.example", own), 200);
    stage_close(&s);
}

/* Is /data given to a GET that comes by HOST (NULL: HTTP/1.0, which needs none)? */
static bool gives_data_at(struct http_stage *s, const char *host)
{
    unsigned begun = test_begins;
    char *request = host == NULL ? mem_printf("GET /data HTTP/1.0\r\n\r\n")
                                 : mem_printf("GET /data HTTP/1.1\r\nHost: %s\r\n\r\n", host);
    char *a = ask(s, request, 0, "\r\n\r\n");
    int status = (int)strtol(a + 9, NULL, 10);
    EXPECT(status == 200 || status == 403);
    EXPECT_EQ(test_begins - begun, status == 200);
    free(request);
    free(a);
    return status == 200;
}

/* A name that points here may be that of a page which was loaded from elsewhere: of its GET no
 * browser says so. */
TEST(http_gives_data_only_by_names_that_it_knows)
{
    static const char *const nobodys[] = {
        "127.0.0.1:8081", "127.0.0.1", "10.1.2.3:80",    "[::1]:8081",    "[::1]",
        "[fe80::1]:1",    "localhost", "LocalHost:8081", "app.localhost", NULL};
    static const char *const anybodys[] = {"evil.example:8081",
                                           "evil.example",
                                           "localhost.evil.example:8081",
                                           "127.0.0.1.evil.example",
                                           "evil-localhost",
                                           ".localhost",
                                           "[::1].evil.example",
                                           "[evil.example]",
                                           "[::1",
                                           "127.0.0.1.",
                                           "",
                                           ":8081",
                                           "app.example"};
    struct http_stage s;
    struct http_options o = options();
    stage_open(&s, o);
    for (size_t i = 0; i == 0 || nobodys[i - 1] != NULL; i++)
        EXPECT(gives_data_at(&s, nobodys[i]));
    for (size_t i = 0; i < sizeof anybodys / sizeof anybodys[0]; i++)
        EXPECT(!gives_data_at(&s, anybodys[i]));
    /* What the target says is no way around it. */
    char *a = ask(&s, "GET http://127.0.0.1/data HTTP/1.1\r\nHost: evil.example\r\n\r\n", 0, "}");
    expect_in(a, "400 Bad Request");
    free(a);
    a = ask(&s, "GET http://evil.example/data HTTP/1.1\r\nHost: evil.example\r\n\r\n", 0, "}");
    expect_in(a, "403 Forbidden");
    expect_in(a, "http-url");
    free(a);
    /* HEAD as GET; what only tells, and what a browser says the origin of, as before. */
    a = ask(&s, "HEAD /data HTTP/1.1\r\nHost: evil.example\r\n\r\n", 0, "\r\n\r\n");
    expect_in(a, "403 Forbidden");
    free(a);
    EXPECT_EQ(status_for(&s, "GET", NULL, "db.example:8081"), 200);
    EXPECT_EQ(status_for(&s, "POST", NULL, "db.example:8081"), 200);
    stage_close(&s);
    o.url = "http://db1.example:8081";
    o.cors = "http://db.example , https://[fd00::1]:3000,https://app.example:8443";
    stage_open(&s, o);
    EXPECT(gives_data_at(&s, "db1.example:8081"));
    EXPECT(gives_data_at(&s, "DB1.example"));
    EXPECT(gives_data_at(&s, "db.example:8080"));
    EXPECT(gives_data_at(&s, "app.example"));
    EXPECT(!gives_data_at(&s, "db1.example.evil.example:8081"));
    EXPECT(!gives_data_at(&s, "b1.example:8081"));
    EXPECT(!gives_data_at(&s, "http:8081"));
    stage_close(&s);
    o.url = "";
    o.cors = "*"; /* any page may have all */
    stage_open(&s, o);
    EXPECT(gives_data_at(&s, "evil.example"));
    stage_close(&s);
}

TEST(http_winds_down)
{
    struct http_stage s;
    stage_open(&s, options());
    int idle = client_dial(&s), one = client_dial(&s), two = client_dial(&s),
        busy = client_dial(&s);
    client_say_text(&s, busy, "GET /later HTTP/1.1\r\nHost: h\r\n\r\n");
    stage_for(&s, 10);
    thread_expect_loop();
    EXPECT(!http_listener_is_quiet(s.listener));
    /* All is served still; each connection ends behind its answer. */
    http_listener_wind_down(s.listener);
    client_say_text(&s, one, "GET /echo?one HTTP/1.1\r\nHost: h\r\n\r\n");
    char *a = client_hear_all(&s, one, NULL);
    expect_in(a, "connection: close");
    expect_in(a, "query=one");
    free(a);
    /* Only what may be asked of a node that stops, on new connections as well. */
    http_listener_refuse(s.listener);
    client_say_text(&s, two, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    a = client_hear_all(&s, two, NULL);
    expect_in(a, "HTTP/1.1 503 ");
    expect_in(a, "connection: close");
    expect_in(a, "\"STOPPED\"");
    free(a);
    a = ask(&s, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n", 0, NULL);
    expect_in(a, "HTTP/1.1 200 ");
    free(a);
    EXPECT(!http_listener_is_quiet(s.listener));
    test_answer_later();
    a = client_hear_all(&s, busy, NULL);
    expect_in(a, "connection: close");
    expect_in(a, "200 OK");
    free(a);
    stage_turn(&s);
    EXPECT(http_listener_is_quiet(s.listener));
    EXPECT_EQ(http_listener_connections(s.listener), 1);
    (void)close(idle);
    (void)close(one);
    (void)close(two);
    (void)close(busy);
    stage_close(&s);
}

TEST(http_says_its_version)
{
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &door_router;
    stage_open(&s, o);
    char *a = ask(&s, "GET /version HTTP/1.1\r\nHost: h\r\n\r\n", 0, "\n\r\n");
    free(a);
    a = ask(&s, "GET /version HTTP/1.0\r\n\r\n", 0, NULL);
    expect_in(a, "\r\n\r\nlectern ");
    EXPECT(a[strlen(a) - 1] == '\n');
    free(a);
    stage_close(&s);
}

static struct http_stage *closing;

static void close_listener(struct exchange *x)
{
    (void)x;
    thread_expect_loop();
    http_listener_close(closing->listener);
}

static void count_over(struct exchange *x)
{
    (void)x;
    test_overs++;
}

TEST(http_is_closed_from_within_a_handler)
{
    static const struct handler h = {.on_end = close_listener, .on_over = count_over};
    static const struct route routes[] = {{HTTP_VERB_GET, "/", &h}, {HTTP_VERB_OTHER, NULL, NULL}};
    static const struct router router = {.routes = routes};
    struct http_stage s;
    struct http_options o = http_options_default();
    o.router = &router;
    stage_open(&s, o);
    closing = &s;
    int other = client_dial(&s), fd = client_dial(&s);
    client_say_text(&s, fd, "GET / HTTP/1.1\r\nHost: h\r\n\r\n");
    EXPECT(client_is_ended(&s, fd) && client_is_ended(&s, other));
    EXPECT_EQ(test_overs, 1);
    EXPECT(uv_run(&s.loop, UV_RUN_DEFAULT) == 0);
    EXPECT(uv_loop_close(&s.loop) == 0);
    (void)close(fd);
    (void)close(other);
}
