/* Names to addresses without waiting: also when the resolver hangs, the loop goes, or memory ends.
 */
#include "client/resolve.h"

#include "base/clock.h"
#include "tests/lib/fail_alloc.h"
#include "tests/lib/test.h"
#include "tests/unit/client/fake_names.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

struct answer {
    unsigned calls, n;
    enum err e;
    char text[ERR_TEXT_MAX];
    int family[4];
    char last[INET6_ADDRSTRLEN + 8]; /* host/port of the last one */
};

static void on_done(void *ctx, enum err e, struct addrinfo *list)
{
    struct answer *a = ctx;
    a->calls++;
    a->e = e;
    EXPECT((e == ERR_OK) == (list != NULL));
    if (e != ERR_OK)
        (void)snprintf(a->text, sizeof a->text, "%s", err_text());
    for (const struct addrinfo *ai = list; ai != NULL && a->n < 4; ai = ai->ai_next) {
        char host[INET6_ADDRSTRLEN];
        bool v6 = ai->ai_family == AF_INET6;
        const struct sockaddr_in *four = (const void *)ai->ai_addr;
        const struct sockaddr_in6 *six = (const void *)ai->ai_addr;
        const void *address = v6 ? (const void *)&six->sin6_addr : (const void *)&four->sin_addr;
        a->family[a->n++] = ai->ai_family;
        EXPECT(ai->ai_socktype == SOCK_STREAM);
        EXPECT(inet_ntop(ai->ai_family, address, host, sizeof host) != NULL);
        (void)snprintf(a->last, sizeof a->last, "%s/%u", host,
                       ntohs(v6 ? six->sin6_port : four->sin_port));
    }
    if (list != NULL)
        freeaddrinfo(list);
}

static enum err look_up(const char *address, struct answer *a)
{
    struct loop *l;
    struct resolve *r;
    uint64_t until = clock_mono_ms() + TEST_HANG_MS;
    *a = (struct answer){0};
    TRY(loop_new(&l));
    enum err e = resolve_start(l, address, on_done, a, &r);
    EXPECT(a->calls == 0 && (e == ERR_OK) == (r != NULL));
    while (e == ERR_OK && a->calls == 0 && clock_mono_ms() < until)
        EXPECT_OK(loop_turn(l, 1000));
    EXPECT_OK(loop_turn(l, 0));
    EXPECT_EQ(a->calls, e == ERR_OK);
    loop_free(l);
    return e == ERR_OK ? a->e : e;
}

TEST(resolve_numbers_need_no_thread)
{
    static const struct {
        const char *address, *last;
    } cases[] = {
        {"127.0.0.1:80", "127.0.0.1/80"},
        {"10.1.2.3", "10.1.2.3/7701"},
        {"[::1]:65535", "::1/65535"},
        {"[fd00::2]", "fd00::2/7701"},
        {"fd00::2", "fd00::2/7701"},
        {":1", "127.0.0.1/1"},
        {"", "127.0.0.1/7701"},
        {"1.2.3.4:007701", NULL},
        {"1.2.3.4:07701", "1.2.3.4/7701"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer a;
        if (cases[i].last == NULL) {
            EXPECT_ERR(ERR_CONFIG, look_up(cases[i].address, &a));
            continue;
        }
        EXPECT_OK(look_up(cases[i].address, &a));
        EXPECT(a.n == 1 && strcmp(a.last, cases[i].last) == 0);
    }
}

TEST(resolve_names_in_their_order)
{
    struct answer a;
    EXPECT_OK(look_up(FAKE_NAME_THRICE ":9", &a));
    EXPECT(a.n == 3 && a.family[0] == AF_INET6 && a.family[1] == AF_INET &&
           a.family[2] == AF_INET6);
    EXPECT(strcmp(a.last, "::1/9") == 0);
    EXPECT_OK(look_up("localhost", &a)); /* by the system's own resolver */
    EXPECT(a.n >= 1);
}

TEST(resolve_says_that_there_is_no_address)
{
    struct answer a;
    EXPECT_ERR(ERR_NOT_FOUND, look_up(FAKE_NAME_NONE, &a));
    EXPECT(strstr(a.text, FAKE_NAME_NONE ": ") == a.text);
    EXPECT_ERR(ERR_NOT_FOUND, look_up(FAKE_NAME_LATER ":1", &a));
    EXPECT(strstr(a.text, "Temporary failure") != NULL);
    EXPECT_ERR(ERR_CONFIG, look_up("[::1", &a));
    char longer[400];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    EXPECT_ERR(ERR_CONFIG, look_up(longer, &a));
}

/* Cancelled before it begins, while it hangs, and when it has its answer and nobody has heard it:
 * nothing is called, and the loop may go first. */
TEST(resolve_is_cancelled_at_any_time)
{
    unsigned before = test_descriptors();
    static const char *const names[] = {"127.0.0.1", FAKE_NAME_BOTH, FAKE_NAME_HANGS};
    for (size_t i = 0; i < 3; i++) {
        for (int turns = 0; turns < 2; turns++) {
            struct answer a = {0};
            struct loop *l;
            struct resolve *r;
            EXPECT_OK(loop_new(&l));
            EXPECT_OK(resolve_start(l, names[i], on_done, &a, &r));
            if (i == 1 && turns == 1) { /* the answer is there */
                struct pollfd p = {.fd = loop_fd(l), .events = POLLIN};
                EXPECT(poll(&p, 1, 10000) == 1);
            }
            while (i == 2 && fake_names_hanging() <= turns)
                (void)poll(NULL, 0, 1);
            resolve_cancel(r);
            EXPECT_OK(loop_turn(l, 0));
            EXPECT_EQ(a.calls, 0);
            loop_free(l);
        }
    }
    resolve_cancel(NULL);
    fake_names_release();
    for (int i = 0; test_descriptors() != before; i++) { /* the threads end on their own */
        EXPECT(i < 10000);
        (void)poll(NULL, 0, 1);
    }
}

TEST(resolve_without_descriptors_is_an_error)
{
    struct rlimit before, few;
    struct loop *l;
    struct resolve *r;
    struct answer a = {0};
    EXPECT_OK(loop_new(&l));
    EXPECT(getrlimit(RLIMIT_NOFILE, &before) == 0);
    few = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    EXPECT(setrlimit(RLIMIT_NOFILE, &few) == 0);
    enum err e = resolve_start(l, FAKE_NAME_BOTH, on_done, &a, &r);
    EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0);
    EXPECT_ERR(ERR_IO, e);
    EXPECT(r == NULL);
    loop_free(l);
}

/* No address space for a thread's stack. A sanitizer needs more of it at any time. */
TEST(resolve_without_a_thread_is_an_error)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    (void)printf("not under a sanitizer\n");
#else
    struct rlimit before, few;
    struct loop *l;
    struct resolve *r;
    struct answer a = {0};
    unsigned open_before = test_descriptors();
    EXPECT_OK(loop_new(&l));
    EXPECT(getrlimit(RLIMIT_AS, &before) == 0);
    few = (struct rlimit){.rlim_cur = 1 << 20, .rlim_max = before.rlim_max};
    EXPECT(setrlimit(RLIMIT_AS, &few) == 0);
    enum err e = resolve_start(l, FAKE_NAME_BOTH, on_done, &a, &r);
    EXPECT(setrlimit(RLIMIT_AS, &before) == 0);
    EXPECT_ERR(ERR_NOMEM, e);
    EXPECT(strstr(err_text(), "thread") != NULL);
    EXPECT(r == NULL);
    EXPECT_OK(resolve_start(l, FAKE_NAME_BOTH, on_done, &a, &r));
    while (a.calls == 0)
        EXPECT_OK(loop_turn(l, 1000));
    EXPECT(a.e == ERR_OK);
    loop_free(l);
    for (int i = 0; test_descriptors() != open_before; i++) {
        EXPECT(i < 10000);
        (void)poll(NULL, 0, 1);
    }
#endif
}

TEST(resolve_with_the_nth_allocation_failing)
{
    static const char *const addresses[] = {"127.0.0.1:1", "[::1]:1", FAKE_NAME_BOTH};
    unsigned told = 0;
    if (!fail_alloc_works())
        (void)printf("no allocation can fail here: not tested\n");
    for (size_t i = 0; i < sizeof addresses / sizeof addresses[0]; i++) {
        for (uint64_t n = 1;; n++) {
            struct answer a;
            fail_alloc_at(n);
            enum err e = look_up(addresses[i], &a);
            bool failed = fail_alloc_end();
            EXPECT(e == ERR_OK || (e == ERR_NOMEM && failed));
            told += e == ERR_NOMEM;
            if (!failed)
                break;
        }
    }
    EXPECT(!fail_alloc_works() || told >= 8);
}
