/* Room: client. Who answers there, when it is no Lectern server. Thread: any. */
#ifndef CLIENT_LINK_GREETING_H
#define CLIENT_LINK_GREETING_H

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

/* The first frame is no longer: what other servers say, read as a length, mostly is. */
#define GREETING_MAX 65536u

/* ERR_PROTOCOL, with a sentence about the first N bytes that came from ADDRESS. */
enum err greeting_of_stranger(const char *address, const uint8_t *bytes, size_t n);

#endif
