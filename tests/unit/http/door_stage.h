/* Room: tests. The whole HTTP door over sessions whose requests the test answers
 * (tests/lib/asked.h): what a client says comes in over a socket, as JSON, and what the door asks
 * for is seen as the leader would. */
#ifndef TESTS_UNIT_HTTP_DOOR_STAGE_H
#define TESTS_UNIT_HTTP_DOOR_STAGE_H

#include "node/node.h"
#include "node/session.h"
#include "tests/unit/http/http_stage.h"

struct door_stage {
    struct http_stage http; /* first: all that is done with it is done with the door */
    struct config config;
    struct node node;
    uv_prepare_t before_sleep;
};

void door_stage_open(struct door_stage *d);
/* Clients are gone. Fails when something of a stream, or a counted byte, is left. */
void door_stage_close(struct door_stage *d);

/* POST of BODY, as a new request of FD. */
void door_post(struct door_stage *d, int fd, const char *path, const char *body);
/* The body of the next answer of FD, which has STATUS; free() it. */
char *door_answer(struct door_stage *d, int fd, int status);
/* The next piece of a chunked answer, or of a WebSocket, until it has WANTED in it. */
char *door_hear(struct door_stage *d, int fd, const char *wanted);
/* A WebSocket, greeted; what it says. */
int door_socket(struct door_stage *d, const char *protocol);
void door_say(struct door_stage *d, int fd, const char *message);
/* MESSAGE as a frame, behind what B holds. */
void door_frame(struct buf *b, const char *message);
/* What is asked for, by the oldest session that asks; its text is TEXT. */
struct request *door_asked(struct door_stage *d, const char *text);
/* Nobody asks for anything. */
bool door_is_quiet(struct door_stage *d);
/* The text of "NAME":"..." in BODY; free() it. */
char *door_find(const char *body, const char *name);

#endif
