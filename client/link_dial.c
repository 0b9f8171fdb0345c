/* Room: client.   Thread: the loop's.   Owns: a connection until WELCOME: HELLO, the first frame,
 * the name's next address.
 *
 * Invariants: who accepts and is not the right one is remembered: when nobody else accepts, that is
 * what the caller hears of; the timer is set.
 *
 * Not here: addresses (attempt.c), who strangers are (link_greeting.c). */
#include "client/link_state.h"

#include "base/clock.h"
#include "client/link_greeting.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Who accepted it said nothing, or left: the name's next address may be better. If nobody accepts
 * there, this is what the caller hears of. */
static void try_next_address(struct link *k, enum err e)
{
    link_disconnect(k);
    k->state = CONNECTING;
    k->down_code = e;
    (void)snprintf(k->why, sizeof k->why, "%s", err_text());
    attempt_next(k->attempt, e);
}

void link_left_early(struct link *k, ssize_t n)
{
    enum err e;
    if (k->in.len > 0)
        e = greeting_cut_short(k->address, k->in.data, k->in.len, "closed the connection");
    else if (n < 0 && errno != ECONNRESET)
        e = err_fail(ERR_CLOSED, "%s: the connection broke: %s", k->address, strerror(errno));
    else
        e = err_fail(ERR_CLOSED,
                     "%s accepted the connection and closed it before it said anything: it is no "
                     "Lectern server, or a proxy whose server is down",
                     k->address);
    try_next_address(k, e);
}

void link_said_too_little(struct link *k)
{
    enum err e;
    if (k->in.len > 0)
        e = greeting_cut_short(k->address, k->in.data, k->in.len, "said no more");
    else
        e = err_fail(ERR_TIMEOUT,
                     "%s accepted the connection but said nothing: the node is paused, or it is no "
                     "Lectern server",
                     k->address);
    try_next_address(k, e);
}

enum err link_heard_greeting(struct link *k, struct wire_frame *f)
{
    struct wire_welcome w;
    if (f->type == WIRE_ERROR && f->id.stream == 0)
        return link_heard_error(k, f);
    if (f->type != WIRE_WELCOME)
        return greeting_of_stranger(k->address, k->in.data, k->in.len);
    enum err e = wire_get_welcome(f, &w);
    if (e == ERR_VERSION)
        return err_fail(e, "%s speaks version %u of the protocol, this library speaks %u",
                        k->address, w.version, WIRE_VERSION);
    TRY(e);
    link_note_round_trip(k);
    loop_timer_stop(k->loop, &k->timer);
    link_end_attempt(k);
    k->state = READY;
    if (k->busy)
        loop_timer_set(k->loop, &k->timer, k->heard_ms + LINK_QUIET_MS);
    k->in_event++;
    k->events.on_ready(k->events.ctx, &w);
    k->in_event--;
    return ERR_OK;
}

/* The empty line means nothing to a node. A server that waits for lines, as HTTP's, has one to
 * complain of at once, instead of waiting for more until our patience ends. */
static void on_connected(void *ctx, int fd, uint64_t until_ms)
{
    struct link *k = ctx;
    char name[256];
    enum err e = loop_watch_add(k->loop, &k->watch, fd, EPOLLIN);
    if (e != ERR_OK) {
        (void)close(fd);
        link_go_down(k, e);
        return;
    }
    k->interest = EPOLLIN;
    k->state = GREETING;
    k->accepted = true;
    loop_timer_set(k->loop, &k->timer, until_ms);
    buf_reset(&k->in);
    buf_reset(&k->out);
    k->sent = 0;
    (void)snprintf(name, sizeof name, "%.200s\r\n\r\n", k->client_name);
    wire_put_hello(&k->out, name, "");
    if (buf_status(&k->out) != ERR_OK) {
        link_go_down(k, err_fail(ERR_NOMEM, "%s: out of memory for HELLO", k->address));
        return;
    }
    k->whole = k->out.len;
    k->ping_ns = clock_mono_ns();
    link_send_out(k);
}

static void on_failed(void *ctx, enum err e)
{
    struct link *k = ctx;
    if (k->down_code == ERR_OK || e == ERR_NOMEM)
        link_go_down(k, e);
    else
        link_fail(k, k->down_code, k->why);
}

enum err link_dial(struct link *k)
{
    struct attempt_events heard = {.ctx = k, .on_connected = on_connected, .on_failed = on_failed};
    return attempt_new(k->loop, k->address, clock_mono_ms() + LINK_CONNECT_MS, &heard, &k->attempt);
}
