/* Room: node/http.   Thread: loop.
 * Owns: a long message of a WebSocket while it is read beside the loop, and those that came behind
 * it.
 * Invariants: messages are taken in the order in which they came; while one is read nothing more is
 *   asked for, so that few wait behind it (websocket_pause).
 * Not here: what becomes of a message (hrana_ws.c), what it says (hrana_form.h). */
#include "base/check.h"
#include "base/mem.h"
#include "node/http/aside.h"
#include "node/http/hrana_post.h"
#include "node/http/hrana_ws_state.h"
#include "node/node.h"

#include <stdlib.h>
#include <string.h>

struct hrana_ws_behind {
    struct list link; /* of hrana_ws.behind */
    bool text;
    size_t n;
    uint8_t bytes[];
};

struct hrana_ws_reading {
    struct aside aside;
    struct hrana_ws *ws;
    struct asides *asides;
    struct node *node;
    const struct hrana_form *form;
    enum hrana_version version;
    struct buf kept; /* the message, if it is read beside the loop */
    const uint8_t *p;
    size_t n;
    struct hrana_ws_request *r; /* whose arena has all that was read */
    struct hrana_message m;
    enum err e; /* what reading said, and why */
    char *why;
};

static struct hrana_ws_reading *reading_of(struct aside *a)
{
    return LIST_ENTRY(a, struct hrana_ws_reading, aside);
}

static void init(struct hrana_ws_reading *g, struct hrana_ws *w, const uint8_t *p, size_t n) ON_LOOP
{
    *g = (struct hrana_ws_reading){.ws = w,
                                   .asides = websocket_asides(w->socket),
                                   .node = w->node,
                                   .form = w->form,
                                   .version = w->version,
                                   .p = p,
                                   .n = n};
    g->r = MEM_NEW(struct hrana_ws_request);
    arena_init(&g->r->arena, w->node->config->http_body_bytes * HRANA_ARENA_FACTOR);
}

/* Thread: any. */
static void read_message(struct hrana_ws_reading *g)
{
    struct hrana_reader reader;
    hrana_reader_init(&reader, g->form, g->version, &g->r->arena);
    g->e = hrana_reader_feed(&reader, g->p, g->n);
    if (g->e == ERR_OK)
        g->e = g->form->message(&reader, &g->m);
    hrana_reader_fini(&reader);
    if (g->e != ERR_OK)
        g->why = mem_strdup(err_text());
}

static void fini(struct hrana_ws_reading *g) ON_LOOP
{
    if (g->r != NULL)
        aside_free(g->asides, &g->r->arena, &g->node->waiting);
    free(g->r);
    free(g->why);
    buf_fini(&g->kept);
}

/* It was read. */
static void take(struct hrana_ws *w, struct hrana_ws_reading *g) ON_LOOP
{
    struct hrana_ws_request *r = g->r;
    if (g->e != ERR_OK) {
        (void)hrana_ws_break(w, g->e == ERR_TOO_BIG ? WEBSOCKET_TOO_BIG : WEBSOCKET_BAD_TEXT, "%s",
                             g->why);
        return;
    }
    g->r = NULL;
    hrana_ws_take(w, &g->m, r);
}

/* --- beside the loop --- */

static void work(struct aside *a)
{
    read_message(reading_of(a));
}

static void end(struct hrana_ws_reading *g) ON_LOOP
{
    fini(g);
    free(g);
}

static void on_left(struct aside *a)
{
    thread_expect_loop();
    end(reading_of(a));
}

static void on_worked(struct aside *a)
{
    struct hrana_ws_reading *g = reading_of(a);
    struct hrana_ws *w = g->ws;
    struct list *l;
    thread_expect_loop();
    w->reading = NULL;
    hrana_ws_count(w, 0, g->n);
    take(w, g);
    end(g);
    while (w->reading == NULL && !w->broken && (l = list_pop_front(&w->behind)) != NULL) {
        struct hrana_ws_behind *b = LIST_ENTRY(l, struct hrana_ws_behind, link);
        hrana_ws_count(w, 0, sizeof *b + b->n);
        CHECK(b->n < ASIDE_MIN); /* what was read when it was paused */
        hrana_ws_read(w, b->text, b->bytes, b->n);
        free(b);
    }
    hrana_ws_read_on(w);
}

/* --- as they come --- */

static void read_now(struct hrana_ws *w, const uint8_t *p, size_t n) ON_LOOP
{
    struct hrana_ws_reading g;
    init(&g, w, p, n);
    read_message(&g);
    take(w, &g);
    fini(&g);
}

static void read_aside(struct hrana_ws *w, const uint8_t *p, size_t n) ON_LOOP
{
    struct hrana_ws_reading *g = MEM_NEW(struct hrana_ws_reading);
    init(g, w, p, n);
    websocket_take(w->socket, &g->kept);
    hrana_ws_count(w, n, 0);
    w->reading = g;
    w->paused = true;
    websocket_pause(w->socket);
    aside_do(g->asides, &g->aside, work, on_worked);
}

static void wait_behind(struct hrana_ws *w, bool text, const uint8_t *p, size_t n) ON_LOOP
{
    struct hrana_ws_behind *b = mem_alloc(sizeof *b + n);
    b->text = text;
    b->n = n;
    if (n > 0)
        memcpy(b->bytes, p, n);
    hrana_ws_count(w, sizeof *b + n, 0);
    list_push_back(&w->behind, &b->link);
}

void hrana_ws_read(struct hrana_ws *w, bool text, const uint8_t *p, size_t n)
{
    if (w->reading != NULL)
        wait_behind(w, text, p, n);
    else if (text == w->form->binary)
        (void)hrana_ws_break(w, WEBSOCKET_UNSUPPORTED, "messages of this subprotocol are %s frames",
                             text ? "binary" : "text");
    else if (n < ASIDE_MIN)
        read_now(w, p, n);
    else
        read_aside(w, p, n);
}

void hrana_ws_read_end(struct hrana_ws *w)
{
    struct list *l;
    while ((l = list_pop_front(&w->behind)) != NULL) {
        struct hrana_ws_behind *b = LIST_ENTRY(l, struct hrana_ws_behind, link);
        hrana_ws_count(w, 0, sizeof *b + b->n);
        free(b);
    }
    struct hrana_ws_reading *g = w->reading;
    if (g == NULL)
        return;
    hrana_ws_count(w, 0, g->n);
    w->reading = NULL;
    if (!aside_leave(&g->aside, on_left))
        end(g);
}
