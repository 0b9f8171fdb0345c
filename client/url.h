/* Room: client. "lectern://host:port,host:port/db?read=session&timeout=30000". Thread: any. */
#ifndef CLIENT_URL_H
#define CLIENT_URL_H

#include "base/err.h"
#include "client/wire.h"

#define URL_ADDRESSES_MAX 32
#define URL_ADDRESS_MAX   256

struct url {
    unsigned n_addresses;
    char addresses[URL_ADDRESSES_MAX][URL_ADDRESS_MAX];
    char name[64]; /* for the server's log */
    enum wire_level level;
    uint32_t bound_ms;
    uint64_t timeout_ms;
};

/* ERR_CONFIG says what is wrong, and where. Percent escapes are read in parameters. */
MUST_USE enum err url_parse(const char *text, struct url *out);

#endif
