/* Room: client. From the errors of our rooms and of the wire to the result codes of lectern.h, and
 * sentences for people: what to do when it happens. Thread: any. */
#ifndef CLIENT_CODES_H
#define CLIENT_CODES_H

#include "base/err.h"

/* The extended code for E; SQLITE_CODE: what the node gave with it (ERR_SQL), else 0. */
int code_of(enum err e, int sqlite_code);
/* What a program hears from a call. */
int code_primary(int extended);
/* A few words, never NULL. */
const char *code_text(int code);
/* What to do, a sentence; "" when the message says it all. */
const char *code_advice(int code);

#endif
