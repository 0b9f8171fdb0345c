/* Room: tests. For fuzz targets: a sanitizer sees a range that was handed out wrongly. */
#ifndef TESTS_FUZZ_TOUCH_H
#define TESTS_FUZZ_TOUCH_H

#include <stddef.h>
#include <stdint.h>

/* Reads every byte of a borrowed range. */
static inline void touch(const void *p, size_t n)
{
    volatile uint8_t sum = 0;
    const uint8_t *bytes = p;
    for (size_t i = 0; i < n; i++)
        sum = (uint8_t)(sum + bytes[i]);
}

#endif
