/* Room: node/http.   Thread: loop.
 * Owns: a WebSocket from its upgrade to its end; the message that came in part.
 * Invariants: handlers hear no message after websocket_close or a broken frame, and on_over once,
 * as the last; wslay's context (9 KiB) is there only while a frame is under way.
 * Not here: the connection below (http_conn.c), what messages mean (hrana_ws.c).
 * Source: RFC 6455; wslay's event interface. */
#include "node/http/websocket.h"

#include "base/check.h"
#include "base/mem.h"
#include "node/http/http_conn.h"
#include "node/http/http_listener.h"
#include "node/http/origin.h"
#include "node/meters.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdlib.h>
#include <string.h>
#include <wslay/wslay.h>

#define REASON_MAX 123u
/* Answers to what came together go together, up to this. */
#define TOGETHER_MAX 65536u
#define KEY_CHARS    24u /* 16 bytes in base64 */

struct websocket {
    struct http_conn *conn;
    struct node *node;
    const struct websocket_handler *handler;
    struct http_takeover takeover;
    void *state;
    const char *protocol;
    wslay_event_context_ptr wslay; /* NULL: nothing is under way */
    const uint8_t *p;              /* what came, while wslay reads it */
    size_t n;
    uint64_t given, framed; /* bytes to WSLAY; of the frames whose head it has read */
    struct buf message;     /* what came of it */
    struct buf out;         /* frames, until they are sent together */
    bool in_message;        /* its last frame has not come */
    bool control;           /* the frame under way is a ping, a pong or a close */
    bool text;
    bool receiving;    /* in wslay_event_recv */
    bool paused, full; /* by the handler; by a client that takes nothing */
    bool closing;      /* no more messages */
    bool broken;       /* nothing more is read */
};

static void flush(struct websocket *ws) ON_LOOP;

/* --- what wslay calls --- */

static ssize_t on_recv(wslay_event_context_ptr ctx, uint8_t *buf, size_t len, int flags, void *arg)
{
    struct websocket *ws = arg;
    (void)flags;
    if (ws->n == 0 || ws->broken || ((ws->paused || ws->full) && !ws->closing)) {
        wslay_event_set_error(ctx, WSLAY_ERR_WOULDBLOCK);
        return -1;
    }
    size_t n = ws->n < len ? ws->n : len;
    memcpy(buf, ws->p, n);
    ws->p += n;
    ws->n -= n;
    ws->given += n;
    return (ssize_t)n;
}

static ssize_t on_send(wslay_event_context_ptr ctx, const uint8_t *p, size_t n, int flags,
                       void *arg)
{
    struct websocket *ws = arg;
    (void)ctx;
    (void)flags;
    buf_put(&ws->out, p, n);
    return (ssize_t)n;
}

/* Ends it because of what came. */
static void fail(struct websocket *ws, enum websocket_code code, const char *why) ON_LOOP
{
    websocket_close(ws, code, why);
    ws->broken = true;
}

static void on_frame(wslay_event_context_ptr ctx,
                     const struct wslay_event_on_frame_recv_start_arg *f, void *arg)
{
    struct websocket *ws = arg;
    (void)ctx;
    thread_expect_loop();
    size_t head = f->payload_length < 126 ? 2 : f->payload_length < 65536 ? 4 : 10;
    ws->framed += head + 4 + f->payload_length;
    ws->control = (f->opcode & 8) != 0;
    if (ws->control)
        return;
    if (f->opcode != WSLAY_CONTINUATION_FRAME)
        ws->text = f->opcode == WSLAY_TEXT_FRAME;
    ws->in_message = f->fin == 0;
    if (f->payload_length > ws->message.max - ws->message.len)
        fail(ws, WEBSOCKET_TOO_BIG, "the message is larger than this node takes");
}

static void on_chunk(wslay_event_context_ptr ctx,
                     const struct wslay_event_on_frame_recv_chunk_arg *chunk, void *arg)
{
    struct websocket *ws = arg;
    (void)ctx;
    thread_expect_loop();
    if (ws->control || ws->closing)
        return;
    if (!http_conn_holds(ws->conn, ws->message.len + chunk->data_length))
        fail(ws, WEBSOCKET_TRY_AGAIN, "this node has no memory for more requests now");
    else
        buf_put(&ws->message, chunk->data, chunk->data_length);
    CHECK(buf_status(&ws->message) != ERR_TOO_BIG); /* on_frame */
    if (buf_status(&ws->message) != ERR_OK)
        fail(ws, WEBSOCKET_TRY_AGAIN, "out of memory");
}

static void on_whole(wslay_event_context_ptr ctx, const struct wslay_event_on_msg_recv_arg *m,
                     void *arg)
{
    struct websocket *ws = arg;
    (void)ctx;
    thread_expect_loop();
    if ((m->opcode & 8) != 0)
        return;
    if (!ws->closing)
        ws->handler->on_message(ws, ws->text, ws->message.data, ws->message.len);
    size_t max = ws->message.max;
    buf_fini(&ws->message);
    buf_init(&ws->message, max);
    (void)http_conn_holds(ws->conn, 0);
    http_conn_partly(ws->conn, false);
}

static const struct wslay_event_callbacks callbacks = {.recv_callback = on_recv,
                                                       .send_callback = on_send,
                                                       .on_frame_recv_start_callback = on_frame,
                                                       .on_frame_recv_chunk_callback = on_chunk,
                                                       .on_msg_recv_callback = on_whole};

/* --- the context, while it is needed --- */

static wslay_event_context_ptr context(struct websocket *ws)
{
    if (ws->wslay == NULL) {
        int rc = wslay_event_context_server_init(&ws->wslay, &callbacks, ws);
        CHECK(rc == 0); /* as base/mem.h: without memory this process ends */
        wslay_event_config_set_no_buffering(ws->wslay, 1);
        ws->given = ws->framed = 0;
    }
    return ws->wslay;
}

/* Between two messages wslay knows nothing that a new context would not. */
static void drop_context(struct websocket *ws)
{
    if (ws->wslay == NULL || ws->given != ws->framed || ws->in_message || ws->closing ||
        ws->receiving)
        return;
    wslay_event_context_free(ws->wslay);
    ws->wslay = NULL;
}

/* Makes frames of what is queued. At once, always: of what waits in wslay, a close goes first. */
static void frame(struct websocket *ws)
{
    int rc = wslay_event_send(ws->wslay);
    CHECK(rc == 0);
}

static void flush(struct websocket *ws)
{
    if (ws->receiving && ws->out.len < TOGETHER_MAX)
        return;
    if (ws->out.len > 0)
        http_conn_send(ws->conn, &ws->out);
    buf_fini(&ws->out);
    buf_init(&ws->out, SIZE_MAX);
    (void)websocket_is_full(ws); /* pings are answered, too: who takes nothing is not read */
}

/* --- what http_conn calls --- */

static void break_off(struct websocket *ws)
{
    static const uint8_t close[] = {0x88, 2, WEBSOCKET_PROTOCOL_ERROR >> 8,
                                    WEBSOCKET_PROTOCOL_ERROR & 255};
    if (!ws->closing)
        buf_put(&ws->out, close, sizeof close);
    ws->closing = ws->broken = true;
}

static size_t on_bytes(void *ctx, const uint8_t *p, size_t n)
{
    struct websocket *ws = ctx;
    thread_expect_loop();
    wslay_event_context_ptr w = context(ws);
    ws->p = p;
    ws->n = n;
    ws->receiving = true;
    int rc = wslay_event_recv(w);
    ws->receiving = false;
    if (rc == 0)
        frame(ws);
    else /* what is no frame, wslay closes without a code */
        break_off(ws);
    flush(ws);
    size_t used = n - ws->n;
    ws->p = NULL;
    ws->n = 0;
    if (ws->broken || wslay_event_get_close_received(w) != 0 ||
        wslay_event_get_read_enabled(w) == 0) {
        ws->closing = true;
        http_conn_end(ws->conn);
        return n;
    }
    drop_context(ws);
    http_conn_partly(ws->conn, ws->wslay != NULL);
    return used;
}

static void on_drain(void *ctx)
{
    struct websocket *ws = ctx;
    thread_expect_loop();
    bool was_full = ws->full;
    ws->full = false;
    if (was_full && !ws->closing && ws->handler->on_drain != NULL)
        ws->handler->on_drain(ws);
    if (!ws->paused && !ws->full)
        http_conn_resume(ws->conn); /* last: WS may be over when it returns */
}

static void on_late(void *ctx)
{
    thread_expect_loop();
    websocket_close(ctx, WEBSOCKET_POLICY, "the rest of a message did not come in time");
}

static void on_over(void *ctx)
{
    struct websocket *ws = ctx;
    ws->closing = true;
    if (ws->handler->on_over != NULL)
        ws->handler->on_over(ws);
    if (ws->wslay != NULL)
        wslay_event_context_free(ws->wslay);
    buf_fini(&ws->message);
    buf_fini(&ws->out);
    meters_move(METER_WEBSOCKETS, -1);
    free(ws);
}

static void on_wind_down(void *ctx)
{
    struct websocket *ws = ctx;
    thread_expect_loop();
    if (ws->handler->on_wind_down == NULL)
        websocket_close(ws, WEBSOCKET_GOING_AWAY, "this node stops");
    else if (!ws->closing)
        ws->handler->on_wind_down(ws);
}

/* --- the upgrade --- */

bool websocket_is_asked(const struct exchange *x)
{
    return x->verb == HTTP_VERB_GET && exchange_header_has(x, "upgrade", "websocket") &&
           exchange_header_has(x, "connection", "upgrade");
}

static bool is_key(const char *key)
{
    return key != NULL && strlen(key) == KEY_CHARS && strcmp(key + KEY_CHARS - 2, "==") == 0 &&
           strspn(key, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/") ==
               KEY_CHARS - 2;
}

/* The first of the client's subprotocols that is among ours; "": it names none; NULL: no such. */
static const char *choose(const struct exchange *x, const char *const *ours) ON_LOOP
{
    const char *theirs = exchange_header(x, "sec-websocket-protocol");
    if (theirs == NULL)
        return "";
    while (*theirs != 0) {
        theirs += strspn(theirs, ", \t");
        size_t n = strcspn(theirs, ", \t");
        for (size_t i = 0; ours[i] != NULL; i++)
            if (n > 0 && strlen(ours[i]) == n && memcmp(ours[i], theirs, n) == 0)
                return ours[i];
        theirs += n;
    }
    return NULL;
}

/* The proof that we have read KEY (RFC 6455, 4.2.2): 28 characters and a zero. */
static void prove(const char *key, unsigned char out[29])
{
    char text[KEY_CHARS + 37];
    unsigned char hash[SHA_DIGEST_LENGTH];
    memcpy(text, key, KEY_CHARS);
    memcpy(text + KEY_CHARS, "258EAFA5-E914-47DA-95CA-C5AB0DC85B11", 37);
    (void)SHA1((const unsigned char *)text, KEY_CHARS + 36, hash);
    (void)EVP_EncodeBlock(out, hash, sizeof hash);
}

/* Answers X with what is wrong; false: nothing is. */
static bool refuses(struct exchange *x) ON_LOOP
{
    const char *version = exchange_header(x, "sec-websocket-version");
    const char *length = exchange_header(x, "content-length");
    if (version == NULL || strcmp(version, "13") != 0) {
        exchange_add_header(x, "sec-websocket-version", "13");
        exchange_fail(x, 426, "WEBSOCKET_VERSION", "WebSockets of version 13 are spoken here");
    } else if (x->old || !is_key(exchange_header(x, "sec-websocket-key")) ||
               exchange_header(x, "transfer-encoding") != NULL ||
               (length != NULL && strcmp(length, "0") != 0)) {
        exchange_fail(x, 400, "BAD_REQUEST", "the request asks for a WebSocket in a wrong way");
    } else if (origin_is_foreign(x)) {
        origin_refuse(x);
    } else {
        return false;
    }
    return true;
}

void websocket_accept(struct exchange *x, const struct websocket_handler *h)
{
    unsigned char proof[29];
    struct buf head;
    if (refuses(x))
        return;
    const char *protocol = choose(x, h->protocols);
    if (protocol == NULL) {
        exchange_fail(x, 400, "BAD_REQUEST", "none of the subprotocols is spoken here");
        return;
    }
    void *state = NULL;
    if (h->on_ask != NULL && !h->on_ask(x, &state))
        return;
    struct websocket *ws = MEM_NEW(struct websocket);
    ws->state = state;
    meters_move(METER_WEBSOCKETS, 1);
    ws->conn = x->conn;
    ws->node = x->node;
    ws->handler = h;
    ws->protocol = protocol;
    ws->takeover = (struct http_takeover){.ctx = ws,
                                          .on_bytes = on_bytes,
                                          .on_drain = on_drain,
                                          .on_late = on_late,
                                          .on_over = on_over,
                                          .on_wind_down = on_wind_down};
    buf_init(&ws->message, http_listener_options(http_conn_listener(x->conn))->body_max);
    buf_init(&ws->out, SIZE_MAX);
    prove(exchange_header(x, "sec-websocket-key"), proof);
    buf_init(&head, HTTP_HEAD_MAX);
    buf_printf(&head,
               "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
               "sec-websocket-accept: %s\r\n",
               (const char *)proof);
    if (protocol[0] != 0)
        buf_printf(&head, "sec-websocket-protocol: %s\r\n", protocol);
    buf_put(&head, "\r\n", 2);
    http_conn_upgrade(ws->conn, &head, &ws->takeover);
    buf_fini(&head);
    if (h->on_open != NULL)
        h->on_open(ws);
}

/* --- for its handler --- */

const char *websocket_protocol(const struct websocket *ws)
{
    return ws->protocol;
}

struct node *websocket_node(const struct websocket *ws)
{
    return ws->node;
}

void websocket_set_state(struct websocket *ws, void *state)
{
    ws->state = state;
}

void *websocket_state(const struct websocket *ws)
{
    return ws->state;
}

void websocket_take(struct websocket *ws, struct buf *out)
{
    *out = ws->message;
    buf_init(&ws->message, out->max);
}

struct asides *websocket_asides(const struct websocket *ws)
{
    return http_listener_asides(http_conn_listener(ws->conn));
}

/* A long message goes as it lies: wslay would copy it twice, and the loop wait for that. Nothing
 * else waits in wslay (frame). */
static void send_long(struct websocket *ws, uint8_t opcode, struct buf *b) ON_LOOP
{
    buf_put_u8(&ws->out, (uint8_t)(0x80 | opcode)); /* whole */
    buf_put_u8(&ws->out, 127);                      /* its length follows */
    buf_put_u64(&ws->out, __builtin_bswap64(b->len));
    http_conn_send(ws->conn, &ws->out);
    http_conn_send(ws->conn, b);
    flush(ws);
}

static void send_message(struct websocket *ws, uint8_t opcode, struct buf *b) ON_LOOP
{
    CHECK(buf_status(b) == ERR_OK);
    if (!ws->closing && b->len > TOGETHER_MAX) {
        send_long(ws, opcode, b);
    } else if (!ws->closing) {
        struct wslay_event_msg m = {.opcode = opcode, .msg = b->data, .msg_length = b->len};
        int rc = wslay_event_queue_msg(context(ws), &m);
        CHECK(rc == 0 || rc == WSLAY_ERR_NO_MORE_MSG); /* its client has closed: on_over follows */
        frame(ws);
        flush(ws);
        drop_context(ws);
    }
    buf_reset(b);
}

void websocket_send_text(struct websocket *ws, struct buf *b)
{
    send_message(ws, WSLAY_TEXT_FRAME, b);
}

void websocket_send_binary(struct websocket *ws, struct buf *b)
{
    send_message(ws, WSLAY_BINARY_FRAME, b);
}

void websocket_close(struct websocket *ws, enum websocket_code code, const char *reason)
{
    size_t n = strlen(reason);
    if (ws->closing)
        return;
    int rc = wslay_event_queue_close(context(ws), (uint16_t)code, (const uint8_t *)reason,
                                     n < REASON_MAX ? n : REASON_MAX);
    CHECK(rc == 0 || rc == WSLAY_ERR_NO_MORE_MSG);
    frame(ws);
    ws->closing = true;
    http_conn_closing(ws->conn);
    flush(ws);
}

void websocket_pause(struct websocket *ws)
{
    ws->paused = true;
    if (!ws->closing)
        http_conn_pause(ws->conn);
}

void websocket_resume(struct websocket *ws)
{
    ws->paused = false;
    if (!ws->full)
        http_conn_resume(ws->conn);
}

bool websocket_is_full(struct websocket *ws)
{
    if (!ws->full && !ws->closing && http_conn_backlog(ws->conn) >= HTTP_FULL_BYTES) {
        ws->full = true;
        http_conn_pause(ws->conn);
    }
    return ws->full;
}
