/* Room: base. Thread: any. */
#include "base/check.h"

#include "base/trace.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void check_failed(const char *file, int line, const char *what)
{
    (void)fprintf(stderr, "%s:%d: check failed: %s\n", file, line, what);
    trace_print(stderr);
    abort();
}
