/* Room: node. lecternd: one node of a cluster. */
#include "base/log.h"
#include "base/thread.h"
#include "node/check.h"
#include "node/config.h"
#include "node/join.h"
#include "node/lost_majority.h"
#include "node/memory.h"
#include "node/node.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void print_version(void)
{
    (void)printf("lecternd %s (SQLite %s, libuv %s)\n", LECTERN_VERSION, sqlite3_libversion(),
                 uv_version_string());
}

static void tell_ready(const struct config *c)
{
    static const char line[] = "ready\n";
    if (c->ready_fd != 0 && write((int)c->ready_fd, line, sizeof line - 1) < 0)
        log_warn("main", "ready-fd=%" PRIu64 " cannot be written", c->ready_fd);
}

/* The usual soft limit of 1024 is there for programs that use select(); we may have the hard one.
 */
static enum err raise_descriptors(struct config *c)
{
    struct rlimit l;
    if (getrlimit(RLIMIT_NOFILE, &l) != 0)
        return err_fail(ERR_IO, "the limit of open files cannot be read: %s", strerror(errno));
    rlim_t soft = l.rlim_cur;
    l.rlim_cur = l.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &l) != 0) {
        log_warn("main", "the limit of open files stays at %" PRIu64 ": %s", (uint64_t)soft,
                 strerror(errno));
        l.rlim_cur = soft;
    }
    return config_fit_descriptors(c, l.rlim_cur);
}

/* A node that fetched its database, or must, ends and is opened again: one way into every state.
 * Between two lives nobody heeds signals: they wait. */
static enum err run_nodes(const struct config *c, struct node_past *past) ON_LOOP
{
    struct node node;
    sigset_t ends;
    bool told = false;
    (void)sigemptyset(&ends);
    (void)sigaddset(&ends, SIGTERM);
    (void)sigaddset(&ends, SIGINT);
    do {
        TRY(node_open(&node, c, past));
        (void)pthread_sigmask(SIG_UNBLOCK, &ends, NULL);
        if (!told)
            tell_ready(c);
        told = true;
        node_run(&node);
        (void)pthread_sigmask(SIG_BLOCK, &ends, NULL);
        node_close(&node);
        if (node.refused)
            return err_fail(ERR_CONFIG, "%s", node.failure);
    } while (node.again);
    return ERR_OK;
}

/* Who this node is: a new one asks the cluster for an id here. */
static enum err find_identity(struct config *c, struct node_past *past) ON_LOOP
{
    char prefix[32];
    TRY(join_prepare(c, &past->who));
    (void)snprintf(prefix, sizeof prefix, "node=%" PRIu64 " ", c->id);
    log_set_prefix(prefix);
    if (past->who.joined && !past->who.begun)
        past->index_min = past->who.since;
    return ERR_OK;
}

int main(int argc, char **argv)
{
    struct config config;
    enum config_wish wish;
    static struct node_past past;
    (void)signal(SIGPIPE, SIG_IGN);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    if (argc > 1 && strcmp(argv[1], "recover") == 0)
        return lost_majority_main(argc - 1, argv + 1);
    if (argc > 1 && strcmp(argv[1], "check") == 0)
        return check_main(argc - 1, argv + 1);
    if (config_load(&config, argc, argv, &wish) != ERR_OK) {
        (void)fprintf(stderr, "lecternd: %s\n", err_text());
        config_fini(&config);
        return 2;
    }
    if (wish == CONFIG_HELP)
        config_print_help();
    else if (wish == CONFIG_VERSION)
        print_version();
    if (wish != CONFIG_RUN) {
        config_fini(&config);
        return 0;
    }
    memory_limit(config.data);
    enum err e = raise_descriptors(&config);
    if (e == ERR_OK)
        e = find_identity(&config, &past);
    if (e == ERR_OK)
        e = run_nodes(&config, &past);
    if (e == ERR_OK)
        log_info("main", "stopped");
    else
        (void)fprintf(stderr, "lecternd: %s\n", err_text());
    /* Told to stop before it had an id: nothing is wrong. */
    int status = e == ERR_OK || e == ERR_CANCELLED ? 0 : 1;
    config_fini(&config);
    return status;
}
