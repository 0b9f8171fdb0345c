/* The room of all that waits in a node, and what counts as progress. */
#include "node/waiting.h"

#include "node/progress.h"
#include "tests/lib/test.h"

TEST(waiting_leaves_room_to_the_modest)
{
    struct waiting w;
    size_t greedy = 0, modest = 0;
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    waiting_init(&w, MIB(128), 10);
    EXPECT(waiting_has_room(&w, 0, MIB(64) + KIB(1))); /* a frame alone */
    EXPECT(!waiting_has_room(&w, 0, MIB(97)));
    waiting_set(&w, &greedy, MIB(96));
    EXPECT(!waiting_has_room(&w, greedy, 1));
    EXPECT(!waiting_has_room(&w, MIB(1), 1));
    EXPECT(waiting_has_room(&w, 0, MIB(1)));
    waiting_set(&w, &modest, MIB(32));
    EXPECT(!waiting_has_room(&w, 0, MIB(1)));
    EXPECT(waiting_has_room(&w, 0, WAITING_SHARE));
    EXPECT(!waiting_has_room(&w, 1, WAITING_SHARE));
    waiting_set(&w, &modest, MIB(32) + 10 * WAITING_SHARE); /* each connection its share */
    EXPECT(!waiting_has_room(&w, 0, 1));
    waiting_set(&w, &greedy, 0);
    EXPECT(waiting_has_room(&w, 0, MIB(1)));
    waiting_set(&w, &modest, 0);
    EXPECT_EQ(w.bytes, 0);
}

TEST(progress_is_not_a_byte_now_and_then)
{
    struct progress p;
    uint64_t now = 1000, done = 5;
    progress_begin(&p, done, now);
    EXPECT(!progress_stopped(&p, done, now + PROGRESS_MS));
    EXPECT(progress_stopped(&p, done, now + PROGRESS_MS + 1));
    while (now <= 1000 + PROGRESS_MS) {
        EXPECT(!progress_stopped(&p, ++done, now));
        now += 9;
    }
    EXPECT(progress_stopped(&p, ++done, now));
    progress_begin(&p, done, now);
    for (int i = 0; i < 20; i++) {
        now += PROGRESS_MS;
        done += PROGRESS_BYTES;
        EXPECT(!progress_stopped(&p, done, now));
    }
}
