/* Room: base. Thread: any; each has its own ring. */
#include "base/trace.h"

#include "base/clock.h"

#define TRACE_EVENTS 128 /* a power of two: enough for the last few transactions of a thread */

struct event {
    uint64_t ns, a, b;
    const char *what;
};

static _Thread_local struct event ring[TRACE_EVENTS];
static _Thread_local uint32_t next;

void trace(const char *what, uint64_t a, uint64_t b)
{
    struct event *e = &ring[next++ % TRACE_EVENTS];
    e->ns = clock_mono_ns();
    e->a = a;
    e->b = b;
    e->what = what;
}

void trace_print(FILE *out)
{
    for (uint32_t i = 0; i < TRACE_EVENTS; i++) {
        const struct event *e = &ring[(next + i) % TRACE_EVENTS];
        if (e->what != NULL)
            (void)fprintf(out, "  trace ns=%llu %s a=%llu b=%llu\n", (unsigned long long)e->ns,
                          e->what, (unsigned long long)e->a, (unsigned long long)e->b);
    }
}
