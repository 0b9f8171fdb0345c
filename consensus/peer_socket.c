/* Room: consensus. Thread: loop. Owns: nothing. */
#include "consensus/peer_socket.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

/* Silence is probed after 2 s, every second; data without acknowledgement is waited for 5 s. Longer
 * than a stall of the network that TCP repairs by itself, shorter than anybody's patience;
 * elections do not wait for it. */
#define PROBE_AFTER_S     2
#define PROBE_EVERY_S     1
#define PROBES            3
#define UNACKNOWLEDGED_MS 5000u

enum err peer_address_parse(const char *text, struct peer_address *out)
{
    const char *colon = strrchr(text, ':');
    const char *host = text;
    size_t host_n = colon == NULL ? 0 : (size_t)(colon - text);
    if (host_n >= 2 && host[0] == '[' && host[host_n - 1] == ']') {
        host++;
        host_n -= 2;
    } else if (host_n > 0 && memchr(host, ':', host_n) != NULL)
        host_n = 0; /* an IPv6 address needs its brackets, else the port is ambiguous */
    char *end = NULL;
    unsigned long port = colon == NULL ? 0 : strtoul(colon + 1, &end, 10);
    size_t port_n = colon == NULL ? 0 : strlen(colon + 1);
    if (host_n == 0 || host_n >= sizeof out->host || port_n == 0 || port_n >= sizeof out->port ||
        strspn(colon + 1, "0123456789") != port_n || port > 65535)
        return err_fail(ERR_CONFIG, "\"%.100s\" is not host:port (or [v6]:port)", text);
    memcpy(out->host, host, host_n);
    out->host[host_n] = 0;
    memcpy(out->port, colon + 1, port_n + 1);
    return ERR_OK;
}

static void set(int fd, int option, int value)
{
    /* Best effort: without these a dead peer is only noticed later. */
    (void)setsockopt(fd, IPPROTO_TCP, option, &value, sizeof value);
}

void peer_socket_tune(uv_tcp_t *tcp)
{
    int fd;
    (void)uv_tcp_nodelay(tcp, 1);
    (void)uv_tcp_keepalive(tcp, 1, PROBE_AFTER_S);
    if (uv_fileno((uv_handle_t *)tcp, &fd) != 0)
        return;
    set(fd, TCP_KEEPINTVL, PROBE_EVERY_S);
    set(fd, TCP_KEEPCNT, PROBES);
    set(fd, TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS);
}
