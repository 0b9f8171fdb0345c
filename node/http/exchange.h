/* Room: node/http. One HTTP request and its answer, as a handler sees them: what it asks for, its
 * body as it comes, and an answer, whole or piece by piece.
 *
 *     http_conn -> router -> handler:   begin -> body* -> end     ->  exchange_answer
 *                                                                 |   exchange_begin, _put*,
 * _finish
 *
 * Exchanges of a connection are one after the other: the next request is not looked at before the
 * answer is complete. Thread: loop. */
#ifndef NODE_HTTP_EXCHANGE_H
#define NODE_HTTP_EXCHANGE_H

#include "base/buf.h"
#include "base/thread.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct exchange;
struct http_conn;
struct node;

enum http_verb {
    HTTP_VERB_GET,
    HTTP_VERB_HEAD,
    HTTP_VERB_POST,
    HTTP_VERB_OPTIONS,
    HTTP_VERB_OTHER
};

/* Who answers a path. Callbacks may be NULL. */
struct handler {
    /* The head came. It may answer at once: no body is handed out then. */
    void (*on_begin)(struct exchange *x) ON_LOOP;
    /* Some of the body; borrowed. */
    void (*on_body)(struct exchange *x, const uint8_t *p, size_t n) ON_LOOP;
    /* The request is complete. */
    void (*on_end)(struct exchange *x) ON_LOOP;
    /* exchange_is_full no more. */
    void (*on_drain)(struct exchange *x) ON_LOOP;
    /* The exchange is over: answered whole, or its client is gone. X is freed after. */
    void (*on_over)(struct exchange *x) ON_LOOP;
};

struct exchange {
    struct node *node;
    struct http_conn *conn;
    const struct handler *handler;
    void *state; /* the handler's own */
    enum http_verb verb;
    const char *path;  /* decoded? no: as it came, up to `?`; zero-terminated */
    const char *query; /* behind `?`, "" when there is none */
    bool answered;     /* an answer was begun: a second one would be a bug of the handler */
};

/* --- the request --- */

/* The value of a header, its name in lower case; NULL: it did not come. Of several: the first. */
const char *exchange_header(const struct exchange *x, const char *name) ON_LOOP;
/* The value of NAME in the URL's query, decoded, into OUT (zero-terminated). False: it is not there
 * or is too long. */
bool exchange_param(const struct exchange *x, const char *name, char *out, size_t size) ON_LOOP;

/* --- the answer --- */

/* One more header of the answer; before it begins. NAME and VALUE are ours: no line ends. */
void exchange_add_header(struct exchange *x, const char *name, const char *value) ON_LOOP;
/* The whole answer; takes what BODY holds. */
void exchange_answer(struct exchange *x, int status, const char *content_type,
                     struct buf *body) ON_LOOP;
/* The same for an error, as all drivers can read it: {"error":...,"message":...,"code":...}. */
void exchange_fail(struct exchange *x, int status, const char *code, const char *message) ON_LOOP;
/* An answer whose length nobody knows yet: begin, then pieces, then finish. */
void exchange_begin(struct exchange *x, int status, const char *content_type) ON_LOOP;
/* Takes what B holds. */
void exchange_put(struct exchange *x, struct buf *b) ON_LOOP;
void exchange_finish(struct exchange *x) ON_LOOP;
/* The answer cannot be completed: the connection ends so that its client sees that. */
void exchange_break(struct exchange *x) ON_LOOP;
/* The client does not take what was sent: put no more until on_drain. */
bool exchange_is_full(const struct exchange *x) ON_LOOP;

#endif
