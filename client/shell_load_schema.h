/* Room: client. What a SQLite file holds, and how each part of it goes into a cluster. Thread: one.
 */
#ifndef CLIENT_SHELL_LOAD_SCHEMA_H
#define CLIENT_SHELL_LOAD_SCHEMA_H

#include "base/err.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

enum object_kind {
    OBJECT_TABLE,    /* an ordinary one, with its rows */
    OBJECT_VIRTUAL,  /* made by its CREATE, filled like a table */
    OBJECT_REBUILT,  /* a full-text index over another table: made, and told to rebuild itself */
    OBJECT_SHADOW,   /* comes with its virtual table */
    OBJECT_INTERNAL, /* SQLite's own: sqlite_sequence, sqlite_stat1 and the like */
    OBJECT_LATER,    /* index, trigger, view: after the rows */
};

struct object {
    enum object_kind kind;
    char *type, *name, *sql; /* sql: NULL of what SQLite makes by itself */
    /* Tables and virtual ones. */
    char *select, *insert; /* of all rows; of one */
    int columns;           /* of both */
    uint64_t rows;
};

struct schema {
    struct object *objects; /* as they were made */
    unsigned n;
    uint64_t rows; /* of all */
    bool has_sequence, has_stat;
    int64_t user_version, application_id;
};

/* Reads DB's schema, and counts its rows. A sentence says what cannot be loaded, or is damaged. */
MUST_USE enum err schema_read(sqlite3 *db, const char *file, struct schema *s);
/* What SQLite says of DB's last call, at PLACE ("": the file), and what can be done about it. */
enum err schema_source_failed(sqlite3 *db, const char *file, const char *place);
void schema_fini(struct schema *s);

#endif
