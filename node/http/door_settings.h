/* Room: node/http. The settings of the HTTP door that are texts: judged once, at the start, so that
 * nobody finds out later from a browser or a driver. Thread: main, before any other starts; loop.
 */
#ifndef NODE_HTTP_DOOR_SETTINGS_H
#define NODE_HTTP_DOOR_SETTINGS_H

#include "base/err.h"
#include "node/config.h"

#include <stddef.h>

/* ERR_CONFIG: the sentence names the setting and what would be right. */
MUST_USE enum err door_settings_check(const struct config *c);
/* Where clients reach the HTTP port, as this node tells the others: http-url; else http-listen,
 * and when that is every address of the machine, the host of advertise (or listen) with its port.
 * "": there is no such port. */
void door_settings_url(const struct config *c, char *out, size_t size);

#endif
