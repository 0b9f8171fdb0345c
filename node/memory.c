/* Room: node. Thread: main.
 *
 * Each part of Lectern bounds its own buffers (base/sizes.h). Left are:
 *   SQLite's page caches   2 MB for each connection, and there are many: the soft limit of its heap
 *                          makes a cache use its own pages again instead of growing, whatever the
 *                          number of connections; nothing fails by it
 *   malloc                 keeps what was freed, in arenas by thread: few of these; large blocks
 *                          (parts of transactions, messages) are mapped and unmapped one by one
 *   temporary files        /tmp is memory on many systems, and small on others; the data directory
 *                          has room for the database, so it has room to sort it */
#include "node/memory.h"

#include "base/sizes.h"

#include <malloc.h>
#include <sqlite3.h>
#include <stdlib.h>

#define ARENAS           2
#define MAPPED_BYTES_MIN KIB(128)

void memory_limit(const char *data)
{
    (void)mallopt(M_ARENA_MAX, ARENAS);
    (void)mallopt(M_MMAP_THRESHOLD, (int)MAPPED_BYTES_MIN);
    (void)mallopt(M_TRIM_THRESHOLD, (int)MIB(1));
    (void)sqlite3_soft_heap_limit64(SQLITE_HEAP_BYTES);
    if (getenv("SQLITE_TMPDIR") == NULL && sqlite3_temp_directory == NULL)
        sqlite3_temp_directory = sqlite3_mprintf("%s", data);
}
