/* Room: tests.   Thread: any.   Owns: getaddrinfo of the test program.
 *
 * Lists are chained from the C library's own, one for each address: its freeaddrinfo frees element
 * by element. */
#include "tests/unit/client/fake_names.h"

#include <dlfcn.h>
#include <netdb.h>
#include <pthread.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool released;
static int hanging;

void fake_names_release(void)
{
    (void)pthread_mutex_lock(&lock);
    released = true;
    (void)pthread_cond_broadcast(&changed);
    (void)pthread_mutex_unlock(&lock);
}

int fake_names_hanging(void)
{
    (void)pthread_mutex_lock(&lock);
    int n = hanging;
    (void)pthread_mutex_unlock(&lock);
    return n;
}

static void hang(void)
{
    (void)pthread_mutex_lock(&lock);
    hanging++;
    while (!released)
        (void)pthread_cond_wait(&changed, &lock);
    hanging--;
    (void)pthread_mutex_unlock(&lock);
}

static int ask_the_library(const char *name, const char *port, const struct addrinfo *hints,
                           struct addrinfo **out)
{
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
    (void)pthread_mutex_lock(&once);
    if (real == NULL) {
        void *symbol = dlsym(RTLD_NEXT, "getaddrinfo");
        memcpy(&real, &symbol, sizeof real);
    }
    (void)pthread_mutex_unlock(&once);
    return real(name, port, hints, out);
}

static int chain(const char *const *hosts, const char *port, const struct addrinfo *hints,
                 struct addrinfo **out)
{
    *out = NULL;
    for (; *hosts != NULL; hosts++) {
        int failure = ask_the_library(*hosts, port, hints, out);
        if (failure != 0)
            return failure;
        while (*out != NULL)
            out = &(*out)->ai_next;
    }
    return 0;
}

int getaddrinfo(const char *name, const char *port, const struct addrinfo *hints,
                struct addrinfo **out)
{
    static const struct {
        const char *name, *hosts[4];
    } names[] = {
        {FAKE_NAME_BOTH, {"::1", "127.0.0.1"}},
        {FAKE_NAME_THRICE, {"::1", "127.0.0.1", "::1"}},
        {FAKE_NAME_NONE, {NULL}},
        {FAKE_NAME_HANGS, {"127.0.0.1"}},
    };
    bool numeric_only = hints != NULL && (hints->ai_flags & AI_NUMERICHOST) != 0;
    if (name == NULL || numeric_only)
        return ask_the_library(name, port, hints, out);
    if (strcmp(name, FAKE_NAME_LATER) == 0)
        return EAI_AGAIN;
    if (strcmp(name, FAKE_NAME_HANGS) == 0)
        hang();
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(name, names[i].name) == 0)
            return chain(names[i].hosts, port, hints, out);
    return ask_the_library(name, port, hints, out);
}
