/* Room: node/http. What a request wants of its reads and transactions, and how long it may take:
 * headers, or the same in the URL's query, for programs that can only set a URL. Thread: loop.
 *
 *     lectern-read: any | bounded:MILLISECONDS | session | strong      ?read=
 *     lectern-begin: deferred | immediate                              ?begin=
 *     lectern-timeout: MILLISECONDS                                    ?timeout=
 *
 * Who says nothing of reads, or of BEGIN, gets the setting http-read, or http-begin: for drivers
 * that can say nothing. */
#ifndef NODE_HTTP_HRANA_WISH_H
#define NODE_HTTP_HRANA_WISH_H

#include "node/http/exchange.h"
#include "node/http/hrana_stream.h"

#define HRANA_WISH_MS_MAX 86400000u /* of all times: a day */

/* Reads a level as above into OUT; false: TEXT is none. */
bool hrana_wish_read_level(const char *text, struct hrana_wish *out);
/* The same, how BEGIN is taken. */
bool hrana_wish_read_begin(const char *text, struct hrana_wish *out);
/* ERR_PROTOCOL: the sentence says what is wrong. */
MUST_USE enum err hrana_wish_of(const struct exchange *x, struct hrana_wish *out) ON_LOOP;

#endif
