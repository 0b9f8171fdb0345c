/* Room: client.   Thread: under the cluster's lock.   Owns: nothing.
 * Statements without SQL: how the cluster is, and changes of its members. They are stepped and
 * finalized like any other.
 * Not here: what the columns mean (docs/PROTOCOL.md). */
#include "client/statement.h"
#include "client/wire_cluster.h"

#include <stdlib.h>
#include <string.h>

static int prepare(struct lectern *db, enum wire_type type, enum call_kind kind,
                   const struct wire_cluster *change, lectern_stmt **out)
{
    struct lectern_stmt *s = statement_new(db, type, NULL);
    if (s == NULL)
        return session_fail(db, LECTERN_NOMEM, "%s", "");
    s->kind = kind;
    s->readonly = kind == CALL_READ;
    if (change != NULL) {
        s->change = malloc(sizeof *change);
        if (s->change == NULL) {
            (void)statement_finalize(s);
            return session_fail(db, LECTERN_NOMEM, "%s", "");
        }
        *s->change = *change;
    }
    *out = s;
    return session_ok(db);
}

int lectern_prepare_status(lectern *db, lectern_stmt **out)
{
    if (out != NULL)
        *out = NULL;
    if (!session_enter(db))
        return LECTERN_MISUSE;
    int code = out == NULL ? session_fail(db, LECTERN_MISUSE, "where the statement goes is NULL")
                           : prepare(db, WIRE_STATUS, CALL_READ, NULL, out);
    session_leave(db->cluster);
    return code;
}

/* False: not a change that there is; the error is set. */
static bool translate(struct lectern *db, const struct lectern_member_change *from,
                      struct wire_cluster *to)
{
    static const enum wire_cluster_op ops[] = {
        [LECTERN_MEMBER_ADD] = WIRE_CLUSTER_ADD,
        [LECTERN_MEMBER_REMOVE] = WIRE_CLUSTER_REMOVE,
        [LECTERN_MEMBER_ROLE] = WIRE_CLUSTER_ROLE,
        [LECTERN_MEMBER_TRANSFER] = WIRE_CLUSTER_TRANSFER,
    };
    static const enum wire_member_role roles[] = {
        [LECTERN_VOTER] = WIRE_VOTER,
        [LECTERN_REPLICA] = WIRE_STANDBY,
        [LECTERN_SPARE] = WIRE_SPARE,
    };
    if (from->change < LECTERN_MEMBER_ADD || from->change > LECTERN_MEMBER_TRANSFER ||
        from->role < LECTERN_VOTER || from->role > LECTERN_SPARE) {
        (void)session_fail(db, LECTERN_MISUSE, "there is no change of members %d with role %d",
                           from->change, from->role);
        return false;
    }
    const char *address = from->address == NULL ? "" : from->address;
    size_t n = strlen(address);
    if (n >= sizeof to->address || (n == 0) == (from->change == LECTERN_MEMBER_ADD)) {
        (void)session_fail(db, LECTERN_MISUSE,
                           "an address of up to %zu bytes belongs to LECTERN_MEMBER_ADD, only",
                           sizeof to->address - 1);
        return false;
    }
    *to = (struct wire_cluster){.op = ops[from->change], .role = roles[from->role], .id = from->id};
    to->flags = from->force ? WIRE_CLUSTER_FORCE : 0;
    memcpy(to->address, address, n + 1);
    return true;
}

int lectern_prepare_member_change(lectern *db, const struct lectern_member_change *change,
                                  lectern_stmt **out)
{
    if (out != NULL)
        *out = NULL;
    if (!session_enter(db))
        return LECTERN_MISUSE;
    struct wire_cluster c;
    int code = LECTERN_MISUSE;
    if (out == NULL || change == NULL)
        (void)session_fail(db, LECTERN_MISUSE, "the change, or where its statement goes, is NULL");
    else if (translate(db, change, &c))
        code = prepare(db, WIRE_CLUSTER, CALL_ADMIN, &c, out);
    session_leave(db->cluster);
    return code;
}
