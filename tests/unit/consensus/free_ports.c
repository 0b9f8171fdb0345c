/* Room: tests. The same ports and the same locks as free_port() in tests/lib/cluster.py. */
#include "tests/unit/consensus/free_ports.h"

#include "tests/lib/test.h"

#include <arpa/inet.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define LOWEST 10000u
#define SPAN   20000u

/* An abstract socket with a name for PORT, which keeps other tests off until this process ends. -1:
 * another one has it. */
static int lock_port(unsigned port)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int n = snprintf(a.sun_path + 1, sizeof a.sun_path - 1, "lectern-test-port-%u", port);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0);
    if (bind(fd, (struct sockaddr *)&a, size) == 0)
        return fd;
    (void)close(fd);
    return -1;
}

static bool is_free(unsigned port)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) == 0);
    bool free = bind(fd, (struct sockaddr *)&a, sizeof a) == 0;
    (void)close(fd);
    return free;
}

static unsigned free_port(void)
{
    for (unsigned i = 0; i < SPAN; i++) {
        unsigned port = LOWEST + ((unsigned)getpid() * 37 + i) % SPAN;
        int lock = lock_port(port);
        if (lock >= 0 && is_free(port))
            return port; /* the lock stays */
        if (lock >= 0)
            (void)close(lock);
    }
    test_fail(__FILE__, __LINE__, "no free port");
}

void free_ports(struct cns_server *servers, char (*addresses)[FREE_PORT_ADDRESS_MAX], unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(addresses[i], sizeof addresses[i], "127.0.0.1:%u", free_port());
        servers[i] = (struct cns_server){i + 1, addresses[i], CNS_VOTER};
    }
}
