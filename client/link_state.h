/* Room: client. What link*.c share of a connection; seen by nobody else. Thread: the loop's. */
#ifndef CLIENT_LINK_STATE_H
#define CLIENT_LINK_STATE_H

#include "client/attempt.h"
#include "client/kept_set.h"
#include "client/link.h"

#include <sys/types.h>

enum link_stage { CONNECTING, GREETING, READY, DOWN };

struct link {
    struct loop *loop;
    struct link_events events;
    enum link_stage state;
    char *address, *client_name;
    struct attempt *attempt; /* until READY */
    struct loop_watch watch;
    uint32_t interest; /* what the watch waits for */
    struct loop_timer timer;
    struct loop_task task; /* READY: frames leave; DOWN: on_down */
    struct buf in, out;
    size_t sent, whole;  /* of `out` */
    uint64_t out_before; /* bytes that were in `out` and are gone */
    unsigned in_event;
    bool freed;
    bool busy;
    bool accepted;
    uint64_t busy_ms, heard_ms; /* since when it is busy; when a byte came last */
    struct {
        bool on;
        uint64_t alive_ms; /* when it began, or the PING was seen moving last */
        uint64_t ping_end; /* in link_put_total */
        uint64_t acked;    /* of that, by the other end's kernel */
    } probe;
    uint32_t ping;    /* the last one */
    uint64_t ping_ns; /* when it, or HELLO, was put; 0: not awaited */
    uint64_t rtt_ns;
    struct kept_set kept;
    /* Why it is down; before: why who accepted it was not the right one, ERR_OK: nobody did. */
    enum err down_code;
    char why[ERR_TEXT_MAX];
};

/* --- link.c --- */

/* For the reason that err_fail was told. */
void link_go_down(struct link *k, enum err e);
void link_disconnect(struct link *k);
void link_end_attempt(struct link *k);
/* Of `out`, what the kernel takes now. */
void link_send_out(struct link *k);
void link_note_round_trip(struct link *k);
/* An ERROR of the connection: it goes down with the server's sentence. */
MUST_USE enum err link_heard_error(struct link *k, struct wire_frame *f);

/* --- link_dial.c --- */

MUST_USE enum err link_dial(struct link *k);
/* The first frame. An error: it is not what a node begins with. */
MUST_USE enum err link_heard_greeting(struct link *k, struct wire_frame *f);
/* The greeting ended with recv's N, or took too long. */
void link_left_early(struct link *k, ssize_t n);
void link_said_too_little(struct link *k);

/* --- link_silence.c --- */

/* The timer, while it is READY. */
void link_watch_silence(struct link *k);

#endif
