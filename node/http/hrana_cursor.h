/* Room: node/http. A cursor: a batch of a Hrana stream whose entries (step_begin, row, step_end,
 * step_error, error) are taken piece by piece, by whoever writes them as they are taken. What is
 * not taken stays where it is made: a cursor holds a window of rows, not a result. Thread: loop.
 *
 *     hrana_stream -> hrana_cursor -> POST /v3/cursor (hrana_cursor_http.c)
 *                                  -> fetch_cursor of a WebSocket (hrana_ws_stream.c) */
#ifndef NODE_HTTP_HRANA_CURSOR_H
#define NODE_HTTP_HRANA_CURSOR_H

#include "node/http/hrana_form.h"
#include "node/http/hrana_stream.h"

struct hrana_cursor;

/* Runs BATCH on S, which runs nothing. S and BATCH stay until the cursor is over. ON_MORE: there
 * may be more to take, or it is over; it may come from within hrana_cursor_put, not from within
 * open, and nothing may be freed in it unless the cursor is over. */
struct hrana_cursor *hrana_cursor_open(struct hrana_stream *s, const struct hrana_batch *batch,
                                       const struct hrana_wish *wish, void (*on_more)(void *ctx),
                                       void *ctx) ON_LOOP;
/* Only when it is over, or its stream was closed. */
void hrana_cursor_free(struct hrana_cursor *c) ON_LOOP;

/* Writes up to MAX_COUNT entries, no more after MAX_BYTES of OUT's buffer are full. Returns how
 * many. */
uint32_t hrana_cursor_put(struct hrana_cursor *c, struct hrana_writer *out, uint32_t max_count,
                          size_t max_bytes) ON_LOOP;
/* Is there an entry to take? */
bool hrana_cursor_has_more(const struct hrana_cursor *c) ON_LOOP;
/* The batch runs no more: the stream is free for the next request. */
bool hrana_cursor_is_over(const struct hrana_cursor *c) ON_LOOP;
/* What runs ends soon, what was not taken is dropped: is_over follows. */
void hrana_cursor_cancel(struct hrana_cursor *c) ON_LOOP;

#endif
