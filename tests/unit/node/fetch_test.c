/* Fetching from a source that lies, and onto a disk that does: the source is a thread of the test.
 */
#include "node/fetch.h"

#include "base/check.h"
#include "base/file.h"
#include "base/mem.h"
#include "client/wire_image.h"
#include "node/record.h"
#include "replication/replication.h"
#include "tests/lib/test.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define PAGE 4096u

struct source {
    struct wire_image image;
    struct buf record;
    uint64_t hashes[2];
    uint8_t pages[2 * PAGE];
    const char *damages; /* this file: whoever asks for one page gets the other one's spoilt */
    _Atomic unsigned hashes_asked;
    int listener;
    char address[40];
    pthread_t thread;
};

/* --- the source ------------------------------------------------------------------------------- */

static void spoil(const char *path, uint32_t page_no)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    EXPECT(fd >= 0);
    EXPECT(pwrite(fd, "?", 1, (off_t)(page_no - 1) * PAGE + 1000) == 1);
    EXPECT(close(fd) == 0);
}

static void answer_pages(struct source *s, struct wire_frame *f, struct buf *out)
{
    struct rd r;
    uint32_t n;
    EXPECT_OK(wire_get_image_ask_pages(f, &r, &n));
    EXPECT_EQ(n, 1);
    uint32_t page_no = rd_u32(&r);
    EXPECT(page_no == 1 || page_no == 2);
    if (s->damages != NULL)
        spoil(s->damages, 3 - page_no);
    wire_put_image_pages(out, f->id, &page_no, 1, s->pages + (size_t)(page_no - 1) * PAGE, PAGE);
}

static void answer(struct source *s, struct wire_frame *f, struct buf *out)
{
    struct wire_done done = {0};
    bool pin;
    if (f->type == WIRE_HELLO) {
        struct wire_welcome w = {.version = WIRE_VERSION, .node_id = 2, .cluster_id = 1};
        wire_put_welcome(out, &w);
        return;
    }
    if (f->type == WIRE_IMAGE_BEGIN) {
        EXPECT_OK(wire_get_image_begin(f, &pin));
        s->image.record = s->record.data;
        s->image.record_len = pin ? s->record.len : 0;
        wire_put_image(out, f->id, &s->image);
    } else if (f->type == WIRE_IMAGE_ASK_HASHES) {
        s->hashes_asked++;
        wire_put_image_hashes(out, f->id, 1, s->hashes, 2);
    } else {
        answer_pages(s, f, out);
    }
    wire_put_done(out, f->id, &done);
}

static void serve(struct source *s, int fd)
{
    struct buf in, out;
    ssize_t n = 1;
    buf_init(&in, MIB(4));
    buf_init(&out, MIB(4));
    while (n > 0) {
        struct wire_frame f;
        size_t used;
        EXPECT_OK(wire_next(in.data, in.len, MIB(3), &f, &used));
        if (used == 0) {
            uint8_t *to = buf_extend(&in, KIB(64));
            n = recv(fd, to, KIB(64), 0);
            in.len -= KIB(64) - (n > 0 ? (size_t)n : 0);
            continue;
        }
        buf_reset(&out);
        answer(s, &f, &out);
        buf_consume(&in, used);
        EXPECT(send(fd, out.data, out.len, MSG_NOSIGNAL) == (ssize_t)out.len);
    }
    buf_fini(&in);
    buf_fini(&out);
    EXPECT(close(fd) == 0);
}

static void *source_main(void *arg)
{
    struct source *s = arg;
    int fd;
    while ((fd = accept(s->listener, NULL, NULL)) >= 0)
        serve(s, fd);
    return NULL;
}

/* Two pages, their hashes, and the record of a state that has them. */
static void make_image(struct source *s)
{
    struct repl_fetch *f;
    EXPECT_OK(file_make_dirs(test_path("source")));
    memset(s->pages, 'a', PAGE);
    memset(s->pages + PAGE, 'b', PAGE);
    memcpy(s->pages, "SQLite format 3\0\x10\0\2\2", 20);
    EXPECT_OK(file_replace(test_path("source/main.db"), s->pages, sizeof s->pages));
    EXPECT_OK(repl_fetch_open(test_path("source/main.db"), 1, PAGE, NULL, NULL, &f));
    s->hashes[0] = repl_fetch_checksum(f, 1);
    s->image = (struct wire_image){.database_id = 1,
                                   .seq = 9,
                                   .checksum = repl_fetch_checksum(f, 2),
                                   .pages = 2,
                                   .page_size = PAGE,
                                   .index = 10};
    s->hashes[1] = s->image.checksum ^ s->hashes[0];
    repl_fetch_close(f);
    struct cns_snapshot at = {.index = 10, .term = 1, .members_index = 1, .highest_id = 3};
    struct lane_mark mark = {
        .index = 10, .seq = 9, .checksum = s->image.checksum, .pages = 2, .page_size = PAGE};
    uint8_t *members = mem_zalloc(40);
    at.members = cns_payload_take(members, 40);
    at.data_len = note_encode(&mark, at.data);
    buf_init(&s->record, KIB(64));
    record_put(&s->record, &at);
    cns_payload_unref(at.members);
}

static void source_start(struct source *s)
{
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t n = sizeof a;
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    EXPECT(s->listener >= 0 && bind(s->listener, (struct sockaddr *)&a, sizeof a) == 0);
    EXPECT(listen(s->listener, 5) == 0);
    EXPECT(getsockname(s->listener, (struct sockaddr *)&a, &n) == 0);
    (void)snprintf(s->address, sizeof s->address, "127.0.0.1:%u", ntohs(a.sin_port));
    EXPECT_OK(thread_start(&s->thread, "source", source_main, s));
}

static void source_stop(struct source *s)
{
    EXPECT(shutdown(s->listener, SHUT_RDWR) == 0);
    EXPECT(pthread_join(s->thread, NULL) == 0);
    EXPECT(close(s->listener) == 0);
    buf_fini(&s->record);
}

/* --- the node --------------------------------------------------------------------------------- */

static struct fetch *begin(const struct source *s, const char *path, struct mail *loop)
{
    struct fetch *f;
    struct fetch_config c = {.path = path,
                             .own_id = 1,
                             .cluster_id = 1,
                             .database_id = 1,
                             .contacts = s->address,
                             .loop = loop};
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    mail_init(loop, NULL, NULL);
    EXPECT_OK(fetch_start(&c, &f));
    return f;
}

/* What it ended with; fails when it does not end. */
static enum err end(struct fetch *f, struct mail *loop, char *sentence) ON_LOOP
{
    struct list letters;
    list_init(&letters);
    mail_wait(loop, &letters, 10000);
    EXPECT(!list_empty(&letters));
    enum err e = fetch_result(f, sentence);
    fetch_free(f);
    mail_fini(loop);
    return e;
}

TEST(fetch_asks_for_room_before_it_believes_in_a_size)
{
    static struct source s;
    struct fetch_progress p = {0};
    struct mail loop;
    char sentence[ERR_TEXT_MAX];
    make_image(&s);
    s.image.pages = 0xfffffff0;
    source_start(&s);
    struct fetch *f = begin(&s, test_path("main.db"), &loop);
    thread_expect_loop();
    for (unsigned i = 0; i < 500 && p.problem[0] == 0; i++) {
        (void)usleep(10000);
        fetch_get_progress(f, &p);
    }
    EXPECT(strstr(p.problem, "more bytes for a database of 4294967280 pages") != NULL);
    EXPECT_EQ(s.hashes_asked, 0);
    fetch_cancel(f);
    EXPECT_ERR(ERR_CANCELLED, end(f, &loop, sentence));
    source_stop(&s);
}

TEST(fetch_does_not_blame_the_source_for_its_own_disk)
{
    static struct source s;
    static uint8_t old[2 * PAGE];
    struct mail loop;
    char sentence[ERR_TEXT_MAX];
    make_image(&s);
    memcpy(old, s.pages, sizeof old);
    old[2000] ^= 1; /* page 1 is to be fetched */
    EXPECT_OK(file_replace(test_path("main.db"), old, sizeof old));
    char *damages = mem_strdup(test_path("main.db.fetch"));
    s.damages = damages;
    source_start(&s);
    struct fetch *f = begin(&s, test_path("main.db"), &loop);
    thread_expect_loop();
    EXPECT_ERR(ERR_IO, end(f, &loop, sentence));
    EXPECT(strstr(sentence, "the disk or the memory of this machine is failing") != NULL);
    source_stop(&s);
    free(damages);
}

TEST(fetch_takes_what_differs_and_says_complete)
{
    static struct source s;
    struct mail loop;
    char sentence[ERR_TEXT_MAX];
    make_image(&s);
    uint8_t old[2 * PAGE];
    memcpy(old, s.pages, sizeof old);
    old[2000] ^= 1;
    EXPECT_OK(file_replace(test_path("main.db"), old, sizeof old));
    source_start(&s);
    struct fetch *f = begin(&s, test_path("main.db"), &loop);
    thread_expect_loop();
    EXPECT_OK(end(f, &loop, sentence));
    EXPECT(access(test_path("main.db.fetched"), F_OK) == 0);
    source_stop(&s);
}
