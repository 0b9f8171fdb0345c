/* Room: consensus. Thread: loop.
 * Owns: one socket, one timer, the receive buffer (made after the greeting only).
 * Invariants: a frame is given on only when it is whole, within limits, checksummed, and the next
 * of its connection; anything else closes the connection: Raft repeats what was lost. Not here: who
 * is let in (transport.c), what a message's head says (message.c). */
#include "consensus/peer_in.h"

#include "base/check.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/peer_socket.h"

#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#define GREETING_MS  2000u
#define BUFFER_BYTES KIB(64) /* at rest; grows with what really arrives, for a large frame */

struct peer_in {
    struct list link;
    const struct peer_in_handler *h;
    uv_tcp_t tcp;
    uv_timer_t timer;
    unsigned open_handles;
    bool closing;
    bool waits; /* the greeting is there, and judged later */
    uint64_t from, sequence;
    char address[INET6_ADDRSTRLEN + 8];
    uint8_t hello[PEER_HELLO_BYTES];
    uint8_t answer[PEER_ANSWER_BYTES];
    size_t hello_n;
    uint8_t *buf;
    size_t n, cap;
    size_t need; /* bytes of the frame that begins the buffer, when its head is there; or 0 */
};

/* --- closing ---------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *h)
{
    thread_expect_loop();
    struct peer_in *in = h->data;
    if (--in->open_handles > 0)
        return;
    in->h->on_closed(in->h->ctx, in);
    free(in->buf);
    free(in);
}

void peer_in_close(struct peer_in *in)
{
    if (in->closing)
        return;
    in->closing = true;
    uv_close((uv_handle_t *)&in->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&in->timer, on_handle_closed);
}

/* FROM: who it says it is, 0 when it said nothing. */
static void refuse(struct peer_in *in, uint64_t from, const char *reason) ON_LOOP
{
    if (in->closing)
        return;
    in->h->on_refused(in->h->ctx, in->address, from, reason);
    peer_in_close(in);
}

/* --- frames ----------------------------------------------------------------------------------- */

/* The frame at P, if it is whole: gives it on and sets *used; 0 when more must come. */
static enum err take_frame(struct peer_in *in, const uint8_t *p, size_t n, size_t *used)
{
    struct peer_frame_head f;
    *used = 0;
    in->need = 0;
    if (n < PEER_FRAME_HEAD_BYTES)
        return ERR_OK;
    TRY(peer_frame_decode(p, &f));
    size_t bytes = PEER_FRAME_HEAD_BYTES + (size_t)f.head_n + f.body_n;
    in->need = bytes;
    if (n < bytes)
        return ERR_OK;
    TRY(peer_frame_verify(p, &f));
    if (f.sequence != in->sequence + 1)
        return err_fail(ERR_PROTOCOL, "frame %llu follows frame %llu",
                        (unsigned long long)f.sequence, (unsigned long long)in->sequence);
    in->sequence = f.sequence;
    in->need = 0;
    *used = bytes;
    const uint8_t *head = p + PEER_FRAME_HEAD_BYTES;
    return in->h->on_frame(in->h->ctx, in, in->from, &f, head, head + f.head_n);
}

static void take_frames(struct peer_in *in) ON_LOOP
{
    size_t at = 0, used;
    do {
        enum err e = take_frame(in, in->buf + at, in->n - at, &used);
        at += used;
        if (e != ERR_OK)
            refuse(in, in->from, err_text());
    } while (!in->closing && used > 0 && at < in->n);
    if (in->closing)
        return;
    in->n -= at;
    if (in->n > 0 && at > 0)
        memmove(in->buf, in->buf + at, in->n);
    if (in->n == 0 && in->cap > BUFFER_BYTES) { /* a large frame is rare: do not keep its room */
        in->cap = BUFFER_BYTES;
        in->buf = mem_realloc(in->buf, in->cap);
    }
}

/* Room for more bytes. The buffer doubles as the bytes arrive, so that announcing a large frame
 * costs nothing until it is sent. */
static void make_room(struct peer_in *in)
{
    if (in->n < in->cap)
        return;
    size_t cap = in->cap == 0 ? BUFFER_BYTES : in->cap * 2;
    if (cap > in->need && in->need > BUFFER_BYTES)
        cap = in->need;
    CHECK(cap > in->n && cap <= 2 * PEER_FRAME_MAX);
    in->buf = mem_realloc(in->buf, cap);
    in->cap = cap;
}

/* --- the greeting ----------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf);
static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf);

/* False: the handler has to find out first. */
static bool judge(struct peer_in *in, struct peer_hello *hello, struct peer_answer *a)
{
    a->code = peer_hello_decode(in->hello, hello);
    if (a->code == ERR_OK && !in->h->judge(in->h->ctx, hello, a))
        return false;
    if (a->code != ERR_OK) /* the answer has less room than the log */
        (void)snprintf(a->reason, sizeof a->reason, "%s", err_text());
    return true;
}

static void let_in(struct peer_in *in, uint64_t from) ON_LOOP
{
    (void)uv_timer_stop(&in->timer);
    in->from = from;
    make_room(in);
    in->h->on_greeted(in->h->ctx, in, in->from);
}

static void greet(struct peer_in *in) ON_LOOP
{
    struct peer_hello hello = {0};
    struct peer_answer a = {.version = PEER_PROTOCOL_VERSION, .frame_max = PEER_FRAME_MAX};
    bool waited = in->waits;
    in->waits = !judge(in, &hello, &a);
    if (in->waits) { /* nothing is read meanwhile: frames could come before they are welcome */
        (void)uv_read_stop((uv_stream_t *)&in->tcp);
        return;
    }
    char sentence[ERR_TEXT_MAX];
    (void)snprintf(sentence, sizeof sentence, "%s", a.code == ERR_OK ? "" : err_text());
    peer_answer_encode(in->answer, &a);
    uv_buf_t buf = uv_buf_init((char *)in->answer, sizeof in->answer);
    /* A new socket has room for this; if not, the dialler will come again. */
    int rc = uv_try_write((uv_stream_t *)&in->tcp, &buf, 1);
    if (a.code != ERR_OK) {
        refuse(in, hello.from, sentence);
        return;
    }
    if (rc == (int)sizeof in->answer && waited)
        rc += uv_read_start((uv_stream_t *)&in->tcp, on_alloc, on_read);
    if (rc != (int)sizeof in->answer)
        peer_in_close(in);
    else
        let_in(in, hello.from);
}

void peer_in_judge_again(struct peer_in *in)
{
    if (in->waits && !in->closing)
        greet(in);
}

static void on_late(uv_timer_t *t)
{
    thread_expect_loop();
    struct peer_in *in = t->data;
    refuse(in, 0,
           in->waits ? "met for the first time, and that could not be stored in time"
                     : "no greeting in time");
}

/* --- bytes ------------------------------------------------------------------------------------ */

static void on_alloc(uv_handle_t *h, size_t suggested, uv_buf_t *buf)
{
    struct peer_in *in = h->data;
    (void)suggested;
    if (in->from == 0) { /* not a byte more than the greeting is read of a stranger */
        *buf = uv_buf_init((char *)in->hello + in->hello_n,
                           (unsigned)(sizeof in->hello - in->hello_n));
        return;
    }
    make_room(in);
    *buf = uv_buf_init((char *)in->buf + in->n, (unsigned)(in->cap - in->n));
}

static void on_read(uv_stream_t *s, ssize_t n, const uv_buf_t *buf)
{
    thread_expect_loop();
    struct peer_in *in = s->data;
    (void)buf;
    if (in->closing || n == 0)
        return;
    if (n < 0) {
        peer_in_close(in); /* the dialling side tells why, and dials again */
        return;
    }
    if (in->from == 0) {
        in->hello_n += (size_t)n;
        if (in->hello_n == sizeof in->hello)
            greet(in);
        return;
    }
    in->n += (size_t)n;
    if (in->n >= PEER_FRAME_HEAD_BYTES && in->n >= in->need)
        take_frames(in);
}

static void note_address(struct peer_in *in)
{
    struct sockaddr_storage a;
    int n = sizeof a;
    char ip[INET6_ADDRSTRLEN] = "?";
    memset(&a, 0, sizeof a);
    if (uv_tcp_getpeername(&in->tcp, (struct sockaddr *)&a, &n) == 0) {
        if (a.ss_family == AF_INET6)
            (void)uv_ip6_name((struct sockaddr_in6 *)&a, ip, sizeof ip);
        else
            (void)uv_ip4_name((struct sockaddr_in *)&a, ip, sizeof ip);
    }
    (void)snprintf(in->address, sizeof in->address, "%s", ip);
}

enum err peer_in_accept(uv_stream_t *listener, const struct peer_in_handler *h,
                        struct peer_in **out)
{
    struct peer_in *in = MEM_NEW(struct peer_in);
    in->h = h;
    list_init(&in->link);
    int rc = uv_tcp_init(listener->loop, &in->tcp);
    if (rc != 0) {
        free(in);
        return err_fail(ERR_IO, "cannot take a peer's connection: %s", uv_strerror(rc));
    }
    CHECK(uv_timer_init(listener->loop, &in->timer) == 0);
    in->tcp.data = in;
    in->timer.data = in;
    in->open_handles = 2;
    *out = in;
    rc = uv_accept(listener, (uv_stream_t *)&in->tcp);
    if (rc == 0) {
        peer_socket_tune(&in->tcp);
        note_address(in);
        rc = uv_read_start((uv_stream_t *)&in->tcp, on_alloc, on_read);
    }
    if (rc != 0)
        peer_in_close(in); /* on_closed comes, as for any other */
    else
        (void)uv_timer_start(&in->timer, on_late, GREETING_MS, 0);
    return ERR_OK;
}

uint64_t peer_in_from(const struct peer_in *in)
{
    return in->from;
}

struct list *peer_in_link(struct peer_in *in)
{
    return &in->link;
}

struct peer_in *peer_in_of(struct list *link)
{
    return LIST_ENTRY(link, struct peer_in, link);
}
