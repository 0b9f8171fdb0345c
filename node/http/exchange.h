/* Room: node/http. One HTTP request and its answer, as a handler sees them: what it asks for, its
 * body as it comes, and an answer, whole or piece by piece.
 *
 *     http_conn -> router -> handler:  on_begin -> on_body* -> on_end
 *                                      exchange_answer  |  exchange_begin, _put*, _finish
 *                                                       -> on_over
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

struct asides;
struct exchange;
struct gzip;
struct http_conn;
struct node;

/* More headers than that in a request, or more bytes of its head, are refused. */
#define HTTP_HEADERS_MAX 100u
#define HTTP_HEAD_MAX    16384u
#define HTTP_URL_MAX     8192u

enum http_verb {
    HTTP_VERB_GET = 1,
    HTTP_VERB_HEAD = 2, /* as GET; what it answers as a body is not sent */
    HTTP_VERB_POST = 4,
    HTTP_VERB_OPTIONS = 8,
    HTTP_VERB_OTHER = 16
};

/* Who answers a path. Callbacks may be NULL; all are called on the loop. */
struct handler {
    /* The head came. It may answer at once: no body is handed out then. */
    void (*on_begin)(struct exchange *x);
    /* Some of the body; borrowed. No more than http-body-bytes in all. */
    void (*on_body)(struct exchange *x, const uint8_t *p, size_t n);
    /* The request is complete. */
    void (*on_end)(struct exchange *x);
    /* exchange_is_full no more. */
    void (*on_drain)(struct exchange *x);
    /* It is its turn again (exchange_again). */
    void (*on_turn)(struct exchange *x);
    /* The exchange is over: answered whole, or its client is gone. X is freed after. It may come
     * from within the call that completes the answer. */
    void (*on_over)(struct exchange *x);
    /* It asks nothing of the database: it answers while the node stops, too, and to pages of other
     * origins. */
    bool only_tells;
    /* It gives what is in the database to a GET, of which browsers do not say whose page it is of:
     * only where the node is asked by an address, or by a name that it knows. */
    bool gives_data;
};

struct exchange {
    struct node *node;
    struct http_conn *conn;
    const struct handler *handler;
    void *state; /* the handler's own */
    enum http_verb verb;
    const char *path;  /* as it came, up to `?`; zero-terminated */
    const char *query; /* behind `?`, "" when there is none */
    bool answered;     /* an answer was begun: a second one would be a bug of the handler */

    /* What follows belongs to exchange.c and http_conn.c. */
    bool finished; /* the answer is complete */
    bool over;     /* on_over was called */
    bool closes;   /* the connection ends with it */
    bool chunked;  /* the answer's length is not known */
    bool full;     /* on_drain is owed */
    bool again;    /* so is on_turn */
    bool old;      /* HTTP/1.0 */
    uint32_t n_headers;
    struct {
        uint16_t name, value; /* in HEAD, zero-terminated; names in lower case */
    } headers[HTTP_HEADERS_MAX];
    struct buf extra;  /* headers of the answer */
    struct buf out;    /* its head, until the first piece */
    struct gzip *gzip; /* NULL: the answer is not compressed */
    uint8_t *whole;    /* an answer that goes out in parts, LEN bytes: PARTED of them went */
    size_t len, parted;
    char *head;
};

/* --- the request --- */

/* The value of a header, its name in lower case; NULL: it did not come. Of several: the first. */
const char *exchange_header(const struct exchange *x, const char *name) ON_LOOP;
/* Is TOKEN (lower case) one of the words of a header that is a list (`a, b, c`)? */
bool exchange_header_has(const struct exchange *x, const char *name, const char *token) ON_LOOP;
/* The value of NAME in the URL's query, decoded, into OUT (zero-terminated): "" also for one that
 * is too long, or is not what can stand in a URL. False: there is no NAME=. */
bool exchange_param(const struct exchange *x, const char *name, char *out, size_t size) ON_LOOP;
/* Is each parameter of the URL's query one of KNOWN ("a, b")? Answers X when not: a wish with a
 * slip in it would be none. */
bool exchange_knows_params(struct exchange *x, const char *known) ON_LOOP;

/* --- the answer ---
 * The call that completes it (answer, fail, finish, break) may end the exchange: neither X nor the
 * handler's state is there after it. */

/* One more header of the answer; before it begins. NAME and VALUE are ours: no line ends. */
void exchange_add_header(struct exchange *x, const char *name, const char *value) ON_LOOP;
/* The whole answer; takes what BODY holds. BODY may be NULL: empty. */
void exchange_answer(struct exchange *x, int status, const char *content_type,
                     struct buf *body) ON_LOOP;
/* The same for an error, as all drivers can read it: {"error":...,"message":...,"code":...}. */
void exchange_fail(struct exchange *x, int status, const char *code, const char *message) ON_LOOP;
/* An answer whose length nobody knows yet: begin, then pieces, then finish. The head goes out with
 * the first piece. */
void exchange_begin(struct exchange *x, int status, const char *content_type) ON_LOOP;
/* Takes what B holds. */
void exchange_put(struct exchange *x, struct buf *b) ON_LOOP;
void exchange_finish(struct exchange *x) ON_LOOP;
/* The answer cannot be completed: the connection ends so that its client sees that. */
void exchange_break(struct exchange *x) ON_LOOP;
/* The client has closed its side: it may be gone, and if it still reads, it asks nothing more. */
bool exchange_client_left(const struct exchange *x) ON_LOOP;
/* The client does not take what was sent: put no more until on_drain. */
bool exchange_is_full(struct exchange *x) ON_LOOP;

/* --- a handler's work that takes long --- */

/* Its handler has more to do: on_turn follows, soon if the others had to wait little for what was
 * done so far, or else in the next turn of the loop. */
void exchange_again(struct exchange *x) ON_LOOP;
/* Where it does what no others should wait for (aside.h). */
struct asides *exchange_asides(const struct exchange *x) ON_LOOP;

/* --- for http_conn.c --- */

/* Is a part of the answer to be sent? And the next one. */
bool exchange_has_part(const struct exchange *x) ON_LOOP;
void exchange_send_part(struct exchange *x) ON_LOOP;
/* Bytes of memory that its answer takes. */
size_t exchange_bytes(const struct exchange *x) ON_LOOP;
void exchange_fini(struct exchange *x);

#endif
