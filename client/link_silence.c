/* Room: client.   Thread: the loop's.   Owns: whether a READY connection still lives.
 *
 * Invariants: the timer is set while it is busy; a connection is given up only after a PING had its
 * time, counted from when the PING had left this machine; what waits in our own socket counts as
 * heard.
 *
 * Not here: what is said (link.c), silence before WELCOME (link_dial.c). */
#include "client/link_state.h"

#include "base/clock.h"

#include <errno.h>
#include <linux/sockios.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#define SILENCE_STEP_MS 250u

/* Bytes that the other end's kernel has: it may be a paused node's. */
static uint64_t acked_total(const struct link *k)
{
    int waiting = 0;
    (void)ioctl(k->watch.fd, SIOCOUTQ, &waiting); /* fails on no socket of ours; 0 is harmless */
    return link_sent_total(k) - (uint64_t)waiting;
}

static void begin_probe(struct link *k, uint64_t now)
{
    link_ping(k);
    if (k->ping_ns == 0)
        return; /* no memory: at the next step again */
    k->probe.on = true;
    k->probe.alive_ms = now;
    k->probe.ping_end = link_put_total(k);
    k->probe.acked = acked_total(k);
}

/* The PING waits behind bytes that move: the network is slow, and nobody can have answered. */
static void look_whether_it_moves(struct link *k, uint64_t now)
{
    uint64_t acked = acked_total(k);
    if (acked > k->probe.acked && acked < k->probe.ping_end)
        k->probe.alive_ms = now;
    k->probe.acked = acked;
}

/* Something lies there that this turn did not come to: the program was away, or had much to do. */
static bool something_waits(const struct link *k)
{
    char c;
    return recv(k->watch.fd, &c, 1, MSG_PEEK) >= 0 || errno != EAGAIN;
}

void link_watch_silence(struct link *k)
{
    uint64_t now = clock_mono_ms();
    uint64_t since = k->heard_ms > k->busy_ms ? k->heard_ms : k->busy_ms;
    if (!k->busy)
        return;
    if (!k->probe.on && now < since + LINK_QUIET_MS) {
        loop_timer_set(k->loop, &k->timer, since + LINK_QUIET_MS);
        return;
    }
    if (!k->probe.on)
        begin_probe(k, now);
    else
        look_whether_it_moves(k, now);
    loop_timer_set(k->loop, &k->timer, now + SILENCE_STEP_MS);
    if (!k->probe.on || now < k->probe.alive_ms + LINK_DEAD_MS || something_waits(k))
        return;
    (void)err_fail(ERR_TIMEOUT,
                   "%s: no answer for %u ms: the node is paused, or the network is cut", k->address,
                   LINK_QUIET_MS + LINK_DEAD_MS);
    link_go_down(k, ERR_TIMEOUT);
}

void link_set_busy(struct link *k, bool busy)
{
    if (busy && !k->busy)
        k->busy_ms = clock_mono_ms();
    if (!busy)
        k->probe.on = false;
    k->busy = busy;
    /* Not stopped when it rests: it finds that out for itself, and most rests are short. */
    if (busy && k->state == READY && k->timer.at_ms == 0)
        loop_timer_set(k->loop, &k->timer, k->busy_ms + LINK_QUIET_MS);
}
