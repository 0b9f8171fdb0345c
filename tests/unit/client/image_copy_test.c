/* Room: tests. Copies of a database from nodes that tell the truth, lie, or die. */
#include "client/image_copy.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/page_hash.h"
#include "client/image_client.h"
#include "client/lectern.h"
#include "tests/lib/fail_alloc.h"
#include "tests/lib/test.h"
#include "tests/unit/client/fake_names.h"
#include "tests/unit/client/fake_node.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PAGES     300u
#define PAGE_SIZE 512u

enum lie {
    LIE_NONE,
    LIE_PAGE_SIZE,
    LIE_NO_PAGES,
    LIE_CHECKSUM,
    LIE_BYTES,
    LIE_NUMBERS,
    LIE_FEWER_HASHES,
    LIE_NO_DATABASE,
    LIE_OTHER_FRAME,
    LIE_DIES,
    LIE_SILENT,
};

/* A node's database: one of PAGES pages, of which page 7 is zeros. */
struct world {
    enum lie lie;
    uint64_t seq;
    uint32_t pages_given;
    uint8_t pages[PAGES][PAGE_SIZE];
};

static void world_init(struct world *w, enum lie lie)
{
    static const char magic[16] = "SQLite format 3";
    memset(w, 0, sizeof *w);
    w->lie = lie;
    w->seq = 5;
    for (uint32_t i = 0; i < PAGES; i++)
        memset(w->pages[i], i == 6 ? 0 : (int)(i % 251 + 1), PAGE_SIZE);
    if (lie != LIE_NO_DATABASE)
        memcpy(w->pages[0], magic, sizeof magic);
    w->pages[0][18] = w->pages[0][19] = 2;
}

static uint64_t hash_of(const struct world *w, uint32_t page_no)
{
    return page_hash(page_no, w->pages[page_no - 1], PAGE_SIZE);
}

static void give_image(struct world *w, struct fake_peer *p, struct wire_frame *f)
{
    bool pin;
    EXPECT_OK(wire_get_image_begin(f, &pin));
    struct wire_image image = {.database_id = 3,
                               .seq = w->seq,
                               .checksum = w->lie == LIE_CHECKSUM,
                               .pages = w->lie == LIE_NO_PAGES ? 0 : PAGES,
                               .page_size = w->lie == LIE_PAGE_SIZE ? 513 : PAGE_SIZE,
                               .index = 1};
    for (uint32_t i = 1; i <= PAGES; i++)
        image.checksum ^= hash_of(w, i);
    if (pin) {
        image.record = (const uint8_t *)"record";
        image.record_len = 6;
    }
    wire_put_image(fake_out(p), f->id, &image);
}

static void give_hashes(struct world *w, struct fake_peer *p, struct wire_frame *f)
{
    uint32_t first, n;
    uint64_t hashes[PAGES];
    EXPECT_OK(wire_get_image_ask_hashes(f, &first, &n));
    EXPECT_EQ(first, 1);
    EXPECT_EQ(n, PAGES);
    for (uint32_t i = 0; i < n; i++)
        hashes[i] = hash_of(w, i + 1);
    wire_put_image_hashes(fake_out(p), f->id, 1, hashes, w->lie == LIE_FEWER_HASHES ? n - 1 : n);
}

static void give_pages(struct world *w, struct fake_peer *p, struct wire_frame *f)
{
    static uint8_t pages[PAGES][PAGE_SIZE];
    struct rd asked;
    uint32_t n, numbers[PAGES];
    EXPECT_OK(wire_get_image_ask_pages(f, &asked, &n));
    EXPECT(n <= PAGES);
    for (uint32_t i = 0; i < n; i++) {
        numbers[i] = rd_u32(&asked);
        memcpy(pages[i], w->pages[numbers[i] - 1], PAGE_SIZE);
    }
    if (w->lie == LIE_BYTES)
        pages[n / 2][PAGE_SIZE - 1] ^= 1;
    if (w->lie == LIE_NUMBERS)
        numbers[n / 2] = PAGES + 5;
    w->pages_given += n;
    wire_put_image_pages(fake_out(p), f->id, numbers, n, pages[0], PAGE_SIZE);
}

static bool answer(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    struct world *w = ctx;
    if (f->type == WIRE_IMAGE_BEGIN)
        give_image(w, p, f);
    else if (f->type == WIRE_IMAGE_ASK_HASHES && w->lie == LIE_OTHER_FRAME)
        wire_put_pong(fake_out(p), f->id.request, &(struct wire_pong){0});
    else if (f->type == WIRE_IMAGE_ASK_HASHES)
        give_hashes(w, p, f);
    else if (f->type != WIRE_IMAGE_ASK_PAGES)
        return false;
    else if (w->lie == LIE_SILENT)
        return true;
    else if (w->lie == LIE_DIES)
        fake_peer_close(p);
    else
        give_pages(w, p, f);
    if (w->lie != LIE_DIES || f->type != WIRE_IMAGE_ASK_PAGES)
        wire_put_done(fake_out(p), f->id, &(struct wire_done){.seq = w->seq});
    return true;
}

static struct fake_node *start(struct world *w)
{
    return fake_node_start(
        &(struct fake_options){.node_id = 1, .cluster_id = 9, .answer = answer, .ctx = w});
}

struct watch {
    uint64_t done, total;
    unsigned asked, stop_at; /* 0: never */
};

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
    struct watch *x = arg;
    EXPECT(done <= total);
    x->done = done;
    x->total = total;
    return 0;
}

static bool must_stop(void *arg)
{
    struct watch *x = arg;
    x->asked++;
    return x->stop_at != 0 && x->asked >= x->stop_at;
}

static void expect_right(const struct world *w, const char *path)
{
    struct buf b;
    buf_init(&b, PAGES * PAGE_SIZE);
    EXPECT_OK(file_read_all(path, &b));
    EXPECT_EQ(b.len, PAGES * PAGE_SIZE);
    EXPECT_EQ(b.data[18], 1);
    EXPECT_EQ(b.data[19], 1);
    b.data[18] = b.data[19] = 2;
    EXPECT(memcmp(b.data, w->pages, b.len) == 0);
    buf_fini(&b);
}

TEST(image_copy_takes_every_page_once)
{
    struct world w;
    struct watch x = {0};
    struct image_copy *c;
    world_init(&w, LIE_NONE);
    struct fake_node *n = start(&w);
    const char *path = test_path("copy.db");
    EXPECT_OK(image_copy_new(path, on_progress, must_stop, &x, &c));
    struct image_copy *second;
    EXPECT_ERR(ERR_LOCKED, image_copy_new(path, on_progress, must_stop, &x, &second));
    EXPECT_ERR(ERR_CONFIG, image_copy_from(c, fake_node_address(n), 8, 0));
    EXPECT_ERR(ERR_NOT_FOUND, image_copy_from(c, fake_node_address(n), 9, 6)); /* it is behind */
    EXPECT_OK(image_copy_from(c, fake_node_address(n), 9, 5));
    EXPECT_EQ(w.pages_given, PAGES - 1); /* but for the one of zeros */
    EXPECT_EQ(x.done, x.total);
    EXPECT_EQ(x.total, PAGES * PAGE_SIZE);
    EXPECT(!file_is_there(path));
    EXPECT_OK(image_copy_finish(c));
    image_copy_free(c);
    expect_right(&w, path);
    EXPECT(!file_is_there(test_path("copy.db.partial")));
    EXPECT_ERR(ERR_MISUSE, image_copy_new(path, on_progress, must_stop, &x, &c));
    fake_node_stop(n);
}

TEST(image_copy_believes_nothing_and_goes_on_with_another_node)
{
    static const struct {
        enum lie lie;
        enum err wanted;
    } lies[] = {{LIE_PAGE_SIZE, ERR_PROTOCOL},   {LIE_NO_PAGES, ERR_PROTOCOL},
                {LIE_CHECKSUM, ERR_DIVERGED},    {LIE_BYTES, ERR_DIVERGED},
                {LIE_NUMBERS, ERR_PROTOCOL},     {LIE_FEWER_HASHES, ERR_PROTOCOL},
                {LIE_OTHER_FRAME, ERR_PROTOCOL}, {LIE_DIES, ERR_CLOSED}};
    for (size_t i = 0; i < sizeof lies / sizeof lies[0]; i++) {
        struct world bad, good;
        struct watch x = {0};
        struct image_copy *c;
        world_init(&bad, lies[i].lie);
        world_init(&good, LIE_NONE);
        struct fake_node *a = start(&bad), *b = start(&good);
        const char *path = test_path("copy.db");
        EXPECT_OK(image_copy_new(path, on_progress, must_stop, &x, &c));
        enum err e = image_copy_from(c, fake_node_address(a), 9, 0);
        if (e != lies[i].wanted)
            test_fail(__FILE__, __LINE__, "lie %d: %s: %s", (int)lies[i].lie, err_name((int)e),
                      err_text());
        EXPECT_OK(image_copy_from(c, fake_node_address(b), 9, 0));
        EXPECT_OK(image_copy_finish(c));
        image_copy_free(c);
        expect_right(&good, path);
        EXPECT_EQ(unlink(path), 0);
        fake_node_stop(a);
        fake_node_stop(b);
    }
}

TEST(image_copy_leaves_nothing_behind)
{
    struct world w;
    struct image_copy *c;
    const char *path = test_path("copy.db");
    world_init(&w, LIE_SILENT);
    struct fake_node *n = start(&w);
    struct watch x = {.stop_at = 5}; /* asked while it waits for an answer that never comes */
    EXPECT_OK(image_copy_new(path, on_progress, must_stop, &x, &c));
    EXPECT_ERR(ERR_CANCELLED, image_copy_from(c, fake_node_address(n), 9, 0));
    image_copy_free(c);
    EXPECT(!file_is_there(test_path("copy.db.partial")));
    fake_node_stop(n);
    world_init(&w, LIE_NO_DATABASE);
    n = start(&w);
    x = (struct watch){0};
    EXPECT_OK(image_copy_new(path, on_progress, must_stop, &x, &c));
    EXPECT_OK(image_copy_from(c, fake_node_address(n), 9, 0));
    EXPECT_ERR(ERR_FORMAT, image_copy_finish(c));
    image_copy_free(c);
    EXPECT(!file_is_there(path) && !file_is_there(test_path("copy.db.partial")));
    EXPECT_ERR(ERR_NOT_FOUND,
               image_copy_new(test_path("no/where"), on_progress, must_stop, &x, &c));
    fake_node_stop(n);
}

TEST(image_copy_is_ended_before_the_node_said_anything)
{
    struct image_copy *c;
    struct watch x = {.stop_at = 3};
    struct fake_node *n = fake_node_start(&(struct fake_options){.silent = true});
    uint64_t begun = test_felt_ms();
    EXPECT_OK(image_copy_new(test_path("copy.db"), on_progress, must_stop, &x, &c));
    EXPECT_ERR(ERR_CANCELLED, image_copy_from(c, fake_node_address(n), 9, 0));
    EXPECT(test_felt_ms() < begun + IMAGE_CONNECT_MS / 2);
    image_copy_free(c);
    fake_node_stop(n);
}

/* --- lectern_export --------------------------------------------------------------------------- */

struct exported {
    struct world world;
    struct fake_node *node;
    const char *address; /* where it says that the image is; NULL: here */
};

static void put_text(struct buf *b, const char *text)
{
    struct wire_value v = {.type = WIRE_TEXT, .text = {text, (uint32_t)strlen(text)}};
    wire_put_value(b, &v);
}

/* One node, which is the leader and well, and has the image. */
static bool answer_all(void *ctx, struct fake_peer *p, struct wire_frame *f)
{
    static const char *const names[] = {"address", "role", "state"};
    struct exported *x = ctx;
    if (f->type != WIRE_STATUS)
        return answer(&x->world, p, f);
    struct buf *b = fake_out(p);
    wire_put_columns(b, f->id, names, 3);
    size_t begun = wire_begin(b, WIRE_ROWS, f->id);
    buf_put_u32(b, 1);
    put_text(b, x->address != NULL ? x->address : fake_node_address(x->node));
    put_text(b, "leader");
    put_text(b, "ok");
    wire_end(b, begun);
    wire_put_done(b, f->id, &(struct wire_done){.seq = x->world.seq});
    return true;
}

static void begin_export(struct exported *x, enum lie lie, char url[100])
{
    world_init(&x->world, lie);
    x->address = NULL;
    x->node = fake_node_start(
        &(struct fake_options){.node_id = 1, .cluster_id = 9, .answer = answer_all, .ctx = x});
    (void)snprintf(url, 100, "lectern://%s", fake_node_address(x->node));
}

/* From opening to closing. Whether it failed somewhere; the file is there and right, or not. */
static bool export_without(struct exported *x, const char *url, const char *path, uint64_t n)
{
    lectern *db;
    fail_alloc_at(n);
    int code = lectern_open(url, &db);
    bool opened = code == LECTERN_OK;
    if (opened)
        code = lectern_export(db, path, NULL, NULL);
    bool failed = fail_alloc_end();
    if (code != LECTERN_OK && code != LECTERN_NOMEM)
        test_fail(__FILE__, __LINE__, "allocation %" PRIu64 ": %d %s", n, code, lectern_errmsg(db));
    EXPECT(!file_is_there(test_path("copy.db.partial")));
    EXPECT_EQ(file_is_there(path), code == LECTERN_OK);
    if (code != LECTERN_OK && opened) /* the session goes on */
        EXPECT_EQ(lectern_export(db, path, NULL, NULL), LECTERN_OK);
    if (opened) {
        expect_right(&x->world, path);
        EXPECT_EQ(unlink(path), 0);
    }
    EXPECT_EQ(lectern_close(db), LECTERN_OK);
    return failed;
}

TEST(image_copy_any_allocation_of_an_export_may_fail)
{
    struct exported x;
    char url[100];
    uint64_t n = 1;
    begin_export(&x, LIE_NONE, url);
    if (!fail_alloc_works())
        printf("skipped: allocations cannot fail under this sanitizer\n");
    while (export_without(&x, url, test_path("copy.db"), n)) {
        n++;
        EXPECT(n < 5000);
    }
    EXPECT(n > 30 || !fail_alloc_works());
    fake_node_stop(x.node);
}

static _Atomic bool is_interrupted;

/* Again and again: the first may come before there is anything to end. */
static void *interrupt_soon(void *db)
{
    while (!atomic_load(&is_interrupted)) {
        EXPECT_EQ(usleep(150000), 0);
        lectern_interrupt(db);
    }
    return NULL;
}

static void expect_interrupted(struct exported *x, const char *url, const char *image_at)
{
    lectern *db;
    pthread_t thread;
    x->address = image_at;
    EXPECT_EQ(lectern_open(url, &db), LECTERN_OK);
    uint64_t begun = test_felt_ms();
    atomic_store(&is_interrupted, false);
    EXPECT_EQ(pthread_create(&thread, NULL, interrupt_soon, db), 0);
    EXPECT_EQ(lectern_export(db, test_path("copy.db"), NULL, NULL), LECTERN_INTERRUPT);
    EXPECT(test_felt_ms() < begun + 1000); /* of the 30 s that it has */
    atomic_store(&is_interrupted, true);
    EXPECT_EQ(pthread_join(thread, NULL), 0);
    EXPECT(!file_is_there(test_path("copy.db.partial")) && !file_is_there(test_path("copy.db")));
    EXPECT_EQ(lectern_close(db), LECTERN_OK);
}

TEST(image_copy_export_is_interrupted_wherever_it_waits)
{
    struct exported x;
    char url[100];
    struct fake_node *silent = fake_node_start(&(struct fake_options){.silent = true});
    begin_export(&x, LIE_SILENT, url);
    expect_interrupted(&x, url, NULL);                      /* for pages */
    expect_interrupted(&x, url, fake_node_address(silent)); /* for WELCOME */
    expect_interrupted(&x, url, FAKE_NAME_HANGS ":1");      /* for an address */
    expect_interrupted(&x, url, "127.0.0.1:1");             /* for better times */
    fake_names_release();
    fake_node_stop(silent);
    fake_node_stop(x.node);
}

/* While an export waits for pages: whatever others do on its session neither takes the session away
 * nor the interrupt, which their turns of the loop hear of first. */
struct busybody {
    lectern *db;
    struct fake_node *node;
    atomic_bool over;
};

static void *disturb(void *arg)
{
    struct busybody *b = arg;
    fake_node_wait(b->node, WIRE_IMAGE_BEGIN, 1);
    EXPECT(lectern_close(b->db) == LECTERN_BUSY);
    lectern_interrupt(b->db);
    while (!atomic_load(&b->over)) {
        EXPECT(lectern_poll(lectern_cluster_of(b->db), 0) == LECTERN_OK);
        EXPECT(lectern_timeout(b->db, -1) == LECTERN_MISUSE); /* an error of the session */
    }
    return NULL;
}

TEST(image_copy_export_is_disturbed_by_no_other_thread)
{
    struct exported x;
    char url[100];
    pthread_t thread;
    begin_export(&x, LIE_SILENT, url);
    struct busybody b = {.node = x.node};
    EXPECT_EQ(lectern_open(url, &b.db), LECTERN_OK);
    EXPECT_EQ(pthread_create(&thread, NULL, disturb, &b), 0);
    uint64_t begun = test_felt_ms();
    EXPECT_EQ(lectern_export(b.db, test_path("copy.db"), NULL, NULL), LECTERN_INTERRUPT);
    EXPECT(test_felt_ms() < begun + 5000); /* of the 10 s that a node has */
    atomic_store(&b.over, true);
    EXPECT_EQ(pthread_join(thread, NULL), 0);
    EXPECT_EQ(lectern_close(b.db), LECTERN_OK);
    fake_node_stop(x.node);
}
