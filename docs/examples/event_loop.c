/* A hundred sessions in one thread, driven by a loop of our own: poll() and one descriptor.
 *     cc event_loop.c $(pkg-config --cflags --libs lectern) && ./a.out lectern://127.0.0.1:7701 */
#include <lectern.h>
#include <poll.h>
#include <stdio.h>

#define SESSIONS 100

static struct client {
    lectern *db;
    lectern_stmt *insert, *count;
    int64_t seen;
} clients[SESSIONS];

static int at_work, failed;

static void give_up(struct client *c)
{
    fprintf(stderr, "%s\n", lectern_errmsg(c->db));
    failed++;
    at_work--;
}

static int take_count(void *arg, lectern_stmt *s)
{
    struct client *c = arg;
    c->seen = lectern_column_int64(s, 0);
    return 0;
}

static void counted(void *arg, lectern_stmt *s, int result)
{
    struct client *c = arg;
    (void)s;
    if (result == LECTERN_DONE && c->seen > 0) /* each session sees at least its own write */
        at_work--;
    else
        give_up(c);
}

static void inserted(void *arg, lectern_stmt *s, int result)
{
    struct client *c = arg;
    (void)s;
    if (result != LECTERN_DONE || lectern_start(c->count, take_count, counted, c) != LECTERN_OK)
        give_up(c);
}

/* Starts a session's first statement: no call here waits for the network. */
static int begin(lectern_cluster *cluster, struct client *c, int number)
{
    const unsigned lazy = LECTERN_PREPARE_LAZY;
    if (lectern_open_session(cluster, &c->db) != LECTERN_OK ||
        lectern_prepare_v3(c->db, "INSERT INTO visit(session) VALUES(?)", -1, lazy, &c->insert,
                           NULL) != LECTERN_OK ||
        lectern_prepare_v3(c->db, "SELECT count(*) FROM visit", -1, lazy, &c->count, NULL) !=
            LECTERN_OK ||
        lectern_bind_int(c->insert, 1, number) != LECTERN_OK ||
        lectern_start(c->insert, NULL, inserted, c) != LECTERN_OK)
        return -1;
    at_work++;
    return 0;
}

static int work(lectern_cluster *cluster)
{
    for (int i = 0; i < SESSIONS; i++)
        if (begin(cluster, &clients[i], i) != 0)
            return -1;
    while (at_work > 0) {
        /* Other descriptors of the program belong into this array, too. */
        struct pollfd fds[] = {{.fd = lectern_fd(cluster), .events = POLLIN}};
        if (poll(fds, 1, -1) > 0 && lectern_poll(cluster, 0) != LECTERN_OK)
            return -1;
    }
    return failed == 0 ? 0 : -1;
}

int main(int argc, char **argv)
{
    const char *url = argc > 1 ? argv[1] : "lectern://127.0.0.1:7701";
    lectern *db;
    if (lectern_open(url, &db) != LECTERN_OK ||
        lectern_exec(db, "CREATE TABLE IF NOT EXISTS visit(session)", NULL, NULL, NULL) !=
            LECTERN_OK) {
        fprintf(stderr, "%s\n", lectern_errmsg(db));
        lectern_close(db);
        return 1;
    }
    lectern_close(db);

    lectern_cluster *cluster;
    if (lectern_cluster_open(url, &cluster) != LECTERN_OK)
        return 1;
    int status = work(cluster);
    printf("%d sessions, %d failed\n", SESSIONS, failed);
    for (int i = 0; i < SESSIONS; i++) {
        lectern_finalize(clients[i].insert);
        lectern_finalize(clients[i].count);
        lectern_close(clients[i].db);
    }
    lectern_cluster_close(cluster);
    return status != 0;
}
