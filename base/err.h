/* Room: base. Errors: one list (err.def), one type, one way to say what happened.
 *
 * A function that can fail returns enum err. The sentence for people is set where the error is
 * found (err_fail) and read by whoever reports it, on the same thread, before the next failing
 * call. */
#ifndef BASE_ERR_H
#define BASE_ERR_H

#include <stdint.h>

enum err {
#define ERR(name, number, sqlite, retry, text) ERR_##name = number,
#include "base/err.def"
#undef ERR
};

/* Who may send the same request again. */
enum err_retry { ERR_RETRY_NEVER, ERR_RETRY_HERE, ERR_RETRY_LEADER, ERR_RETRY_UNKNOWN };

/* Bytes kept of a sentence, with its final zero. */
#define ERR_TEXT_MAX 512

/* Sets this thread's sentence and returns CODE. Never fails, never allocates. */
enum err err_fail(enum err code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* The sentence of this thread's last err_fail. Valid until the next one. */
const char *err_text(void);

/* Static facts about a code; any integer is accepted (an unknown one reads as ERR_PROTOCOL). */
const char *err_name(int code);
const char *err_default_text(int code);
int err_sqlite_code(int code);
enum err_retry err_retry_class(int code);
/* The code with this number, or ERR_PROTOCOL when a peer sent one that we do not know. */
enum err err_from_wire(uint32_t number);

/* Returns from the caller when EXPR is an error: the sentence stays as it was set. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        enum err try_err_ = (expr);                                                                \
        if (try_err_ != ERR_OK)                                                                    \
            return try_err_;                                                                       \
    } while (0)

#define MUST_USE __attribute__((warn_unused_result))

#endif
