/* Room: tests. A node that does as it is told: version 2 of the protocol on a free loopback port,
 * in a thread of its own. What it answers is a callback of the test; what it does wrong, calls
 * below.
 *
 *     static bool answer(void *ctx, struct fake_peer *p, struct wire_frame *f)
 *     {
 *         if (f->type != WIRE_QUERY)
 *             return false;
 *         wire_put_done(fake_out(p), f->id, &(struct wire_done){.seq = 7});
 *         return true;
 *     }
 *     struct fake_node *n = fake_node_start(&(struct fake_options){.node_id = 1, .answer =
 * answer});
 *
 * Unanswered frames have an answer of their own: WELCOME, PONG; QUERY, BATCH, STATUS and CLUSTER
 * get a bare DONE, DESCRIBE an ERROR. All calls are done when they return, and may be made by any
 * thread, also from the callback. */
#ifndef TESTS_UNIT_CLIENT_FAKE_NODE_H
#define TESTS_UNIT_CLIENT_FAKE_NODE_H

#include "base/buf.h"
#include "client/wire.h"

#include <stdbool.h>
#include <stdint.h>

#define FAKE_CONNECTIONS_MAX 64

struct fake_node;
struct fake_peer; /* one connection to it */

/* Node's thread, one at a time. Answers go to fake_out(PEER). False: answer it as usual. */
typedef bool (*fake_answer)(void *ctx, struct fake_peer *peer, struct wire_frame *f);

struct fake_options {
    uint64_t node_id, cluster_id, seq, leader_id; /* as WELCOME and PONG tell them; 0: 1 */
    fake_answer answer;                           /* NULL: all frames as usual */
    void *ctx;
    const char *host; /* NULL: 127.0.0.1; or "::1" */
    uint16_t port;    /* 0: a free one */
    /* Instead of WELCOME: */
    const char *raw;   /* these bytes, as soon as a byte has come */
    size_t raw_len;    /* 0: strlen */
    const char *after; /* but when these have come in one piece; NULL: any */
    enum err refuse;   /* this ERROR, and the connection is closed */
    uint16_t version;
    bool silent; /* nothing */
};

/* A port that is free at ::1 and at 127.0.0.1, and stays so for this process's nodes. */
uint16_t fake_port_of_both(void);
struct fake_node *fake_node_start(const struct fake_options *o);
void fake_node_stop(struct fake_node *n);
/* "host:port"; valid until fake_node_stop. */
const char *fake_node_address(const struct fake_node *n);
uint16_t fake_node_port(const struct fake_node *n);

/* As SIGSTOP does: the kernel takes connections and bytes, nobody looks at them. */
void fake_node_pause(struct fake_node *n, bool on);
/* Reads and acts, and its answers get lost: a network that is cut one way. */
void fake_node_mute(struct fake_node *n, bool on);
/* Closes all connections; with RESET the client hears RST instead of an end. */
void fake_node_drop(struct fake_node *n, bool reset);
/* As a process that dies, or starts again on its port. */
void fake_node_kill(struct fake_node *n);
void fake_node_revive(struct fake_node *n);
/* From the next WELCOME or PONG on. */
void fake_node_set_seq(struct fake_node *n, uint64_t seq);
void fake_node_set_leader(struct fake_node *n, uint64_t leader_id);
/* To all connections, frames or garbage. */
void fake_node_send(struct fake_node *n, const void *bytes, size_t len);

/* Connections that were ever accepted; that are open now; frames of TYPE that came (HELLO, PING and
 * all; of all connections). */
unsigned fake_node_accepted(struct fake_node *n);
unsigned fake_node_open(struct fake_node *n);
unsigned fake_node_frames(struct fake_node *n, enum wire_type type);
/* Waits, at most ten seconds, for the COUNTth frame of TYPE; then the test fails. */
void fake_node_wait(struct fake_node *n, enum wire_type type, unsigned count);

/* --- of a connection, from the callback --- */

struct buf *fake_out(struct fake_peer *p);
struct fake_node *fake_peer_node(struct fake_peer *p);
/* 1, 2, 3, ... in the order of their coming. */
unsigned fake_peer_number(const struct fake_peer *p);
/* When the callback returns: what was put leaves, then it is closed. */
void fake_peer_close(struct fake_peer *p);
void fake_error(struct fake_peer *p, struct wire_id id, enum err code, const char *text);
/* COLUMNS "v" and one ROWS frame with N integers, FIRST and up; no DONE. */
void fake_integers(struct fake_peer *p, struct wire_id id, int64_t first, uint32_t n);

#endif
