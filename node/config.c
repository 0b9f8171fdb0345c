/* Room: node. Thread: main, before any other starts.
 *
 * One table (config.def) makes the struct, the flags, the environment names, the keys of the file,
 * the help text and the checks of types, so that no setting can have two names or two defaults. */
#include "node/config.h"

#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/door_settings.h"
#include "node/identity.h"
#include "node/waiting.h"

#include <ctype.h>
#include <getopt.h>
#include <ini.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { KIND_TEXT, KIND_COUNT, KIND_MS, KIND_BYTES, KIND_SWITCH };

struct setting {
    const char *name;
    enum kind kind;
    size_t offset;
    const char *value, *placeholder, *help;
};

static const struct setting settings[] = {
#define CONF(name, kind, field, value, placeholder, help)                                          \
    {name, KIND_##kind, offsetof(struct config, field), value, placeholder, help},
#include "node/config.def"
#undef CONF
};

#define SETTINGS ((int)(sizeof settings / sizeof settings[0]))

enum { FLAG_CONFIG = 1000, FLAG_HELP, FLAG_VERSION };

static const struct setting *find(const char *name)
{
    for (int i = 0; i < SETTINGS; i++)
        if (strcmp(settings[i].name, name) == 0)
            return &settings[i];
    return NULL;
}

static bool parse_number(const char *text, bool bytes, uint64_t *out)
{
    static const struct {
        const char *unit;
        unsigned shift;
    } units[] = {{"", 0}, {"KiB", 10}, {"MiB", 20}, {"GiB", 30}};
    char *end;
    if (!isdigit((unsigned char)text[0]))
        return false;
    uint64_t n = strtoull(text, &end, 10);
    for (size_t i = 0; i < (bytes ? 4u : 1u); i++) {
        if (strcmp(end, units[i].unit) != 0)
            continue;
        if (n > UINT64_MAX >> (units[i].shift + 1))
            return false;
        *out = n << units[i].shift;
        return true;
    }
    return false;
}

static enum err set(struct config *c, const struct setting *s, const char *value,
                    const char *source)
{
    void *field = (char *)c + s->offset;
    if (s->kind == KIND_TEXT) {
        char **text = field;
        free(*text);
        *text = mem_strdup(value);
        return ERR_OK;
    }
    if (s->kind == KIND_SWITCH) {
        bool on = strcmp(value, "1") == 0 || strcmp(value, "yes") == 0;
        if (!on && strcmp(value, "0") != 0 && strcmp(value, "no") != 0)
            return err_fail(ERR_CONFIG, "%s: %s = \"%s\" is not yes or no", source, s->name, value);
        *(uint64_t *)field = on;
        return ERR_OK;
    }
    if (!parse_number(value, s->kind == KIND_BYTES, field))
        return err_fail(ERR_CONFIG, "%s: %s = \"%s\" is not %s", source, s->name, value,
                        s->kind == KIND_BYTES ? "a size such as 4096, 64KiB or 16MiB"
                                              : "a whole number");
    return ERR_OK;
}

struct file_reader {
    struct config *config;
    const char *path;
    enum err result;
};

/* libinih calls this for each pair; 0 stops the reading. */
static int on_pair(void *arg, const char *section, const char *name, const char *value)
{
    struct file_reader *r = arg;
    (void)section; /* sections are for the reader's eyes */
    const struct setting *s = find(name);
    r->result = s == NULL ? err_fail(ERR_CONFIG, "%s: there is no setting \"%s\"", r->path, name)
                          : set(r->config, s, value, r->path);
    return r->result == ERR_OK;
}

static enum err read_file(struct config *c, const char *path)
{
    struct file_reader r = {.config = c, .path = path};
    int line = ini_parse(path, on_pair, &r);
    if (line < 0)
        return err_fail(ERR_CONFIG, "%s: cannot be read", path);
    if (line > 0 && r.result == ERR_OK)
        return err_fail(ERR_CONFIG, "%s: line %d is not \"name = value\"", path, line);
    return r.result;
}

static enum err read_environment(struct config *c)
{
    for (int i = 0; i < SETTINGS; i++) {
        char name[64] = "LECTERN_";
        size_t n = strlen(name);
        for (const char *p = settings[i].name; *p != 0 && n + 1 < sizeof name; p++)
            name[n++] = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
        name[n] = 0;
        const char *value = getenv(name);
        if (value != NULL)
            TRY(set(c, &settings[i], value, name));
    }
    return ERR_OK;
}

static void make_flags(struct option *flags)
{
    for (int i = 0; i < SETTINGS; i++)
        flags[i] = (struct option){
            settings[i].name,
            settings[i].kind == KIND_SWITCH ? optional_argument : required_argument, NULL, i};
    flags[SETTINGS] = (struct option){"config", required_argument, NULL, FLAG_CONFIG};
    flags[SETTINGS + 1] = (struct option){"help", no_argument, NULL, FLAG_HELP};
    flags[SETTINGS + 2] = (struct option){"version", no_argument, NULL, FLAG_VERSION};
    flags[SETTINGS + 3] = (struct option){0};
}

/* Says what is wrong with WORD, for which getopt_long gave F. */
static enum err blame_flag(const struct option *flags, int f, const char *word)
{
    int n = (int)strcspn(word, "=");
    if (f == ':')
        return err_fail(ERR_CONFIG, "%.*s needs a value; see --help", n, word);
    if (optopt >= FLAG_CONFIG)
        return err_fail(ERR_CONFIG, "%.*s takes no value", n, word);
    for (; n > 2 && flags->name != NULL; flags++)
        if (strncmp(flags->name, word + 2, (size_t)n - 2) == 0)
            return err_fail(ERR_CONFIG, "%.*s is short for several flags; see --help", n, word);
    return err_fail(ERR_CONFIG, "there is no flag %.*s; see --help", n, word);
}

/* Two walks over the flags: the first finds --config, which must be read before the others. */
static enum err walk_flags(struct config *c, int argc, char **argv, const char **file,
                           enum config_wish *wish)
{
    struct option flags[sizeof settings / sizeof settings[0] + 4];
    make_flags(flags);
    optind = 0;
    opterr = 0;
    int f;
    while ((f = getopt_long(argc, argv, ":", flags, NULL)) != -1) {
        if (f == '?' || f == ':')
            return blame_flag(flags, f, argv[optind - 1]);
        if (f == FLAG_HELP || f == FLAG_VERSION)
            *wish = f == FLAG_HELP ? CONFIG_HELP : CONFIG_VERSION;
        else if (f == FLAG_CONFIG)
            *file = optarg;
        else if (c != NULL)
            TRY(set(c, &settings[f], optarg == NULL ? "yes" : optarg, "command line"));
    }
    if (optind < argc)
        return err_fail(ERR_CONFIG, "%s: not a flag; see --help", argv[optind]);
    return ERR_OK;
}

static enum err check_address(const char *name, const char *value)
{
    const char *colon = strrchr(value, ':');
    uint64_t port = 0;
    if (colon == NULL || colon == value || !parse_number(colon + 1, false, &port) || port > 65535)
        return err_fail(ERR_CONFIG, "%s = \"%s\" is not HOST:PORT", name, value);
    return ERR_OK;
}

bool config_is_every_address(const char *address)
{
    static const char *const wildcards[] = {"0.0.0.0", "::", "[::]", "*", "0"};
    const char *colon = strrchr(address, ':');
    size_t n = colon == NULL ? strlen(address) : (size_t)(colon - address);
    for (size_t i = 0; i < sizeof wildcards / sizeof wildcards[0]; i++)
        if (strlen(wildcards[i]) == n && strncmp(wildcards[i], address, n) == 0)
            return true;
    return false;
}

/* What a node tells the others of itself. */
static enum err check_told(const char *told, const char *listen, const char *told_name,
                           const char *listen_name)
{
    bool own = told[0] != 0;
    const char *address = own ? told : listen;
    if (!config_is_every_address(address))
        return ERR_OK;
    return err_fail(ERR_CONFIG,
                    "%s = \"%s\" is every address of this machine: set --%s HOST:PORT, which the "
                    "other nodes can connect to",
                    own ? told_name : listen_name, address, told_name);
}

static enum err check_join(const struct config *c)
{
    if (c->join[0] == 0 && (c->replica != 0 || c->replace != 0))
        return err_fail(ERR_CONFIG, "%s is of use with --join only",
                        c->replica != 0 ? "replica" : "replace");
    if (c->replica != 0 && c->replace != 0)
        return err_fail(ERR_CONFIG, "a replica has no vote: it cannot replace a voter (replace)");
    if (c->cluster[0] != 0 && c->join[0] != 0)
        return err_fail(ERR_CONFIG, "cluster and join contradict each other: a node is one of the "
                                    "first members, or it joins");
    if (c->join[0] != 0 && c->id != 0)
        return err_fail(ERR_CONFIG, "id and join contradict each other: a node that joins is given "
                                    "an id by the cluster");
    if (c->peer_advertise[0] != 0)
        TRY(check_address("peer-advertise", c->peer_advertise));
    if (c->join[0] != 0)
        TRY(check_told(c->peer_advertise, c->peer_listen, "peer-advertise", "peer-listen"));
    return ERR_OK;
}

static enum err check_members(const struct config *c)
{
    struct config_member members[CLUSTER_MAX];
    unsigned n = 0;
    bool self = false;
    TRY(check_join(c));
    /* A node that joins, or was here before, has its id from DIR/node. */
    if (c->cluster[0] == 0 && (c->join[0] != 0 || identity_exists(c->data)))
        return ERR_OK;
    TRY(config_members(c->cluster, members, &n));
    for (unsigned i = 0; i < n; i++)
        self = self || members[i].id == c->id;
    config_members_free(members, n);
    if (!self)
        return err_fail(ERR_CONFIG, "id = %" PRIu64 " is not a member of cluster = \"%s\"", c->id,
                        c->cluster);
    return ERR_OK;
}

static enum err check_http(const struct config *c)
{
    if (c->http_listen[0] != 0)
        TRY(check_address("http-listen", c->http_listen));
    if (c->http_answer_bytes < KIB(1) || c->http_answer_bytes > MIB(1024))
        return err_fail(ERR_CONFIG, "http-answer-bytes must be 1KiB to 1GiB");
    if (c->http_body_bytes < KIB(1) || c->http_body_bytes > MIB(1024))
        return err_fail(ERR_CONFIG, "http-body-bytes must be 1KiB to 1GiB");
    if (c->http_connections_max == 0 || c->http_connections_max > 1000000)
        return err_fail(ERR_CONFIG, "http-connections must be 1 to 1000000");
    if (c->http_idle_ms < 1000 || c->http_idle_ms > 86400000)
        return err_fail(ERR_CONFIG, "http-idle-timeout must be a second to a day");
    return door_settings_check(c);
}

static enum err check(const struct config *c)
{
    if (c->data[0] == 0)
        return err_fail(ERR_CONFIG, "data is not set: --data DIR says where the files are");
    TRY(check_address("listen", c->listen));
    TRY(check_address("peer-listen", c->peer_listen));
    if (c->advertise[0] != 0)
        TRY(check_address("advertise", c->advertise));
    TRY(check_told(c->advertise, c->listen, "advertise", "listen"));
    TRY(check_http(c));
    TRY(check_members(c));
    if (c->heartbeat_ms == 0 || c->election_ms < 4 * c->heartbeat_ms || c->election_ms > 600000)
        return err_fail(ERR_CONFIG,
                        "election-timeout = %" PRIu64 " must be at least four heartbeats (%" PRIu64
                        " ms) and at most 10 minutes",
                        c->election_ms, c->heartbeat_ms);
    if (c->readers == 0 || c->readers > 64 || c->reader_connections < c->readers ||
        c->reader_connections > 1000)
        return err_fail(ERR_CONFIG,
                        "readers must be 1 to 64, reader-connections from readers to 1000");
    if (c->read_transactions > 1000)
        return err_fail(ERR_CONFIG, "read-transactions must be at most 1000");
    if (c->flights_max == 0 || c->flights_max > 64)
        return err_fail(ERR_CONFIG, "batches-in-flight must be 1 to 64");
    if (c->queue_max == 0 || c->connections_max == 0)
        return err_fail(ERR_CONFIG, "queue-length and max-connections must be at least 1");
    if (c->waiting_bytes < WAITING_LIMIT_MIN || c->waiting_bytes > WAITING_LIMIT_MAX)
        return err_fail(ERR_CONFIG, "waiting-bytes must be 128MiB to 1024GiB: with less, a frame "
                                    "as long as frames may be would never be taken");
    if (c->txn_bytes_max < MIB(1) || c->txn_bytes_max > TXN_BYTES_LIMIT)
        return err_fail(ERR_CONFIG, "transaction-bytes must be 1MiB to 64GiB");
    if (c->wal_restart_bytes < c->wal_checkpoint_bytes)
        return err_fail(ERR_CONFIG, "wal-restart must not be below wal-checkpoint");
    if (c->wal_limit_bytes < c->wal_restart_bytes)
        return err_fail(ERR_CONFIG, "wal-limit must not be below wal-restart: a WAL that is never "
                                    "started over is nobody's fault");
    if (c->log_keep_bytes < KIB(64))
        return err_fail(ERR_CONFIG, "log-keep must be at least 64KiB: with less, a member that is "
                                    "away for a moment fetches the whole database");
    return ERR_OK;
}

static enum err set_log_level(const char *name)
{
    static const char *const names[] = {"debug", "info", "warn", "error"};
    for (int i = 0; i < 4; i++)
        if (strcmp(names[i], name) == 0) {
            log_set_level((enum log_level)i);
            return ERR_OK;
        }
    return err_fail(ERR_CONFIG, "log-level = \"%s\" is not debug, info, warn or error", name);
}

/* A URL means the same with a `/` at its end; drivers put more behind it. */
static void drop_slash(char *url)
{
    size_t n = strlen(url);
    if (n > 0 && url[n - 1] == '/')
        url[n - 1] = 0;
}

enum err config_load(struct config *c, int argc, char **argv, enum config_wish *wish)
{
    const char *file = getenv("LECTERN_CONFIG");
    *c = (struct config){0};
    *wish = CONFIG_RUN;
    for (int i = 0; i < SETTINGS; i++)
        TRY(set(c, &settings[i], settings[i].value, "default"));
    TRY(walk_flags(NULL, argc, argv, &file, wish));
    if (*wish != CONFIG_RUN)
        return ERR_OK;
    if (file != NULL)
        TRY(read_file(c, file));
    TRY(read_environment(c));
    TRY(walk_flags(c, argc, argv, &file, wish));
    TRY(set_log_level(c->log_level));
    c->database_id = c->cluster_id;
    drop_slash(c->http_url);
    return check(c);
}

#define DESCRIPTORS_RESERVED   352 /* log, snapshots, peers, links to the leader, the refused */
#define DESCRIPTORS_PER_READER 4   /* the database, its WAL, its shared memory, a temporary file */
#define CONNECTIONS_MIN        10

/* Of what PRESENT wants when all together want WANTED and FIT is there. */
static uint64_t share(uint64_t present, uint64_t wanted, uint64_t fit)
{
    uint64_t part = (uint64_t)((double)present / (double)wanted * (double)fit);
    return part < CONNECTIONS_MIN ? CONNECTIONS_MIN : part;
}

static void lower(const char *name, uint64_t *value, uint64_t to, uint64_t limit)
{
    if (to >= *value)
        return;
    log_warn("config",
             "%s lowered from %" PRIu64 " to %" PRIu64 ": the limit of open files is %" PRIu64
             " (ulimit -n)",
             name, *value, to, limit);
    *value = to;
}

enum err config_fit_descriptors(struct config *c, uint64_t limit)
{
    uint64_t reserve =
        DESCRIPTORS_RESERVED +
        DESCRIPTORS_PER_READER * (c->readers + c->reader_connections + c->read_transactions);
    uint64_t fit = limit <= reserve ? 0 : limit - reserve;
    uint64_t http = c->http_listen[0] == 0 ? 0 : c->http_connections_max;
    uint64_t wanted = c->connections_max + http;
    uint64_t least = http == 0 ? CONNECTIONS_MIN : 2 * CONNECTIONS_MIN;
    if (fit >= wanted)
        return ERR_OK;
    if (fit < least)
        return err_fail(ERR_CONFIG,
                        "the limit of open files is %" PRIu64 ", the node needs at least %" PRIu64
                        ": raise it (ulimit -n), or lower reader-connections",
                        limit, reserve + least);
    uint64_t native = share(c->connections_max, wanted, fit);
    if (http != 0 && native > fit - CONNECTIONS_MIN)
        native = fit - CONNECTIONS_MIN;
    lower("max-connections", &c->connections_max, native, limit);
    if (http != 0)
        lower("http-connections", &c->http_connections_max, fit - native, limit);
    return ERR_OK;
}

void config_fini(struct config *c)
{
    for (int i = 0; i < SETTINGS; i++)
        if (settings[i].kind == KIND_TEXT)
            free(*(char **)(void *)((char *)c + settings[i].offset));
    *c = (struct config){0};
}

#define HELP_MARGIN 34 /* where the texts begin */
#define HELP_WIDTH  98

/* FLAG, then TEXT in lines that fit a terminal. */
static void print_wrapped(const char *flag, const char *text)
{
    (void)printf("  %-*s", HELP_MARGIN - 2, flag);
    size_t at = strlen(flag) + 2 > HELP_MARGIN ? strlen(flag) + 2 : HELP_MARGIN;
    for (const char *word = text; *word != 0;) {
        size_t n = strcspn(word, " ");
        if (at + 1 + n > HELP_WIDTH) {
            (void)printf("\n%*s", HELP_MARGIN, "");
            at = HELP_MARGIN;
        }
        (void)printf(" %.*s", (int)n, word);
        at += n + 1;
        word += n;
        word += *word == ' ' ? 1 : 0;
    }
    (void)printf("\n");
}

void config_print_help(void)
{
    (void)printf("Usage: lecternd --id N --data DIR --cluster LIST [FLAG VALUE]...\n"
                 "       lecternd --data DIR --join LIST [FLAG VALUE]...\n"
                 "       lecternd --data DIR [FLAG VALUE]...\n"
                 "       lecternd recover --data DIR\n\n"
                 "One node of a Lectern cluster: SQLite, replicated by Raft.\n\n"
                 "Every flag is also an environment variable (--peer-listen is LECTERN_PEER_LISTEN)"
                 "\nand a line `name = value` of the file given with --config.\n\n");
    for (int i = 0; i < SETTINGS; i++) {
        const struct setting *t = &settings[i];
        bool shown = t->value[0] != 0 && strcmp(t->value, "0") != 0;
        char flag[64], text[256];
        (void)snprintf(flag, sizeof flag, "--%s%s%s", t->name, t->placeholder[0] != 0 ? " " : "",
                       t->placeholder);
        (void)snprintf(text, sizeof text, "%s%s%s%s", t->help, shown ? " (" : "",
                       shown ? t->value : "", shown ? ")" : "");
        print_wrapped(flag, text);
    }
    print_wrapped("--config FILE", "read settings from FILE");
    print_wrapped("--help", "show this text");
    print_wrapped("--version", "show the versions of Lectern and its libraries");
}

static enum err parse_member(const char *text, size_t n, struct config_member *m)
{
    char *copy = mem_printf("%.*s", (int)n, text);
    char *equals = strchr(copy, '=');
    enum err e = ERR_OK;
    if (equals != NULL)
        *equals = 0;
    if (equals == NULL || !parse_number(copy, false, &m->id) || m->id == 0 ||
        check_address("cluster", equals + 1) != ERR_OK)
        e = err_fail(ERR_CONFIG, "cluster: \"%.*s\" is not ID=HOST:PORT", (int)n, text);
    else
        m->address = mem_strdup(equals + 1);
    free(copy);
    return e;
}

static enum err add_member(const char *text, size_t n, struct config_member *out, unsigned *count)
{
    struct config_member m = {0};
    if (*count == CLUSTER_MAX)
        return err_fail(ERR_CONFIG, "cluster has more than %d members", CLUSTER_MAX);
    TRY(parse_member(text, n, &m));
    for (unsigned i = 0; i < *count; i++) {
        if (out[i].id == m.id || strcmp(out[i].address, m.address) == 0) {
            free(m.address);
            return err_fail(ERR_CONFIG, "cluster names %.*s twice (id or address)", (int)n, text);
        }
    }
    out[(*count)++] = m;
    return ERR_OK;
}

enum err config_members(const char *list, struct config_member out[CLUSTER_MAX], unsigned *n)
{
    *n = 0;
    if (list[0] == 0)
        return err_fail(ERR_CONFIG,
                        "cluster is not set: --cluster 1=HOST:PORT,2=HOST:PORT,3=HOST:PORT");
    for (const char *p = list; *p != 0;) {
        size_t len = strcspn(p, ",");
        enum err e = add_member(p, len, out, n);
        if (e != ERR_OK) {
            config_members_free(out, *n);
            *n = 0;
            return e;
        }
        p += len;
        p += *p == ',' ? 1 : 0;
    }
    return ERR_OK;
}

void config_members_free(struct config_member *members, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        free(members[i].address);
}
