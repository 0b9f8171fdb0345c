/* Room: consensus. What both sides of a peer connection need of a socket. Thread: loop. */
#ifndef CONSENSUS_PEER_SOCKET_H
#define CONSENSUS_PEER_SOCKET_H

#include "base/err.h"

#include <uv.h>

#define PEER_HOST_MAX 254u /* a DNS name is at most 253 bytes */

struct peer_address {
    char host[PEER_HOST_MAX];
    char port[6];
};
/* host:port, 1.2.3.4:port or [::1]:port. ERR_CONFIG. */
MUST_USE enum err peer_address_parse(const char *text, struct peer_address *out);

/* No delay for small writes; a peer that is gone without a word is noticed in about 5 s. */
void peer_socket_tune(uv_tcp_t *tcp);

#endif
