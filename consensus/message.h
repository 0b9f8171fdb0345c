/* Room: consensus. Peer messages as bytes and back (docs/PROTOCOL.md). Pure: no sockets.
 *
 * A message is a head (everything but the payloads, and for each payload its length and checksum)
 * followed by the payloads one after the other, so that a sender can write references of the
 * payloads behind a small head, and a receiver copies each payload once. What a peer sends is never
 * trusted: every length, count, kind and role is checked, nothing may be left over.
 * Thread: any. */
#ifndef CONSENSUS_MESSAGE_H
#define CONSENSUS_MESSAGE_H

#include "base/buf.h"
#include "base/sizes.h"
#include "consensus/io.h"

/* Entries of one AppendEntries: bounds what a head can make the receiver allocate. */
#define CNS_MESSAGE_ITEMS_MAX 16384u
/* Members of one configuration, and bytes of an address. */
#define CNS_MESSAGE_MEMBERS_MAX 64u
#define CNS_MESSAGE_ADDRESS_MAX 255u
/* The record inside InstallSnapshot (the database itself travels elsewhere). */
#define CNS_MESSAGE_SNAPSHOT_MAX KIB(64)
/* A head at most: 24 bytes an item, or a snapshot record with its members. */
#define CNS_MESSAGE_HEAD_MAX KIB(512)

/* A received message. The struct raft_message is what raft_step(RAFT_RECEIVE) wants, except:
 *   - server_id and server_address are set by the transport (the sender's, address borrowed);
 *   - APPEND_ENTRIES has entries = NULL and n_entries = 0: the driver makes raft_entry records from
 *     `items` (the core looks into a payload only for RAFT_CHANGE, and frees entries[0].batch);
 *   - INSTALL_SNAPSHOT owns conf and data (raft_malloc), as the core wants them. */
struct cns_message {
    struct raft_message m;
    struct cns_item *items; /* APPEND_ENTRIES: malloc'ed, a reference of each payload */
    unsigned n_items;
};

/* Appends the head of M to HEAD; the payloads of ITEMS must follow it on the wire in order.
 * ERR_TOO_BIG when a limit above (or ENTRY_BYTES_MAX) is exceeded: our own caller's mistake, but
 * one that must not end the process. The items' indexes must follow prev_log_index (CHECKed). */
MUST_USE enum err cns_message_encode(struct buf *head, const struct raft_message *m,
                                     const struct cns_item *items, unsigned n_items);

/* Decodes a head and its payload bytes; ERR_PROTOCOL with a sentence when anything is off, and then
 * nothing is owned. On success free it with cns_message_fini. */
MUST_USE enum err cns_message_decode(const uint8_t *head, size_t head_n, const uint8_t *payloads,
                                     size_t payloads_n, struct cns_message *out);

/* Frees what is still owned: to take items, conf or data out, clear the fields (items = NULL;
 * conf.servers = NULL and conf.n = 0; data.base = NULL). */
void cns_message_fini(struct cns_message *m);

/* Checks bytes that claim to be raft_configuration_encode's, which raft_configuration_decode itself
 * does not do (it runs off the end): format, count, addresses, roles, duplicates. For RAFT_CHANGE
 * payloads from peers and disk. ERR_PROTOCOL. */
MUST_USE enum err cns_message_check_members(const uint8_t *p, size_t n);

#endif
