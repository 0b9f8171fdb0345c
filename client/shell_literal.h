/* Room: client. Values and names as SQL text that gives the very same back: for .dump and the modes
 * insert and quote. Thread: any. */
#ifndef CLIENT_SHELL_LITERAL_H
#define CLIENT_SHELL_LITERAL_H

#include "client/shell_value.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Room for any number as text. */
#define LITERAL_NUMBER_MAX 64

/* A number as SQLite shows it (15 digits), for people. */
void literal_number(char to[LITERAL_NUMBER_MAX], const struct shell_value *v);
/* A float with all its digits and a point or exponent, so that it stays a float; infinity is 1e999.
 */
void literal_float(char to[LITERAL_NUMBER_MAX], double r);
/* A literal of any value. ESCAPE: line ends inside text become replace(...,char(10)), so that no
 * program on the way can change them. */
void literal_put(FILE *out, const struct shell_value *v, bool escape);
/* A name, quoted if it needs to be. */
void literal_put_name(FILE *out, const char *name, size_t n);
/* 'text', quotes doubled. */
void literal_put_text(FILE *out, const char *text, size_t n);

#endif
