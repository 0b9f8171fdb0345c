/* Room: client. A statement as a program holds it: its text, its bound values, the row that it
 * stands on. Shared by statement.c, bind.c, column.c, exec.c, batch.c, start.c, transaction.c and
 * admin.c only. Thread: under
 * the cluster's lock. */
#ifndef CLIENT_STATEMENT_H
#define CLIENT_STATEMENT_H

#include "client/handle.h"

#define STATEMENT_ALIVE 0x53544d54u
#define STATEMENT_DEAD  0x73746d74u
/* Longer texts are not kept by the nodes: they are data rather than statements. */
#define KEEP_TEXT_MAX 4096u
/* One bound text or blob; a frame holds it with its statement. */
#define BOUND_MAX (WIRE_FRAME_MAX - SQL_TEXT_MAX - KIB(64))

/* The text of a statement, shared with the batches that it was added to: the nodes keep it under
 * one number as long as anybody needs it. */
struct text {
    unsigned refs;
    uint32_t keep; /* 0: not kept */
    size_t len;
    char sql[]; /* zero-terminated */
};

struct bound {
    struct wire_value v;
    bool zeros;   /* a blob of v.text.len zeros, without bytes */
    bool owned;   /* memory: free it */
    void *memory; /* of v.text.bytes; NULL: the caller's */
    lectern_destructor destructor;
};

struct column_name {
    const char *name, *decltype; /* in `columns_text`; decltype NULL: none */
};

/* A value of the row, and what it was turned into. */
struct cell {
    struct wire_value v;
    char *text; /* of a number; NULL: not turned */
    size_t text_len;
};

enum statement_state {
    STATEMENT_READY, /* to be bound and run */
    STATEMENT_RUN,   /* stepped, on a row or before one */
    STATEMENT_HALTED /* at its end, or failed; the next step begins anew */
};

struct lectern_stmt {
    struct handle handle; /* first */
    enum wire_type type;  /* QUERY, STATUS, CLUSTER */
    enum call_kind kind;
    bool lazy, readonly, changes, savepoint, started, prefetched;
    int explain;                 /* 0, 1: EXPLAIN, 2: EXPLAIN QUERY PLAN */
    struct text *text;           /* NULL: none */
    struct wire_cluster *change; /* CLUSTER, its text behind it */

    uint32_t n_params; /* lazy: highest bound */
    char **params;     /* names, NULL: none has one */
    char *params_text;
    struct bound *bound;
    uint32_t n_bound; /* room for so many: the others are NULL */

    uint32_t n_columns;
    struct column_name *columns;
    char *columns_text;
    uint8_t *columns_raw; /* as they came, to notice that they are the same again */
    size_t columns_raw_len;

    enum statement_state state;
    bool waited_for;        /* by a call on it, without the lock */
    struct last_error last; /* what reset returns */
    struct run *run;
    struct list rows; /* prefetched: of a batch, all here; kept for reset */
    struct list *row_at;
    struct item *frame; /* whose rows we read */
    struct rd values;
    uint32_t rows_left;
    uint8_t *lent; /* the byte behind the row, zeroed as the end of its last text; NULL: none */
    uint8_t lent_byte;
    bool on_row;
    struct cell *cells; /* n_columns */

    lectern_on_row row_callback;
    lectern_on_end end_callback;
    void *callback_arg;
};

/* False: no statement, or a finalized one; else the lock is held (session_leave). */
bool statement_enter(struct lectern_stmt *s);
/* NULL: no memory. */
struct text *text_new(const char *sql, size_t n);
struct text *text_ref(struct text *t);
/* The last one: FORGET. T may be NULL. */
void text_unref(struct text *t, struct lectern_cluster *c);
/* No memory: NULL. TEXT may be NULL, and is taken, also then. */
struct lectern_stmt *statement_new(struct lectern *db, enum wire_type type, struct text *text);
/* One whole statement, without asking a node. NULL: no memory. */
struct lectern_stmt *statement_new_lazy(struct lectern *db, const char *sql, size_t n);
/* The calls of the public header, without lock and handle checks. */
int statement_step(struct lectern_stmt *s);
int statement_reset(struct lectern_stmt *s);
int statement_finalize(struct lectern_stmt *s);
/* lectern_exec without its message. */
int statement_exec(struct lectern *db, const char *sql,
                   int (*row)(void *arg, int n, char **values, char **names), void *arg);
/* Makes S's request and starts it. ON_READY: not to be waited for. Primary code, set in DB. */
int statement_begin(struct lectern_stmt *s, void (*on_ready)(struct run *r));
/* Goes to the next row of what is here. ROW; DONE: nothing more here (now); or an error, set. */
int statement_next_row(struct lectern_stmt *s);
/* The run has ended and its rows are used up: sets the session's error. DONE or an error. */
int statement_end(struct lectern_stmt *s);
/* The session was interrupted. */
void statement_interrupt(struct lectern_stmt *s);

/* Behind bind.c: the parameters as they are sent (B tells of no memory, or too much). */
void bound_encode(const struct lectern_stmt *s, struct buf *b);
uint32_t bound_count(const struct lectern_stmt *s);
void bound_clear(struct lectern_stmt *s, uint32_t i);
void bound_free_all(struct lectern_stmt *s);

/* Behind column.c: N columns, each a name and a declared type, in RAW. Pointers to the names stay
 * good when they are the same as before. ERR_NOMEM. */
MUST_USE enum err statement_columns_set(struct lectern_stmt *s, uint32_t n, struct rd raw);
/* Reads the next row of the frame into the cells. */
void cells_read(struct lectern_stmt *s);
void cells_clear(struct lectern_stmt *s);
void statement_columns_free(struct lectern_stmt *s);

#endif
