/* Room: node. What the leader knows of a member: for decisions about members, and for status.
 * Thread: loop. */
#ifndef NODE_MEMBERS_VIEW_H
#define NODE_MEMBERS_VIEW_H

#include "node/node.h"

struct member {
    uint64_t id;
    enum cns_member_role role;
    char address[256]; /* of its peer listener */
};

/* False: no such member. */
bool member_find(const struct node *n, uint64_t id, struct member *out) ON_LOOP;
/* The member with this peer address. */
bool member_at(const struct node *n, const char *address, struct member *out) ON_LOOP;
/* Copies at most MAX members; how many. */
unsigned members_copy_all(const struct node *n, struct member *out, unsigned max) ON_LOOP;
/* "voter", "replica" (Raft's standby) or "spare". */
const char *member_role_name(enum cns_member_role role);
/* On the leader: the member has acknowledged something lately. This node itself always does. */
bool member_answers(const struct node *n, uint64_t id) ON_LOOP;
/* The leader, as far as can be known now; 0: none is known. A node that leads is one only while a
 * majority of the voters has answered it within the last election timeout: so long they elect
 * nobody else. One that was stopped and goes on does not know yet that it was replaced. */
uint64_t member_known_leader(const struct node *n) ON_LOOP;
/* This node is that leader, and takes writes. */
bool members_follow(const struct node *n) ON_LOOP;
/* On the leader: this node ever heard of it, in this process or before. */
bool member_was_heard(const struct node *n, uint64_t id) ON_LOOP;
/* On the leader: its log and its database are so near to ours that it can vote. False: HOW says why
 * not, as the second half of "node 4 ...". */
bool member_is_caught_up(const struct node *n, uint64_t id, char *how, size_t max) ON_LOOP;
/* On the leader: the member is another voter that answers, and says of itself that it serves.
 * False: HOW says why not, as the second half of "node 4 ...". */
bool member_can_lead(const struct node *n, uint64_t id, char *how, size_t max) ON_LOOP;
/* On the leader: of those that can lead, the one whose log is nearest; 0: none. */
uint64_t member_next_leader(const struct node *n) ON_LOOP;

#endif
