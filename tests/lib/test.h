/* Room: tests. The unit-test runner: tests register themselves; each runs in a process of its own.
 *
 *     TEST(buf_refuses_more_than_its_maximum) { ...; EXPECT(b.failed == ERR_TOO_BIG); }
 *
 * A test passes when it returns; it fails by EXPECT, a crash, a sanitizer report, a leaked process
 * or its time limit. Each has an empty directory, test_dir(), removed afterwards.
 * The program's arguments: substrings of names to run; -l lists; -1 runs in this process (gdb). */
#ifndef TESTS_LIB_TEST_H
#define TESTS_LIB_TEST_H

#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

struct test {
    const char *name;
    void (*run)(void);
    struct test *next;
};

void test_register(struct test *t);
_Noreturn void test_fail(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* This test's own directory; exists, empty. */
const char *test_dir(void);
/* test_dir()/NAME; valid until the test ends. */
const char *test_path(const char *name);
/* How many descriptors this process has open, by a constant more. */
unsigned test_descriptors(void);
/* The seed of this run: LECTERN_SEED, else random and printed on failure. */
uint64_t test_seed(void);
/* Processor time of this process and its children that ended: how long something takes, whoever
 * else works on this machine. */
uint64_t test_cpu_ms(void);
/* Milliseconds since its first call, without those in which this process stood still (it was
 * stopped, or got no processor): for "that took no longer than", whatever this machine does
 * meanwhile. A thread of its own counts them. */
uint64_t test_felt_ms(void);
/* N, or N / 10 under a sanitizer, or times LECTERN_LONG when set: rounds of a random test. */
uint64_t test_rounds(uint64_t n);

/* Who waited so long waits in vain: only a failure takes it, so it may be far away. */
#define TEST_HANG_MS 60000u

#define TEST(id)                                                                                   \
    static void test_##id(void);                                                                   \
    __attribute__((constructor)) static void test_##id##_register(void)                            \
    {                                                                                              \
        static struct test t = {#id, test_##id, NULL};                                             \
        test_register(&t);                                                                         \
    }                                                                                              \
    static void test_##id(void)

#define EXPECT(cond)                                                                               \
    do {                                                                                           \
        if (!(cond))                                                                               \
            test_fail(__FILE__, __LINE__, "%s", #cond);                                            \
    } while (0)

#define EXPECT_OK(expr)                                                                            \
    do {                                                                                           \
        enum err expect_err_ = (expr);                                                             \
        if (expect_err_ != ERR_OK)                                                                 \
            test_fail(__FILE__, __LINE__, "%s: %s: %s", #expr, err_name((int)expect_err_),         \
                      err_text());                                                                 \
    } while (0)

#define EXPECT_ERR(code, expr)                                                                     \
    do {                                                                                           \
        enum err expect_err_ = (expr);                                                             \
        if (expect_err_ != (code))                                                                 \
            test_fail(__FILE__, __LINE__, "%s: wanted %s, got %s (%s)", #expr,                     \
                      err_name((int)(code)), err_name((int)expect_err_), err_text());              \
    } while (0)

#define EXPECT_EQ(a, b)                                                                            \
    do {                                                                                           \
        unsigned long long expect_a_ = (unsigned long long)(a);                                    \
        unsigned long long expect_b_ = (unsigned long long)(b);                                    \
        if (expect_a_ != expect_b_)                                                                \
            test_fail(__FILE__, __LINE__, "%s == %s: %llu, %llu", #a, #b, expect_a_, expect_b_);   \
    } while (0)

#endif
