/* Room: tests. The owner of a link, for tests: counts what it sees, turns its loop. Thread: one. */
#ifndef TESTS_UNIT_CLIENT_LINK_SEEN_H
#define TESTS_UNIT_CLIENT_LINK_SEEN_H

#include "client/link.h"

/* What a link's owner sees. */
struct seen {
    struct loop *loop;
    struct link *link;
    unsigned ready, frames, pongs, done, down;
    uint64_t node_id, cluster_id, seq, pong_seq, bytes, last_done_seq;
    char server[32];
    enum err code;
    char why[ERR_TEXT_MAX];
    enum { NEVER, AT_READY, AT_FRAME, AT_DOWN } free_it, fail_it;
};

enum err try_to_open(struct seen *s, const char *address);
void open_link(struct seen *s, const char *address);
void close_link(struct seen *s);
/* Turns the loop until *COUNT has reached N; ten seconds are a failure. */
void turn_until(struct seen *s, const unsigned *count, unsigned n);
void turn_ms(struct seen *s, uint64_t ms);
/* It goes down once, for this reason; the sentence contains PART; its calls do no harm after. */
void expect_down(struct seen *s, enum err code, const char *part);
/* QUERY on stream 1, not sent yet: a text of SQL_LEN blanks. */
void put_query(struct link *k, uint32_t request, size_t sql_len);
void query(struct link *k, uint32_t request);
/* Releases lookups that hang, and waits for their end. */
void let_names_end(void);

/* A node within this thread, so that each byte meets a turn of its own. */
struct by_hand {
    int listener, fd;
    char address[32];
};

void listen_by_hand(struct by_hand *h, int backlog);
void end_by_hand(struct by_hand *h);

#endif
