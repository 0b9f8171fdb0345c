/* Room: tests. node/http/hrana_error: codes and texts as libSQL's drivers know them. */
#include "node/http/hrana_error.h"
#include "tests/lib/test.h"

#include <string.h>

static void expect_error(int line, struct wire_error w, const char *message, const char *code,
                         const char *text, int status)
{
    w.message = message;
    w.message_len = strlen(message);
    struct hrana_error *e = hrana_error_of_wire(&w);
    if (strcmp(e->code, code) != 0 || strcmp(e->message, text) != 0 ||
        hrana_error_status(e) != status)
        test_fail(__FILE__, line, "%s, %d: %s", e->code, hrana_error_status(e), e->message);
    hrana_error_free(e);
}

#define EXPECT_ERROR(err_, sqlite_, at_, message, name, text, status)                              \
    expect_error(__LINE__,                                                                         \
                 (struct wire_error){.code = (err_), .sqlite_code = (sqlite_), .offset = (at_)},   \
                 message, name, text, status)

TEST(hrana_error_passes_on_what_sqlite_says)
{
    /* SQLITE_CONSTRAINT_UNIQUE, _PRIMARYKEY, _FOREIGNKEY, SQLITE_BUSY_SNAPSHOT */
    EXPECT_ERROR(ERR_SQL, 2067, -1, "UNIQUE constraint failed: t.x", "SQLITE_CONSTRAINT",
                 "SQLite error: UNIQUE constraint failed: t.x", 400);
    EXPECT_ERROR(ERR_SQL, 1555, -1, "UNIQUE constraint failed: t.id", "SQLITE_CONSTRAINT",
                 "SQLite error: UNIQUE constraint failed: t.id", 400);
    EXPECT_ERROR(ERR_SQL, 787, -1, "FOREIGN KEY constraint failed", "SQLITE_CONSTRAINT",
                 "SQLite error: FOREIGN KEY constraint failed", 400);
    EXPECT_ERROR(ERR_SQL, 517, -1, "database is locked", "SQLITE_BUSY",
                 "SQLite error: database is locked", 503);
    EXPECT_ERROR(ERR_SQL, 1, 14, "no such table: x", "SQL_INPUT_ERROR",
                 "SQL input error: no such table: x (at offset 14)", 400);
    EXPECT_ERROR(ERR_SQL, 1, -1, "cannot commit - no transaction is active", "SQLITE_ERROR",
                 "SQLite error: cannot commit - no transaction is active", 400);
    EXPECT_ERROR(ERR_SQL, 20, -1, "datatype mismatch", "SQLITE_MISMATCH",
                 "SQLite error: datatype mismatch", 400);
    EXPECT_ERROR(ERR_SQL, 19, 3, "x", "SQLITE_CONSTRAINT", "SQLite error: x", 400);
    /* Without a code, or with none that SQLite has. */
    EXPECT_ERROR(ERR_SQL, 0, -1, "x", "SQLITE_ERROR", "SQLite error: x", 400);
    EXPECT_ERROR(ERR_SQL, 27, -1, "x", "SQLITE_ERROR", "SQLite error: x", 400);
    EXPECT_ERROR(ERR_SQL, -1, -1, "", "SQLITE_ERROR", "SQLite error: SQL error", 400);
}

TEST(hrana_error_says_what_may_be_sent_again)
{
    EXPECT_ERROR(ERR_NO_LEADER, 5, -1, "no leader", "SQLITE_BUSY", "no leader", 503);
    EXPECT_ERROR(ERR_NOT_LEADER, 9, -1, "it changed", "SQLITE_BUSY", "it changed", 503);
    EXPECT_ERROR(ERR_BUSY, 0, -1, "", "SQLITE_BUSY", "too busy: a queue is full", 503);
    EXPECT_ERROR(ERR_TIMEOUT, 5, -1, "waited", "SQLITE_BUSY", "waited", 503);
    EXPECT_ERROR(ERR_TIMEOUT, 9, -1, "ran too long", "SQLITE_INTERRUPT", "ran too long", 503);
    EXPECT_ERROR(ERR_TXN_LOST, 10, -1, "rolled back", "TRANSACTION_CLOSED", "rolled back", 503);
    struct wire_error e = {.code = ERR_TXN_LOST, .offset = -1, .flags = WIRE_TIME_UP};
    struct hrana_error *h = hrana_error_of_wire(&e);
    EXPECT(strcmp(h->code, "TRANSACTION_TIMEOUT") == 0 && hrana_error_status(h) == 503);
    hrana_error_free(h);
}

TEST(hrana_error_gives_an_unknown_outcome_no_code_that_is_retried)
{
    static const enum err unknown[] = {ERR_UNKNOWN, ERR_EXPIRED, ERR_ROWS_LOST, ERR_CLOSED};
    for (size_t i = 0; i < sizeof unknown / sizeof unknown[0]; i++)
        EXPECT_ERROR(unknown[i], 5, -1, "who knows", "SQLITE_IOERR", "who knows", 500);
}

TEST(hrana_error_has_libsqls_codes_for_mistakes)
{
    EXPECT_ERROR(ERR_MISUSE, 25, -1, "no place for value 3", "ARGS_INVALID",
                 "Arguments do not match SQL parameters: no place for value 3", 400);
    EXPECT_ERROR(ERR_MISUSE, 21, -1, "x", "SQLITE_MISUSE", "x", 400);
    EXPECT_ERROR(ERR_FORBIDDEN, 23, -1, "not here", "SQLITE_AUTH", "not here", 400);
    EXPECT_ERROR(ERR_TOO_BIG, 18, -1, "too much", "RESPONSE_TOO_LARGE", "too much", 400);
}

/* What was done says so, and is not to be sent again. */
TEST(hrana_error_of_what_cannot_be_told)
{
    for (int done = 0; done < 2; done++) {
        struct hrana_error *large = hrana_error_too_large(done, 1000), *copy,
                           *room = hrana_error_no_room(done);
        EXPECT(strcmp(large->code, "RESPONSE_TOO_LARGE") == 0);
        EXPECT(strcmp(room->code, done ? "RESPONSE_TOO_LARGE" : "SQLITE_BUSY") == 0);
        EXPECT((strstr(large->message, "it was done, but ") != NULL) == done);
        EXPECT((strstr(room->message, "it was done, but ") != NULL) == done);
        EXPECT(strstr(large->message, "over 1000 bytes (http-answer-bytes)") != NULL);
        EXPECT_EQ(hrana_error_status(large), done ? 500 : 400);
        EXPECT_EQ(hrana_error_status(room), done ? 500 : 503);
        copy = hrana_error_copy(large);
        EXPECT(hrana_error_status(copy) == hrana_error_status(large) &&
               strcmp(copy->message, large->message) == 0);
        hrana_error_free(copy);
        hrana_error_free(large);
        hrana_error_free(room);
    }
    struct hrana_error *shown, *is = hrana_error_new("C", "%0*d", (int)HRANA_ERROR_SHORT, 7);
    shown = hrana_error_short(is);
    EXPECT(strcmp(shown->message, is->message) == 0);
    hrana_error_free(shown);
    hrana_error_free(is);
    is = hrana_error_new("C", "%0*d", (int)HRANA_ERROR_SHORT + 1, 7);
    shown = hrana_error_short(is);
    EXPECT(strlen(shown->message) == HRANA_ERROR_SHORT + 4 && strcmp(shown->code, "C") == 0);
    hrana_error_free(shown);
    hrana_error_free(is);
}

/* Every error has a code that starts as drivers know it, and a sentence. */
TEST(hrana_error_knows_all_errors)
{
    for (uint32_t i = 1; i < 40; i++) {
        enum err code = err_from_wire(i);
        struct hrana_error *e = hrana_error_of(code, "");
        EXPECT(strncmp(e->code, "SQLITE_", 7) == 0 || code == ERR_TOO_BIG || code == ERR_TXN_LOST);
        EXPECT(strstr(e->message, err_default_text((int)code)) != NULL);
        EXPECT(e->message[0] != 0);
        hrana_error_free(e);
    }
    hrana_error_free(NULL);
    struct hrana_error *e = hrana_error_new("STREAM_EXPIRED", "%d%s", 10, " s");
    EXPECT(strcmp(e->message, "10 s") == 0 && hrana_error_status(e) == 400);
    hrana_error_free(e);
}
