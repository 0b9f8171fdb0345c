/* Room: tests. Fetching a database in one process: what two nodes would say to each other, as
 * calls. Failures end the test. Thread: owner, unless said. */
#ifndef TESTS_UNIT_REPLICATION_FETCH_STAGE_H
#define TESTS_UNIT_REPLICATION_FETCH_STAGE_H

#include "base/rng.h"
#include "replication/database.h"

#include <stdint.h>

/* Pages of one image, and hashes of one question: small, so that many are needed. */
#define STAGE_PAGES 16u

/* A pinned image; opened on the owner, used here as a reader. */
struct repl_image *fetching_image(struct repl_db *db, struct repl_image_head *head) ON_OWNER;
enum err fetching_read(struct repl_image *image, uint32_t page_no, uint8_t *page);
void fetching_close(struct repl_image *image);
/* All pages of an image, one behind the other; malloc'ed. Their checksum must be HEAD's. */
uint8_t *fetching_read_all(struct repl_image *image, const struct repl_image_head *head);

struct repl_fetch *fetching_open(const char *path, uint32_t page_size);
/* One round: pages that differ, a short image for each few. BETWEEN (may be NULL) is called before
 * each image. How many pages were copied. */
unsigned fetching_round(struct repl_db *source, struct repl_fetch *f, void (*between)(void *),
                        void *ctx) ON_OWNER;
/* The last round, out of one image; BETWEEN as above, while it is open. */
unsigned fetching_last_round(struct repl_db *source, struct repl_fetch *f, struct repl_image *image,
                             const struct repl_image_head *head, void (*between)(void *),
                             void *ctx) ON_OWNER;
/* What main.db at PATH holds is these pages. */
void fetching_expect_file(const char *path, const uint8_t *pages, size_t n);

#endif
