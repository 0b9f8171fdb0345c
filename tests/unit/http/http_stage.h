/* Room: tests. An HTTP port on a loop of the test's own, and clients of it that are bare sockets:
 * the loop runs only while a client says or hears something. */
#ifndef TESTS_UNIT_HTTP_HTTP_STAGE_H
#define TESTS_UNIT_HTTP_HTTP_STAGE_H

#include "base/thread.h"
#include "node/http/http_listener.h"
#include "node/http/router.h"
#include "node/waiting.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

struct http_stage {
    uv_loop_t loop;
    struct http_listener *listener;
    struct waiting waiting;
};

/* Opens it on a free port. */
void stage_open(struct http_stage *s, struct http_options options);
/* Closes it, unless LISTENER is NULL because the test has; fails when something is left: a handle,
 * a counted byte. */
void stage_close(struct http_stage *s);
/* Lets the loop do what it can. */
void stage_turn(struct http_stage *s);
/* The same until *DONE, for 10 seconds at most. */
void stage_until(struct http_stage *s, const bool *done);
/* For so long. */
void stage_for(struct http_stage *s, uint64_t ms);

int client_dial(struct http_stage *s);
/* Sends all, in pieces of PIECE bytes (0: at once), with turns of the loop between. */
void client_say(struct http_stage *s, int fd, const void *p, size_t n, size_t piece);
void client_say_text(struct http_stage *s, int fd, const char *text);
/* Reads until what came has WANTED in it, or the end came, or 10 seconds went by. Returns all
 * that came, zero-terminated; free() it. */
char *client_hear(struct http_stage *s, int fd, const char *wanted, size_t *n);
/* Reads until the end. */
char *client_hear_all(struct http_stage *s, int fd, size_t *n);
/* Did the connection end? Waits for it, 10 seconds at most. */
bool client_is_ended(struct http_stage *s, int fd);

#endif
