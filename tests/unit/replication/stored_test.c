/* Room: tests. The hashes of what main.db holds, without a database: a file `hashes` of a larger
 * time, and a thread that folds while a new WAL begins. Thread: owner. */
#include "replication/stored.h"
#include "base/mem.h"
#include "tests/lib/test.h"

#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#define PAGE_SIZE_HERE 1024u
#define DATABASE       7u

static struct stored *load(uint32_t pages, stored_read read, uint32_t *read_pages)
{
    struct stored *s = stored_new(test_path("hashes"), DATABASE, PAGE_SIZE_HERE);
    EXPECT_OK(stored_load(s, pages, read, NULL, read_pages));
    return s;
}

static enum err read_full(void *ctx, uint32_t page_no, uint8_t *page)
{
    (void)ctx;
    memset(page, (int)(page_no % 251) + 1, PAGE_SIZE_HERE);
    return ERR_OK;
}

static enum err read_nothing(void *ctx, uint32_t page_no, uint8_t *page)
{
    (void)ctx, (void)page_no, (void)page;
    return err_fail(ERR_IO, "page %u was read", page_no);
}

/* The database shrank, its node was started again, and it grew by pages of zeros (of which SQLite
 * makes free ones): what the file had there is not theirs. */
TEST(stored_forgets_the_hashes_of_a_larger_database)
{
    const uint32_t large = 5 * HASHES_PER_BLOCK, small = HASHES_PER_BLOCK + 40;
    uint32_t copied = 0, read_pages, n = 0;
    struct stored *s = load(large, read_full, &read_pages);
    EXPECT_EQ(read_pages, large);
    EXPECT_OK(stored_flush(s));
    stored_free(s);

    s = load(small, read_nothing, &read_pages);
    stored_arm(s, &copied);
    for (uint32_t page_no = small + 1; page_no <= large; page_no++)
        stored_frame(s, ++n, page_no, 0);
    stored_set_frames(s, n);
    copied = n;
    EXPECT_OK(stored_flush(s));
    EXPECT_EQ(stored_durable(s), n);
    stored_free(s);

    s = load(large, read_nothing, &read_pages);
    EXPECT_EQ(read_pages, 0);
    for (uint32_t page_no = 1; page_no <= large; page_no++)
        EXPECT((stored_page(s, page_no) == 0) == (page_no > small));
    stored_free(s);
}

/* --- a new WAL begins while somebody folds ------------------------------------------------------
 *
 * The word nBackfill lies in memory that cannot be read. Who folds traps there, may take one step,
 * which reads it, and traps again: then the owner goes on, as it may at this place. */
#if defined(__x86_64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)

#define TRAP_FLAG 0x100 /* of the processor: one instruction */

static struct stored *folding;
static uint32_t *copied_word;

static void on_read(int signal, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    (void)signal, (void)info;
    (void)mprotect(copied_word, (size_t)getpagesize(), PROT_READ | PROT_WRITE);
    at->uc_mcontext.gregs[REG_EFL] |= TRAP_FLAG;
}

/* The rest of what publish.c does (show): nBackfill, then the frames. */
static void on_step(int signal, siginfo_t *info, void *context)
{
    ucontext_t *at = context;
    (void)signal, (void)info;
    at->uc_mcontext.gregs[REG_EFL] &= ~TRAP_FLAG;
    __atomic_store_n(copied_word, 0, __ATOMIC_RELEASE);
    stored_frame(folding, 1, 3, 1111);
    stored_set_frames(folding, 1);
}

TEST(stored_folds_no_frame_of_a_wal_that_begins)
{
    uint32_t read_pages;
    struct sigaction read = {.sa_sigaction = on_read, .sa_flags = SA_SIGINFO};
    struct sigaction step = {.sa_sigaction = on_step, .sa_flags = SA_SIGINFO};
    copied_word = mmap(NULL, (size_t)getpagesize(), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT(copied_word != MAP_FAILED);
    folding = load(10, read_full, &read_pages);
    stored_arm(folding, copied_word);
    stored_frame(folding, 1, 3, 3333);
    stored_set_frames(folding, 1);
    *copied_word = 1;
    EXPECT_OK(stored_flush(folding));
    EXPECT_EQ(stored_page(folding, 3), 3333);

    stored_restart(folding); /* and before wal_index_restart, somebody folds: */
    EXPECT(sigaction(SIGSEGV, &read, NULL) == 0 && sigaction(SIGTRAP, &step, NULL) == 0);
    EXPECT(mprotect(copied_word, (size_t)getpagesize(), PROT_NONE) == 0);
    EXPECT_EQ(stored_page_folded(folding, 3), 3333);
    EXPECT_EQ(*copied_word, 0);
    EXPECT_EQ(stored_frames(folding), 1); /* the step was taken */
    *copied_word = 1;
    EXPECT_EQ(stored_page_folded(folding, 3), 1111);
    stored_free(folding);
    EXPECT(munmap(copied_word, (size_t)getpagesize()) == 0);
}

#endif
