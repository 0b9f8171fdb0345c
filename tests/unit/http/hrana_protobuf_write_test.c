/* Room: tests. node/http/hrana_protobuf_write: answers of Hrana 3 as Protobuf. What clients make of
 * them is in tests/cluster/test_hrana_protobuf.py and tests/clients/hrana_client.mjs. */
#include "base/mem.h"
#include "base/rng.h"
#include "base/sizes.h"
#include "node/http/hrana_error.h"
#include "node/http/hrana_protobuf.h"
#include "node/http/protobuf_read.h"
#include "tests/lib/test.h"
#include "tests/unit/http/hrana_answer.h"

#include <stdlib.h>
#include <string.h>

static uint32_t work;

static struct protobuf whole_of(const void *p, size_t n)
{
    work = PROTOBUF_WORK_MAX;
    return protobuf_of(p, n, &work);
}

/* Where messages are in others; all else of the wire type is text or bytes. */
static const char *const pipeline[] = {
    ".3",         ".3.1",       ".3.1.1",       ".3.1.2",         ".3.1.2.1",   ".3.1.2.1.1",
    ".3.1.2.1.2", ".3.1.3",     ".3.1.2.1.2.1", ".3.1.3.1",       ".3.1.3.1.1", ".3.1.3.1.2",
    ".3.1.4",     ".3.1.8",     ".3.1.3.1.1.2", ".3.1.3.1.2.2",   ".3.2",       ".3.1.5",
    ".3.1.5.1",   ".3.1.5.1.1", ".3.1.5.1.2",   ".3.1.3.1.1.2.1", NULL};
static const char *const server_msg[] = {
    ".2", ".2.1", ".3",         ".3.8",       ".3.8.1",     ".3.8.1.1", ".3.8.1.2", ".3.8.1.3",
    ".4", ".4.2", ".3.8.1.1.2", ".3.8.1.3.2", ".3.8.1.4.1", ".3.8.1.4", ".3.8.1.5", NULL};

/* Fields as text: "3{1{2{}}} 1:'b'". PATH: of FROM. */
static void show(struct buf *out, const struct protobuf *from, const char *const *messages,
                 const char *path)
{
    struct protobuf m = *from;
    const char *space = "";
    while (protobuf_next(&m)) {
        struct protobuf inner;
        struct hrana_text text;
        uint64_t v;
        double real;
        char here[60];
        bool is_message = false;
        (void)snprintf(here, sizeof here, "%s.%u", path, m.tag);
        for (size_t i = 0; messages[i] != NULL; i++)
            is_message = is_message || strcmp(here, messages[i]) == 0;
        buf_printf(out, "%s%u", space, m.tag);
        space = " ";
        if (m.wire == 0) {
            EXPECT_OK(protobuf_uint64(&m, "v", &v));
            buf_printf(out, ":%llu", (unsigned long long)v);
        } else if (m.wire == 1) {
            EXPECT_OK(protobuf_double(&m, "v", &real));
            buf_printf(out, ":%gf", real);
        } else if (is_message) {
            EXPECT_OK(protobuf_item(&m, "v", 0, &inner));
            buf_printf(out, "{");
            show(out, &inner, messages, here);
            buf_printf(out, "}");
        } else {
            EXPECT_OK(protobuf_bytes(&m, "v", &text));
            buf_printf(out, ":'%.*s'", (int)text.n, text.p);
        }
    }
    EXPECT_OK(m.status);
}

static void expect_shown_as(int line, const char *const *messages, struct buf *b,
                            const char *wanted)
{
    struct buf out;
    const struct protobuf m = whole_of(b->data, b->len);
    EXPECT_OK(buf_status(b));
    buf_init(&out, MIB(1));
    show(&out, &m, messages, "");
    buf_put_u8(&out, 0);
    if (strcmp((const char *)out.data, wanted) != 0)
        test_fail(__FILE__, line, "\n    %s\n    wanted\n    %s", (const char *)out.data, wanted);
    buf_fini(&out);
    buf_reset(b);
}

#define EXPECT_SHOWN_AS(messages, b, wanted) expect_shown_as(__LINE__, messages, b, wanted)

static struct hrana_result *all_types(void)
{
    return answer_new(5, (const char *const[]){"id", "", "t\xff", "b", "n"},
                      (const char *const[]){"INTEGER", "", "", "", ""}, 2,
                      (const struct wire_value[]){VALUE_INTEGER(-1), VALUE_FLOAT(1.5),
                                                  VALUE_TEXT("x\xff"), VALUE_BLOB("ab"), VALUE_NULL,
                                                  VALUE_INTEGER(64), VALUE_FLOAT(0), VALUE_TEXT(""),
                                                  VALUE_BLOB(""), VALUE_NULL});
}

#define COLUMNS "1{1:'id' 2:'INTEGER'} 1{1:''} 1{1:'t\xef\xbf\xbd'} 1{1:'b'} 1{1:'n'}"
#define ROWS                                                                                       \
    "2{1{2:1} 1{3:1.5f} 1{4:'x\xef\xbf\xbd'} 1{5:'ab'} 1{1:''}} "                                  \
    "2{1{2:128} 1{3:0f} 1{4:''} 1{5:''} 1{1:''}}"

TEST(hrana_protobuf_writes_a_pipeline)
{
    struct buf out;
    struct hrana_result *result = all_types(), *write = answer_write(2, 7, 9);
    struct hrana_error *error = hrana_error_new("SQLITE_ERROR", "no");
    struct hrana_step_reply step = {.result = result}, failed = {.error = error};
    struct hrana_step_reply steps[] = {{.result = write}, {0}, {.error = error}, {0}};
    const struct hrana_reply replies[] = {
        {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1, .replication_index = 77},
        {.type = HRANA_EXECUTE, .steps = &failed, .n_steps = 1},
        {.type = HRANA_SEQUENCE, .error = error},
        {.type = HRANA_SEQUENCE},
        {.type = HRANA_GET_AUTOCOMMIT, .is_autocommit = true},
        {.type = HRANA_GET_AUTOCOMMIT},
        {.type = HRANA_BATCH, .steps = steps, .n_steps = 4},
        {.type = HRANA_BATCH},
        {.type = HRANA_CLOSE}};
    buf_init(&out, MIB(1));
    struct hrana_writer w = hrana_writer_of(&hrana_protobuf, &out);
    w.form->begin_pipeline(&w);
    for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++)
        hrana_write_reply(&w, &replies[i]);
    w.form->end_pipeline(&w, "b.1", "http://a:1");
    EXPECT_SHOWN_AS(
        pipeline, &out,
        "3{1{2{1{" COLUMNS " " ROWS " 3:0 5:77 6:2 7:0 8:1.25f}}}} "
        "3{2{1:'no' 2:'SQLITE_ERROR'}} 3{2{1:'no' 2:'SQLITE_ERROR'}} 3{1{4{}}} "
        "3{1{8{1:1}}} 3{1{8{1:0}}} "
        "3{1{3{1{1{1:0 2{3:2 4:14 5:9 6:0 7:2 8:1.25f}} 2{1:2 2{1:'no' 2:'SQLITE_ERROR'}}}}}}"
        " 3{1{3{1{}}}} 3{1{1{}}} 1:'b.1' 2:'http://a:1'");
    w.form->end_pipeline(&w, NULL, NULL);
    EXPECT(out.len == 0);
    hrana_error_free(error);
    answer_free(result);
    answer_free(write);
    buf_fini(&out);
}

TEST(hrana_protobuf_writes_messages_of_a_websocket)
{
    struct buf out;
    struct hrana_error *error = hrana_error_new("SQLITE_ERROR", "no");
    const struct hrana_reply failed = {.type = HRANA_EXECUTE, .error = error};
    const struct hrana_reply opened = {.type = HRANA_OPEN_STREAM};
    buf_init(&out, MIB(1));
    struct hrana_writer w = hrana_writer_of(&hrana_protobuf, &out);
    hrana_write_response(&w, 5, &failed);
    EXPECT_SHOWN_AS(server_msg, &out, "4{1:5 2{1:'no' 2:'SQLITE_ERROR'}}");
    hrana_write_response(&w, -1, &opened);
    EXPECT_SHOWN_AS(server_msg, &out, "3{1:18446744073709551615 2:''}");
    w.form->put_hello(&w, NULL);
    EXPECT_SHOWN_AS(server_msg, &out, "1:''");
    w.form->put_hello(&w, error);
    EXPECT_SHOWN_AS(server_msg, &out, "2{1{1:'no' 2:'SQLITE_ERROR'}}");
    hrana_error_free(error);
    buf_fini(&out);
}

static void put_entries(struct hrana_writer *w)
{
    struct hrana_error *error = hrana_error_new("SQLITE_BUSY", "busy");
    const struct wire_done done = {.changes = 2, .last_insert_rowid = -7};
    struct hrana_result *r =
        answer_new(2, (const char *const[]){"a", "b"}, (const char *const[]){"", "TEXT"}, 1,
                   (struct wire_value[]){VALUE_INTEGER(1), VALUE_TEXT("x")});
    struct wire_frame f;
    struct rd values;
    uint32_t n, rows;
    size_t used, more;
    EXPECT_OK(wire_next(r->frames.data, r->frames.len, KIB(4), &f, &used));
    EXPECT_OK(hrana_write_step_begin(w, 0, &f, &n));
    EXPECT_OK(wire_next(r->frames.data + used, r->frames.len - used, KIB(4), &f, &more));
    EXPECT_OK(wire_get_rows(&f, n, &rows, &values));
    EXPECT_OK(hrana_write_row(w, n, &values));
    size_t len = w->out->len;
    EXPECT_ERR(ERR_PROTOCOL, hrana_write_row(w, n, &values)); /* there is no second one */
    EXPECT(w->out->len == len);
    w->form->put_step_end(w, &done, true);
    EXPECT_OK(hrana_write_step_begin(w, 1, NULL, &n));
    w->form->put_step_end(w, &done, false);
    w->form->put_step_error(w, 2, error);
    w->form->put_cursor_error(w, error);
    hrana_error_free(error);
    answer_free(r);
}

TEST(hrana_protobuf_writes_a_cursor)
{
    static const char *const wanted[] = {"1:'b'",
                                         "1{1:0 2{1:'a'} 2{1:'b' 2:'TEXT'}}",
                                         "4{1{2:2} 1{4:'x'}}",
                                         "2{1:0}",
                                         "1{1:1}",
                                         "2{1:2 2:13}",
                                         "3{1:2 2{1:'busy' 2:'SQLITE_BUSY'}}",
                                         "5{1:'busy' 2:'SQLITE_BUSY'}"};
    struct buf out, one, all;
    buf_init(&out, MIB(1));
    buf_init(&one, MIB(1));
    buf_init(&all, MIB(1));
    struct hrana_writer w = hrana_writer_of(&hrana_protobuf, &out);
    w.form->begin_fetched(&w, 4);
    put_entries(&w);
    w.form->end_fetched(&w, true);
    buf_printf(&all, "3{1:4 8{");
    for (size_t i = 1; i < sizeof wanted / sizeof wanted[0]; i++)
        buf_printf(&all, "1{%s} ", wanted[i]);
    buf_printf(&all, "2:1}}");
    buf_put_u8(&all, 0);
    EXPECT_SHOWN_AS(server_msg, &out, (const char *)all.data);
    w = hrana_writer_of(&hrana_protobuf, &out);
    w.form->begin_fetched(&w, 0);
    w.form->end_fetched(&w, false);
    EXPECT_SHOWN_AS(server_msg, &out, "3{1:0 8{2:0}}");
    /* Over HTTP: the same entries, each behind its length. */
    w = hrana_writer_of(&hrana_protobuf, &out);
    w.form->begin_cursor(&w, "b", NULL);
    put_entries(&w);
    size_t at = 0;
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        EXPECT(out.data[at] < 128 && at + 1 + out.data[at] <= out.len);
        const struct protobuf m = whole_of(out.data + at + 1, out.data[at]);
        buf_reset(&one);
        show(&one, &m, server_msg, i == 0 ? "" : ".3.8.1");
        buf_put_u8(&one, 0);
        EXPECT(strcmp((const char *)one.data, wanted[i]) == 0);
        at += 1 + (size_t)out.data[at];
    }
    EXPECT(at == out.len);
    buf_fini(&out);
    buf_fini(&one);
    buf_fini(&all);
}

/* --- what does not fit, and what is broken --- */

/* At every size of the buffer: the whole answer, or an error in its place; and what was there
 * before stays. */
TEST(hrana_protobuf_replaces_an_answer_that_does_not_fit)
{
    struct hrana_result *result = all_types();
    struct hrana_step_reply step = {.result = result};
    const struct hrana_reply reply = {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1};
    const struct hrana_reply closed = {.type = HRANA_CLOSE};
    bool whole = false, replaced = false;
    for (size_t max = 10; max < 300; max++) {
        struct buf out;
        buf_init(&out, HRANA_ANSWER_RESERVE + max);
        struct hrana_writer w = hrana_writer_of(&hrana_protobuf, &out);
        hrana_write_reply(&w, &closed);
        hrana_write_reply(&w, &reply);
        whole = memmem(out.data, out.len, "INTEGER", 7) != NULL;
        replaced = replaced || !whole;
        struct hrana_error *why = hrana_error_too_large(false, max);
        char *error = mem_printf("3{1{1{}}} 3{2{1:'%s' 2:'%s'}}", why->message, why->code);
        EXPECT_SHOWN_AS(pipeline, &out,
                        whole ? "3{1{1{}}} 3{1{2{1{" COLUMNS " " ROWS " 3:0 6:2 7:0 8:1.25f}}}}"
                              : error);
        free(error);
        hrana_error_free(why);
        buf_fini(&out);
    }
    EXPECT(whole && replaced);
    answer_free(result);
}

/* A leader elsewhere that sends nonsense: an error, and no byte beyond its frames is read. */
TEST(hrana_protobuf_survives_broken_frames)
{
    struct rng rng = {test_seed()};
    struct hrana_result *good = all_types();
    uint64_t refused = 0;
    for (uint64_t round = test_rounds(20000); round > 0; round--) {
        struct hrana_result r = answer_broken(&rng, good);
        struct hrana_step_reply step = {.result = &r};
        const struct hrana_reply reply = {.type = HRANA_EXECUTE, .steps = &step, .n_steps = 1};
        const struct hrana_reply describe = {.type = HRANA_DESCRIBE, .description = r.frames};
        struct buf out;
        buf_init(&out, MIB(1));
        struct hrana_writer w = hrana_writer_of(&hrana_protobuf, &out);
        hrana_write_reply(&w, &reply);
        hrana_write_reply(&w, &describe);
        struct protobuf m = whole_of(out.data, out.len);
        EXPECT(protobuf_count(&m, 3) == 2);
        struct buf text;
        buf_init(&text, MIB(1));
        show(&text, &m, pipeline, "");
        refused += memmem(text.data, text.len, "SQLITE_PROTOCOL", 15) != NULL;
        buf_fini(&text);
        buf_fini(&out);
        free(r.frames.data);
    }
    EXPECT(refused > 0);
    answer_free(good);
}
