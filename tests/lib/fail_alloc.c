/* Room: tests.   Thread: any; each counts for itself.
 * Owns: malloc, calloc and realloc of the test programs: defined here, they come before those of
 * the C library and of AddressSanitizer's (a library of its own with gcc), and pass on to them. */
#include "tests/lib/fail_alloc.h"

#include <errno.h>
#include <stddef.h>

static _Thread_local struct {
    uint64_t left; /* until it fails; 0: never */
    bool all, failed;
} plan __attribute__((tls_model("initial-exec"))); /* reached without an allocation */

void fail_alloc_at(uint64_t n)
{
    plan.left = n;
    plan.all = plan.failed = false;
}

void fail_alloc_from(uint64_t n)
{
    fail_alloc_at(n);
    plan.all = true;
}

bool fail_alloc_end(void)
{
    plan.left = 0;
    return plan.failed;
}

#if defined(__SANITIZE_THREAD__) || (defined(__clang__) && defined(__has_feature))
#if defined(__SANITIZE_THREAD__)
#define LEAVE_ALONE 1
#elif __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define LEAVE_ALONE 1
#endif
#endif

#ifdef LEAVE_ALONE

bool fail_alloc_works(void)
{
    return false;
}

#else

bool fail_alloc_works(void)
{
    return true;
}

static bool fails(void)
{
    if (plan.left == 0 || --plan.left > 0)
        return false;
    plan.left = plan.all;
    plan.failed = true;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n);
void *calloc(size_t n, size_t size);
void *realloc(void *p, size_t n);

#ifdef __SANITIZE_ADDRESS__

/* The names under which gcc's library has its own, for the case of somebody in front of it. */
void *__interceptor_malloc(size_t n);
void *__interceptor_calloc(size_t n, size_t size);
void *__interceptor_realloc(void *p, size_t n);
#define REAL(name) __interceptor_##name

#else

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
#define REAL(name) __libc_##name

#endif

void *malloc(size_t n)
{
    return fails() ? NULL : REAL(malloc)(n);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *p, size_t n)
{
    return fails() ? NULL : REAL(realloc)(p, n);
}

#endif
