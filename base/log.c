/* Room: base. Thread: any. Owns: the level and the prefix, set before other threads start. */
#include "base/log.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 1024

static _Atomic int least = LOG_INFO;
static char line_prefix[64];

void log_set_level(enum log_level level)
{
    atomic_store_explicit(&least, (int)level, memory_order_relaxed);
}

void log_set_prefix(const char *prefix)
{
    (void)snprintf(line_prefix, sizeof line_prefix, "%s", prefix);
}

enum log_level log_get_level(void)
{
    return (enum log_level)atomic_load_explicit(&least, memory_order_relaxed);
}

void log_write(enum log_level level, const char *room, const char *format, ...)
{
    static const char *const names[] = {"debug", "info", "warn", "error", "none"};
    char line[LINE_MAX_BYTES];
    struct timespec now;
    struct tm utc;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t n = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    n += (size_t)snprintf(line + n, sizeof line - n, ".%03ldZ %s %s%s ", now.tv_nsec / 1000000,
                          names[level], line_prefix, room);
    va_list args;
    va_start(args, format);
    int m = vsnprintf(line + n, sizeof line - n, format, args);
    va_end(args);
    n += m < 0 ? 0 : (size_t)m;
    if (n > sizeof line - 1)
        n = sizeof line - 1;
    line[n++] = '\n';
    /* Nothing sensible can be done when standard error is gone. */
    if (write(STDERR_FILENO, line, n) < 0)
        return;
}
