/* Room: tests. Addresses for members that will listen. */
#ifndef TESTS_UNIT_CONSENSUS_FREE_PORTS_H
#define TESTS_UNIT_CONSENSUS_FREE_PORTS_H

#include "consensus/consensus.h"

#define FREE_PORT_ADDRESS_MAX 32u

/* N voters with the ids 1 to N on loopback ports that nobody listens on, and that no other test
 * takes while this process lives: they are below those that the kernel gives to connections. The
 * servers point into ADDRESSES. */
void free_ports(struct cns_server *servers, char (*addresses)[FREE_PORT_ADDRESS_MAX], unsigned n);

#endif
