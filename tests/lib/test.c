/* Room: tests. Thread: one; each test is a forked child, so a crash is one failure, and leftovers
 * of one test cannot help or harm the next. */
#include "tests/lib/test.h"

#include "base/clock.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifndef SANITIZED
#define SANITIZED 0
#endif

#define TEST_SECONDS 400 /* a hung test is a failure, not a hung CI */
#define JOBS         3   /* tests beside each other: most of them wait for disks */

static struct test *tests;
static char dir[200];
static uint64_t seed;

struct job {
    pid_t pid;
    const struct test *test;
    char dir[200];
    char out[208];
    struct timespec began;
};

void test_register(struct test *t)
{
    struct test **at = &tests;
    while (*at != NULL)
        at = &(*at)->next;
    *at = t;
}

void test_fail(const char *file, int line, const char *format, ...)
{
    va_list args;
    (void)printf("%s:%d: ", file, line);
    va_start(args, format);
    (void)vprintf(format, args);
    va_end(args);
    (void)printf(" (LECTERN_SEED=%llu)\n", (unsigned long long)seed);
    (void)fflush(stdout);
    _exit(1);
}

const char *test_dir(void)
{
    return dir;
}

/* Kept until the test's process ends, and reachable, so that the leak check stays quiet. */
struct kept_path {
    struct kept_path *next;
    char *path;
};

const char *test_path(const char *name)
{
    static struct kept_path *all;
    struct kept_path *p = mem_alloc(sizeof *p);
    *p = (struct kept_path){all, mem_printf("%s/%s", dir, name)};
    all = p;
    return p->path;
}

unsigned test_descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    EXPECT(d != NULL);
    while (readdir(d) != NULL)
        n++;
    (void)closedir(d);
    return n;
}

uint64_t test_seed(void)
{
    return seed;
}

static uint64_t cpu_ms(int who)
{
    struct rusage r;
    EXPECT(getrusage(who, &r) == 0);
    return (uint64_t)(r.ru_utime.tv_sec + r.ru_stime.tv_sec) * 1000 +
           (uint64_t)(r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1000;
}

uint64_t test_cpu_ms(void)
{
    return cpu_ms(RUSAGE_SELF) + cpu_ms(RUSAGE_CHILDREN);
}

#define FELT_STEP_MS 10 /* three times that is felt of a longer sleep */

static _Atomic uint64_t felt_ns;

static void *feel_time(void *arg)
{
    (void)arg;
    for (uint64_t before = clock_mono_ns(), now;; before = now) {
        (void)nanosleep(&(struct timespec){.tv_nsec = FELT_STEP_MS * 1000000}, NULL);
        now = clock_mono_ns();
        uint64_t step = now - before, most = 3 * FELT_STEP_MS * 1000000u;
        (void)atomic_fetch_add(&felt_ns, step < most ? step : most);
    }
    return NULL;
}

static void start_to_feel(void)
{
    pthread_t thread;
    sigset_t all, kept;
    (void)sigfillset(&all);
    EXPECT(pthread_sigmask(SIG_BLOCK, &all, &kept) == 0); /* they are the test's */
    EXPECT(pthread_create(&thread, NULL, feel_time, NULL) == 0);
    EXPECT(pthread_detach(thread) == 0);
    EXPECT(pthread_sigmask(SIG_SETMASK, &kept, NULL) == 0);
}

uint64_t test_felt_ms(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    EXPECT(pthread_once(&once, start_to_feel) == 0);
    return atomic_load(&felt_ns) / 1000000;
}

uint64_t test_rounds(uint64_t n)
{
    const char *longer = getenv("LECTERN_LONG");
    uint64_t rounds = SANITIZED ? n / 10 : n;
    if (longer != NULL)
        rounds *= strtoull(longer, NULL, 10);
    return rounds == 0 ? 1 : rounds;
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st;
    (void)kind;
    (void)ftw;
    return remove(path);
}

static void remove_tree(const char *path)
{
    (void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static bool wanted(const struct test *t, int argc, char **argv)
{
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (argv[i][0] == '-')
            continue;
        any = true;
        if (strstr(t->name, argv[i]) != NULL)
            return true;
    }
    return !any;
}

static void make_dir(char *path, size_t n)
{
    const char *temp = getenv("TMPDIR");
    (void)snprintf(path, n, "%s/lectern-test-XXXXXX", temp == NULL ? "/tmp" : temp);
    if (mkdtemp(path) == NULL) {
        perror(path);
        exit(2);
    }
}

static void start(struct job *j, const struct test *t)
{
    j->test = t;
    make_dir(j->dir, sizeof j->dir);
    (void)snprintf(j->out, sizeof j->out, "%s.out", j->dir);
    (void)clock_gettime(CLOCK_MONOTONIC, &j->began);
    (void)fflush(stdout);
    j->pid = fork();
    if (j->pid < 0) {
        perror("fork");
        exit(2);
    }
    if (j->pid > 0)
        return;
    (void)setpgid(0, 0);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    (void)snprintf(dir, sizeof dir, "%s", j->dir);
    if (freopen(j->out, "w", stdout) == NULL || dup2(fileno(stdout), STDERR_FILENO) < 0)
        _exit(2);
    (void)alarm(TEST_SECONDS);
    t->run();
    (void)fflush(stdout);
    exit(0); /* not _exit: the leak check runs at exit */
}

static void show_output(const char *path)
{
    char line[512];
    FILE *f = fopen(path, "r");
    while (f != NULL && fgets(line, sizeof line, f) != NULL)
        (void)printf("    %s", line);
    if (f != NULL)
        (void)fclose(f);
}

static bool finish(struct job *j, int status)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    double s =
        (double)(now.tv_sec - j->began.tv_sec) + (double)(now.tv_nsec - j->began.tv_nsec) / 1e9;
    bool ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    /* Whatever the test left running is ended, and is a failure of the test. */
    if (kill(-j->pid, SIGKILL) == 0) {
        (void)printf("    %s left a process behind\n", j->test->name);
        ok = false;
    }
    (void)printf("%s %s (%.2f s)\n", ok ? "ok  " : "FAIL", j->test->name, s);
    if (!ok) {
        if (WIFSIGNALED(status))
            (void)printf("    signal %d%s\n", WTERMSIG(status),
                         WTERMSIG(status) == SIGALRM ? " (time limit)" : "");
        show_output(j->out);
    }
    (void)unlink(j->out);
    remove_tree(j->dir);
    j->pid = 0;
    return ok;
}

static struct job *find_job(struct job *jobs, pid_t pid)
{
    for (int i = 0; i < JOBS; i++)
        if (jobs[i].pid == pid)
            return &jobs[i];
    return NULL;
}

static int run_all(int argc, char **argv)
{
    struct job jobs[JOBS] = {0};
    int passed = 0, failed = 0, running = 0;
    const struct test *t = tests;
    while (t != NULL || running > 0) {
        while (t != NULL && running < JOBS) {
            if (wanted(t, argc, argv)) {
                start(find_job(jobs, 0), t);
                running++;
            }
            t = t->next;
        }
        int status;
        pid_t pid = running == 0 ? -1 : wait(&status);
        if (pid < 0 && (running == 0 || errno != EINTR))
            break;
        struct job *j = find_job(jobs, pid);
        if (j == NULL)
            continue;
        running--;
        if (finish(j, status))
            passed++;
        else
            failed++;
    }
    (void)printf("%d passed, %d failed\n", passed, failed);
    return failed == 0 && passed > 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    const char *given = getenv("LECTERN_SEED");
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    seed = given != NULL ? strtoull(given, NULL, 10)
                         : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    if (argc > 1 && strcmp(argv[1], "-l") == 0) {
        for (const struct test *t = tests; t != NULL; t = t->next)
            (void)printf("%s\n", t->name);
        return 0;
    }
    if (argc > 1 && strcmp(argv[1], "-1") == 0) {
        make_dir(dir, sizeof dir);
        for (const struct test *t = tests; t != NULL; t = t->next)
            if (wanted(t, argc, argv))
                t->run();
        remove_tree(dir);
        return 0;
    }
    return run_all(argc, argv);
}
