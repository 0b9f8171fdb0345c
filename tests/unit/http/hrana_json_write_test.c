/* Room: tests. node/http/hrana_json_write: answers as libSQL's drivers read them. */
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_json.h"
#include "tests/lib/test.h"
#include "tests/unit/http/hrana_answer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static void expect_text(int line, struct buf *out, const char *wanted)
{
    if (out->len != strlen(wanted) || memcmp(out->data, wanted, out->len) != 0)
        test_fail(__FILE__, line, "\n    %.*s\n    wanted\n    %s", (int)out->len,
                  (const char *)out->data, wanted);
    buf_reset(out);
}

#define EXPECT_TEXT(out, wanted) expect_text(__LINE__, out, wanted)

static struct hrana_result *all_types(void)
{
    static const char *const names[] = {"id", "a\"b", "", "t\xff", "b", "f"};
    static const char *const types[] = {"INTEGER", "", "", "TEXT", "BLOB", "REAL"};
    const struct wire_value values[] = {VALUE_INTEGER(INT64_MIN),
                                        VALUE_NULL,
                                        VALUE_TEXT(""),
                                        VALUE_TEXT("x\xffy\n"),
                                        VALUE_BLOB("\1\2\3\4"),
                                        VALUE_FLOAT(1.5),
                                        VALUE_INTEGER(9007199254740993),
                                        VALUE_FLOAT(3),
                                        VALUE_BLOB(""),
                                        VALUE_TEXT("\xc3\xa4\0"),
                                        VALUE_FLOAT(-0.0),
                                        VALUE_FLOAT(INFINITY)};
    return answer_new(6, names, types, 2, values);
}

#define ALL_TYPES                                                                                  \
    "{\"cols\":[{\"name\":\"id\",\"decltype\":\"INTEGER\"},{\"name\":\"a\\\"b\",\"decltype\":"     \
    "null},"                                                                                       \
    "{\"name\":\"\",\"decltype\":null},{\"name\":\"t\xef\xbf\xbd\",\"decltype\":\"TEXT\"},"        \
    "{\"name\":\"b\",\"decltype\":\"BLOB\"},{\"name\":\"f\",\"decltype\":\"REAL\"}],\"rows\":[["   \
    "{\"type\":\"integer\",\"value\":\"-9223372036854775808\"},{\"type\":\"null\"},"               \
    "{\"type\":\"text\",\"value\":\"\"},{\"type\":\"text\",\"value\":\"x\xef\xbf\xbdy\\n\"},"      \
    "{\"type\":\"blob\",\"base64\":\"AQIDBA\"},{\"type\":\"float\",\"value\":1.5}],["              \
    "{\"type\":\"integer\",\"value\":\"9007199254740993\"},{\"type\":\"float\",\"value\":3},"      \
    "{\"type\":\"blob\",\"base64\":\"\"},{\"type\":\"text\",\"value\":\"\xc3\xa4\\u0000\"},"       \
    "{\"type\":\"float\",\"value\":-0.0},{\"type\":\"float\",\"value\":1e999}]],"                  \
    "\"affected_row_count\":0,\"last_insert_rowid\":null,\"replication_index\":\"77\","            \
    "\"rows_read\":2,\"rows_written\":0,\"query_duration_ms\":1.25}"

static void put_description(struct buf *b, uint8_t flags)
{
    struct buf params, columns;
    buf_init(&params, 1000);
    buf_init(&columns, 1000);
    buf_put_cstr(&params, ":a");
    buf_put_cstr(&params, "");
    buf_put_cstr(&columns, "n");
    buf_put_cstr(&columns, "");
    const struct wire_description d = {.used = 8,
                                       .flags = flags,
                                       .n_params = 2,
                                       .n_columns = 1,
                                       .params = rd_of(params.data, params.len),
                                       .columns = rd_of(columns.data, columns.len)};
    wire_put_description(b, (struct wire_id){3, 7}, &d);
    buf_fini(&params);
    buf_fini(&columns);
}

TEST(hrana_json_writes_a_pipeline)
{
    struct buf out;
    struct hrana_result *result = all_types();
    struct hrana_error *error = hrana_error_new("SQLITE_ERROR", "SQLite error: \"x\"");
    struct hrana_step_reply step = {.result = result}, failed = {.error = error};
    const struct hrana_reply replies[] = {
        {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1, .replication_index = 77},
        {.type = HRANA_EXECUTE, .steps = &failed, .n_steps = 1},
        {.type = HRANA_SEQUENCE, .error = error},
        {.type = HRANA_SEQUENCE},
        {.type = HRANA_STORE_SQL},
        {.type = HRANA_CLOSE_SQL},
        {.type = HRANA_GET_AUTOCOMMIT, .is_autocommit = true},
        {.type = HRANA_GET_AUTOCOMMIT},
        {.type = HRANA_CLOSE}};
    buf_init(&out, MIB(1));
    struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
    w.form->begin_pipeline(&w);
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++)
        hrana_write_reply(&w, &replies[i]);
    w.form->end_pipeline(&w, "b.1", "http://a:1");
    EXPECT_TEXT(
        &out,
        "{\"results\":[{\"type\":\"ok\",\"response\":{\"type\":\"execute\",\"result\":" ALL_TYPES
        "}},"
        "{\"type\":\"error\",\"error\":{\"message\":\"SQLite error: \\\"x\\\"\",\"code\":"
        "\"SQLITE_ERROR\"}},"
        "{\"type\":\"error\",\"error\":{\"message\":\"SQLite error: \\\"x\\\"\",\"code\":"
        "\"SQLITE_ERROR\"}},"
        "{\"type\":\"ok\",\"response\":{\"type\":\"sequence\"}},"
        "{\"type\":\"ok\",\"response\":{\"type\":\"store_sql\"}},"
        "{\"type\":\"ok\",\"response\":{\"type\":\"close_sql\"}},"
        "{\"type\":\"ok\",\"response\":{\"type\":\"get_autocommit\",\"is_autocommit\":true}},"
        "{\"type\":\"ok\",\"response\":{\"type\":\"get_autocommit\",\"is_autocommit\":false}},"
        "{\"type\":\"ok\",\"response\":{\"type\":\"close\"}}],"
        "\"baton\":\"b.1\",\"base_url\":\"http://a:1\"}");
    w = hrana_writer_of(&hrana_json, &out);
    w.form->begin_pipeline(&w);
    w.form->end_pipeline(&w, NULL, NULL);
    EXPECT_TEXT(&out, "{\"results\":[],\"baton\":null,\"base_url\":null}");
    hrana_error_free(error);
    answer_free(result);
    buf_fini(&out);
}

#define WRITTEN(changes, rowid, seq)                                                               \
    "{\"cols\":[],\"rows\":[],\"affected_row_count\":" changes ",\"last_insert_rowid\":" rowid     \
    ",\"replication_index\":" seq ",\"rows_read\":0,\"rows_written\":" changes                     \
    ",\"query_duration_ms\":1.25}"

/* ECOSYSTEM's rule: none for a read, for nothing changed, for 0. */
TEST(hrana_json_tells_what_a_write_changed)
{
    static const struct {
        int64_t changes, rowid;
        bool read_only;
        const char *wanted;
    } cases[] = {
        {1, 42, false, WRITTEN("1", "\"42\"", "\"9\"")},
        {3, -5, false, WRITTEN("3", "\"-5\"", "\"9\"")},
        {1, 42, true, WRITTEN("0", "null", "\"9\"")},
        {0, 42, false, WRITTEN("0", "null", "\"9\"")},
        {1, 0, false, WRITTEN("1", "null", "\"9\"")},
        {-1, 42, false, WRITTEN("0", "null", "\"9\"")}, /* another node's broken word */
    };
    struct buf out;
    buf_init(&out, MIB(1));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct hrana_result *r = answer_write(cases[i].changes, cases[i].rowid, 9);
        struct hrana_step_reply step = {.result = r};
        const struct hrana_reply reply = {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1};
        struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
        struct hrana_error *error;
        r->read_only = cases[i].read_only;
        hrana_json_put_v1(&w, &reply, &error);
        EXPECT(error == NULL);
        char wanted[200];
        (void)snprintf(wanted, sizeof wanted, "{\"result\":%s}", cases[i].wanted);
        EXPECT_TEXT(&out, wanted);
        answer_free(r);
    }
    buf_fini(&out);
}

TEST(hrana_json_writes_a_batch_with_its_holes)
{
    struct buf out;
    struct hrana_result *a = answer_write(1, 42, 5);
    struct hrana_error *error = hrana_error_new("SQLITE_BUSY", "busy"), *refused;
    struct hrana_step_reply steps[] = {{.result = a}, {.error = error}, {0}};
    const struct hrana_reply reply = {
        .type = HRANA_BATCH, .steps = steps, .n_steps = 3, .replication_index = 6};
    const struct hrana_reply none = {.type = HRANA_BATCH},
                             whole = {.type = HRANA_BATCH, .error = error};
    buf_init(&out, MIB(1));
    struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
    hrana_write_response(&w, -1, &reply);
    EXPECT_TEXT(
        &out,
        "{\"type\":\"response_ok\",\"request_id\":-1,\"response\":{\"type\":\"batch\","
        "\"result\":{\"step_results\":[" WRITTEN(
            "1", "\"42\"",
            "\"5\"") ",null,null],"
                     "\"step_errors\":[null,{\"message\":\"busy\",\"code\":\"SQLITE_BUSY\"},null],"
                     "\"replication_index\":\"6\"}}}");
    w = hrana_writer_of(&hrana_json, &out);
    hrana_json_put_v1(&w, &none, &refused);
    EXPECT(refused == NULL);
    EXPECT_TEXT(&out, "{\"result\":{\"step_results\":[],\"step_errors\":[],\"replication_index\":"
                      "null}}");
    w = hrana_writer_of(&hrana_json, &out);
    hrana_json_put_v1(&w, &whole, &refused);
    EXPECT(out.len == 0 && strcmp(refused->message, "busy") == 0);
    hrana_error_free(refused);
    hrana_write_response(&w, 2, &whole);
    EXPECT_TEXT(&out,
                "{\"type\":\"response_error\",\"request_id\":2,\"error\":{\"message\":\"busy\","
                "\"code\":\"SQLITE_BUSY\"}}");
    hrana_error_free(error);
    answer_free(a);
    buf_fini(&out);
}

TEST(hrana_json_writes_descriptions_and_plain_answers)
{
    struct buf out;
    struct hrana_reply reply = {.type = HRANA_DESCRIBE};
    buf_init(&out, MIB(1));
    buf_init(&reply.description, MIB(1));
    put_description(&reply.description, WIRE_STATEMENT_READONLY);
    struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
    hrana_write_reply(&w, &reply);
    EXPECT_TEXT(&out, "{\"type\":\"ok\",\"response\":{\"type\":\"describe\",\"result\":{\"params\":"
                      "[{\"name\":\":a\"},{\"name\":null}],\"cols\":[{\"name\":\"n\",\"decltype\":"
                      "null}],\"is_explain\":false,\"is_readonly\":true}}}");
    buf_fini(&reply.description);
    static const struct {
        enum hrana_type type;
        const char *name;
    } plain[] = {{HRANA_OPEN_STREAM, "open_stream"},
                 {HRANA_CLOSE_STREAM, "close_stream"},
                 {HRANA_OPEN_CURSOR, "open_cursor"},
                 {HRANA_CLOSE_CURSOR, "close_cursor"}};
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++) {
        const struct hrana_reply p = {.type = plain[i].type};
        char wanted[200];
        w = hrana_writer_of(&hrana_json, &out);
        hrana_write_response(&w, 7, &p);
        (void)snprintf(wanted, sizeof wanted,
                       "{\"type\":\"response_ok\",\"request_id\":7,\"response\":{\"type\":\"%s\"}}",
                       plain[i].name);
        EXPECT_TEXT(&out, wanted);
    }
    struct hrana_error *error = hrana_error_new("AUTH", "no");
    w = hrana_writer_of(&hrana_json, &out);
    w.form->put_hello(&w, NULL);
    EXPECT_TEXT(&out, "{\"type\":\"hello_ok\"}");
    w = hrana_writer_of(&hrana_json, &out);
    w.form->put_hello(&w, error);
    EXPECT_TEXT(&out,
                "{\"type\":\"hello_error\",\"error\":{\"message\":\"no\",\"code\":\"AUTH\"}}");
    hrana_error_free(error);
    buf_fini(&out);
}

static void put_entries(struct hrana_writer *c)
{
    struct hrana_error *error = hrana_error_new("SQLITE_BUSY", "busy");
    struct hrana_result *r =
        answer_new(2, (const char *const[]){"a", "b"}, (const char *const[]){"", "TEXT"}, 1,
                   (struct wire_value[]){VALUE_INTEGER(1), VALUE_TEXT("x")});
    struct wire_frame f;
    struct rd values;
    uint32_t n, rows;
    size_t used, more;
    EXPECT_OK(wire_next(r->frames.data, r->frames.len, KIB(4), &f, &used));
    EXPECT_OK(hrana_write_step_begin(c, 0, &f, &n));
    EXPECT_OK(wire_next(r->frames.data + used, r->frames.len - used, KIB(4), &f, &more));
    EXPECT_OK(wire_get_rows(&f, n, &rows, &values));
    EXPECT(rows == 1);
    EXPECT_OK(hrana_write_row(c, n, &values));
    c->form->put_step_end(c, &(struct wire_done){.changes = 2, .last_insert_rowid = 7}, true);
    EXPECT_OK(hrana_write_step_begin(c, 1, NULL, &n));
    EXPECT(n == 0);
    c->form->put_step_end(c, &(struct wire_done){.changes = 2, .last_insert_rowid = 7}, false);
    c->form->put_step_error(c, 2, error);
    c->form->put_cursor_error(c, error);
    hrana_error_free(error);
    answer_free(r);
}

#define ENTRIES(end)                                                                               \
    "{\"type\":\"step_begin\",\"step\":0,\"cols\":[{\"name\":\"a\",\"decltype\":null},"            \
    "{\"name\":\"b\",\"decltype\":\"TEXT\"}]}" end                                                 \
    "{\"type\":\"row\",\"row\":[{\"type\":\"integer\",\"value\":\"1\"},"                           \
    "{\"type\":\"text\",\"value\":\"x\"}]}" end                                                    \
    "{\"type\":\"step_end\",\"affected_row_count\":0,\"last_insert_rowid\":null}" end              \
    "{\"type\":\"step_begin\",\"step\":1,\"cols\":[]}" end                                         \
    "{\"type\":\"step_end\",\"affected_row_count\":2,\"last_insert_rowid\":\"7\"}" end             \
    "{\"type\":\"step_error\",\"step\":2,\"error\":{\"message\":\"busy\","                         \
    "\"code\":\"SQLITE_BUSY\"}}" end                                                               \
    "{\"type\":\"error\",\"error\":{\"message\":\"busy\",\"code\":\"SQLITE_BUSY\"}}"

TEST(hrana_json_writes_a_cursor_in_lines_or_as_an_array)
{
    struct buf out;
    buf_init(&out, MIB(1));
    struct hrana_writer c = hrana_writer_of(&hrana_json, &out);
    c.form->begin_cursor(&c, "b", NULL);
    put_entries(&c);
    EXPECT_TEXT(&out, "{\"baton\":\"b\",\"base_url\":null}\n" ENTRIES("\n") "\n");
    c = hrana_writer_of(&hrana_json, &out);
    c.form->begin_fetched(&c, 4);
    put_entries(&c);
    c.form->end_fetched(&c, true);
    EXPECT_TEXT(&out, "{\"type\":\"response_ok\",\"request_id\":4,\"response\":{\"type\":"
                      "\"fetch_cursor\",\"entries\":[" ENTRIES(",") "],\"done\":true}}");
    c = hrana_writer_of(&hrana_json, &out);
    c.form->begin_fetched(&c, 5);
    c.form->end_fetched(&c, false);
    EXPECT_TEXT(&out, "{\"type\":\"response_ok\",\"request_id\":5,\"response\":{\"type\":"
                      "\"fetch_cursor\",\"entries\":[],\"done\":false}}");
    buf_fini(&out);
}

/* --- what does not fit, and what is broken --- */

static bool is_json(const struct buf *b)
{
    struct arena a;
    const struct json *root;
    arena_init(&a, MIB(4));
    struct json_reader *r = json_reader_new(&a);
    enum err e = json_feed(r, b->data, b->len);
    if (e == ERR_OK)
        e = json_end(r, &root);
    json_reader_free(r);
    arena_fini(&a);
    return e == ERR_OK;
}

/* At every size of the buffer: the whole answer, or an error in its place; and what was there
 * before stays. */
TEST(hrana_json_replaces_an_answer_that_does_not_fit)
{
    struct hrana_result *result = all_types();
    struct hrana_step_reply step = {.result = result};
    const struct hrana_reply reply = {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1};
    const struct hrana_reply closed = {.type = HRANA_CLOSE};
    bool whole = false, replaced = false;
    for (size_t max = 60; max < 1600; max++) {
        struct buf out;
        buf_init(&out, HRANA_ANSWER_RESERVE + max);
        struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
        json_begin_array(&w.json);
        hrana_write_reply(&w, &closed);
        hrana_write_reply(&w, &reply);
        json_end_array(&w.json);
        EXPECT_OK(buf_status(&out));
        EXPECT(is_json(&out));
        whole = memmem(out.data, out.len, "-9223372036854775808", 20) != NULL;
        if (!whole) {
            struct hrana_error *why = hrana_error_too_large(false, max);
            char *wanted =
                mem_printf("[{\"type\":\"ok\",\"response\":{\"type\":\"close\"}},{\"type\":"
                           "\"error\",\"error\":{\"message\":\"%s\",\"code\":\"%s\"}}]",
                           why->message, why->code);
            EXPECT(out.len == strlen(wanted) && memcmp(out.data, wanted, out.len) == 0);
            free(wanted);
            hrana_error_free(why);
            replaced = true;
        }
        buf_fini(&out);
    }
    EXPECT(whole && replaced);
    answer_free(result);
}

/* A leader elsewhere that sends nonsense: an error, and no byte beyond its frames is read. */
TEST(hrana_json_survives_broken_frames)
{
    struct rng rng = {test_seed()};
    struct hrana_result *good = all_types();
    uint64_t refused = 0;
    for (uint64_t round = test_rounds(20000); round > 0; round--) {
        struct hrana_result r = answer_broken(&rng, good);
        struct hrana_step_reply step = {.result = &r};
        const struct hrana_reply reply = {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1};
        const struct hrana_reply describe = {.type = HRANA_DESCRIBE, .description = r.frames};
        struct hrana_error *error;
        struct buf out;
        buf_init(&out, MIB(1));
        struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
        hrana_json_put_v1(&w, &reply, &error);
        EXPECT(error == NULL ? is_json(&out)
                             : out.len == 0 && strcmp(error->code, "SQLITE_PROTOCOL") == 0);
        refused += error != NULL;
        hrana_error_free(error);
        buf_reset(&out);
        w = hrana_writer_of(&hrana_json, &out);
        json_begin_array(&w.json);
        hrana_write_reply(&w, &reply);
        hrana_write_reply(&w, &describe);
        json_end_array(&w.json);
        EXPECT(buf_status(&out) == ERR_OK && is_json(&out));
        buf_fini(&out);
        free(r.frames.data);
    }
    EXPECT(refused > 0);
    answer_free(good);
}
