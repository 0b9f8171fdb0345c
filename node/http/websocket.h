/* Room: node/http. A WebSocket (RFC 6455): whole messages in, messages out, and its end. Text that
 * is not UTF-8, messages over http-body-bytes and broken frames end it with the right code; pings
 * are answered. No extensions. Thread: loop. */
#ifndef NODE_HTTP_WEBSOCKET_H
#define NODE_HTTP_WEBSOCKET_H

#include "base/buf.h"
#include "base/thread.h"
#include "node/http/exchange.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct websocket;

/* Callbacks are called on the loop and may be NULL, but on_message. */
struct websocket_handler {
    /* Subprotocols that are spoken, the best last resort first: the first of the client's that is
     * among them is chosen. Ends with NULL. */
    const char *const *protocols;
    /* X asks for one, and may have it. False: X was refused, and answered. *STATE: the handler's
     * own (websocket_state). */
    bool (*on_ask)(struct exchange *x, void **state);
    void (*on_open)(struct websocket *ws);
    /* A whole message; borrowed, unless it is taken (websocket_take). */
    void (*on_message)(struct websocket *ws, bool text, const uint8_t *p, size_t n);
    /* websocket_is_full no more. */
    void (*on_drain)(struct websocket *ws);
    /* The node stops: it is to close WS (GOING_AWAY) soon. NULL: that is done at once. */
    void (*on_wind_down)(struct websocket *ws);
    /* It is over: closed by either side, or broken. WS is freed after. From within a call: only of
     * websocket_resume. */
    void (*on_over)(struct websocket *ws);
};

/* Codes of a close (RFC 6455, 7.4.1). */
enum websocket_code {
    WEBSOCKET_NORMAL = 1000,
    WEBSOCKET_GOING_AWAY = 1001,
    WEBSOCKET_PROTOCOL_ERROR = 1002,
    WEBSOCKET_UNSUPPORTED = 1003,
    WEBSOCKET_BAD_TEXT = 1007,
    WEBSOCKET_POLICY = 1008,
    WEBSOCKET_TOO_BIG = 1009,
    WEBSOCKET_INTERNAL = 1011,
    WEBSOCKET_TRY_AGAIN = 1013
};

/* Does X ask for one? */
bool websocket_is_asked(const struct exchange *x) ON_LOOP;
/* Answers X: with 101 and a WebSocket for H, or with what is wrong. */
void websocket_accept(struct exchange *x, const struct websocket_handler *h) ON_LOOP;

/* The chosen subprotocol, "" when the client named none; the path that it came by; the node. */
const char *websocket_protocol(const struct websocket *ws) ON_LOOP;
struct node *websocket_node(const struct websocket *ws) ON_LOOP;
/* The handler's own. */
void websocket_set_state(struct websocket *ws, void *state) ON_LOOP;
void *websocket_state(const struct websocket *ws) ON_LOOP;

/* In on_message: OUT gets its bytes, P of them included; the caller counts them from now on. */
void websocket_take(struct websocket *ws, struct buf *out) ON_LOOP;
/* Where it has done what no others should wait for (aside.h). */
struct asides *websocket_asides(const struct websocket *ws) ON_LOOP;

/* Sends what B holds as one message and empties it. After a close: nothing is sent. */
void websocket_send_text(struct websocket *ws, struct buf *b) ON_LOOP;
void websocket_send_binary(struct websocket *ws, struct buf *b) ON_LOOP;
/* Begins to close it: no message comes after; on_over follows, 5 seconds later at most. REASON: at
 * most 123 bytes go. */
void websocket_close(struct websocket *ws, enum websocket_code code, const char *reason) ON_LOOP;
/* No more is read: what is under way is enough. Up to 4 KiB that were read may still come as
 * messages. */
void websocket_pause(struct websocket *ws) ON_LOOP;
/* What was read meanwhile comes from within the call; WS may be over when it returns. */
void websocket_resume(struct websocket *ws) ON_LOOP;
/* The client does not take what was sent: send no more until on_drain. Nothing is read meanwhile.
 */
bool websocket_is_full(struct websocket *ws) ON_LOOP;

#endif
