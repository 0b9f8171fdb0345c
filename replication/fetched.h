/* Room: replication. The file `main.db.fetched`: the word that `main.db.fetch` is whole, which
 * image it is, and the note of whoever fetched it. docs/FORMATS.md draws it.
 * Thread: any. */
#ifndef REPLICATION_FETCHED_H
#define REPLICATION_FETCHED_H

#include "base/err.h"
#include "replication/replication.h"

#include <stddef.h>
#include <stdint.h>

/* Durable when it returns. NOTE_LEN is at most REPL_FETCH_NOTE_MAX. */
MUST_USE enum err fetched_write(const char *path, const struct repl_image_head *head,
                                const uint8_t *note, size_t note_len);
/* ERR_NOT_FOUND: no such file. ERR_CORRUPT: damaged. ERR_FORMAT: a newer version. NOTE has room for
 * REPL_FETCH_NOTE_MAX bytes; it and NOTE_LEN may be NULL together. */
MUST_USE enum err fetched_read(const char *path, struct repl_image_head *head, uint8_t *note,
                               size_t *note_len);

/* A head (image.c makes them) that can be true: a page size of SQLite's, 1 to REPL_PAGES_MAX pages.
 * ERR_FORMAT else; WHERE names what it came from. */
MUST_USE enum err image_head_check(const struct repl_image_head *head, const char *where);

/* SQLite's limit: its page numbers are below 2^32 - 1. */
#define REPL_PAGES_MAX 0xfffffffeu

#endif
