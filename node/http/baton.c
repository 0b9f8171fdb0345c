/* Room: node/http.   Thread: any.   Owns: nothing.
 * Invariants: nothing of a baton is looked at before its signature is right. */
#include "node/http/baton.h"

#include "base/buf.h"
#include "base/check.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

#define VERSION     1u
#define MAC_BYTES   16u /* of 32: nobody guesses 2^128 */
#define BATON_BYTES (BODY_BYTES + MAC_BYTES)
/* u8 version, u8 flags, u64 node, u64 process, u64 stream, u32 count, u64 seq, i64 rowid */
#define BODY_BYTES (2u + 8u + 8u + 8u + 4u + 8u + 8u)
#define TEXT_LEN   ((BATON_BYTES * 4 + 2) / 3)

_Static_assert(TEXT_LEN < BATON_TEXT_MAX, "a baton's text fits");

enum { HELD = 1, FOREIGN_KEYS = 2, OR_BARE = 4 };

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void sign(const uint8_t key[CLUSTER_KEY_BYTES], const uint8_t *body,
                 uint8_t mac[EVP_MAX_MD_SIZE])
{
    unsigned n = 0;
    const uint8_t *done =
        HMAC(EVP_sha256(), key, (int)CLUSTER_KEY_BYTES, body, BODY_BYTES, mac, &n);
    CHECK(done != NULL && n >= MAC_BYTES);
}

void baton_write(const struct cluster_keys *keys, const struct baton *b, char out[BATON_TEXT_MAX])
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    struct buf body;
    CHECK(keys->n > 0);
    buf_init(&body, BATON_BYTES);
    buf_put_u8(&body, VERSION);
    buf_put_u8(&body, (uint8_t)((b->held ? HELD : 0) | (b->foreign_keys ? FOREIGN_KEYS : 0) |
                                (b->or_bare ? OR_BARE : 0)));
    buf_put_u64(&body, b->node_id);
    buf_put_u64(&body, b->process);
    buf_put_u64(&body, b->stream);
    buf_put_u32(&body, b->count);
    buf_put_u64(&body, b->seq);
    buf_put_u64(&body, (uint64_t)b->last_insert_rowid);
    CHECK(body.len == BODY_BYTES);
    sign(keys->keys[0], body.data, mac);
    buf_put(&body, mac, MAC_BYTES);
    CHECK(buf_status(&body) == ERR_OK);
    uint32_t bits = 0;
    unsigned n_bits = 0;
    size_t at = 0;
    for (size_t i = 0; i < body.len; i++) {
        bits = bits << 8 | body.data[i];
        for (n_bits += 8; n_bits >= 6; n_bits -= 6)
            out[at++] = alphabet[bits >> (n_bits - 6) & 63];
    }
    if (n_bits > 0)
        out[at++] = alphabet[bits << (6 - n_bits) & 63];
    CHECK(at == TEXT_LEN);
    out[at] = 0;
    buf_fini(&body);
}

static bool decode(const char *text, size_t n, uint8_t out[BATON_BYTES])
{
    uint32_t bits = 0;
    unsigned n_bits = 0;
    size_t at = 0;
    if (n != TEXT_LEN)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *c = text[i] == 0 ? NULL : strchr(alphabet, text[i]);
        if (c == NULL)
            return false;
        bits = bits << 6 | (uint32_t)(c - alphabet);
        n_bits += 6;
        if (n_bits >= 8) {
            n_bits -= 8;
            out[at++] = (uint8_t)(bits >> n_bits);
        }
    }
    return at == BATON_BYTES && (bits & ((1u << n_bits) - 1)) == 0;
}

static bool is_signed(const struct cluster_keys *keys, const uint8_t *bytes)
{
    uint8_t mac[EVP_MAX_MD_SIZE];
    for (unsigned i = 0; i < keys->n; i++) {
        sign(keys->keys[i], bytes, mac);
        if (CRYPTO_memcmp(mac, bytes + BODY_BYTES, MAC_BYTES) == 0)
            return true;
    }
    return false;
}

bool baton_read(const struct cluster_keys *keys, const char *text, size_t n, struct baton *out)
{
    uint8_t bytes[BATON_BYTES];
    if (!decode(text, n, bytes) || !is_signed(keys, bytes))
        return false;
    struct rd r = rd_of(bytes, BODY_BYTES);
    if (rd_u8(&r) != VERSION)
        return false;
    uint8_t flags = rd_u8(&r);
    *out = (struct baton){.held = (flags & HELD) != 0,
                          .or_bare = (flags & OR_BARE) != 0,
                          .foreign_keys = (flags & FOREIGN_KEYS) != 0};
    out->node_id = rd_u64(&r);
    out->process = rd_u64(&r);
    out->stream = rd_u64(&r);
    out->count = rd_u32(&r);
    out->seq = rd_u64(&r);
    out->last_insert_rowid = (int64_t)rd_u64(&r);
    CHECK(!r.failed && rd_left(&r) == 0);
    return true;
}
