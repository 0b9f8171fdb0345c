/* Room: tests. The nodes of transport_rig.h. */
#include "tests/unit/consensus/transport_rig.h"

#include "base/hash.h"
#include "base/mem.h"
#include "tests/unit/consensus/free_ports.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct net net;

/* --- messages --------------------------------------------------------------------------------- */

struct cns_item *net_items(uint64_t prev, unsigned n, size_t len)
{
    struct cns_item *items = mem_zalloc((n + 1) * sizeof *items);
    for (unsigned i = 0; i < n; i++) {
        uint8_t *p = mem_alloc(len);
        memset(p, (int)((prev + 1 + i) & 0xff), len);
        items[i] = (struct cns_item){prev + 1 + i, 1, CNS_COMMAND, cns_payload_take(p, len)};
    }
    return items;
}

void net_append(struct node *from, uint64_t to, uint64_t prev, unsigned n, size_t len)
{
    struct raft_message m;
    memset(&m, 0, sizeof m);
    m.type = RAFT_APPEND_ENTRIES;
    m.append_entries.term = 1;
    m.append_entries.prev_log_index = prev;
    m.append_entries.prev_log_term = prev == 0 ? 0 : 1;
    struct cns_item *items = net_items(prev, n, len);
    cns_transport_send(from->t, to, &m, items, n);
    cns_items_free(items, n); /* the transport has its own references */
}

static void node_closed(void *ctx)
{
    ((struct node *)ctx)->closed = true;
}

static void meanwhile(struct node *n)
{
    thread_expect_loop();
    EXPECT(n->t != NULL || n->close_after != 0);
    if (n->meanwhile != NULL && n->t != NULL)
        n->meanwhile(n);
}

static void on_message(void *ctx, uint64_t from, struct cns_message *m)
{
    thread_expect_loop();
    struct node *n = ctx;
    EXPECT(!n->closed && n->t != NULL);
    n->messages++;
    n->from = from;
    EXPECT_EQ(m->m.server_id, from);
    EXPECT(strncmp(m->m.server_address, "127.0.0.1:", 10) == 0);
    if (m->m.type == RAFT_APPEND_ENTRIES) {
        EXPECT(m->m.append_entries.prev_log_index >= n->last_index[from]); /* never reordered */
        n->last_index[from] = m->m.append_entries.prev_log_index + 1;
        for (unsigned i = 0; i < m->n_items; i++) {
            const struct cns_payload *p = m->items[i].payload;
            n->payload_bytes += p->len;
            for (size_t k = 0; k < p->len; k++)
                EXPECT(p->data[k] == (uint8_t)m->items[i].index);
        }
    }
    if (n->echo)
        cns_transport_send_bytes(n->t, from, 1, (const uint8_t *)"pong", 4);
    if (n->close_after == n->messages) {
        cns_transport_close(n->t, node_closed, n);
        n->t = NULL;
    }
    meanwhile(n);
}

static void on_bytes(void *ctx, uint64_t from, uint8_t type, const uint8_t *p, size_t n)
{
    struct node *x = ctx;
    EXPECT_EQ(type, 1);
    x->bytes_messages++;
    x->from = from;
    x->bytes_n = n < sizeof x->bytes ? n : sizeof x->bytes;
    memcpy(x->bytes, p, x->bytes_n);
    meanwhile(x);
}

static void on_peer(void *ctx, uint64_t id, bool up)
{
    struct node *x = ctx;
    (void)id;
    x->ups += up;
    x->downs += !up;
    meanwhile(x);
}

static void on_refused(void *ctx, uint64_t id, enum err code, const char *sentence)
{
    struct node *x = ctx;
    EXPECT_EQ(code, ERR_CONFIG);
    x->refusals++;
    x->refused_by = id;
    (void)snprintf(x->refusal, sizeof x->refusal, "%s", sentence);
    meanwhile(x);
}

/* --- the net ---------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *t)
{
    (void)t;
}

void net_open(void)
{
    thread_become(THREAD_LOOP);
    (void)signal(SIGPIPE, SIG_IGN);
    memset(&net, 0, sizeof net);
    EXPECT(uv_loop_init(&net.loop) == 0 && uv_timer_init(&net.loop, &net.tick) == 0);
    EXPECT(uv_timer_start(&net.tick, on_tick, 5, 5) == 0);
    for (unsigned i = 0; i < NODES; i++)
        net.nodes[i] = (struct node){.id = i + 1, .incarnation = INCARNATION(i + 1)};
}

enum err net_try(unsigned i, const char *listen, struct cns_transport **out)
{
    struct node *n = &net.nodes[i];
    struct cns_transport_config c = {.cluster_id = CLUSTER,
                                     .id = n->id,
                                     .incarnation = n->incarnation,
                                     .dir = n->dir,
                                     .listen = listen,
                                     .ctx = n,
                                     .on_message = on_message,
                                     .on_bytes = on_bytes,
                                     .on_peer = on_peer,
                                     .on_refused = on_refused};
    return cns_transport_open(&net.loop, &c, out);
}

struct node *net_listen(unsigned i, const char *listen)
{
    struct node *n = &net.nodes[i];
    n->closed = false;
    EXPECT_OK(net_try(i, listen, &n->t));
    return n;
}

const char *net_address(unsigned port)
{
    static char text[32];
    (void)snprintf(text, sizeof text, "127.0.0.1:%u", port);
    return text;
}

void net_mesh(unsigned n)
{
    static struct cns_server servers[NODES];
    static char addresses[NODES][FREE_PORT_ADDRESS_MAX]; /* for who stops and listens again */
    if (servers[0].id == 0)
        free_ports(servers, addresses, NODES);
    for (unsigned i = 0; i < n; i++)
        (void)net_listen(i, addresses[i]);
    for (unsigned i = 0; i < n; i++)
        for (unsigned k = 0; k < n; k++)
            EXPECT_OK(cns_transport_set_peer(net.nodes[i].t, k + 1,
                                             net_address(cns_transport_port(net.nodes[k].t))));
}

void net_stop(unsigned i)
{
    cns_transport_close(net.nodes[i].t, node_closed, &net.nodes[i]);
    net.nodes[i].t = NULL;
    WAIT_FOR(net.nodes[i].closed);
}

void net_close(void)
{
    for (unsigned i = 0; i < NODES; i++)
        if (net.nodes[i].t != NULL) {
            cns_transport_close(net.nodes[i].t, node_closed, &net.nodes[i]);
            net.nodes[i].t = NULL;
        } else
            net.nodes[i].closed = true;
    for (unsigned i = 0; i < NODES; i++)
        WAIT_FOR(net.nodes[i].closed);
    uv_close((uv_handle_t *)&net.tick, NULL);
    EXPECT(uv_run(&net.loop, UV_RUN_DEFAULT) == 0);
    EXPECT(uv_loop_close(&net.loop) == 0); /* no handle is left */
}

int raw_connect(const struct node *n)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    a.sin_port = htons((uint16_t)cns_transport_port(n->t));
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    int rc = connect(fd, (struct sockaddr *)&a, sizeof a);
    EXPECT(rc == 0 || errno == EINPROGRESS);
    int one = 1;
    EXPECT(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one) == 0);
    return fd;
}

bool raw_send(int fd, const uint8_t *p, size_t n)
{
    while (n > 0) {
        ssize_t done = send(fd, p, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (done < 0 && errno != EAGAIN && errno != EINTR)
            return false;
        if (done > 0) {
            p += done;
            n -= (size_t)done;
        }
        (void)uv_run(&net.loop, UV_RUN_NOWAIT);
    }
    return true;
}

size_t raw_receive(int fd, uint8_t *p, size_t n)
{
    size_t got = 0;
    ssize_t rc = -1;
    WAIT_FOR((rc = recv(fd, p + got, n - got, MSG_DONTWAIT)) == 0 ||
             (rc < 0 && errno != EAGAIN && errno != ENOTCONN) ||
             (rc > 0 && (got += (size_t)rc) == n));
    return got;
}

struct peer_hello raw_hello(uint64_t from, uint64_t to)
{
    return (struct peer_hello){.version = PEER_PROTOCOL_VERSION,
                               .cluster_id = CLUSTER,
                               .from = from,
                               .to = to,
                               .frame_max = PEER_FRAME_MAX,
                               .incarnation = INCARNATION(from)};
}

int raw_greet(const struct node *n, const struct peer_hello *h, struct peer_answer *a)
{
    uint8_t hello[PEER_HELLO_BYTES], answer[PEER_ANSWER_BYTES];
    int fd = raw_connect(n);
    peer_hello_encode(hello, h);
    EXPECT(raw_send(fd, hello, sizeof hello));
    EXPECT_EQ(raw_receive(fd, answer, sizeof answer), sizeof answer);
    EXPECT_OK(peer_answer_decode(answer, a));
    EXPECT((a->code == ERR_OK) == (a->reason[0] == 0));
    EXPECT_EQ(a->incarnation, a->code == ERR_OK ? n->incarnation : 0);
    if (a->code != ERR_OK) { /* nothing more comes, and it is closed */
        uint8_t more;
        EXPECT_EQ(raw_receive(fd, &more, 1), 0);
    }
    return fd;
}

enum err raw_judged(const struct node *n, const struct peer_hello *h)
{
    struct peer_answer a;
    (void)close(raw_greet(n, h, &a));
    return a.code;
}

size_t raw_frame(uint8_t *out, uint64_t sequence)
{
    uint8_t head[9] = {1};
    set_le64(head + 1, hash64("payload", 7, 0));
    struct peer_frame_head f = {
        .type = PEER_FRAME_BYTES, .head_n = sizeof head, .body_n = 7, .sequence = sequence};
    peer_frame_encode(out, &f, head);
    memcpy(out + PEER_FRAME_HEAD_BYTES, head, sizeof head);
    memcpy(out + PEER_FRAME_HEAD_BYTES + sizeof head, "payload", 7);
    return PEER_FRAME_HEAD_BYTES + sizeof head + 7;
}

int fake_listen(unsigned *port)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0 && bind(fd, (struct sockaddr *)&a, sizeof a) == 0 && listen(fd, 8) == 0);
    EXPECT(getsockname(fd, (struct sockaddr *)&a, &n) == 0);
    *port = ntohs(a.sin_port);
    return fd;
}

int fake_accept(int listener, const struct peer_answer *answer)
{
    uint8_t hello[PEER_HELLO_BYTES], bytes[PEER_ANSWER_BYTES];
    int fd = -1;
    WAIT_FOR((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0);
    EXPECT_EQ(raw_receive(fd, hello, sizeof hello), sizeof hello);
    peer_answer_encode(bytes, answer);
    EXPECT(raw_send(fd, bytes, sizeof bytes));
    return fd;
}

struct peer_answer fake_welcome(void)
{
    return (struct peer_answer){.version = PEER_PROTOCOL_VERSION,
                                .frame_max = PEER_FRAME_MAX,
                                .incarnation = INCARNATION(2)};
}
