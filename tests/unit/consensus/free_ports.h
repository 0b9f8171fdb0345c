/* Room: tests. Addresses for members that will listen. */
#ifndef TESTS_UNIT_CONSENSUS_FREE_PORTS_H
#define TESTS_UNIT_CONSENSUS_FREE_PORTS_H

#include "consensus/consensus.h"

#define FREE_PORT_ADDRESS_MAX 32u

/* N voters with the ids 1 to N on loopback ports that are free now (bound together, so that they
 * differ). The servers point into ADDRESSES. */
void free_ports(struct cns_server *servers, char (*addresses)[FREE_PORT_ADDRESS_MAX], unsigned n);

#endif
