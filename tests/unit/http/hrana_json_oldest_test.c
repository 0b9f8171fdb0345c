/* Room: tests. node/http/hrana_json_oldest: the form before Hrana, both ways. */
#include "base/sizes.h"
#include "node/http/hrana_error.h"
#include "tests/lib/test.h"
#include "tests/unit/http/hrana_answer.h"
#include "tests/unit/http/hrana_show.h"

#include <string.h>

TEST(oldest_form_is_read)
{
    EXPECT_SHOWN(OLDEST, "{\"statements\":[]}", "batch []");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[\"SELECT 1\"]}", "batch [\"SELECT 1\"]");
    EXPECT_SHOWN(OLDEST,
                 "{\"statements\":[{\"q\":\"SELECT ?\",\"params\":[12,true,false,null,\"x\",12.0"
                 ",1e2,{\"base64\":\"aGVsbG8K\"}]}]}",
                 "batch [\"SELECT ?\" (12 1 0 null 'x' 12f 100f x68656c6c6f0a)]");
    EXPECT_SHOWN(OLDEST,
                 "{\"statements\":[{\"q\":\"SELECT :a\",\"params\":{\":a\":\"bar\",\"b\":-922337"
                 "2036854775808,\"$c\":9223372036854775808}}]}",
                 "batch [\"SELECT :a\" (:a='bar' b=-9223372036854775808 $c=9.2233720368547758e+1"
                 "8f)]");
    EXPECT_SHOWN(OLDEST,
                 "{\"statements\":[\"a\",{\"q\":\"b\"},{\"q\":\"c\",\"params\":null}],\"replicat"
                 "ion_index\":7}",
                 "batch [\"BEGIN\" norows; if ok(0): \"a\"; if ok(1): \"b\"; if ok(2): \"c\"; if"
                 " ok(3): \"COMMIT\" norows; if not(ok(4)): \"ROLLBACK\" norows] @7");
}

TEST(oldest_form_says_what_is_wrong)
{
    EXPECT_SHOWN(OLDEST, "{}", "error: statements: is missing, and must be an array");
    EXPECT_SHOWN(OLDEST, "[\"SELECT 1\"]", "error: the message: must be an object");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[1]}",
                 "error: statements[0]: must be a string or an object with q");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[\"a\",{}]}",
                 "error: statements[1].q: is missing, and must be a string");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[{\"q\":1}]}",
                 "error: statements[0].q: must be a string");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[{\"q\":\"a\",\"params\":1}]}",
                 "error: statements[0].params: must be an array or an object");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[{\"q\":\"a\",\"params\":[[]]}]}",
                 "error: statements[0].params[0]: must be null, a number, a string, true, false "
                 "or {\"base64\":...}");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[{\"q\":\"a\",\"params\":[0,{}]}]}",
                 "error: statements[0].params[1].base64: is missing, and must be a string of bas"
                 "e64");
    EXPECT_SHOWN(OLDEST, "{\"statements\":[{\"q\":\"a\",\"params\":{\"x\":{\"base64\":\"!\"}}}]}",
                 "error: statements[0].params[0].base64: is not base64");
}

static void put(struct buf *out, struct hrana_step_reply *steps, uint32_t n,
                struct hrana_error **error)
{
    const struct hrana_reply reply = {.type = HRANA_BATCH, .steps = steps, .n_steps = n};
    buf_reset(out);
    struct hrana_writer w = hrana_writer_of(&hrana_json, out);
    hrana_json_put_statements(&w, &reply, error);
}

static bool is(const struct buf *out, const char *wanted)
{
    return out->len == strlen(wanted) && memcmp(out->data, wanted, out->len) == 0;
}

static struct hrana_result *answer(void)
{
    static const char *const names[] = {"a", "b", "c", "d", "e"};
    static const char *const types[] = {"", "", "", "", ""};
    const struct wire_value values[] = {VALUE_INTEGER(INT64_MAX), VALUE_FLOAT(0.5),
                                        VALUE_TEXT("x\"\xff"), VALUE_BLOB("\1\2"), VALUE_NULL};
    return answer_new(5, names, types, 1, values);
}

#define ANSWER                                                                                     \
    "{\"results\":{\"columns\":[\"a\",\"b\",\"c\",\"d\",\"e\"],\"rows\":[[9223372036854775807,0."  \
    "5,"                                                                                           \
    "\"x\\\"\xef\xbf\xbd\",{\"base64\":\"AQI\"},null]],\"rows_written\":0}}"
#define WRITE "{\"results\":{\"columns\":[],\"rows\":[],\"rows_written\":2}}"

TEST(oldest_form_is_answered_in_its_own_way)
{
    struct buf out;
    struct hrana_error *error, *why = hrana_error_new("SQLITE_ERROR", "SQLite error: no");
    struct hrana_result *rows = answer(), *write = answer_write(2, 9, 5),
                        *none = answer_write(0, 0, 5);
    buf_init(&out, KIB(64));
    struct hrana_step_reply one[] = {{.result = rows}}, bad[] = {{.error = why}};
    put(&out, one, 1, &error);
    EXPECT(error == NULL && is(&out, "[" ANSWER "]"));
    put(&out, bad, 1, &error);
    EXPECT(error == NULL &&
           is(&out, "[{\"error\":\"SQLite error: no\",\"code\":\"SQLITE_ERROR\"}]"));
    put(&out, NULL, 0, &error);
    EXPECT(error == NULL && is(&out, "[]"));
    /* BEGIN, three statements, COMMIT, ROLLBACK. */
    struct hrana_step_reply all[] = {{.result = none}, {.result = rows}, {.result = write},
                                     {.result = rows}, {.result = none}, {0}};
    put(&out, all, 6, &error);
    EXPECT(error == NULL && is(&out, "[" ANSWER "," WRITE "," ANSWER "]"));
    struct hrana_step_reply second[] = {
        {.result = none}, {.result = rows}, {.error = why}, {0}, {0}, {.result = none}};
    put(&out, second, 6, &error);
    EXPECT(error == NULL &&
           is(&out, "[" ANSWER ",{\"error\":\"SQLite error: no\",\"code\":\"SQLITE_ERROR\"}"
                    ",null]"));
    hrana_error_free(why);
    answer_free(rows);
    answer_free(write);
    answer_free(none);
    buf_fini(&out);
}

/* Statements that were run and then not committed are no results. */
TEST(oldest_form_fails_as_a_whole_when_it_is_not_committed)
{
    struct buf out;
    struct hrana_error *error, *why = hrana_error_new("SQLITE_BUSY", "no leader");
    struct hrana_result *write = answer_write(2, 9, 5), *rows = answer();
    buf_init(&out, 300);
    struct hrana_step_reply commit[] = {
        {.result = write}, {.result = write}, {.result = write}, {.error = why}, {.result = write}};
    put(&out, commit, 5, &error);
    EXPECT(out.len == 0 && strcmp(error->message, "no leader") == 0);
    hrana_error_free(error);
    struct hrana_step_reply begin[] = {{.error = why}, {0}, {0}, {0}, {0}};
    put(&out, begin, 5, &error);
    EXPECT(out.len == 0 && strcmp(error->code, "SQLITE_BUSY") == 0);
    hrana_error_free(error);
    const struct hrana_reply whole = {.type = HRANA_BATCH, .error = why};
    struct hrana_writer w = hrana_writer_of(&hrana_json, &out);
    hrana_json_put_statements(&w, &whole, &error);
    EXPECT(out.len == 0 && strcmp(error->code, "SQLITE_BUSY") == 0);
    hrana_error_free(error);
    struct hrana_step_reply many[] = {{.result = write}, {.result = rows},  {.result = rows},
                                      {.result = rows},  {.result = write}, {0}};
    put(&out, many, 6, &error); /* more than 300 bytes */
    EXPECT(out.len == 0 && buf_status(&out) == ERR_OK &&
           strcmp(error->code, "RESPONSE_TOO_LARGE") == 0);
    hrana_error_free(error);
    write->frames.len = 0;
    buf_put_u32(&write->frames, 0);
    put(&out, (struct hrana_step_reply[]){{.result = write}}, 1, &error);
    EXPECT(out.len == 0 && strcmp(error->code, "SQLITE_PROTOCOL") == 0);
    hrana_error_free(error);
    hrana_error_free(why);
    answer_free(write);
    answer_free(rows);
    buf_fini(&out);
}
