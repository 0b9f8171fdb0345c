/* Room: client. "lectern://host:port,host:port/db?read=session&timeout=30000", or its addresses
 * alone. Thread: any. */
#ifndef CLIENT_URL_H
#define CLIENT_URL_H

#include "base/err.h"
#include "client/wire.h"

#define URL_ADDRESSES_MAX  32
#define URL_ADDRESS_MAX    256       /* with its final zero */
#define URL_NAME_MAX       64        /* with its final zero */
#define URL_TIMEOUT_MS     30000u    /* unless it is given */
#define URL_TIMEOUT_MS_MAX 86400000u /* a day */

struct url {
    unsigned n_addresses; /* at least 1, no two the same */
    char addresses[URL_ADDRESSES_MAX][URL_ADDRESS_MAX];
    char name[URL_NAME_MAX]; /* for the server's log */
    enum wire_level level;
    uint32_t bound_ms; /* of WIRE_BOUNDED, else 0 */
    uint64_t timeout_ms;
};

/* ERR_CONFIG says what is wrong, and where; OUT is then unspecified. Percent escapes are read in
 * the values of parameters; of a parameter that is there twice the last counts. */
MUST_USE enum err url_parse(const char *text, struct url *out);

#endif
