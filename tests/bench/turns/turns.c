/* Room: tests.   Thread: any loop of libuv's, each its own row.   Owns: nothing.
 * Preloaded into lecternd by tests/bench/turns.py: how much of the processor's time a loop takes
 * between two waits - one turn, in which nobody else is served. On a busy machine that is what can
 * be compared: how long others waited says more about the machine. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

enum { ROWS = 64 };

/* In the file that TURNS names; the driver zeroes it. */
struct row {
    uint64_t longest_ns, turns;
};

static struct row *rows;
static atomic_int used;
static _Thread_local struct row *own;
static _Thread_local uint64_t begun;

static uint64_t processor_ns(void)
{
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

__attribute__((constructor)) static void open_rows(void)
{
    const char *path = getenv("TURNS");
    int fd = path == NULL ? -1 : open(path, O_RDWR | O_CLOEXEC);
    void *p = fd < 0 ? MAP_FAILED
                     : mmap(NULL, ROWS * sizeof *rows, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0)
        (void)close(fd);
    rows = p == MAP_FAILED ? NULL : p;
}

static void end_turn(void)
{
    if (rows != NULL && own == NULL) {
        int i = atomic_fetch_add(&used, 1);
        own = i < ROWS ? &rows[i] : NULL;
    } else if (own != NULL) {
        uint64_t took = processor_ns() - begun;
        own->turns++;
        if (took > own->longest_ns)
            own->longest_ns = took;
    }
}

/* Versions of libuv wait by one or the other. */
int epoll_wait(int fd, struct epoll_event *events, int max, int timeout)
{
    static int (*real)(int, struct epoll_event *, int, int);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_wait");
    end_turn();
    int n = real(fd, events, max, timeout);
    begun = processor_ns();
    return n;
}

int epoll_pwait(int fd, struct epoll_event *events, int max, int timeout, const sigset_t *mask)
{
    static int (*real)(int, struct epoll_event *, int, int, const sigset_t *);
    if (real == NULL)
        *(void **)&real = dlsym(RTLD_NEXT, "epoll_pwait");
    end_turn();
    int n = real(fd, events, max, timeout, mask);
    begun = processor_ns();
    return n;
}
