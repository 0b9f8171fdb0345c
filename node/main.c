/* Room: node. lecternd: one node of a cluster. */
#include "base/log.h"
#include "base/thread.h"
#include "node/config.h"
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

int main(int argc, char **argv)
{
    struct config config;
    enum config_wish wish;
    struct node node;
    char prefix[32];
    (void)signal(SIGPIPE, SIG_IGN);
    thread_become(THREAD_LOOP);
    thread_expect_loop();
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
    (void)snprintf(prefix, sizeof prefix, "node=%" PRIu64 " ", config.id);
    log_set_prefix(prefix);
    int status = 0;
    if (raise_descriptors(&config) == ERR_OK && node_open(&node, &config) == ERR_OK) {
        tell_ready(&config);
        node_run(&node);
        node_close(&node);
        log_info("main", "stopped");
    } else {
        (void)fprintf(stderr, "lecternd: %s\n", err_text());
        status = 1;
    }
    config_fini(&config);
    return status;
}
