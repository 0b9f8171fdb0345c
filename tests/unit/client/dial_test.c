/* Connecting: what is wrong with the network is never an error of the disk. */
#include "client/dial.h"

#include "base/clock.h"
#include "tests/lib/test.h"

#include <sys/resource.h>

TEST(dial_without_a_descriptor_is_not_an_error_of_the_disk)
{
    struct rlimit l;
    int fd = -1;
    EXPECT(getrlimit(RLIMIT_NOFILE, &l) == 0);
    l.rlim_cur = 0;
    EXPECT(setrlimit(RLIMIT_NOFILE, &l) == 0);
    EXPECT_ERR(ERR_CLOSED, dial("127.0.0.1:1", clock_mono_ms() + 1000, -1, &fd));
    EXPECT(fd == -1);
}
