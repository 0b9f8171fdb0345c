/* Room: node. Texts of statements that a connection's client has given a number, so that it need
 * not send them again. A request holds the texts that it refers to: FORGET, or the end of the
 * connection, does not take them away from it. Thread: loop. */
#ifndef NODE_KEPT_H
#define NODE_KEPT_H

#include "base/err.h"
#include "base/thread.h"

#include <stddef.h>
#include <stdint.h>

/* One text. */
struct kept;
/* All of a connection. */
struct keeper;

const char *kept_text(const struct kept *k, size_t *len);
/* One holder less. */
void kept_unref(struct kept *k);

struct keeper *keeper_new(void);
void keeper_free(struct keeper *k);
/* Remembers a copy of SQL under NUMBER, instead of what was there. ERR_TOO_BIG: over a limit. */
MUST_USE enum err keeper_put(struct keeper *k, uint32_t number, const char *sql, size_t len);
/* A reference of its own to what is kept under NUMBER. ERR_NOT_FOUND. */
MUST_USE enum err keeper_get(struct keeper *k, uint32_t number, struct kept **out);
size_t keeper_bytes(const struct keeper *k);
/* What is not there is left alone. */
void keeper_forget(struct keeper *k, uint32_t number);

#endif
