/* Room: base. Every limit, in one place, with its reason. Bytes unless the name says otherwise. */
#ifndef BASE_SIZES_H
#define BASE_SIZES_H

#define KIB(n) ((n)*1024ull)
#define MIB(n) ((n)*1024ull * 1024ull)

/* SQLite's default page size since 3.12; set when a database is created, the same on all nodes. */
#define PAGE_SIZE_DEFAULT 4096u
#define PAGE_SIZE_MAX     65536u

/* One frame of the native protocol, either way: a statement with its values, or a block of rows.
 * SQLite's own limit for one value is 1 GB; 64 MiB keeps a hostile client from taking the memory.
 */
#define WIRE_FRAME_MAX MIB(64)
/* Rows of an answer are cut into frames of about this size, so that they stream. */
#define WIRE_ROWS_BLOCK KIB(64)
/* The answer of a write or of a batch, which its node has whole before it sends any of it, whatever
 * answer-bytes is. The library holds it until its end, and believes no node that sends more. */
#define WIRE_ANSWER_MAX (WIRE_FRAME_MAX * 2)
/* Text of one SQL statement: SQLite's own default is 1,000,000. */
#define SQL_TEXT_MAX MIB(1)
/* Values bound to one statement: SQLite's own default limit of variables. */
#define SQL_PARAMS_MAX 32766u
/* Columns of an answer: the most that SQLite can be built for. */
#define SQL_COLUMNS_MAX 32767u
/* Statements of one batch. */
#define BATCH_STATEMENTS_MAX 10000u
/* Interactive transactions that are open at once: each has a connection of its own, 120 KiB. */
#define OPEN_TRANSACTIONS_MAX 1024u

/* A transaction's captured frames on the leader, until published: bounds the room that it takes in
 * the data directory (about three times this, with its log) and the time that all others wait. */
#define TXN_BYTES_MAX MIB(2048)
/* More than that is no setting, and no entry of a leader: 16 million pages. */
#define TXN_BYTES_LIMIT MIB(65536)
/* Of these in memory, and of the parts of a cut one on a follower; the rest is in a temporary file.
 * Ordinary batches never meet it. */
#define TXN_MEMORY_MAX MIB(8)
/* One Raft entry: a transaction above this is cut into several entries, applied at the last one.
 * Small enough that a heartbeat behind it on the same connection is not late. */
#define ENTRY_BYTES_MAX MIB(1)
/* What node/ adds to a transaction's last entry: the outcomes of its numbered writes. */
#define OUTCOMES_SECTION_MAX KIB(256)
/* Proposed and not yet committed: bounds memory and the time that a slow follower can add. */
#define INFLIGHT_BYTES_MAX MIB(16)
/* Queued for one peer's connection before messages to it are dropped (Raft repeats them). */
#define PEER_QUEUE_BYTES_MAX MIB(32)
/* Sent to one peer and not yet reported as stored by it: what a follower with a slow disk must hold
 * in memory. A few full messages, so that its disk never waits for the network. */
#define PEER_WINDOW_BYTES_MAX MIB(8)
/* One message between peers: a full batch of entries and its head. */
#define PEER_FRAME_MAX MIB(8)
/* Entries of one AppendEntries message. */
#define APPEND_BYTES_MAX MIB(2)
/* Log entries kept in memory; older ones are read from the segments. */
#define LOG_CACHE_BYTES_MAX MIB(32)
/* One log segment; libraft-free, own format: docs/FORMATS.md. */
#define LOG_SEGMENT_BYTES MIB(16)

_Static_assert(ENTRY_BYTES_MAX + KIB(64) <= APPEND_BYTES_MAX, "an entry fits a message");
_Static_assert(APPEND_BYTES_MAX + KIB(64) <= PEER_FRAME_MAX, "a message fits a frame");
_Static_assert(PEER_WINDOW_BYTES_MAX + 2 * APPEND_BYTES_MAX <= PEER_QUEUE_BYTES_MAX,
               "a full window fits the queue");
_Static_assert(PEER_WINDOW_BYTES_MAX + APPEND_BYTES_MAX <= INFLIGHT_BYTES_MAX,
               "what a leader sends ahead, a follower may hold");
_Static_assert(INFLIGHT_BYTES_MAX <= LOG_CACHE_BYTES_MAX, "what flies is in memory");
_Static_assert(PEER_FRAME_MAX <= PEER_QUEUE_BYTES_MAX, "a frame fits the queue");
_Static_assert(ENTRY_BYTES_MAX <= LOG_SEGMENT_BYTES, "an entry fits a segment");
_Static_assert(2 * ENTRY_BYTES_MAX <= INFLIGHT_BYTES_MAX, "one may fly while the next is made");
_Static_assert(PAGE_SIZE_MAX + KIB(1) + OUTCOMES_SECTION_MAX <= ENTRY_BYTES_MAX,
               "a page and a full section fit an entry");

/* SQLite's heap, of all connections together: beyond it their page caches do not grow. */
#define SQLITE_HEAP_BYTES MIB(32)

/* WAL size at which a checkpoint starts, and the size at which the writer pauses so that the WAL
 * can be restarted. */
#define WAL_CHECKPOINT_BYTES MIB(4)
#define WAL_RESTART_BYTES    MIB(16)

#endif
