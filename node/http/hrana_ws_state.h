/* Room: node/http. What hrana_ws.c, hrana_ws_read.c and hrana_ws_stream.c share: a WebSocket that
 * speaks Hrana, from within. */
#ifndef NODE_HTTP_HRANA_WS_STATE_H
#define NODE_HTTP_HRANA_WS_STATE_H

#include "base/arena.h"
#include "base/list.h"
#include "node/http/hrana_form.h"
#include "node/http/hrana_stream.h"
#include "node/http/websocket.h"
#include "node/table.h"

/* Streams of one WebSocket; as many again are told that they failed to open, then it ends. */
#define HRANA_WS_STREAMS_MAX 4096u
/* Requests without an answer: with more, nothing is read until half of them are answered. Many, for
 * what they wait for may be the end of a transaction of the same socket. */
#define HRANA_WS_FLIGHT_MAX 4096u

struct hrana_ws_reading;
struct hrana_ws_stream;

/* A text that was stored (store_sql): requests that came before its close_sql still have it. */
struct hrana_ws_text {
    uint32_t refs;
    size_t n;
    char text[];
};

struct hrana_ws_request {
    struct list link; /* of its stream's queue */
    int32_t id;
    struct hrana_request q;
    struct arena arena; /* all of `q`, and `texts` */
    uint32_t n_texts;
    struct hrana_ws_text **texts; /* a reference to each */
};

struct hrana_ws {
    struct websocket *socket;
    struct node *node;
    struct hrana_wish wish;
    const struct hrana_form *form;
    enum hrana_version version;
    bool greeted;                     /* hello came */
    bool paused;                      /* nothing is read */
    bool ends;                        /* when all was answered: the node stops */
    bool broken;                      /* no message is taken any more */
    uint32_t n_flight;                /* requests without an answer */
    uint32_t n_streams;               /* open ones, and those that failed to be */
    struct list streams;              /* struct hrana_ws_stream */
    struct table by_id;               /* those that are open, by their client's number */
    struct table cursors;             /* struct hrana_ws_stream, by their cursors' number */
    struct table texts;               /* struct hrana_ws_text */
    size_t bytes, counted;            /* of requests and texts; what is counted in node.waiting */
    struct list later;                /* of node.hrana_sockets: to be read again */
    struct hrana_ws_reading *reading; /* a long message: those behind it wait */
    struct list behind;               /* struct hrana_ws_behind */
};

/* --- hrana_ws_read.c --- */

/* A message came: hrana_ws_take or hrana_ws_break follows, in the order in which they came; of a
 * long one, and of those behind it, later. */
void hrana_ws_read(struct hrana_ws *w, bool text, const uint8_t *p, size_t n) ON_LOOP;
/* The socket is over. */
void hrana_ws_read_end(struct hrana_ws *w) ON_LOOP;

/* --- hrana_ws.c --- */

/* M was read, all of it in R (taken). */
void hrana_ws_take(struct hrana_ws *w, const struct hrana_message *m,
                   struct hrana_ws_request *r) ON_LOOP;
/* The client broke the protocol: ends the socket. Returns false. */
bool hrana_ws_break(struct hrana_ws *w, enum websocket_code code, const char *format, ...) ON_LOOP
    __attribute__((format(printf, 3, 4)));
/* MORE and LESS bytes are kept for it. */
void hrana_ws_count(struct hrana_ws *w, size_t more, size_t less) ON_LOOP;
/* Something that was under way is over: reads on, unless there is enough; or it is the end. */
void hrana_ws_read_on(struct hrana_ws *w) ON_LOOP;
size_t hrana_ws_answer_max(const struct hrana_ws *w) ON_LOOP;
/* Answers R (taken) with REPLY, whose type is set here; empties it. */
void hrana_ws_answer(struct hrana_ws *w, struct hrana_ws_request *r,
                     struct hrana_reply *reply) ON_LOOP;
/* The same for an error (taken); NULL: nothing but that it is done. */
void hrana_ws_say(struct hrana_ws *w, struct hrana_ws_request *r,
                  struct hrana_error *error) ON_LOOP;
/* B is a whole answer to a request. */
void hrana_ws_answered(struct hrana_ws *w, struct buf *b) ON_LOOP;
void hrana_ws_request_free(struct hrana_ws *w, struct hrana_ws_request *r) ON_LOOP;

/* --- hrana_ws_stream.c --- */

/* FAILED: it is one too many, and says so. */
struct hrana_ws_stream *hrana_ws_stream_new(struct hrana_ws *w, bool failed) ON_LOOP;
/* With all that it has; nothing is answered. */
void hrana_ws_stream_free(struct hrana_ws_stream *s) ON_LOOP;
struct hrana_ws_stream *hrana_ws_stream_of(struct list *link) ON_LOOP;
/* Takes R: it is run after those before it. S may be gone afterwards. */
void hrana_ws_stream_take(struct hrana_ws_stream *s, struct hrana_ws_request *r) ON_LOOP;
/* The client takes answers again. */
void hrana_ws_stream_go(struct hrana_ws_stream *s) ON_LOOP;
/* The number of its cursor (open, or to be opened by what waits); false: it has none. */
bool hrana_ws_stream_cursor(const struct hrana_ws_stream *s, int32_t *id) ON_LOOP;
void hrana_ws_stream_set_cursor(struct hrana_ws_stream *s, bool there, int32_t id) ON_LOOP;

#endif
