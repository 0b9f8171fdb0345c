/* Room: node/http.   Thread: loop.   Owns: the listening socket, and one list of connections for
 * each thing that they may wait for.
 * Invariants: a list of `waits` has its connections in the order in which they have waited too
 * long, because all of one list have the same time: the timer looks at the first of each and no
 * further, and ten thousand idle connections cost it nothing. Not here: a connection (http_conn.c).
 */
#include "node/http/http_listener.h"

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "node/http/aside.h"
#include "node/http/http_conn.h"
#include "node/meters.h"
#include "node/tcp.h"

#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define TICK_MAX_MS 1000u
#define CLOSE_MS    5000u
#define SAID_MS     60000u /* that connections are refused is said once in so long */

struct http_listener {
    uv_tcp_t tcp;
    uv_timer_t timer;
    uv_idle_t idle; /* runs while somebody is in AGAIN: the loop does not sleep then */
    struct http_options options;
    struct list waits[HTTP_WAITS];
    struct list again;
    struct asides *asides;
    unsigned n_connections;
    unsigned n_spare;      /* of them */
    uint64_t full_said_ms; /* when that was last said in the log (monotonic); 0: never */
    bool winding_down, refuses, deaf, closed;
    unsigned handles;
    time_t date_of; /* of DATE */
    char date[80];
};

struct http_options http_options_default(void)
{
    return (struct http_options){.listen = "127.0.0.1:8080",
                                 .cors = "",
                                 .url = "",
                                 .body_max = MIB(16),
                                 .connections_max = 10000,
                                 .head_ms = 10000,
                                 .body_ms = 30000,
                                 .take_ms = 30000,
                                 .idle_ms = 300000};
}

static void on_idle(uv_idle_t *idle);

static uint32_t time_of(const struct http_listener *l, enum http_wait w)
{
    switch (w) {
    case HTTP_WAIT_HEAD:
        return l->options.head_ms;
    case HTTP_WAIT_BODY:
        return l->options.body_ms;
    case HTTP_WAIT_TAKE:
        return l->options.take_ms;
    case HTTP_WAIT_CLOSE:
        return CLOSE_MS;
    case HTTP_WAIT_IDLE:
        return l->options.idle_ms;
    case HTTP_WAIT_HANDLER:
    case HTTP_WAITS:
        break;
    }
    return 0;
}

uint64_t http_listener_await(struct http_listener *l, struct list *link, enum http_wait w)
{
    list_remove(link);
    list_push_back(&l->waits[w], link);
    return w == HTTP_WAIT_HANDLER ? UINT64_MAX : uv_now(l->tcp.loop) + time_of(l, w);
}

enum http_place http_listener_enter(struct http_listener *l)
{
    l->n_connections++;
    if (l->n_connections - l->n_spare <= l->options.connections_max)
        return HTTP_PLACE;
    if (l->n_spare == HTTP_SPARE_MAX)
        return HTTP_PLACE_NONE;
    l->n_spare++;
    return HTTP_PLACE_SPARE;
}

void http_listener_is_full(struct http_listener *l)
{
    meters_count(METER_REFUSED_HTTP, 1);
    uint64_t now = uv_now(l->tcp.loop);
    if (l->full_said_ms == 0 || now - l->full_said_ms >= SAID_MS) {
        log_warn("http", "refused connections=%u reason=\"http-connections\"",
                 l->options.connections_max);
        l->full_said_ms = now;
    }
}

static void free_when_done(struct http_listener *l) ON_LOOP
{
    if (!l->closed || l->handles > 0 || l->n_connections > 0)
        return;
    asides_close(l->asides);
    free(l);
}

void http_listener_leave(struct http_listener *l, enum http_place place)
{
    CHECK(l->n_connections > 0 && (place != HTTP_PLACE_SPARE || l->n_spare > 0));
    l->n_connections--;
    l->n_spare -= place == HTTP_PLACE_SPARE;
    free_when_done(l);
}

/* An end may end or move others: nothing is remembered over it. */
static void on_tick(uv_timer_t *timer)
{
    struct http_listener *l = timer->data;
    thread_expect_loop();
    uint64_t now = uv_now(timer->loop);
    for (unsigned w = 0; w < HTTP_WAIT_HANDLER; w++)
        while (!list_empty(&l->waits[w]) && http_conn_due(http_conn_of(l->waits[w].next)) <= now)
            http_conn_expire(http_conn_of(l->waits[w].next));
}

void http_listener_again(struct http_listener *l, struct list *again)
{
    list_remove(again);
    list_push_back(&l->again, again);
    (void)uv_idle_start(&l->idle, on_idle);
}

static void on_idle(uv_idle_t *idle)
{
    struct http_listener *l = idle->data;
    struct list now, *i;
    thread_expect_loop();
    list_init(&now);
    list_splice(&now, &l->again);
    while ((i = list_pop_front(&now)) != NULL)
        http_conn_go_on(i);
    if (list_empty(&l->again))
        (void)uv_idle_stop(idle);
}

static void on_connection(uv_stream_t *socket, int status)
{
    struct http_listener *l = socket->data;
    thread_expect_loop();
    if (status != 0)
        log_warn("http", "accept failed=\"%s\"", uv_strerror(status));
    else
        http_conn_accept(l, socket);
}

/* Often enough to notice the shortest time, not oftener than that needs. */
static uint64_t tick_of(const struct http_options *o)
{
    uint32_t least = o->head_ms < o->body_ms ? o->head_ms : o->body_ms;
    least = o->take_ms < least ? o->take_ms : least;
    least = o->idle_ms < least ? o->idle_ms : least;
    return least / 4 < 10 ? 10 : least / 4 > TICK_MAX_MS ? TICK_MAX_MS : least / 4;
}

enum err http_listener_open(uv_loop_t *loop, const struct http_options *options,
                            struct http_listener **out)
{
    thread_expect_loop();
    struct http_listener *l = MEM_NEW(struct http_listener);
    l->options = *options;
    for (unsigned w = 0; w < HTTP_WAITS; w++)
        list_init(&l->waits[w]);
    int rc = uv_tcp_init(loop, &l->tcp);
    CHECK(rc == 0);
    rc = uv_timer_init(loop, &l->timer);
    CHECK(rc == 0);
    rc = uv_idle_init(loop, &l->idle);
    CHECK(rc == 0);
    list_init(&l->again);
    l->asides = asides_new(loop);
    l->tcp.data = l->timer.data = l->idle.data = l;
    l->handles = 3;
    enum err e = tcp_listen(&l->tcp, "http-listen", options->listen, on_connection);
    if (e != ERR_OK) {
        http_listener_close(l);
        return e;
    }
    uint64_t tick = tick_of(options);
    rc = uv_timer_start(&l->timer, on_tick, tick, tick);
    CHECK(rc == 0);
    *out = l;
    return ERR_OK;
}

uint16_t http_listener_port(const struct http_listener *l)
{
    struct sockaddr_storage a;
    int n = sizeof a;
    char port[8] = "0";
    if (uv_tcp_getsockname(&l->tcp, (struct sockaddr *)&a, &n) != 0 ||
        getnameinfo((struct sockaddr *)&a, (socklen_t)n, NULL, 0, port, sizeof port,
                    NI_NUMERICSERV) != 0)
        return 0;
    return (uint16_t)strtoul(port, NULL, 10);
}

unsigned http_listener_connections(const struct http_listener *l)
{
    return l->n_connections;
}

static void on_handle_closed(uv_handle_t *h)
{
    struct http_listener *l = h->data;
    thread_expect_loop();
    l->handles--;
    free_when_done(l);
}

void http_listener_wind_down(struct http_listener *l)
{
    l->winding_down = true;
}

void http_listener_refuse(struct http_listener *l)
{
    if (l->refuses)
        return;
    l->winding_down = l->refuses = true;
    for (unsigned w = 0; w < HTTP_WAITS; w++)
        LIST_EACH(i, &l->waits[w])
            http_conn_wind_down(http_conn_of(i));
}

void http_listener_deafen(struct http_listener *l)
{
    if (!l->deaf)
        uv_close((uv_handle_t *)&l->tcp, on_handle_closed);
    l->deaf = true;
}

bool http_listener_is_quiet(const struct http_listener *l)
{
    for (unsigned w = 0; w < HTTP_WAITS; w++)
        LIST_EACH(i, &l->waits[w])
            if (http_conn_is_busy(http_conn_of(i)))
                return false;
    return true;
}

static struct http_conn *any_of(const struct http_listener *l) ON_LOOP
{
    for (unsigned w = 0; w < HTTP_WAITS; w++)
        if (!list_empty(&l->waits[w]))
            return http_conn_of(l->waits[w].next);
    return NULL;
}

void http_listener_close(struct http_listener *l)
{
    CHECK(!l->closed);
    l->winding_down = true;
    http_listener_deafen(l);
    uv_close((uv_handle_t *)&l->timer, on_handle_closed);
    uv_close((uv_handle_t *)&l->idle, on_handle_closed);
    for (struct http_conn *c; (c = any_of(l)) != NULL;)
        http_conn_stop(c);
    l->closed = true; /* freed with the last handle, and with a connection that is in a handler */
}

bool http_listener_is_winding_down(const struct http_listener *l)
{
    return l->winding_down;
}

const struct http_options *http_listener_options(const struct http_listener *l)
{
    return &l->options;
}

bool http_listener_refuses(const struct http_listener *l)
{
    return l->refuses;
}

struct asides *http_listener_asides(const struct http_listener *l)
{
    return l->asides;
}

uv_loop_t *http_listener_loop(const struct http_listener *l)
{
    return l->tcp.loop;
}

const char *http_listener_date(struct http_listener *l)
{
    time_t now = (time_t)(clock_wall_ms() / 1000);
    if (now != l->date_of) {
        static const char days[] = "SunMonTueWedThuFriSat";
        static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
        struct tm t;
        l->date_of = now;
        (void)gmtime_r(&now, &t); /* not strftime: its names are the locale's */
        (void)snprintf(l->date, sizeof l->date, "%.3s, %02d %.3s %d %02d:%02d:%02d GMT",
                       days + 3 * t.tm_wday, t.tm_mday, months + 3 * t.tm_mon, 1900 + t.tm_year,
                       t.tm_hour, t.tm_min, t.tm_sec);
    }
    return l->date;
}
