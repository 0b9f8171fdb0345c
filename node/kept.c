/* Room: node. Thread: loop.
 * Owns: the texts, until their last holder lets go. */
#include "node/kept.h"

#include "base/check.h"
#include "base/mem.h"
#include "client/wire.h"
#include "node/table.h"

#include <stdlib.h>
#include <string.h>

struct kept {
    uint32_t refs;
    uint32_t len;
    char text[];
};

struct keeper {
    struct table texts; /* of struct kept */
    size_t bytes;
};

const char *kept_text(const struct kept *k, size_t *len)
{
    *len = k->len;
    return k->text;
}

void kept_unref(struct kept *k)
{
    CHECK(k->refs > 0);
    if (--k->refs == 0)
        free(k);
}

struct keeper *keeper_new(void)
{
    struct keeper *k = MEM_NEW(struct keeper);
    table_init(&k->texts);
    return k;
}

void keeper_free(struct keeper *k)
{
    struct kept *text;
    uint32_t number;
    if (k == NULL)
        return;
    while ((text = table_any(&k->texts, &number)) != NULL)
        keeper_forget(k, number);
    free(k);
}

enum err keeper_put(struct keeper *k, uint32_t number, const char *sql, size_t len)
{
    keeper_forget(k, number);
    if (k->texts.n >= WIRE_KEPT_MAX || k->bytes + len > WIRE_KEPT_BYTES_MAX)
        return err_fail(ERR_TOO_BIG,
                        "a connection keeps at most %u statements and %u bytes of their texts: "
                        "FORGET others first",
                        WIRE_KEPT_MAX, WIRE_KEPT_BYTES_MAX);
    struct kept *text = mem_alloc(sizeof *text + len);
    *text = (struct kept){.refs = 1, .len = (uint32_t)len};
    memcpy(text->text, sql, len);
    table_put(&k->texts, number, text);
    k->bytes += len;
    return ERR_OK;
}

enum err keeper_get(struct keeper *k, uint32_t number, struct kept **out)
{
    struct kept *text = table_get(&k->texts, number);
    *out = text;
    if (text == NULL)
        return err_fail(ERR_NOT_FOUND,
                        "no statement is kept under the number %u on this connection: send its "
                        "text",
                        number);
    text->refs++;
    return ERR_OK;
}

size_t keeper_bytes(const struct keeper *k)
{
    return k->bytes + k->texts.n * sizeof(struct kept);
}

void keeper_forget(struct keeper *k, uint32_t number)
{
    struct kept *text = table_take(&k->texts, number);
    if (text == NULL)
        return;
    k->bytes -= text->len;
    kept_unref(text);
}
