/* Room: node/http. Runs a request of a Hrana stream and collects what it tells into a reply, up to
 * a limit: for the forms that answer as a whole. Thread: loop. */
#ifndef NODE_HTTP_HRANA_COLLECT_H
#define NODE_HTTP_HRANA_COLLECT_H

#include "node/http/hrana_stream.h"

struct hrana_collect {
    struct hrana_reply reply; /* complete when on_reply is called */
    struct hrana_stream *stream;
    const struct hrana_request *q;
    size_t bytes, max; /* of rows */
    struct waiting *waiting;
    size_t counted;          /* of them there */
    bool too_large, no_room; /* nothing of it is told but that */
    bool was_autocommit;
    bool wrote; /* in the transaction that is open: it is not done yet */
    void (*on_reply)(struct hrana_collect *c);
    void *ctx;
};

/* Runs Q on S; C->on_reply follows, maybe at once. C, Q stay until then. If it has more than MAX
 * bytes of rows it is run all the same, and the reply is one error. */
void hrana_collect(struct hrana_collect *c, struct hrana_stream *s, const struct hrana_request *q,
                   const struct hrana_wish *wish, size_t max,
                   void (*on_reply)(struct hrana_collect *c), void *ctx) ON_LOOP;
/* Is its reply one that takes long to write? */
bool hrana_collect_is_long(const struct hrana_collect *c) ON_LOOP;
/* The reply is written. Also of a collect that was never begun (all zero). */
void hrana_collect_fini(struct hrana_collect *c) ON_LOOP;
void hrana_reply_fini(struct hrana_reply *r);

#endif
