/* Room: tests.   Thread: the test's.   Owns: nothing. */
#include "tests/unit/http/door_stage.h"

#include "base/mem.h"
#include "node/config.h"
#include "node/http/door.h"
#include "node/http/hrana_stream.h"
#include "node/http/hrana_ws.h"
#include "tests/lib/asked.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void on_before_sleep(uv_prepare_t *handle)
{
    struct node *n = handle->data;
    thread_expect_loop();
    hrana_streams_go_on(n);
    hrana_ws_go_on(n);
}

void door_stage_open(struct door_stage *d)
{
    struct http_options o = http_options_default();
    memset(d, 0, sizeof *d);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    d->config = (struct config){.id = 1,
                                .http_url = "",
                                .http_read = "session",
                                .http_begin = "deferred",
                                .waiting_bytes = WAITING_LIMIT_MIN,
                                .http_body_bytes = MIB(1),
                                .http_answer_bytes = MIB(1),
                                .leader_wait_ms = 5000,
                                .txn_idle_ms = 5000,
                                .txn_total_ms = 30000};
    asked_open(&d->node, &d->config);
    o.router = &door_router;
    o.node = &d->node;
    stage_open(&d->http, o);
    (void)uv_prepare_init(&d->http.loop, &d->before_sleep);
    d->before_sleep.data = &d->node;
    (void)uv_prepare_start(&d->before_sleep, on_before_sleep);
}

void door_stage_close(struct door_stage *d)
{
    thread_expect_loop();
    uv_close((uv_handle_t *)&d->before_sleep, NULL);
    stage_close(&d->http);
    asked_close(&d->node);
}

void door_post(struct door_stage *d, int fd, const char *path, const char *body)
{
    char *all = mem_printf("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %zu\r\n\r\n%s", path,
                           strlen(body), body);
    client_say_text(&d->http, fd, all);
    free(all);
    stage_turn(&d->http);
}

char *door_answer(struct door_stage *d, int fd, int status)
{
    char *head = client_hear(&d->http, fd, "\r\n\r\n", NULL);
    const char *length = strstr(head, "content-length: ");
    char *body = strstr(head, "\r\n\r\n");
    EXPECT(strncmp(head, "HTTP/1.1 ", 9) == 0 && length != NULL && body != NULL);
    if (strtol(head + 9, NULL, 10) != status)
        test_fail(__FILE__, __LINE__, "wanted %d, got %s", status, head);
    size_t n = strtoul(length + 16, NULL, 10);
    body = mem_strdup(body + 4);
    free(head);
    while (strlen(body) < n) {
        char *more = client_hear(&d->http, fd, "}", NULL);
        char *both = mem_printf("%s%s", body, more);
        free(body);
        free(more);
        body = both;
    }
    EXPECT_EQ(strlen(body), n);
    return body;
}

char *door_hear(struct door_stage *d, int fd, const char *wanted)
{
    return client_hear(&d->http, fd, wanted, NULL);
}

int door_socket(struct door_stage *d, const char *protocol)
{
    int fd = client_dial(&d->http);
    char *head = mem_printf("GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\n"
                            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                            "Sec-WebSocket-Protocol: %s\r\n\r\n",
                            protocol);
    client_say_text(&d->http, fd, head);
    free(head);
    free(door_hear(d, fd, "\r\n\r\n"));
    door_say(d, fd, "{\"type\":\"hello\",\"jwt\":null}");
    free(door_hear(d, fd, "hello_ok\"}"));
    return fd;
}

void door_frame(struct buf *b, const char *message)
{
    size_t n = strlen(message);
    buf_put_u8(b, 0x81);
    buf_put_u8(b, (uint8_t)(0x80 | (n < 126 ? n : n < 65536 ? 126 : 127)));
    for (int shift = n < 126 ? 0 : n < 65536 ? 16 : 64; shift > 0; shift -= 8)
        buf_put_u8(b, (uint8_t)((uint64_t)n >> (shift - 8)));
    buf_put(b, "\0\0\0", 4); /* a mask that changes nothing */
    buf_put(b, message, n);
}

void door_say(struct door_stage *d, int fd, const char *message)
{
    struct buf b;
    buf_init(&b, SIZE_MAX);
    door_frame(&b, message);
    client_say(&d->http, fd, b.data, b.len, 0);
    buf_fini(&b);
    stage_turn(&d->http);
}

struct request *door_asked(struct door_stage *d, const char *text)
{
    thread_expect_loop();
    stage_turn(&d->http);
    for (int i = 0; i < 10000 && asked(&d->node, 0) == NULL; i++)
        stage_for(&d->http, 1); /* what is long is read beside the loop */
    struct request *r = asked(&d->node, 0);
    if (r == NULL)
        test_fail(__FILE__, __LINE__, "nothing is asked, not \"%s\"", text);
    if (r->statement.sql_len != strlen(text) || memcmp(r->statement.sql, text, strlen(text)) != 0)
        test_fail(__FILE__, __LINE__, "wanted \"%s\", asked is \"%.*s\"", text,
                  (int)r->statement.sql_len, r->statement.sql);
    return r;
}

bool door_is_quiet(struct door_stage *d)
{
    thread_expect_loop();
    for (int i = 0; i < 3; i++)
        stage_turn(&d->http);
    return asked(&d->node, 0) == NULL;
}

char *door_find(const char *body, const char *name)
{
    char *key = mem_printf("\"%s\":\"", name);
    const char *at = strstr(body, key);
    if (at == NULL)
        test_fail(__FILE__, __LINE__, "no %s in %s", key, body);
    at += strlen(key);
    free(key);
    return mem_printf("%.*s", (int)strcspn(at, "\""), at);
}
