/* Room: client. Where does one SQL statement end and the next begin? The answer of
 * sqlite3_complete(), but fed piece by piece: each byte is looked at once, so a statement of many
 * thousand lines costs linear time. Thread: the owner. */
#ifndef CLIENT_SQL_SPLIT_H
#define CLIENT_SQL_SPLIT_H

#include <stdbool.h>
#include <stddef.h>

struct sql_split {
    int scan;      /* the token that the next byte may go on (sql_split.c) */
    int statement; /* what the tokens so far make up */
    char word[10]; /* a keyword's letters; longer words are none of ours */
    size_t word_len;
    bool ended; /* a semicolon has ended something, if only blanks */
};

void sql_split_init(struct sql_split *s);
/* Takes bytes until a statement is complete or all N are taken; returns how many were taken.
 * *complete: the last one was the `;` that ends a statement, and S stands before the next one. */
size_t sql_split_feed(struct sql_split *s, const char *p, size_t n, bool *complete);
/* Nothing but blanks, comments and semicolons since the last statement's end. */
bool sql_split_blank(const struct sql_split *s);
/* What was taken so far ends with a complete statement, as sqlite3_complete says it. */
bool sql_split_complete(const struct sql_split *s);
/* Bytes of the first statement of a whole text, with its semicolon; 0: there is none in it. */
size_t sql_split_first(const char *p, size_t n);

#endif
