/* Room: consensus. struct cns of consensus.h: one member over libuv. The driver decides, the log
 * and the transport do; here they are put together, and time passes. Thread: loop. */
#ifndef CONSENSUS_MEMBER_H
#define CONSENSUS_MEMBER_H

#include "consensus/consensus.h"

/* The port of the peer listener, after cns_start (for tests that listen on port 0). */
unsigned cns_peer_port(const struct cns *c) ON_LOOP;

#endif
