/* Room: tests. node/http/json_read: any text in any pieces. */
#include "base/rng.h"
#include "node/http/json_read.h"
#include "tests/lib/test.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Reads TEXT in pieces of at most PIECE bytes. */
static enum err read_text(struct arena *a, const char *text, size_t n, size_t piece,
                          const struct json **root)
{
    struct json_reader *r = json_reader_new(a);
    enum err e = ERR_OK;
    for (size_t at = 0; e == ERR_OK && at < n;) {
        size_t some = n - at < piece ? n - at : piece;
        char *copy = malloc(some); /* exactly so long: a read beyond it is seen */
        memcpy(copy, text + at, some);
        e = json_feed(r, copy, some);
        free(copy);
        at += some;
    }
    if (e == ERR_OK)
        e = json_end(r, root);
    json_reader_free(r);
    return e;
}

TEST(json_reads_a_request_in_pieces_of_any_size)
{
    static const char text[] =
        " {\"baton\": null, \"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT "
        "\\\\ud800'\\u00e4\\u0000\\ud83d\\ude00'\",\"args\":[{\"type\":\"integer\",\"value\":\"-"
        "9223372036854775808\"},"
        "{\"type\":\"float\",\"value\":-1.5e3}],\"want_rows\":true}}], \"x\":{}} ";
    static const char sql[] = "SELECT \\ud800'\xc3\xa4\0\xf0\x9f\x98\x80'";
    for (size_t piece = 1; piece <= sizeof text; piece++) {
        struct arena a;
        const struct json *root = NULL;
        int64_t integer = 0;
        double real = 0;
        arena_init(&a, 100000);
        EXPECT_OK(read_text(&a, text, sizeof text - 1, piece, &root));
        EXPECT(json_is(json_get(root, "baton"), JSON_NULL));
        const struct json *requests = json_get(root, "requests");
        EXPECT(json_is(requests, JSON_ARRAY) && requests->n_children == 1);
        const struct json *stmt = json_get(requests->first, "stmt");
        const struct json *s = json_get(stmt, "sql");
        EXPECT(s->len == sizeof sql - 1 && memcmp(s->text, sql, s->len) == 0);
        EXPECT(json_is(json_get(stmt, "want_rows"), JSON_TRUE));
        const struct json *args = json_get(stmt, "args");
        EXPECT(json_int64(json_get(args->first, "value"), &integer) && integer == INT64_MIN);
        EXPECT(json_double(json_get(args->last, "value"), &real) && real < -1499 && real > -1501);
        EXPECT(json_get(root, "nothing") == NULL && json_get(requests, "x") == NULL);
        EXPECT(json_is(json_get(root, "x"), JSON_OBJECT));
        arena_fini(&a);
    }
}

TEST(json_refuses_what_is_not_json)
{
    static const char *const bad[] = {"",
                                      " ",
                                      "{",
                                      "[1,]",
                                      "{\"a\":1,}",
                                      "{a:1}",
                                      "[1 2]",
                                      "nul",
                                      "01",
                                      "+1",
                                      "\"\\x\"",
                                      "\"\t\"",
                                      "1 2",
                                      "[1]x",
                                      "\"\xff\"",
                                      "\"\xc0\x80\"",
                                      "// c\n1",
                                      "[\"a]",
                                      "{\"a\"}",
                                      "]",
                                      "\"\xed\xa0\x80\"",
                                      "\"\\ud800\"",
                                      "\"\\udc00\"",
                                      "\"\\ud800x\"",
                                      "\"\\ud800\\n\"",
                                      "\"\\ud800\\u0041\"",
                                      "{\"\\udfff\":1}"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        for (size_t piece = 1; piece <= 8; piece += 7) {
            struct arena a;
            const struct json *root = NULL;
            arena_init(&a, 10000);
            enum err e = read_text(&a, bad[i], strlen(bad[i]), piece, &root);
            if (e != ERR_PROTOCOL)
                test_fail(__FILE__, __LINE__, "%s: %s", bad[i], err_name((int)e));
            arena_fini(&a);
        }
    }
}

TEST(json_is_bounded)
{
    struct arena a;
    const struct json *root = NULL;
    char deep[2 * (JSON_DEPTH_MAX + 1)];
    memset(deep, '[', JSON_DEPTH_MAX + 1);
    memset(deep + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    arena_init(&a, 100000);
    EXPECT_ERR(ERR_TOO_BIG, read_text(&a, deep, sizeof deep, 7, &root));
    EXPECT_OK(read_text(&a, deep + 1, sizeof deep - 2, 7, &root));
    arena_fini(&a);
    arena_init(&a, 1000);
    char many[400];
    memset(many, '1', sizeof many);
    for (size_t i = 1; i < sizeof many; i += 2)
        many[i] = ',';
    many[0] = '[';
    many[sizeof many - 1] = ']';
    many[1] = '1';
    EXPECT_ERR(ERR_TOO_BIG, read_text(&a, many, sizeof many, 9, &root));
    arena_fini(&a);
}

TEST(json_numbers_are_whole_or_refused)
{
    static const struct {
        const char *text;
        bool is_int, is_uint;
    } all[] = {{"0", true, true},
               {"-0", true, false},
               {"\"12\"", true, true},
               {"\" 12\"", false, false},
               {"\"+12\"", false, false},
               {"\"\"", false, false},
               {"\"-\"", false, false},
               {"\"0x10\"", false, false},
               {"\"1\\u00002\"", false, false},
               {"1.0", false, false},
               {"1e3", false, false},
               {"9223372036854775807", true, true},
               {"9223372036854775808", false, true},
               {"-9223372036854775809", false, false},
               {"18446744073709551616", false, false},
               {"null", false, false},
               {"[1]", false, false}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct arena a;
        const struct json *root = NULL;
        int64_t n;
        uint64_t u;
        arena_init(&a, 10000);
        EXPECT_OK(read_text(&a, all[i].text, strlen(all[i].text), 100, &root));
        if (json_int64(root, &n) != all[i].is_int || json_uint64(root, &u) != all[i].is_uint)
            test_fail(__FILE__, __LINE__, "%s", all[i].text);
        arena_fini(&a);
    }
    struct arena a;
    const struct json *root = NULL;
    double real;
    arena_init(&a, 1000);
    EXPECT_OK(read_text(&a, "1e999", 5, 1, &root));
    EXPECT(json_double(root, &real) && isinf(real));
    arena_fini(&a);
}

TEST(json_of_random_bytes_never_harms)
{
    struct rng rng = {test_seed()};
    static const char alphabet[] = "{}[]\",:\\0-1eE.u \ttrue\xc3\xa4null";
    for (uint64_t round = 0; round < test_rounds(50000); round++) {
        char text[64];
        struct arena a;
        const struct json *root = NULL;
        size_t n = rng_below(&rng, sizeof text);
        for (size_t i = 0; i < n; i++)
            text[i] = alphabet[rng_below(&rng, sizeof alphabet)];
        arena_init(&a, 4000);
        enum err e = read_text(&a, text, n, 1 + rng_below(&rng, 9), &root);
        EXPECT(e == ERR_OK ? root != NULL : e == ERR_PROTOCOL || e == ERR_TOO_BIG);
        arena_fini(&a);
    }
}
