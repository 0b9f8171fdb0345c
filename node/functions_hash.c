/* Room: node. MD5, SHA1, SHA224 ... SHA512 of a text's UTF-8, in lower-case hexadecimal
 * (libcrypto). Thread: the connection's. */
#include "node/functions_state.h"

#include <openssl/evp.h>

static void digest(sqlite3_context *ctx, sqlite3_value *v, const char *name, const EVP_MD *kind)
{
    static const char digits[] = "0123456789abcdef";
    unsigned char sum[EVP_MAX_MD_SIZE];
    char hex[2 * EVP_MAX_MD_SIZE];
    unsigned n = 0;
    struct fn_string s;
    if (sqlite3_value_type(v) == SQLITE_NULL || !fn_go_on(ctx))
        return;
    if (sqlite3_value_type(v) != SQLITE_TEXT) {
        fn_raise(ctx, "%s() takes text", name);
        return;
    }
    if (!fn_text(ctx, v, &s))
        return;
    if (EVP_Digest(s.p, s.n, sum, &n, kind, NULL) != 1) {
        fn_raise(ctx, "%s(): libcrypto refuses this algorithm on this machine", name);
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        hex[2 * i] = digits[sum[i] >> 4];
        hex[2 * i + 1] = digits[sum[i] & 15];
    }
    sqlite3_result_text(ctx, hex, (int)(2 * n), SQLITE_TRANSIENT);
}

#define DIGEST(call, name, kind)                                                                   \
    static void call(sqlite3_context *ctx, int n, sqlite3_value **v)                               \
    {                                                                                              \
        (void)n;                                                                                   \
        digest(ctx, v[0], name, kind);                                                             \
    }
DIGEST(md5, "MD5", EVP_md5())
DIGEST(sha1, "SHA1", EVP_sha1())
DIGEST(sha224, "SHA224", EVP_sha224())
DIGEST(sha256, "SHA256", EVP_sha256())
DIGEST(sha384, "SHA384", EVP_sha384())
DIGEST(sha512, "SHA512", EVP_sha512())

const struct function functions_hash[] = {
    {"md5", 1, SQLITE_DETERMINISTIC, md5, NULL, NULL},
    {"sha1", 1, SQLITE_DETERMINISTIC, sha1, NULL, NULL},
    {"sha224", 1, SQLITE_DETERMINISTIC, sha224, NULL, NULL},
    {"sha256", 1, SQLITE_DETERMINISTIC, sha256, NULL, NULL},
    {"sha384", 1, SQLITE_DETERMINISTIC, sha384, NULL, NULL},
    {"sha512", 1, SQLITE_DETERMINISTIC, sha512, NULL, NULL},
    {NULL, 0, 0, NULL, NULL, NULL},
};
