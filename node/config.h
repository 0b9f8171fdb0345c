/* Room: node. Settings: flags, environment and file from one table (config.def). */
#ifndef NODE_CONFIG_H
#define NODE_CONFIG_H

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

#define LECTERN_VERSION "0.1.0"

#define CLUSTER_MAX 15 /* more voters than this make every commit slower for no more safety */

#define CONFIG_FIELD_TEXT(f)   char *f;
#define CONFIG_FIELD_COUNT(f)  uint64_t f;
#define CONFIG_FIELD_MS(f)     uint64_t f;
#define CONFIG_FIELD_BYTES(f)  uint64_t f;
#define CONFIG_FIELD_SWITCH(f) uint64_t f;

struct config {
#define CONF(name, kind, field, value, placeholder, help) CONFIG_FIELD_##kind(field)
#include "node/config.def"
#undef CONF
    uint64_t
        database_id; /* in every entry of the log: cluster_id, unless DIR/node says otherwise */
};

/* What the command line asked for beside settings. */
enum config_wish { CONFIG_RUN, CONFIG_HELP, CONFIG_VERSION };

/* Reads defaults, the file named by --config or LECTERN_CONFIG, the environment and the flags into
 * C, and checks them. ERR_CONFIG: the sentence names the setting, its source and what would be
 * right. */
MUST_USE enum err config_load(struct config *c, int argc, char **argv, enum config_wish *wish);
/* Lowers max-connections and http-connections (warnings in the log) until what the node opens fits
 * into LIMIT file descriptors: without one for the next segment of the log a node stops.
 * ERR_CONFIG: LIMIT is too low to be of use. */
MUST_USE enum err config_fit_descriptors(struct config *c, uint64_t limit);
/* Is the host of ADDRESS (HOST:PORT) every address of a machine: none to connect to? */
bool config_is_every_address(const char *address);
void config_fini(struct config *c);
/* The --help text on standard output. */
void config_print_help(void);

/* One member of --cluster. */
struct config_member {
    uint64_t id;
    char *address;
};
/* Splits --cluster; members must be freed with config_members_free. */
MUST_USE enum err config_members(const char *list, struct config_member out[CLUSTER_MAX],
                                 unsigned *n);
void config_members_free(struct config_member *members, unsigned n);

#endif
