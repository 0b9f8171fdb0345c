/* Room: tests. node/wal_locks: who reads the database's files, from the kernel's list of locks. */
#include "node/wal_locks.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static void lock(int fd, short kind, off_t at, off_t n)
{
    struct flock l = {.l_type = kind, .l_whence = SEEK_SET, .l_start = at, .l_len = n};
    EXPECT(fcntl(fd, F_SETLK, &l) == 0);
}

/* A child that holds a lock until its pipe ends; *go: that pipe. */
static pid_t hold(const char *path, short kind, off_t at, off_t n, const char *name, int *go)
{
    int ready[2], end[2];
    char byte;
    EXPECT(pipe(ready) == 0 && pipe(end) == 0);
    pid_t pid = fork();
    EXPECT(pid >= 0);
    if (pid == 0) {
        (void)close(end[1]);
        (void)prctl(PR_SET_NAME, name);
        int fd = open(path, O_RDWR | O_CLOEXEC);
        lock(fd, kind, at, n);
        (void)!write(ready[1], "x", 1);
        (void)!read(end[0], &byte, 1);
        _exit(0);
    }
    (void)close(ready[1]);
    (void)close(end[0]);
    EXPECT(read(ready[0], &byte, 1) == 1);
    (void)close(ready[0]);
    *go = end[1];
    return pid;
}

static void let_go(pid_t pid, int go)
{
    int status;
    (void)close(go);
    EXPECT(waitpid(pid, &status, 0) == pid && status == 0);
}

TEST(wal_locks_finds_who_reads)
{
    struct wal_lock_owner o[4];
    unsigned n;
    int go[5];
    const char *path = test_path("main.db-shm"), *other = test_path("other");
    EXPECT_ERR(ERR_NOT_FOUND, wal_locks_of_others(path, o, 4, &n));
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    EXPECT(fd >= 0 && close(open(other, O_RDWR | O_CREAT | O_CLOEXEC, 0600)) == 0);
    lock(fd, F_RDLCK, 124, 1); /* our own: we know those */
    EXPECT_OK(wal_locks_of_others(path, o, 4, &n));
    EXPECT_EQ(n, 0);
    /* The WRITE lock, a lock of the database itself far away, another file: no reads. */
    pid_t writer = hold(path, F_WRLCK, 120, 1, "writer", &go[0]);
    pid_t far = hold(path, F_RDLCK, 128, 1, "far", &go[1]);
    pid_t stranger = hold(other, F_RDLCK, 123, 1, "stranger", &go[2]);
    EXPECT_OK(wal_locks_of_others(path, o, 4, &n));
    EXPECT_EQ(n, 0);
    pid_t reader = hold(path, F_RDLCK, 127, 1, "a \"reader\"", &go[3]);
    EXPECT_OK(wal_locks_of_others(path, o, 4, &n));
    EXPECT_EQ(n, 1);
    EXPECT(o[0].pid == (long)reader && strcmp(o[0].command, "a ?reader?") == 0);
    pid_t all = hold(path, F_RDLCK, 121, 0, "all", &go[4]); /* up to the end of the file */
    EXPECT_OK(wal_locks_of_others(path, o, 4, &n));
    EXPECT_EQ(n, 2);
    EXPECT_OK(wal_locks_of_others(path, o, 1, &n));
    EXPECT_EQ(n, 1);
    /* A child has the pipes of those before it: the last one first. */
    let_go(all, go[4]);
    let_go(reader, go[3]);
    let_go(stranger, go[2]);
    let_go(far, go[1]);
    let_go(writer, go[0]);
    EXPECT_OK(wal_locks_of_others(path, o, 4, &n));
    EXPECT_EQ(n, 0);
    (void)close(fd);
}
