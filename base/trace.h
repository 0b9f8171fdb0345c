/* Room: base. A ring of this thread's last events, printed when a check fails: the flight recorder.
 *
 * Recording costs a few stores: no formatting, no allocation, no lock. */
#ifndef BASE_TRACE_H
#define BASE_TRACE_H

#include <stdint.h>
#include <stdio.h>

/* WHAT must be a string literal: the pointer is kept. */
void trace(const char *what, uint64_t a, uint64_t b);
void trace_print(FILE *out);

#endif
