/* Room: client. Values and names as SQL text that gives the very same back, in the form of
 * sqlite3's .dump: for the shell, and for GET /dump of a node. Appended to a buffer, which keeps
 * what went wrong. No part of the library: it needs sqlite3. Thread: any. */
#ifndef CLIENT_SQL_LITERAL_H
#define CLIENT_SQL_LITERAL_H

#include "base/buf.h"

#include <stdbool.h>
#include <stddef.h>

struct wire_value;

/* Room for any number as text. */
#define SQL_NUMBER_MAX 64

/* A float with all its digits and a point or exponent, so that it stays a float; infinity is 1e999.
 */
void sql_float(char to[SQL_NUMBER_MAX], double r);
/* A literal of any value. ESCAPE: line ends inside text become replace(...,char(10)), so that no
 * program on the way can change them. */
void sql_put_literal(struct buf *b, const struct wire_value *v, bool escape);
/* A name, quoted if it needs to be. */
void sql_put_name(struct buf *b, const char *name, size_t n);
/* 'text', quotes doubled. */
void sql_put_text(struct buf *b, const char *text, size_t n);

#endif
