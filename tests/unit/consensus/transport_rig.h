/* Room: tests. Transports on one loop over loopback, and the raw sockets of those who do not keep
 * to the protocol. For transport_test.c and identity_test.c. */
#ifndef TESTS_UNIT_CONSENSUS_TRANSPORT_RIG_H
#define TESTS_UNIT_CONSENSUS_TRANSPORT_RIG_H

#include "base/clock.h"
#include "consensus/peer_wire.h"
#include "consensus/transport.h"
#include "tests/lib/test.h"

#define CLUSTER 77u
#define NODES   4u
/* The log directory that a node has, unless a test changes it. */
#define INCARNATION(id) (1000 + (id))

struct node {
    struct cns_transport *t;
    uint64_t id, incarnation;
    const char *dir; /* of its file `peers`; NULL: none */
    unsigned messages, bytes_messages, ups, downs, refusals;
    uint64_t last_index[NODES + 1], payload_bytes, from; /* last_index: by sender */
    uint8_t bytes[64];
    size_t bytes_n;
    uint64_t refused_by;
    char refusal[ERR_TEXT_MAX];
    bool closed, echo;
    uint64_t close_after; /* closes itself at this message */
    /* Called at the end of on_peer, on_message, on_bytes, on_refused when set. */
    void (*meanwhile)(struct node *n);
};

struct net {
    uv_loop_t loop;
    uv_timer_t tick; /* so that waiting never blocks for ever */
    struct node nodes[NODES];
};
extern struct net net;

/* Runs the loop until COND; a test that waits for ever fails. */
#define WAIT_FOR(cond)                                                                             \
    do {                                                                                           \
        uint64_t began_ = clock_mono_ms();                                                         \
        while (!(cond)) {                                                                          \
            (void)uv_run(&net.loop, UV_RUN_ONCE);                                                  \
            if (clock_mono_ms() - began_ > TEST_HANG_MS)                                           \
                test_fail(__FILE__, __LINE__, "waited in vain for %s", #cond);                     \
        }                                                                                          \
    } while (0)

void net_open(void);
/* Closes all transports and the loop: nothing may be left. */
void net_close(void) ON_LOOP;
/* Opens node I's transport as it is configured. */
enum err net_try(unsigned i, const char *listen, struct cns_transport **out) ON_LOOP;
struct node *net_listen(unsigned i, const char *listen) ON_LOOP;
/* Closes node I, and waits for it. */
void net_stop(unsigned i) ON_LOOP;
/* "127.0.0.1:PORT", until the next call. */
const char *net_address(unsigned port);
/* The first N nodes listen and know each other. */
void net_mesh(unsigned n) ON_LOOP;

/* An append of N entries of LEN bytes behind index PREV; bytes follow from the index. */
struct cns_item *net_items(uint64_t prev, unsigned n, size_t len);
void net_append(struct node *from, uint64_t to, uint64_t prev, unsigned n, size_t len) ON_LOOP;

int raw_connect(const struct node *n) ON_LOOP;
/* Sends all, running the loop while the socket is full; false when the other side has closed. */
bool raw_send(int fd, const uint8_t *p, size_t n);
/* Reads until N bytes are there or the other side closed; how many. */
size_t raw_receive(int fd, uint8_t *p, size_t n);
struct peer_hello raw_hello(uint64_t from, uint64_t to);
/* Greets and reads the answer; one that refuses must then be closed. */
int raw_greet(const struct node *n, const struct peer_hello *h, struct peer_answer *a) ON_LOOP;
/* The same, closed at once: the answer's code. */
enum err raw_judged(const struct node *n, const struct peer_hello *h) ON_LOOP;
/* A frame of small bytes, as member 2 sends it. */
size_t raw_frame(uint8_t *out, uint64_t sequence);

/* A listening socket that plays member 2. */
int fake_listen(unsigned *port);
int fake_accept(int listener, const struct peer_answer *answer);
struct peer_answer fake_welcome(void);

#endif
