/* Room: node.   Thread: as in cluster_key.h.   Owns: nothing.
 * File: a line of words for the reader, then one key a line, in hexadecimal, the newest first.
 * Not here: when keys are made, taken and saved (key_keeper.c). */
#include "node/cluster_key.h"

#include "base/buf.h"
#include "base/check.h"
#include "base/file.h"
#include "base/mem.h"

#include <openssl/rand.h>
#include <stdlib.h>
#include <string.h>

#define TITLE    "# Lectern: the cluster's key. Secret; the same on all nodes.\n"
#define FILE_MAX 4096u

static int hex_value(uint8_t c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool take_line(struct rd *r, uint8_t key[CLUSTER_KEY_BYTES])
{
    for (size_t i = 0; i < CLUSTER_KEY_BYTES; i++) {
        int high = hex_value(rd_u8(r)), low = hex_value(rd_u8(r));
        if (high < 0 || low < 0)
            return false;
        key[i] = (uint8_t)(high << 4 | low);
    }
    return rd_u8(r) == '\n' && !r->failed;
}

enum err cluster_keys_load(const char *dir, struct cluster_keys *out)
{
    char *path = mem_printf("%s/key", dir);
    struct buf b;
    *out = (struct cluster_keys){0};
    buf_init(&b, FILE_MAX);
    enum err e = file_read_all(path, &b);
    if (e == ERR_NOT_FOUND) {
        e = ERR_OK;
    } else if (e == ERR_OK || e == ERR_TOO_BIG) {
        struct rd r = rd_of(b.data, b.len);
        const uint8_t *title = rd_bytes(&r, strlen(TITLE));
        bool good = e == ERR_OK && title != NULL && memcmp(title, TITLE, strlen(TITLE)) == 0;
        while (good && rd_left(&r) > 0)
            good = out->n < CLUSTER_KEYS_KEPT && take_line(&r, out->keys[out->n]) && ++out->n > 0;
        e = good && out->n > 0 ? ERR_OK : err_fail(ERR_CORRUPT, "%s is damaged", path);
    }
    buf_fini(&b);
    free(path);
    return e;
}

enum err cluster_keys_save(const char *dir, const struct cluster_keys *keys)
{
    static const char hex[] = "0123456789abcdef";
    char *path = mem_printf("%s/key", dir);
    struct buf b;
    buf_init(&b, FILE_MAX);
    buf_put(&b, TITLE, strlen(TITLE));
    for (unsigned k = 0; k < keys->n; k++) {
        for (size_t i = 0; i < CLUSTER_KEY_BYTES; i++) {
            buf_put_u8(&b, (uint8_t)hex[keys->keys[k][i] >> 4]);
            buf_put_u8(&b, (uint8_t)hex[keys->keys[k][i] & 15]);
        }
        buf_put_u8(&b, '\n');
    }
    CHECK(buf_status(&b) == ERR_OK);
    enum err e = file_replace_secret(path, b.data, b.len);
    buf_fini(&b);
    free(path);
    return e;
}

static void put_first(struct cluster_keys *keys, const uint8_t key[CLUSTER_KEY_BYTES])
{
    unsigned kept = keys->n < CLUSTER_KEYS_KEPT ? keys->n : CLUSTER_KEYS_KEPT - 1;
    memmove(keys->keys[1], keys->keys[0], kept * CLUSTER_KEY_BYTES);
    memcpy(keys->keys[0], key, CLUSTER_KEY_BYTES);
    keys->n = kept + 1;
}

bool cluster_keys_make(struct cluster_keys *keys)
{
    uint8_t key[CLUSTER_KEY_BYTES];
    if (keys->n > 0)
        return false;
    CHECK(RAND_bytes(key, sizeof key) == 1); /* the kernel's: it does not fail */
    put_first(keys, key);
    return true;
}

bool cluster_keys_take(struct cluster_keys *keys, const uint8_t key[CLUSTER_KEY_BYTES])
{
    for (unsigned i = 0; i < keys->n; i++) {
        if (memcmp(keys->keys[i], key, CLUSTER_KEY_BYTES) != 0)
            continue;
        if (i == 0)
            return false;
        memmove(keys->keys[i], keys->keys[i + 1], (keys->n - i - 1) * CLUSTER_KEY_BYTES);
        keys->n--;
        break;
    }
    put_first(keys, key);
    return true;
}
