/* Room: base. Thread: any. */
#include "base/mem.h"

#include "base/check.h"

#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void *mem_alloc(size_t n)
{
    void *p = malloc(n == 0 ? 1 : n);
    if (p == NULL)
        check_failed(__FILE__, __LINE__, "out of memory");
    return p;
}

void *mem_zalloc(size_t n)
{
    void *p = calloc(1, n == 0 ? 1 : n);
    if (p == NULL)
        check_failed(__FILE__, __LINE__, "out of memory");
    return p;
}

void *mem_realloc(void *p, size_t n)
{
    void *q = realloc(p, n == 0 ? 1 : n);
    if (q == NULL)
        check_failed(__FILE__, __LINE__, "out of memory");
    return q;
}

char *mem_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    return memcpy(mem_alloc(n), s, n);
}

char *mem_printf(const char *format, ...)
{
    char *s = NULL;
    va_list args;
    va_start(args, format);
    int n = vasprintf(&s, format, args);
    va_end(args);
    if (n < 0 || s == NULL)
        check_failed(__FILE__, __LINE__, "out of memory");
    return s;
}

void mem_give_back(void)
{
    (void)malloc_trim(0);
}
