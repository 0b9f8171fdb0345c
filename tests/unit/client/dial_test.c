/* Connecting: what is wrong with the network is never an error of the disk. */
#include "client/dial.h"

#include "base/clock.h"
#include "tests/lib/test.h"

#include <sys/resource.h>

TEST(dial_without_a_descriptor_is_not_an_error_of_the_disk)
{
    struct rlimit before, none;
    int fd = -1;
    EXPECT(getrlimit(RLIMIT_NOFILE, &before) == 0);
    none = (struct rlimit){.rlim_cur = 0, .rlim_max = before.rlim_max};
    EXPECT(setrlimit(RLIMIT_NOFILE, &none) == 0);
    enum err e = dial("127.0.0.1:1", clock_mono_ms() + 1000, -1, &fd);
    EXPECT(setrlimit(RLIMIT_NOFILE, &before) == 0); /* a sanitizer opens files at the end */
    EXPECT_ERR(ERR_CLOSED, e);
    EXPECT(fd == -1);
}
