/* Room: client. The shell's values as SQL text, into a file: for the modes insert and quote. What
 * is written is sql_literal.h's. Thread: any. */
#ifndef CLIENT_SHELL_LITERAL_H
#define CLIENT_SHELL_LITERAL_H

#include "client/shell_value.h"
#include "client/wire.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Room for any number as text. */
#define LITERAL_NUMBER_MAX 64

/* A number as SQLite shows it (15 digits), for people. */
void literal_number(char to[LITERAL_NUMBER_MAX], const struct shell_value *v);
/* The same value, as sql_literal.h takes it. */
struct wire_value literal_of(const struct shell_value *v);
/* As sql_put_literal. */
void literal_put(FILE *out, const struct shell_value *v, bool escape);
/* A name, quoted if it needs to be. */
void literal_put_name(FILE *out, const char *name, size_t n);
/* 'text', quotes doubled. */
void literal_put_text(FILE *out, const char *text, size_t n);

#endif
