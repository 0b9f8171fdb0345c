/* Room: node/http. Rows and schema entries as SQL that gives the very same back, in the form of
 * sqlite3's .dump. Appended to a buffer, which keeps what went wrong. Thread: any. */
#ifndef NODE_HTTP_DUMP_TEXT_H
#define NODE_HTTP_DUMP_TEXT_H

#include "base/buf.h"

struct dump_name {
    const char *p;
    size_t n;
};

/* INSERT INTO table VALUES(...), of the next N_COLUMNS values. ERR_PROTOCOL: there are none such.
 */
MUST_USE enum err dump_put_row(struct buf *b, const struct dump_name *table, uint32_t n_columns,
                               struct rd *values);
/* A virtual table, written into the schema as it stands: only so all kinds of them come back. */
void dump_put_virtual(struct buf *b, const struct dump_name *name, const struct dump_name *sql);

#endif
