/* Room: tests. */
#include "tests/unit/consensus/free_ports.h"

#include "tests/lib/test.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define PORTS_MAX 16u

void free_ports(struct cns_server *servers, char (*addresses)[FREE_PORT_ADDRESS_MAX], unsigned n)
{
    int fds[PORTS_MAX];
    EXPECT(n <= PORTS_MAX);
    for (unsigned i = 0; i < n; i++) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t size = sizeof a;
        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        EXPECT(fds[i] >= 0);
        EXPECT(bind(fds[i], (struct sockaddr *)&a, sizeof a) == 0);
        EXPECT(getsockname(fds[i], (struct sockaddr *)&a, &size) == 0);
        (void)snprintf(addresses[i], sizeof addresses[i], "127.0.0.1:%u",
                       (unsigned)ntohs(a.sin_port));
        servers[i] = (struct cns_server){i + 1, addresses[i], CNS_VOTER};
    }
    for (unsigned i = 0; i < n; i++)
        EXPECT(close(fds[i]) == 0);
}
