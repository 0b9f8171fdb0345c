/* Room: client. Answers as text, in the modes and the very format of sqlite3's shell.
 *
 * A printer takes one answer: columns, rows, end. Modes that need all widths first (column, box,
 * table, markdown) keep up to PRINT_KEEP_BYTES and then stream on with the widths seen so far:
 * memory stays bounded. Thread: one. */
#ifndef CLIENT_SHELL_PRINT_H
#define CLIENT_SHELL_PRINT_H

#include "base/err.h"
#include "client/shell_value.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#define PRINT_KEEP_BYTES  (16u * 1024 * 1024)
#define PRINT_SETTING_MAX 64u
#define PRINT_WIDTHS_MAX  64u

enum print_mode {
    PRINT_LIST,
    PRINT_COLUMN,
    PRINT_BOX,
    PRINT_CSV,
    PRINT_JSON,
    PRINT_LINE,
    PRINT_TABLE,
    PRINT_INSERT,
    PRINT_MARKDOWN,
    PRINT_QUOTE,
    PRINT_TABS,
    PRINT_MODES,
};

struct print_settings {
    enum print_mode mode;
    bool headers, headers_set; /* set: by the user, so a mode does not change it */
    char null_value[PRINT_SETTING_MAX];
    char separator[PRINT_SETTING_MAX], row_separator[PRINT_SETTING_MAX];
    char insert_table[256];       /* mode insert: as it stands in the statement, quoted */
    int widths[PRINT_WIDTHS_MAX]; /* 0: by content; negative: right-justified */
    int wrap;                     /* columns of a cell in the columnar modes; 0: no limit */
};

void print_settings_init(struct print_settings *s);
/* Takes the mode and its separators and headers; false: no such mode. */
bool print_set_mode(struct print_settings *s, const char *name);
const char *print_mode_name(enum print_mode mode);

struct printer;

/* NULL: out of memory. The settings are copied. */
struct printer *printer_new(const struct print_settings *s, FILE *out);
/* Takes an answer: fails with ERR_IO when OUT does. */
struct shell_handler printer_handler(struct printer *p);
/* Prints what was kept; FINE: the answer was whole. Then frees P. */
void printer_end(struct printer *p, bool fine);

#endif
