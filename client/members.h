/* Room: client. What is known of the nodes of a cluster: who they are and where, which of them
 * leads, which are near and healthy, and whom to ask next. No sockets here: the connection's fields
 * are cluster.c's. Thread: the loop's. */
#ifndef CLIENT_MEMBERS_H
#define CLIENT_MEMBERS_H

#include "base/list.h"
#include "base/rng.h"
#include "client/url.h"

#define MEMBERS_MAX 64u /* a cluster has 15 at most; the rest is room for those it had before */
#define MEMBER_TEXT 48u /* of a version */

/* A failed node is avoided for so long, doubled at each failure up to the second, with jitter. */
#define MEMBER_AVOID_MIN_MS 100u
#define MEMBER_AVOID_MAX_MS 5000u
/* So long a new connection is waited for before another node is tried beside it. */
#define MEMBER_SLOW_MS 300u

/* So long after a leader's silence was noticed its followers are not asked to pass a write on: they
 * would pass it on to the silent one, until they have elected another. */
#define MEMBER_ELECTION_MS 3000u
/* Between two looks at the news meanwhile. */
#define MEMBER_NEWS_MS 100u

/* An address at which nobody is counts as empty after so many attempts. */
#define MEMBER_ROUNDS 2u

struct link;

/* Never moves in memory while its cluster lives. */
struct member {
    bool used;
    unsigned index;
    uint64_t id;                   /* 0: not known yet */
    char address[URL_ADDRESS_MAX]; /* where it is dialled */
    char another[URL_ADDRESS_MAX]; /* tried when that fails; "": none */
    bool from_url;
    bool gone;          /* the newest list of members does not name it */
    bool same;          /* its address leads to a node that is known under another one */
    bool sick;          /* its state is not "ok": it serves no reads */
    uint64_t seq;       /* newest transaction that it told of */
    bool silent;        /* it owed an answer for too long, and has said nothing since */
    uint64_t silent_ms; /* since when that is known */
    uint64_t avoid_until_ms;
    unsigned failures; /* in a row */
    /* Why no node of the cluster is there, as it seems; CLOSED: nobody, and one may be there soon;
     * OK: no reason. */
    enum err refusal;
    bool told;     /* by the list that is being taken */
    unsigned refs; /* streams that it answered last */
    char server[MEMBER_TEXT], sqlite[MEMBER_TEXT];

    /* The connection: cluster.c. */
    struct link *link;
    bool ready;
    uint64_t sent_total; /* bytes, of the connection that ended last */
    uint64_t serial;     /* of this connection, never used again */
    uint64_t dialled_ms;
    uint64_t rtt_us;       /* 0: not measured */
    unsigned awaited;      /* answers */
    bool sign_awaited;     /* one of them: any sign of life */
    struct list in_flight; /* calls whose answer is awaited from it */
    struct list waiting;   /* calls that wait for the connection */
    struct list in_txn;    /* streams with a transaction there */
    unsigned n_open;       /* streams that it knows */
    uint64_t swept_ms;     /* when idle ones among them were looked for */
    struct lectern_cluster *cluster;
};

struct members {
    struct member all[MEMBERS_MAX];
    unsigned n;                      /* all[n] and beyond were never used */
    uint64_t leader_id, leader_term; /* the newest news; 0: nobody */
    bool leader_doubted;             /* it said that it does not lead, or is silent */
    struct member *reader;           /* reads stay there */
    struct rng rng;
    /* Of the list that is being taken. */
    uint64_t news_leader, news_term;
    unsigned news_rows;
    bool news_unheard; /* a member's address is not known yet to who told it */
};

void members_init(struct members *ms, const struct url *url, uint64_t seed);
struct member *members_by_id(struct members *ms, uint64_t id);
/* A node answered at M under this id. Is it connected under another entry already, then M is
 * `same`; else M is its entry from now on. */
void members_identified(struct members *ms, struct member *m, uint64_t id);

/* It answered: trusted again. It failed: avoided for a while. REFUSAL: why no node of ours is
 * there, and waiting changes nothing (no such name, another server or version); ERR_OK: it may get
 * well. */
void member_worked(struct member *m);
void member_failed(struct members *ms, struct member *m, enum err refusal, uint64_t now_ms);
/* It failed because nobody is there, as it seems, or a proxy whose server is not; a node that is
 * being started looks like that, too. */
void member_absent(struct members *ms, struct member *m, uint64_t now_ms);
bool member_is_avoided(const struct member *m, uint64_t now_ms);
/* It owed an answer and sent no byte: asked after all others, also as the leader, until it says
 * something or leads in a newer term. */
void member_fell_silent(struct member *m, uint64_t now_ms);
/* Every address was tried and no node is there: ERR_CLOSED, or, when another server is at each that
 * has one, why that is none of ours. Else ERR_OK. WAITED: long enough for nodes that are being
 * started; each of these addresses was tried MEMBER_ROUNDS times. */
enum err members_refused(const struct members *ms, bool waited);

/* One row of STATUS. Texts are borrowed and not zero-terminated. */
struct member_news {
    uint64_t id, term, seq, leader_id;
    const char *address, *role, *state, *peer;
    size_t address_len, role_len, state_len, peer_len;
    bool is_member;
};
/* A list of members from FROM: begin, each row, end. end: true when who leads has changed. */
void members_begin_news(struct members *ms);
void members_take_news(struct members *ms, const struct member *from, const struct member_news *n);
bool members_end_news(struct members *ms);
/* STATUS as its frames give it. */
struct member_columns {
    uint32_t n;
    int at[8]; /* of each column that we read, -1: not there */
};
void member_columns_find(struct member_columns *c, uint32_t n, struct rd columns);
/* N_ROWS checked rows of these columns. */
void members_take_rows(struct members *ms, const struct member *from,
                       const struct member_columns *c, uint32_t n_rows, struct rd values);

/* The member that leads by the newest news, NULL: not known, or doubted. */
struct member *members_leader(struct members *ms);
/* The leader while it is silent and its followers may not have noticed: what needs a leader waits
 * for news. Else NULL. */
struct member *members_silent_leader(struct members *ms, uint64_t now_ms);

struct member_wish {
    bool leader;                /* the leader, if it is known: writes, strong reads */
    bool read;                  /* wants a healthy one, near, and to stay there */
    const struct member *avoid; /* it was no good to this call just now; NULL: none */
};
/* Whom to ask. NULL: all are to be left alone until *until_ms. */
struct member *members_choose(struct members *ms, const struct member_wish *wish, uint64_t now_ms,
                              uint64_t *until_ms);

#endif
