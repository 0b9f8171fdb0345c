/* Room: base. Time: monotonic for durations, wall only for what people read. Thread: any. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_mono_ns(void);
uint64_t clock_mono_ms(void);
/* Milliseconds since 1970 UTC. May jump: never subtract two of them to judge a timeout. */
uint64_t clock_wall_ms(void);
uint64_t clock_wall_ns(void);

#endif
