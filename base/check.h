/* Room: base. Assertions about our own invariants: on in every build, release too.
 *
 * Never about what comes from a disk, a peer or a client: that is an error code. A failing check
 * prints where, the sentence and this thread's trace ring, and aborts: kill -9 is a case that every
 * part of Lectern is built for, a process that guesses is not. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

_Noreturn void check_failed(const char *file, int line, const char *what) __attribute__((cold));

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (__builtin_expect(!(cond), 0))                                                          \
            check_failed(__FILE__, __LINE__, #cond);                                               \
    } while (0)

#define UNREACHABLE(what) check_failed(__FILE__, __LINE__, what)

#endif
