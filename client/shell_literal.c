/* Room: client.   Thread: any.   Owns: nothing.
 * Not here: how a literal is written (sql_literal.c); output modes (shell_print.c). */
#include "client/shell_literal.h"

#include "base/buf.h"
#include "base/check.h"
#include "client/sql_literal.h"

#include <inttypes.h>
#include <sqlite3.h>
#include <stdint.h>

void literal_number(char to[LITERAL_NUMBER_MAX], const struct shell_value *v)
{
    if (v->type == LECTERN_INTEGER)
        (void)snprintf(to, LITERAL_NUMBER_MAX, "%" PRId64, v->integer);
    else /* SQLite's own conversion, as its ! flag: always with a point */
        (void)sqlite3_snprintf(LITERAL_NUMBER_MAX, to, "%!.15g", v->real);
}

struct wire_value literal_of(const struct shell_value *v)
{
    struct wire_value w = {.type = WIRE_NULL};
    switch (v->type) {
    case LECTERN_INTEGER:
        w.type = WIRE_INTEGER;
        w.integer = v->integer;
        break;
    case LECTERN_FLOAT:
        w.type = WIRE_FLOAT;
        w.real = v->real;
        break;
    case LECTERN_TEXT:
    case LECTERN_BLOB:
        w.type = v->type == LECTERN_TEXT ? WIRE_TEXT : WIRE_BLOB;
        w.text.bytes = v->text.bytes;
        w.text.len = v->text.len;
        break;
    default:
        break;
    }
    return w;
}

static void write_out(FILE *out, struct buf *b)
{
    CHECK(buf_status(b) == ERR_OK); /* memory, of which the shell is a program that needs it */
    (void)fwrite(b->data, 1, b->len, out);
    buf_fini(b);
}

void literal_put(FILE *out, const struct shell_value *v, bool escape)
{
    struct wire_value w = literal_of(v);
    struct buf b;
    buf_init(&b, SIZE_MAX);
    sql_put_literal(&b, &w, escape);
    write_out(out, &b);
}

void literal_put_name(FILE *out, const char *name, size_t n)
{
    struct buf b;
    buf_init(&b, SIZE_MAX);
    sql_put_name(&b, name, n);
    write_out(out, &b);
}

void literal_put_text(FILE *out, const char *text, size_t n)
{
    struct buf b;
    buf_init(&b, SIZE_MAX);
    sql_put_text(&b, text, n);
    write_out(out, &b);
}
