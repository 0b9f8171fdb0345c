/* Room: tests. Thread: any. */
#include "tests/unit/node/full_disk.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static _Atomic bool is_full;

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset);
ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset);

void full_disk(bool full)
{
    atomic_store(&is_full, full);
}

ssize_t pwrite64(int fd, const void *p, size_t n, off64_t offset)
{
    if (!atomic_load(&is_full))
        return syscall(SYS_pwrite64, fd, p, n, offset);
    errno = ENOSPC;
    return -1;
}

ssize_t pwrite(int fd, const void *p, size_t n, off_t offset)
{
    return pwrite64(fd, p, n, offset);
}
