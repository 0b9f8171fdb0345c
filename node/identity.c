/* Room: node. Thread: main, before the loop runs; the pool of libuv later.
 *
 * Text, so that an operator can read it, with a sum over all lines before the last one, so that a
 * torn or an edited file is not mistaken for one of ours:
 *
 *     lectern-node 1
 *     id = 4
 *     ...
 *     sum = 0f63a9c2d17b0e55
 *
 * Not here: when which line is written (join.c). */
#include "node/identity.h"

#include "base/buf.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_MAX KIB(16)
#define FIRST    "lectern-node 1\n"
#define SUM      "sum = "

static char *path_of(const char *dir)
{
    return mem_printf("%s/node", dir);
}

bool identity_exists(const char *dir)
{
    char *path = path_of(dir);
    bool there = file_is_there(path);
    free(path);
    return there;
}

/* --- reading ---------------------------------------------------------------------------------- */

static enum err damaged(const char *path, const char *what)
{
    return err_fail(ERR_CORRUPT,
                    "%s is damaged or was edited (%s): this node does not know who it is. Restore "
                    "the file, or remove the data directory and let the node join under a new id",
                    path, what);
}

/* The lines of the file as they come: the next one must be `NAME = value`. */
static bool take_line(char **at, const char *name, char *out, size_t max)
{
    size_t n = strlen(name);
    char *end = strchr(*at, '\n');
    if (end == NULL || strncmp(*at, name, n) != 0 || strncmp(*at + n, " = ", 3) != 0)
        return false;
    const char *value = *at + n + 3;
    size_t len = (size_t)(end - value);
    if (value > end || len >= max)
        return false;
    memcpy(out, value, len);
    out[len] = 0;
    *at = end + 1;
    return true;
}

static bool take_number(char **at, const char *name, uint64_t *out)
{
    char text[24];
    char *end;
    if (!take_line(at, name, text, sizeof text) || text[0] < '0' || text[0] > '9')
        return false;
    *out = strtoull(text, &end, 10);
    return *end == 0;
}

static bool take_switch(char **at, const char *name, bool *out)
{
    char text[8];
    if (!take_line(at, name, text, sizeof text))
        return false;
    *out = strcmp(text, "yes") == 0;
    return *out || strcmp(text, "no") == 0;
}

static bool take_wish(char **at, enum identity_wish *out)
{
    char text[8];
    if (!take_line(at, "wish", text, sizeof text))
        return false;
    *out = strcmp(text, "voter") == 0 ? WISH_VOTER : WISH_NONE;
    return *out == WISH_VOTER || strcmp(text, "none") == 0;
}

/* TEXT is whole and zero-terminated. */
static enum err parse(const char *path, char *text, struct identity *out)
{
    char *sum_line = strstr(text, "\n" SUM), sum[20], wanted[20];
    size_t digits = strncmp(text, "lectern-node ", 13) == 0 ? strspn(text + 13, "0123456789") : 0;
    if (digits == 0 || text[13 + digits] != '\n')
        return damaged(path, "the first line");
    if (strncmp(text, FIRST, sizeof FIRST - 1) != 0)
        return err_fail(ERR_FORMAT, "%s is of a newer version of Lectern: start that one", path);
    if (sum_line == NULL)
        return damaged(path, "no sum");
    char *at = ++sum_line;
    (void)snprintf(wanted, sizeof wanted, "%016" PRIx64,
                   hash64(text, (size_t)(sum_line - text), 0));
    if (!take_line(&at, "sum", sum, sizeof sum) || *at != 0 || strcmp(sum, wanted) != 0)
        return damaged(path, "its sum");
    at = text + sizeof FIRST - 1;
    bool good =
        take_number(&at, "id", &out->id) && take_number(&at, "cluster-id", &out->cluster_id) &&
        take_number(&at, "database-id", &out->database_id) &&
        take_line(&at, "peer", out->peer, sizeof out->peer) &&
        take_line(&at, "contacts", out->contacts, sizeof out->contacts) &&
        take_number(&at, "since", &out->since) && take_wish(&at, &out->wish) &&
        take_number(&at, "replace", &out->replace) && take_switch(&at, "joined", &out->joined) &&
        take_switch(&at, "begun", &out->begun) && at == sum_line;
    if (!good || out->id == 0 || out->cluster_id == 0 || out->database_id == 0)
        return damaged(path, "its lines");
    return ERR_OK;
}

enum err identity_read(const char *dir, struct identity *out)
{
    char *path = path_of(dir);
    struct buf b;
    *out = (struct identity){0};
    buf_init(&b, FILE_MAX);
    enum err e = file_read_all(path, &b);
    if (e == ERR_TOO_BIG)
        e = damaged(path, "its size");
    if (e == ERR_OK && memchr(b.data == NULL ? "" : (const char *)b.data, 0, b.len) != NULL)
        e = damaged(path, "a zero byte");
    if (e == ERR_OK) {
        buf_put_u8(&b, 0);
        e = b.failed != ERR_OK ? damaged(path, "its size") : parse(path, (char *)b.data, out);
    }
    buf_fini(&b);
    free(path);
    return e;
}

/* --- writing ---------------------------------------------------------------------------------- */

enum err identity_write(const char *dir, const struct identity *who)
{
    char *path = path_of(dir);
    struct buf b;
    buf_init(&b, FILE_MAX);
    buf_printf(&b, FIRST);
    buf_printf(&b, "id = %" PRIu64 "\n", who->id);
    buf_printf(&b, "cluster-id = %" PRIu64 "\n", who->cluster_id);
    buf_printf(&b, "database-id = %" PRIu64 "\n", who->database_id);
    buf_printf(&b, "peer = %s\n", who->peer);
    buf_printf(&b, "contacts = %s\n", who->contacts);
    buf_printf(&b, "since = %" PRIu64 "\n", who->since);
    buf_printf(&b, "wish = %s\n", who->wish == WISH_VOTER ? "voter" : "none");
    buf_printf(&b, "replace = %" PRIu64 "\n", who->replace);
    buf_printf(&b, "joined = %s\n", who->joined ? "yes" : "no");
    buf_printf(&b, "begun = %s\n", who->begun ? "yes" : "no");
    uint64_t sum = hash64(b.data, b.len, 0);
    buf_printf(&b, SUM "%016" PRIx64 "\n", sum);
    enum err e = buf_status(&b);
    if (e == ERR_OK)
        e = file_replace(path, b.data, b.len);
    buf_fini(&b);
    free(path);
    return e;
}

enum err identity_note_begun(const char *dir, struct identity *who)
{
    if (who->begun)
        return ERR_OK;
    who->begun = true;
    return identity_write(dir, who);
}
