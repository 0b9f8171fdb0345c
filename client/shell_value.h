/* Room: client. What an answer is made of, as the shell's parts hand it on. Thread: one. */
#ifndef CLIENT_SHELL_VALUE_H
#define CLIENT_SHELL_VALUE_H

#include "base/err.h"
#include "client/lectern.h"

#include <stddef.h>
#include <stdint.h>

struct shell_value {
    int type; /* LECTERN_INTEGER ... LECTERN_NULL */
    union {
        int64_t integer;
        double real;
        struct {
            const char *bytes; /* borrowed for the call; text is UTF-8 by promise only */
            uint32_t len;
        } text; /* and blob */
    };
};

/* Takes an answer: its columns, then its rows; an error ends the statement and is passed through.
 * Either may be NULL. */
struct shell_handler {
    enum err (*columns)(void *arg, const char *const *names, uint32_t n);
    enum err (*row)(void *arg, const struct shell_value *values, uint32_t n);
    void *arg;
};

#endif
