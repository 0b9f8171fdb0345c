/* Room: node. Who this node is: the file DIR/node (docs/FORMATS.md, part D). A node that joined has
 * its id from there and nowhere else; one that was bootstrapped by --cluster writes it too, so that
 * later starts need only --data. Thread: main; blocks. */
#ifndef NODE_IDENTITY_H
#define NODE_IDENTITY_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define IDENTITY_TEXT_MAX 1024 /* of one value, with its final zero */

/* What the node wants from the leader once it has caught up. */
enum identity_wish { WISH_NONE, WISH_VOTER };

struct identity {
    uint64_t id, cluster_id, database_id; /* all > 0 */
    char peer[IDENTITY_TEXT_MAX];         /* host:port: the address that its members' list has */
    char contacts[IDENTITY_TEXT_MAX];     /* clients' addresses of others, "a:1,b:2"; joined only */
    uint64_t since; /* the log's entry by which it joined: an older image is of no use; or 0 */
    enum identity_wish wish;
    uint64_t replace; /* with WISH_VOTER: the dead member whose place it takes, 0: none */
    bool joined;      /* by --join: its first state is another node's image */
    bool begun;       /* DIR/raft was made: when it is missing now, the node forgot its promises */
};

/* ERR_NOT_FOUND: no such file. ERR_CORRUPT, ERR_FORMAT (a newer version): the sentence says more.
 */
MUST_USE enum err identity_read(const char *dir, struct identity *out);
/* Replaces the file, durable when it returns. */
MUST_USE enum err identity_write(const char *dir, const struct identity *who);
bool identity_exists(const char *dir);
/* After DIR/raft is durably there: notes that, if it is not noted yet. */
MUST_USE enum err identity_note_begun(const char *dir, struct identity *who);

#endif
