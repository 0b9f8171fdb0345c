/* Room: base. Memory for the server's rooms: an allocation that fails ends the process.
 *
 * Everything that grows has a limit in base/sizes.h, so running out means that the machine is
 * broken or the limits are wrong; a half-done transaction on a half-alive node is worse than a
 * restart. The client library does not use this: it reports ERR_NOMEM. Thread: any. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t n) __attribute__((malloc, returns_nonnull));
void *mem_zalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *mem_realloc(void *p, size_t n) __attribute__((returns_nonnull));
char *mem_strdup(const char *s) __attribute__((malloc, returns_nonnull));
char *mem_printf(const char *format, ...) __attribute__((format(printf, 1, 2), returns_nonnull));

/* Gives freed memory back to the system: after a large transaction. Milliseconds. */
void mem_give_back(void);

#define MEM_NEW(type) ((type *)mem_zalloc(sizeof(type)))

#endif
