/* Room: tests. Connecting and waiting: what is wrong with the network is never an error of the
 * disk, and every wait can be ended. */
#include "client/dial.h"

#include "base/clock.h"
#include "client/attempt.h"
#include "client/loop.h"
#include "tests/lib/test.h"
#include "tests/unit/client/fake_names.h"
#include "tests/unit/client/fake_node.h"

#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOON_MS 2000 /* of a minute that it might take */

TEST(dial_without_a_descriptor_is_not_an_error_of_the_disk)
{
    struct rlimit before, none;
    int fd = -1;
    EXPECT(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    EXPECT(setrlimit(RLIMIT_NOFILE, &none) == 0);
    enum err e = dial("127.0.0.1:1", clock_mono_ms() + 1000, NULL, &fd);
    EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0); /* a sanitizer opens files at the end */
    EXPECT_ERR(ERR_CLOSED, e);
    EXPECT(fd == -1);
}

TEST(dial_says_why_it_does_not_connect)
{
    int fd = -1;
    uint64_t now = clock_mono_ms(), felt = test_felt_ms();
    EXPECT_ERR(ERR_CLOSED, dial("127.0.0.1:1", now + 60000, NULL, &fd));
    EXPECT(strstr(err_text(), "127.0.0.1:1") != NULL && strstr(err_text(), "refused") != NULL);
    EXPECT_ERR(ERR_CONFIG, dial("one:99999", now + 60000, NULL, &fd));
    EXPECT_ERR(ERR_NOT_FOUND, dial(FAKE_NAME_NONE ":1", now + 60000, NULL, &fd));
    EXPECT(fd == -1 && test_felt_ms() < felt + SOON_MS);
    EXPECT_ERR(ERR_TIMEOUT, dial(FAKE_NAME_HANGS ":1", clock_mono_ms() + 50, NULL, &fd));
    fake_names_release();
    EXPECT(fd == -1);
}

/* ::1 refuses: its next address. */
TEST(dial_connects_to_the_address_that_accepts)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){.node_id = 1});
    char address[64];
    int fd = -1;
    short ready;
    (void)snprintf(address, sizeof address, FAKE_NAME_BOTH ":%u", fake_node_port(n));
    EXPECT_OK(dial(address, clock_mono_ms() + 10000, NULL, &fd));
    EXPECT_OK(dial_wait(fd, POLLOUT, NULL, clock_mono_ms() + 10000, &ready));
    EXPECT(ready == POLLOUT);
    EXPECT_ERR(ERR_TIMEOUT, dial_wait(fd, POLLIN, NULL, clock_mono_ms() + 20, &ready));
    EXPECT_EQ(close(fd), 0);
    fake_node_stop(n);
}

/* A network of this process alone, in which all connections leave from PORT. False: not allowed. */
static bool enter_network_of_one_port(uint16_t port)
{
    struct ifreq lo = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    if (unshare(CLONE_NEWNET) != 0 && unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0)
        return false;
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    EXPECT(fd >= 0 && ioctl(fd, SIOCSIFFLAGS, &lo) == 0);
    EXPECT_EQ(close(fd), 0);
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "we");
    EXPECT(f != NULL && fprintf(f, "%u %u", port, port) > 0);
    EXPECT_EQ(fclose(f), 0);
    return true;
}

/* By chance a connection is one to itself. Its port is free at once, for who is to listen there. */
TEST(dial_does_not_take_itself_for_another)
{
    const uint16_t port = 40000;
    int fd = -1;
    if (!enter_network_of_one_port(port)) {
        (void)printf("no network of its own: not allowed here\n");
        return;
    }
    EXPECT_ERR(ERR_CLOSED, dial("127.0.0.1:40000", clock_mono_ms() + 10000, NULL, &fd));
    EXPECT(fd == -1 && strstr(err_text(), "refused") != NULL);
    fake_node_stop(fake_node_start(&(struct fake_options){.port = port}));
}

static void note_until(void *ctx, int fd, uint64_t until_ms)
{
    EXPECT_EQ(close(fd), 0);
    *(uint64_t *)ctx = until_ms;
}

static void must_not_fail(void *ctx, enum err e)
{
    (void)ctx;
    EXPECT_OK(e);
}

/* One that comes back to its loop only when the time is over: once before it connects, once after.
 */
TEST(dial_of_a_program_that_is_away)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){0});
    struct loop *l;
    struct attempt *a;
    uint64_t until = 0;
    struct attempt_events events = {
        .ctx = &until, .on_connected = note_until, .on_failed = must_not_fail};
    EXPECT_OK(loop_new(&l));
    EXPECT_OK(attempt_new(l, fake_node_address(n), clock_mono_ms() + 20, &events, &a));
    for (int i = 0; i < 10 && until == 0; i++) {
        EXPECT_EQ(usleep(30000), 0);
        EXPECT_OK(loop_turn(l, 0));
    }
    EXPECT(until > clock_mono_ms()); /* so that the node can say WELCOME */
    attempt_free(a);
    loop_free(l);
    fake_node_stop(n);
}

static bool on_third_look(void *arg)
{
    return ++*(int *)arg >= 3;
}

TEST(dial_is_ended_while_a_name_hangs_and_while_nothing_comes)
{
    struct fake_node *n = fake_node_start(&(struct fake_options){.silent = true});
    int fd = -1, looks = 0, wake = eventfd(1, EFD_CLOEXEC);
    struct dial_stop asked = {.wake_fd = -1, .stop = on_third_look, .arg = &looks};
    struct dial_stop woken = {.wake_fd = wake};
    uint64_t never = clock_mono_ms() + 60000, felt = test_felt_ms();
    short ready;
    EXPECT(wake >= 0);
    EXPECT_ERR(ERR_CANCELLED, dial(FAKE_NAME_HANGS ":1", never, &asked, &fd));
    EXPECT_EQ(looks, 3);
    EXPECT_ERR(ERR_CANCELLED, dial(FAKE_NAME_HANGS ":1", never, &woken, &fd));
    EXPECT(fd == -1);
    fake_names_release();
    EXPECT_OK(dial(fake_node_address(n), never, NULL, &fd));
    looks = 0;
    EXPECT_ERR(ERR_CANCELLED, dial_wait(fd, POLLIN, &asked, never, &ready));
    EXPECT_ERR(ERR_CANCELLED, dial_wait(fd, POLLIN, &woken, never, &ready));
    EXPECT(test_felt_ms() < felt + SOON_MS);
    EXPECT_EQ(close(fd), 0);
    EXPECT_EQ(close(wake), 0);
    fake_node_stop(n);
}
