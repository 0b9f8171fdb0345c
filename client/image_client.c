/* Room: client. Thread: one at a time.
 * Owns: the socket, the bytes on their way in and out.
 * Invariants: one request is outstanding at most; after any error the connection is not used again,
 *   so no answer is ever taken for another's.
 * Not here: waiting and addresses (dial.c), frames (wire_image.c), what is fetched (node/fetch.c).
 */
#include "client/image_client.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/sizes.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_BYTES KIB(256)
#define FRAME_MAX  MIB(3) /* pages of one answer, numbers and all, are well below */

_Static_assert(WIRE_IMAGE_PAGES_BYTES_MAX * 2 + KIB(64) <= FRAME_MAX, "an answer fits");
_Static_assert(WIRE_IMAGE_HASHES_MAX * 8ull + KIB(64) <= FRAME_MAX, "an answer fits");

struct image_client {
    int fd;
    struct dial_stop stop;
    struct buf in, out;
    size_t in_at; /* taken out of `in`; the last frame borrows what lies before it */
    uint32_t request;
    uint64_t node_id, bytes;
};

static enum err send_some(struct image_client *c)
{
    while (c->out.len > 0) {
        ssize_t n = send(c->fd, c->out.data, c->out.len, MSG_NOSIGNAL);
        if (n >= 0)
            buf_consume(&c->out, (size_t)n);
        else if (errno == EAGAIN || errno == EWOULDBLOCK)
            return ERR_OK;
        else if (errno != EINTR)
            return err_fail(ERR_CLOSED, "send: %s", strerror(errno));
    }
    return ERR_OK;
}

static enum err receive_some(struct image_client *c)
{
    size_t got = 0;
    enum err e = dial_receive(c->fd, &c->in, READ_BYTES, "the node", &got);
    c->bytes += got;
    return e;
}

/* Sends what waits and takes the next whole frame, borrowed until more is received. */
static enum err next_frame(struct image_client *c, uint64_t deadline, struct wire_frame *f)
{
    for (;;) {
        size_t used = 0;
        short ready;
        TRY(wire_next(c->in.data + c->in_at, c->in.len - c->in_at, FRAME_MAX, f, &used));
        c->in_at += used;
        if (used != 0)
            return ERR_OK;
        TRY(send_some(c));
        short events = (short)(c->out.len > 0 ? POLLIN | POLLOUT : POLLIN);
        TRY(dial_wait(c->fd, events, &c->stop, deadline, &ready));
        if ((ready & ~POLLOUT) != 0)
            TRY(receive_some(c));
    }
}

/* What is wrong over there: never to be taken for an error of our own disk. */
static enum err take_error(struct wire_frame *f)
{
    struct wire_error e;
    TRY(wire_get_error(f, &e));
    bool known = e.code == ERR_BUSY || e.code == ERR_NOT_LEADER || e.code == ERR_STOPPED ||
                 e.code == ERR_TIMEOUT || e.code == ERR_NOT_FOUND;
    return err_fail(known ? e.code : ERR_CLOSED, "the other node says %s: %.*s",
                    err_name((int)e.code), (int)(e.message_len < 300 ? e.message_len : 300),
                    e.message);
}

/* Sends the request that `out` holds; its answer is one frame of type WANTED, and DONE. */
static enum err ask(struct image_client *c, enum wire_type wanted, struct wire_frame *answer)
{
    struct wire_frame done;
    uint64_t deadline = clock_mono_ms() + IMAGE_ANSWER_MS;
    TRY(buf_status(&c->out));
    buf_consume(&c->in, c->in_at); /* the last answer is not needed any more */
    c->in_at = 0;
    TRY(next_frame(c, deadline, answer));
    if (answer->type == WIRE_ERROR)
        return take_error(answer);
    if (answer->type != wanted || answer->id.request != c->request)
        return err_fail(ERR_PROTOCOL, "a frame of type %d instead of %d", (int)answer->type,
                        (int)wanted);
    size_t length = rd_left(&answer->body), from = c->in_at - length;
    TRY(next_frame(c, deadline, &done));
    /* DONE may have moved the buffer. */
    answer->body = rd_of(c->in.data + from, length);
    if (done.type == WIRE_ERROR)
        return take_error(&done);
    if (done.type != WIRE_DONE || done.id.request != c->request)
        return err_fail(ERR_PROTOCOL, "a frame of type %d instead of DONE", (int)done.type);
    return ERR_OK;
}

static enum err greet(struct image_client *c, const char *name, uint64_t cluster_id,
                      uint64_t deadline)
{
    struct wire_frame f;
    struct wire_welcome w;
    wire_put_hello(&c->out, name, "");
    TRY(buf_status(&c->out));
    TRY(next_frame(c, deadline, &f));
    if (f.type == WIRE_ERROR)
        return take_error(&f);
    if (f.type != WIRE_WELCOME)
        return err_fail(ERR_PROTOCOL, "the node did not say WELCOME");
    TRY(wire_get_welcome(&f, &w));
    if (w.cluster_id != cluster_id)
        return err_fail(ERR_CONFIG, "the node belongs to another cluster");
    c->node_id = w.node_id;
    return ERR_OK;
}

enum err image_client_open(const char *address, const char *name, uint64_t cluster_id,
                           const struct dial_stop *stop, struct image_client **out)
{
    uint64_t deadline = clock_mono_ms() + IMAGE_CONNECT_MS;
    int fd;
    *out = NULL;
    TRY(dial(address, deadline, stop, &fd));
    struct image_client *c = calloc(1, sizeof *c);
    if (c == NULL) {
        (void)close(fd);
        return err_fail(ERR_NOMEM, "out of memory");
    }
    c->fd = fd;
    c->stop = stop == NULL ? (struct dial_stop){.wake_fd = -1} : *stop;
    buf_init(&c->in, FRAME_MAX + WIRE_LENGTH_BYTES + 2 * READ_BYTES);
    buf_init(&c->out, KIB(64));
    enum err e = greet(c, name, cluster_id, deadline);
    if (e != ERR_OK) {
        image_client_close(c);
        return e;
    }
    *out = c;
    return ERR_OK;
}

void image_client_close(struct image_client *c)
{
    if (c == NULL)
        return;
    (void)close(c->fd);
    buf_fini(&c->in);
    buf_fini(&c->out);
    free(c);
}

uint64_t image_client_node(const struct image_client *c)
{
    return c->node_id;
}

uint64_t image_client_bytes(const struct image_client *c)
{
    return c->bytes;
}

enum err image_client_begin(struct image_client *c, bool pin, struct wire_image *image)
{
    struct wire_frame f;
    wire_put_image_begin(&c->out, (struct wire_id){1, ++c->request}, pin);
    TRY(ask(c, WIRE_IMAGE, &f));
    TRY(wire_get_image(&f, image));
    if (pin && image->record_len == 0)
        return err_fail(ERR_PROTOCOL, "a pinned image without its record");
    return ERR_OK;
}

enum err image_client_hashes(struct image_client *c, uint32_t first, uint32_t n, uint64_t *out)
{
    struct wire_frame f;
    struct rd hashes;
    uint32_t got_first, got;
    wire_put_image_ask_hashes(&c->out, (struct wire_id){1, ++c->request}, first, n);
    TRY(ask(c, WIRE_IMAGE_HASHES, &f));
    TRY(wire_get_image_hashes(&f, &got_first, &got, &hashes));
    if (got_first != first || got != n)
        return err_fail(ERR_PROTOCOL, "hashes of %u pages from %u on instead of %u from %u", got,
                        got_first, n, first);
    for (uint32_t i = 0; i < n; i++)
        out[i] = rd_u64(&hashes);
    return ERR_OK;
}

enum err image_client_pages(struct image_client *c, const uint32_t *page_nos, uint32_t n,
                            uint32_t page_size, struct wire_image_pages *p)
{
    struct wire_frame f;
    CHECK(n <= wire_image_pages_max(page_size));
    wire_put_image_ask_pages(&c->out, (struct wire_id){1, ++c->request}, page_nos, n);
    TRY(ask(c, WIRE_IMAGE_PAGES, &f));
    TRY(wire_get_image_pages(&f, p));
    if (p->page_size != page_size || p->n > n)
        return err_fail(ERR_PROTOCOL, "%u pages of %u bytes, asked for %u of %u", p->n,
                        p->page_size, n, page_size);
    return ERR_OK;
}
