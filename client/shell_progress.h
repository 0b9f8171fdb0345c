/* Room: client. How far a long command is: a bar on a terminal, now and then a line elsewhere, on
 * standard error. Thread: one. */
#ifndef CLIENT_SHELL_PROGRESS_H
#define CLIENT_SHELL_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
    bool terminal, drawn; /* drawn: the line holds a bar */
    uint64_t began_ms, shown_ms;
};

void progress_init(struct progress *p);
/* DONE of TOTAL (0: not known) UNITS ("rows"; NULL: bytes alone), BYTES so far, WHERE: what it is
 * at. Cheap: draws ten times a second at most. */
void progress_show(struct progress *p, uint64_t done, uint64_t total, const char *units,
                   uint64_t bytes, const char *where);
/* Takes the bar away: before anything else is written. */
void progress_clear(struct progress *p);
/* Since progress_init. */
double progress_seconds(const struct progress *p);

#endif
