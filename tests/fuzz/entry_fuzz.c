/* Room: tests. Fuzz target: what repl_entry_read says of any bytes lies inside them.
 *
 * The checksum of the whole is in the way of a blind fuzzer: it finds crashes before and in the
 * check; replication's unit tests damage the rest with a valid checksum. */
#include "base/check.h"
#include "replication/replication.h"
#include "tests/fuzz/touch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct repl_entry e;
    if (repl_entry_read(data, size, &e) == ERR_OK) {
        CHECK(e.part < e.parts && e.seq > 0);
        touch(e.section, e.section_len);
    }
    return 0;
}
