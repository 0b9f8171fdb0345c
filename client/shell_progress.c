/* Room: client.   Thread: one.   Owns: the last line of the terminal. */
#include "client/shell_progress.h"

#include "base/clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define DRAW_EVERY_MS 100
#define LINE_EVERY_MS 5000
#define BAR_MAX       30
#define COLUMNS_MAX   200

void progress_init(struct progress *p)
{
    *p = (struct progress){.terminal = isatty(STDERR_FILENO) != 0, .began_ms = clock_mono_ms()};
    p->shown_ms = p->began_ms;
}

double progress_seconds(const struct progress *p)
{
    uint64_t ms = clock_mono_ms() - p->began_ms;
    return (double)(ms == 0 ? 1 : ms) / 1000.0;
}

void progress_clear(struct progress *p)
{
    if (p->drawn)
        (void)fputs("\r\033[K", stderr);
    p->drawn = false;
    (void)fflush(stderr);
}

static int columns_of_terminal(void)
{
    struct winsize size = {0};
    if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0)
        return 80;
    return size.ws_col < COLUMNS_MAX ? size.ws_col : COLUMNS_MAX;
}

/* "45 %", or "" when the end is not known. */
static void put_percent(char *to, size_t room, uint64_t done, uint64_t total)
{
    double part = total == 0 ? 0 : (double)done / (double)total;
    to[0] = 0;
    if (total != 0)
        (void)snprintf(to, room, "%3.0f %%  ", part >= 1 ? 100.0 : 100.0 * part);
}

static void put_amount(char *to, size_t room, uint64_t done, const char *units, uint64_t bytes,
                       double seconds)
{
    if (units == NULL)
        (void)snprintf(to, room, "%.1f MB  %.1f MB/s", (double)bytes / 1e6,
                       (double)bytes / 1e6 / seconds);
    else
        (void)snprintf(to, room, "%" PRIu64 " %s  %.0f/s  %.1f MB", done, units,
                       (double)done / seconds, (double)bytes / 1e6);
}

static void draw(const char *percent, const char *amount, const char *where, uint64_t done,
                 uint64_t total)
{
    char bar[BAR_MAX + 1], line[2 * COLUMNS_MAX];
    int room = columns_of_terminal() - 1, width = room >= 80 ? BAR_MAX : room / 4;
    int filled = total == 0      ? 0
                 : done >= total ? width
                                 : (int)((double)done / (double)total * width);
    memset(bar, '#', (size_t)filled);
    memset(bar + filled, '.', (size_t)(width - filled));
    bar[width] = 0;
    int n = snprintf(line, sizeof line, "%s%s%s%s%s  %s", total == 0 ? "" : "[",
                     total == 0 ? "" : bar, total == 0 ? "" : "] ", percent, amount, where);
    if (n > room) /* a line that wraps could not be drawn over; a name may hold any bytes */
        line[room] = 0;
    (void)fprintf(stderr, "\r%s\033[K", line);
}

void progress_show(struct progress *p, uint64_t done, uint64_t total, const char *units,
                   uint64_t bytes, const char *where)
{
    char percent[16], amount[128], name[64];
    uint64_t now = clock_mono_ms();
    if (now < p->shown_ms + (p->terminal ? DRAW_EVERY_MS : LINE_EVERY_MS))
        return;
    p->shown_ms = now;
    put_percent(percent, sizeof percent, done, total);
    put_amount(amount, sizeof amount, done, units, bytes, progress_seconds(p));
    (void)snprintf(name, sizeof name, "%s", where);
    for (char *c = name; *c != 0; c++) /* no name moves the cursor */
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    if (p->terminal)
        draw(percent, amount, name, done, total);
    else
        (void)fprintf(stderr, "%s%s  %s\n", percent, amount, name);
    p->drawn = p->terminal;
    (void)fflush(stderr);
}
