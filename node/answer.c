/* Room: node. Thread: loop. Owns: nothing; the answer is its request's.
 * Invariants: an answer ends with one DONE, ERROR or DESCRIPTION, whatever became of its rows; what
 * was done is never told to have failed. */
#include "node/answer.h"

#include "base/check.h"
#include "base/sizes.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define MESSAGE_MAX KIB(32) /* of an error */

/* SQLite's messages quote the statement, which may be long: they are cut, at a whole character. */
static size_t text_length(const char *text) ON_LOOP
{
    size_t n = strnlen(text, MESSAGE_MAX + 1);
    if (n <= MESSAGE_MAX)
        return n;
    n = MESSAGE_MAX;
    while (n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80)
        n--;
    return n;
}

static void put_done(struct request *r, uint8_t flags) ON_LOOP
{
    struct answer *a = &r->answer;
    struct wire_done d = {.seq = a->seq,
                          .changes = a->changes,
                          .last_insert_rowid = a->last_insert_rowid,
                          .flags = flags};
    if (!r->is_describe) /* that ends with its DESCRIPTION */
        wire_put_done(&a->out, r->id, &d);
}

static void put_end_frame(struct request *r) ON_LOOP
{
    struct answer *a = &r->answer;
    uint8_t flags = (uint8_t)((a->in_transaction ? WIRE_IN_TRANSACTION : 0) |
                              (r->elsewhere ? WIRE_ELSEWHERE : 0) |
                              (r->foreign_keys ? 0 : WIRE_NO_FOREIGN_KEYS) |
                              (a->settled ? WIRE_SETTLED : 0) | (a->time_up ? WIRE_TIME_UP : 0));
    request_make_room_for_end(r);
    if (a->code == ERR_OK) {
        put_done(r, flags);
        return;
    }
    const char *message = a->message == NULL ? err_default_text((int)a->code) : a->message;
    struct wire_error e = {.code = a->code,
                           .sqlite_code = a->sqlite_code,
                           .offset = a->offset,
                           .seq = a->seq,
                           .flags = flags,
                           .statement = a->statement,
                           .message = message,
                           .message_len = text_length(message)};
    wire_put_error(&a->out, r->id, &e);
}

void answer_put_end(struct request *r)
{
    put_end_frame(r);
    enum err e = buf_status(&r->answer.out);
    if (e == ERR_OK)
        return;
    request_fail(r, e, "the answer is over the size limit");
    put_end_frame(r);
    CHECK(buf_status(&r->answer.out) == ERR_OK); /* a short sentence in an empty buffer */
}

void answer_cut(struct request *r, enum err code, const char *why)
{
    char sentence[ERR_TEXT_MAX];
    bool done = r->answer.code == ERR_OK && r->kind != SQL_READ && !r->is_describe;
    if (r->answer.code != ERR_OK && r->answer.code != ERR_CANCELLED)
        return;
    (void)snprintf(sentence, sizeof sentence, "%s%s", done ? "the statement was done, but " : "",
                   why);
    request_fail(r, done ? ERR_ROWS_LOST : code, sentence);
}

void answer_name_node(struct request *r, uint64_t node_id)
{
    char sentence[ERR_TEXT_MAX + 32];
    int32_t sqlite_code = r->answer.sqlite_code;
    uint32_t statement = r->answer.statement;
    bool settled = r->answer.settled;
    if ((r->answer.code != ERR_CORRUPT && r->answer.code != ERR_IO) || r->answer.message == NULL ||
        r->elsewhere)
        return;
    (void)snprintf(sentence, sizeof sentence, "node %" PRIu64 ": %s", node_id, r->answer.message);
    request_fail(r, r->answer.code, sentence);
    r->answer.sqlite_code = sqlite_code;
    r->answer.statement = statement;
    r->answer.settled = settled;
}

/* Codes of which a leader that knows the number, and nobody else, is the source. EXPIRED is not
 * one: to a client that has sent its write once it means "send it again"; nor is TOO_BIG, which may
 * be said before the number is looked up: only as `settled` it is what was noted. */
static bool is_definite(enum err code) ON_LOOP
{
    return code == ERR_OK || code == ERR_SQL || code == ERR_FORBIDDEN || code == ERR_MISUSE ||
           code == ERR_ROWS_LOST || code == ERR_TXN_LOST || code == ERR_UNKNOWN;
}

void answer_admit_doubt(struct request *r)
{
    char sentence[ERR_TEXT_MAX];
    if (!r->in_doubt || r->answer.settled || is_definite(r->answer.code))
        return;
    (void)snprintf(sentence, sizeof sentence,
                   "the leader was lost before it answered, and none could say whether this was "
                   "written (%s): look before you repeat it",
                   r->answer.message == NULL ? err_default_text((int)r->answer.code)
                                             : r->answer.message);
    request_fail(r, ERR_UNKNOWN, sentence);
}

void answer_empty(struct answer *a)
{
    buf_reset(&a->out);
    a->sent = 0;
}

void answer_forget_sent(struct answer *a)
{
    struct buf rest;
    if (a->sent < a->out.len - a->sent)
        return;
    buf_init(&rest, a->out.max);
    buf_put(&rest, a->out.data + a->sent, a->out.len - a->sent);
    CHECK(buf_status(&rest) == ERR_OK);
    buf_fini(&a->out);
    a->out = rest;
    a->sent = 0;
}
