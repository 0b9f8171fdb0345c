/* Room: client. Who answers there, when it is no Lectern server. Thread: any. */
#ifndef CLIENT_LINK_GREETING_H
#define CLIENT_LINK_GREETING_H

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first frame is no longer: what other servers say, read as a length, mostly is. */
#define GREETING_MAX 65536u

/* Could a node's first frame begin with these N bytes? */
bool greeting_may_follow(const uint8_t *bytes, size_t n);
/* ERR_PROTOCOL, with a sentence about the first N bytes that came from ADDRESS. */
enum err greeting_of_stranger(const char *address, const uint8_t *bytes, size_t n);
/* The same, for the beginning of a greeting after which it did what THEN says. */
enum err greeting_cut_short(const char *address, const uint8_t *bytes, size_t n, const char *then);

#endif
