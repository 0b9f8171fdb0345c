/* Room: node. Thread: loop, but what is marked ON_READER: the image thread.
 * Owns: the open images, the image thread and its mailbox.
 * Invariants: an image is used and closed by the image thread alone; the loop touches its handle
 *   never. `busy`: the lane or the image thread has something to do with it, and the loop waits. A
 *   session has at most one image; it outlives its session until the thread has closed it. Images
 *   that follow each other hold back the WAL as one that stays: when it is long, a moment without
 *   any comes before the next.
 * Not here: what a fetching node does with it (fetch.c).
 *
 * Why a thread of its own: the readers are for clients, and one slow disk must not take them. */
#include "node/image.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "client/wire_image.h"
#include "node/record.h"

#include <inttypes.h>
#include <stdlib.h>

#define IMAGES_MAX   2    /* at once: each holds back the WAL's restart */
#define SHORT_MS     1000 /* an image for some pages of a round */
#define SHORT_BYTES  MIB(32)
#define PINNED_MS    30000 /* the image of a last round */
#define PINNED_BYTES MIB(256)
#define IDLE_MS      5000 /* nothing asked of it for so long */
#define GAP_MS       1000 /* without an image, for the WAL to start over */
#define WAIT_MS      5000 /* for that moment */

struct image {
    struct letter letter; /* first: IMAGE_CLOSE, LOOP_IMAGE_CLOSED */
    struct list link;
    struct images *images;
    struct session *session; /* NULL: gone, or it has another image */
    struct repl_image *handle;
    struct repl_image_head head;
    struct request *waits; /* to be opened; the lane was not asked yet */
    bool pinned, busy, opened, closing;
    uint64_t began_ms, used_ms, bytes;
};

struct images {
    struct node *node;
    struct list all;
    struct mail jobs; /* the image thread's */
    pthread_t thread;
    bool started, stopping;
    struct letter stop;
    uint64_t closed_ms; /* the last one */
};

/* --- the image thread ------------------------------------------------------------------------- */

/* The pages that the image has of those asked for. The decoder has checked the numbers. */
static unsigned pages_there(const struct image *image, struct rd *r, uint32_t n, uint32_t *page_nos)
{
    unsigned there = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t page_no = rd_u32(r);
        if (page_no <= image->head.pages)
            page_nos[there++] = page_no;
    }
    return there;
}

static void read_pages(struct request *r) ON_READER
{
    struct image *image = r->image;
    struct wire_frame f = {.type = WIRE_IMAGE_ASK_PAGES, .body = rd_of(r->frame, r->frame_len)};
    struct rd numbers;
    uint32_t n, page_size = image->head.page_size;
    enum err e = wire_get_image_ask_pages(&f, &numbers, &n);
    CHECK(e == ERR_OK); /* image_run has read it once */
    uint32_t *page_nos = mem_alloc(n * sizeof *page_nos);
    unsigned there = pages_there(image, &numbers, n, page_nos);
    uint8_t *pages = mem_alloc((size_t)(there == 0 ? 1 : there) * page_size);
    if (there > 0)
        e = repl_image_read(image->handle, page_nos, there, pages);
    if (e == ERR_OK)
        wire_put_image_pages(&r->answer.out, r->id, page_nos, there, pages, page_size);
    else
        request_fail_text(r, e);
    free(pages);
    free(page_nos);
}

static bool do_job(struct images *is, struct letter *letter) ON_READER
{
    struct mail *loop = &is->node->mail;
    if (letter == &is->stop)
        return false;
    if (letter->kind == IMAGE_READ) {
        read_pages((struct request *)letter);
        letter->kind = LOOP_IMAGE_READ;
    } else {
        struct image *image = (struct image *)letter;
        CHECK(letter->kind == IMAGE_CLOSE);
        repl_image_close(image->handle);
        image->handle = NULL;
        letter->kind = LOOP_IMAGE_CLOSED;
    }
    mail_send(loop, &letter->link);
    return true;
}

static void *image_main(void *arg)
{
    struct images *is = arg;
    bool more = true;
    thread_become(THREAD_READER);
    thread_expect_reader();
    while (more) {
        struct list letters, *i;
        list_init(&letters);
        mail_wait(&is->jobs, &letters, UINT64_MAX);
        while (more && (i = list_pop_front(&letters)) != NULL)
            more = do_job(is, LIST_ENTRY(i, struct letter, link));
    }
    return NULL;
}

/* Most nodes never serve an image: the thread begins with the first. */
static enum err start_thread(struct images *is) ON_LOOP
{
    if (!is->started)
        TRY(thread_start(&is->thread, "image", image_main, is));
    is->started = true;
    return ERR_OK;
}

/* --- an image's life -------------------------------------------------------------------------- */

static void answer(struct session *s, struct request *r) ON_LOOP
{
    r->answer.in_transaction = s->home != HOME_NONE;
    session_answer(s, r);
}

static void refuse(struct session *s, struct request *r, enum err code, const char *why) ON_LOOP
{
    request_fail(r, code, why);
    answer(s, r);
}

/* Its session has none from here on. */
static void close_image(struct image *image) ON_LOOP
{
    if (image->session != NULL)
        image->session->image = NULL;
    image->session = NULL;
    if (image->busy || image->closing)
        return; /* when it comes back */
    image->closing = true;
    if (image->handle == NULL) {
        image_closed(image);
        return;
    }
    image->letter.kind = IMAGE_CLOSE;
    mail_send(&image->images->jobs, &image->letter.link);
}

static bool is_over(const struct image *image, uint64_t now_ms) ON_LOOP
{
    uint64_t ms = image->pinned ? PINNED_MS : SHORT_MS;
    uint64_t bytes = image->pinned ? PINNED_BYTES : SHORT_BYTES;
    return now_ms > image->began_ms + ms || image->bytes >= bytes ||
           now_ms > image->used_ms + IDLE_MS;
}

static unsigned count_open(const struct images *is) ON_LOOP
{
    unsigned n = 0;
    LIST_EACH(i, &is->all)
        n += LIST_ENTRY(i, struct image, link)->session != NULL;
    return n;
}

/* Is this image to be the next of a row that keeps a long WAL from starting over? */
static bool must_wait(const struct image *image, uint64_t now_ms) ON_LOOP
{
    const struct images *is = image->images;
    struct repl_stats stats;
    repl_db_stats(lane_db(is->node->lane), &stats);
    if (stats.wal_bytes <= is->node->config->wal_limit_bytes)
        return false;
    LIST_EACH(i, &is->all) {
        const struct image *other = LIST_ENTRY(i, struct image, link);
        if (other != image && other->waits == NULL)
            return true;
    }
    return is->closed_ms != 0 && now_ms < is->closed_ms + GAP_MS;
}

static void give_up(struct image *image, enum err code, const char *why) ON_LOOP
{
    struct request *r = image->waits;
    image->waits = NULL;
    image->busy = false;
    close_image(image);
    refuse(r->session, r, code, why);
}

/* The lane pins a state, when it is time; image_opened goes on. */
static void try_open(struct image *image, uint64_t now_ms) ON_LOOP
{
    if (image->session == NULL) {
        give_up(image, ERR_CLOSED, "the connection is closed");
    } else if (!must_wait(image, now_ms)) {
        struct lane_image *l = MEM_NEW(struct lane_image);
        l->letter.kind = LANE_IMAGE;
        l->request = image->waits;
        image->waits = NULL;
        image->began_ms = image->used_ms = now_ms;
        lane_send(image->images->node->lane, &l->letter);
    } else if (now_ms > image->began_ms + WAIT_MS) {
        give_up(image, ERR_BUSY, "this node's WAL is long, and other images keep it so: later");
    }
}

/* For R's session. */
static void open_image(struct session *s, struct request *r, bool pinned) ON_LOOP
{
    struct images *is = s->node->images;
    if (count_open(is) >= IMAGES_MAX) {
        refuse(s, r, ERR_BUSY,
               "this node serves as many images as it may: ask another one, or later");
        return;
    }
    enum err e = start_thread(is);
    if (e != ERR_OK) {
        refuse(s, r, e, err_text());
        return;
    }
    struct image *image = MEM_NEW(struct image);
    list_init(&image->letter.link);
    image->images = is;
    image->session = s;
    image->pinned = pinned;
    image->waits = r;
    image->busy = true;
    image->began_ms = image->used_ms = clock_mono_ms();
    list_push_back(&is->all, &image->link);
    s->image = image;
    s->at = AT_IMAGE;
    r->image = image;
    try_open(image, image->began_ms);
}

void image_closed(struct image *image)
{
    if (image->opened)
        image->images->closed_ms = clock_mono_ms();
    list_remove(&image->link);
    free(image);
}

void image_forget(struct session *s)
{
    s->pinned_image = false;
    if (s->image != NULL)
        close_image(s->image);
}

void images_timer(struct node *n, uint64_t now_ms)
{
    LIST_EACH(i, &n->images->all) {
        struct image *image = LIST_ENTRY(i, struct image, link);
        if (image->waits != NULL) {
            try_open(image, now_ms);
            continue;
        }
        if (image->busy || image->closing || !is_over(image, now_ms))
            continue;
        if (image->pinned)
            log_info("image", "closed seq=%" PRIu64 " bytes=%" PRIu64 " why=\"over its limit\"",
                     image->head.seq, image->bytes);
        close_image(image);
    }
}

/* --- requests --------------------------------------------------------------------------------- */

/* What there is, about now; the pages will come from the states of their moments. */
static void put_head(struct node *n, struct request *r) ON_LOOP
{
    struct repl_stats stats;
    repl_db_stats(lane_db(n->lane), &stats);
    struct wire_image w = {.database_id = n->config->database_id,
                           .seq = stats.published_seq,
                           .checksum = stats.checksum,
                           .pages = stats.pages,
                           .page_size = stats.page_size,
                           .index = n->applied_index};
    wire_put_image(&r->answer.out, r->id, &w);
}

/* The pinned state with its place in the log: what a node needs to go on from it. */
static enum err put_pinned_head(struct node *n, struct request *r,
                                const struct lane_mark *m) ON_LOOP
{
    struct cns_snapshot at;
    struct buf record;
    TRY(cns_describe(n->cns, m->index, &at));
    at.data_len = note_encode(m, at.data);
    buf_init(&record, WIRE_IMAGE_RECORD_MAX);
    record_put(&record, &at);
    cns_payload_unref(at.members);
    enum err e = buf_status(&record);
    if (e == ERR_OK) {
        struct wire_image w = {.database_id = n->config->database_id,
                               .seq = m->seq,
                               .checksum = m->checksum,
                               .pages = m->pages,
                               .page_size = m->page_size,
                               .index = m->index,
                               .record = record.data,
                               .record_len = record.len};
        wire_put_image(&r->answer.out, r->id, &w);
    } else {
        e = err_fail(e, "the record of index %" PRIu64 " is too long", m->index);
    }
    buf_fini(&record);
    return e;
}

static void run_begin(struct session *s, struct request *r, struct wire_frame *f) ON_LOOP
{
    bool pin;
    enum err e = wire_get_image_begin(f, &pin);
    if (e != ERR_OK) {
        refuse(s, r, e, err_text());
        return;
    }
    image_forget(s);
    if (pin) {
        s->pinned_image = true;
        open_image(s, r, true);
        return;
    }
    put_head(s->node, r);
    answer(s, r);
}

static void run_hashes(struct session *s, struct request *r, struct wire_frame *f) ON_LOOP
{
    uint32_t first, n;
    enum err e = wire_get_image_ask_hashes(f, &first, &n);
    if (e != ERR_OK) {
        refuse(s, r, e, err_text());
        return;
    }
    uint64_t *hashes = mem_alloc(n * sizeof *hashes);
    repl_db_hashes(lane_db(s->node->lane), first, n, hashes);
    wire_put_image_hashes(&r->answer.out, r->id, first, hashes, n);
    free(hashes);
    answer(s, r);
}

static void read_from(struct image *image, struct request *r) ON_LOOP
{
    r->image = image;
    image->busy = true;
    image->session->at = AT_IMAGE;
    r->letter.kind = IMAGE_READ;
    mail_send(&image->images->jobs, &r->letter.link);
}

static void run_pages(struct session *s, struct request *r, struct wire_frame *f) ON_LOOP
{
    struct rd numbers;
    struct repl_stats stats;
    uint32_t n;
    enum err e = wire_get_image_ask_pages(f, &numbers, &n);
    repl_db_stats(lane_db(s->node->lane), &stats);
    if (e == ERR_OK && n > wire_image_pages_max(stats.page_size))
        e = err_fail(ERR_PROTOCOL, "%u pages are more than one answer holds", n);
    if (e != ERR_OK) {
        refuse(s, r, e, err_text());
        return;
    }
    if (s->image != NULL && is_over(s->image, clock_mono_ms()))
        close_image(s->image);
    if (s->image != NULL)
        read_from(s->image, r);
    else if (s->pinned_image)
        refuse(s, r, ERR_TIMEOUT,
               "the pinned image is over its limit of time or bytes: begin again");
    else
        open_image(s, r, false);
}

void image_run(struct session *s, struct request *r)
{
    struct wire_frame f = {
        .type = r->image_frame, .id = r->id, .body = rd_of(r->frame, r->frame_len)};
    if (f.type == WIRE_IMAGE_BEGIN)
        run_begin(s, r, &f);
    else if (f.type == WIRE_IMAGE_ASK_HASHES)
        run_hashes(s, r, &f);
    else
        run_pages(s, r, &f);
}

void image_opened(struct node *n, struct lane_image *l)
{
    struct request *r = l->request;
    struct session *s = r->session;
    struct image *image = r->image;
    enum err e = l->code;
    image->busy = false;
    image->handle = l->image;
    image->opened = l->image != NULL;
    image->head = l->head;
    if (e != ERR_OK)
        request_fail(r, e, l->text);
    if (e == ERR_OK && image->session == NULL)
        request_fail(r, e = ERR_CLOSED, "the connection is closed");
    if (e == ERR_OK && r->image_frame == WIRE_IMAGE_BEGIN) {
        e = put_pinned_head(n, r, &l->mark);
        if (e != ERR_OK)
            request_fail_text(r, e);
        else
            log_info("image", "pinned seq=%" PRIu64 " index=%" PRIu64 " pages=%u for=%" PRIu64,
                     l->mark.seq, l->mark.index, l->mark.pages, s->id);
    } else if (e == ERR_OK) {
        read_from(image, r);
        return;
    }
    if (e != ERR_OK)
        close_image(image);
    answer(s, r);
}

void image_was_read(struct request *r)
{
    struct image *image = r->image;
    image->busy = false;
    image->used_ms = clock_mono_ms();
    image->bytes += r->answer.out.len;
    if (image->session == NULL)
        close_image(image);
    answer(r->session, r);
}

/* --- the door --------------------------------------------------------------------------------- */

struct images *images_new(struct node *n)
{
    struct images *is = MEM_NEW(struct images);
    is->node = n;
    list_init(&is->all);
    list_init(&is->stop.link);
    mail_init(&is->jobs, NULL, NULL);
    return is;
}

bool images_none(const struct images *is)
{
    return list_empty(&is->all);
}

void images_free(struct images *is)
{
    if (is == NULL)
        return;
    CHECK(list_empty(&is->all));
    if (is->started) {
        mail_send(&is->jobs, &is->stop.link);
        (void)pthread_join(is->thread, NULL);
    }
    mail_fini(&is->jobs);
    free(is);
}
