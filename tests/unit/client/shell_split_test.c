/* Room: tests. client/sql_split against sqlite3_complete(). */
#include "base/buf.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/rng.h"
#include "client/sql_split.h"
#include "tests/lib/test.h"

#include <sqlite3.h>
#include <stdlib.h>
#include <string.h>

/* The statements of TEXT, fed in pieces of PIECE bytes, each ended by '\1' in OUT. */
static void split(const char *text, size_t piece, struct buf *out)
{
    struct sql_split s;
    size_t n = strlen(text);
    sql_split_init(&s);
    buf_reset(out);
    for (size_t at = 0; at < n;) {
        bool complete;
        size_t part = n - at < piece ? n - at : piece;
        size_t used = sql_split_feed(&s, text + at, part, &complete);
        EXPECT(used == part || complete);
        buf_put(out, text + at, used);
        if (complete)
            buf_put_u8(out, 1);
        at += used;
    }
    buf_put_u8(out, 0);
    EXPECT_OK(buf_status(out));
}

static void expect_split(const char *text, const char *wanted)
{
    struct buf out;
    buf_init(&out, 10000);
    for (size_t piece = 1; piece <= 7; piece++) {
        split(text, piece, &out);
        if (strcmp((const char *)out.data, wanted) != 0)
            test_fail(__FILE__, __LINE__, "pieces of %zu: <%s> instead of <%s>", piece,
                      (const char *)out.data, wanted);
    }
    buf_fini(&out);
}

TEST(sql_split_cases)
{
    expect_split("SELECT 1; SELECT 2;", "SELECT 1;\1 SELECT 2;\1");
    expect_split("SELECT ';', \";\", `;`, [;];x", "SELECT ';', \";\", `;`, [;];\1x");
    expect_split("SELECT 'it''s;'; --;\n /*;*/ ;;y", "SELECT 'it''s;';\1 --;\n /*;*/ ;;y");
    expect_split("a -/**/- ; b", "a -/**/- ;\1 b");
    expect_split("CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT 2; END; SELECT 3;",
                 "CREATE TRIGGER t AFTER INSERT ON x BEGIN SELECT 1; SELECT 2; END;\1 SELECT 3;\1");
    expect_split("create temporary trigger t begin select case when 1 then 2 end; end;z",
                 "create temporary trigger t begin select case when 1 then 2 end; end;\1z");
    expect_split("EXPLAIN CREATE TRIGGER t BEGIN x; END ;z",
                 "EXPLAIN CREATE TRIGGER t BEGIN x; END ;\1z");
    expect_split("CREATE TABLE trigger_end(a); END;", "CREATE TABLE trigger_end(a);\1 END;\1");
    expect_split("CREATE TRIGGERS x; y", "CREATE TRIGGERS x;\1 y");
}

/* Whether the text up to its end is complete must be what SQLite says. */
TEST(sql_split_agrees_with_sqlite3_complete)
{
    static const char *const words[] = {
        "create", "CREATE ", "temp ", "temporary ", " trigger ", "explain ", "query ", "plan ",
        "end",    "END ",    "x",     "x1$",        "_é",        ";",        "; ",     ";",
        " ",      "\n",      "'",     "\"",         "`",         "[",        "]",      "--",
        "-",      "/",       "*",     "/*",         "*/",        "(",        ",",      "\t"};
    struct rng rng = {test_seed()};
    uint64_t completes = 0;
    for (uint64_t round = 0; round < test_rounds(300000); round++) {
        char text[256] = ";"; /* else a text without a statement is not complete for SQLite */
        size_t n = 1;
        struct sql_split s;
        bool complete = false;
        for (uint64_t k = rng_below(&rng, 14); k > 0; k--) {
            const char *word = words[rng_below(&rng, sizeof words / sizeof words[0])];
            memcpy(text + n, word, strlen(word) + 1);
            n += strlen(word);
        }
        sql_split_init(&s);
        for (size_t at = 0; at < n;)
            at += sql_split_feed(&s, text + at, n - at, &complete);
        bool ours = complete || sql_split_blank(&s);
        if (ours != (sqlite3_complete(text) != 0))
            test_fail(__FILE__, __LINE__, "<%s>: ours %d", text, ours);
        completes += ours;
    }
    EXPECT(completes > 100);
}

TEST(sql_split_is_linear)
{
    /* 8 MB of short lines in one statement: seconds if any line were looked at twice. */
    size_t n = 8u << 20;
    char *text = malloc(n);
    struct sql_split s;
    bool complete;
    EXPECT(text != NULL);
    for (size_t i = 0; i < n; i++)
        text[i] = "(1,';'),\n"[i % 9];
    sql_split_init(&s);
    uint64_t begun = test_cpu_ms();
    for (size_t at = 0; at < n; at += 9)
        (void)sql_split_feed(&s, text + at, n - at < 9 ? n - at : 9, &complete);
    EXPECT(test_cpu_ms() - begun < 5000);
    free(text);
}
