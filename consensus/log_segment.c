/* Room: consensus. Thread: any, one at a time.
 * Owns: the window of a cursor.
 * Invariants: a record is given out only when its head, its place, its order and (when asked for)
 *             its payload are proved by checksums.
 * Not here: which segments there are (log_index.c, log_load.c), writing (log_store.c).
 *
 * Two checksums a record. The head's own one is keyed with the file's random salt and the offset:
 * it holds without knowing what came before, so that a scan can find records behind a damaged one.
 * The payload's one is keyed with the chain, which runs through all heads since entry 1: a record
 * that is whole but does not belong behind its predecessor never validates. */
#include "consensus/log_segment.h"

#include "base/check.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "consensus/message.h"

#include <stdlib.h>
#include <string.h>

#define SEGMENT_MAGIC "LecRaftS"
#define RECORD_MAGIC  0x4345524cu /* "LREC" */
#define WINDOW_BYTES  KIB(256)
#define HEAD_HASHED   (LOG_RECORD_HEAD_BYTES - 8)

void log_segment_head_encode(uint8_t out[LOG_SEGMENT_HEAD_BYTES], const struct log_segment_head *h)
{
    memcpy(out, SEGMENT_MAGIC, 8);
    set_le32(out + 8, LOG_FORMAT_VERSION);
    set_le32(out + 12, LOG_RECORDS_AT);
    set_le64(out + 16, h->cluster_id);
    set_le64(out + 24, h->node_id);
    set_le64(out + 32, h->epoch);
    set_le64(out + 40, h->first_index);
    set_le64(out + 48, h->prev_term);
    set_le64(out + 56, h->chain);
    set_le64(out + 64, h->salt);
    set_le64(out + 72, hash64(out, 72, 0));
}

enum err log_segment_head_decode(const uint8_t *p, const char *path, struct log_segment_head *h)
{
    if (memcmp(p, SEGMENT_MAGIC, 8) == 0 && get_le32(p + 8) > LOG_FORMAT_VERSION)
        return err_fail(ERR_FORMAT, "%s has log format %u; this version reads up to %u", path,
                        get_le32(p + 8), LOG_FORMAT_VERSION);
    if (memcmp(p, SEGMENT_MAGIC, 8) != 0 || hash64(p, 72, 0) != get_le64(p + 72) ||
        get_le32(p + 8) != LOG_FORMAT_VERSION || get_le32(p + 12) != LOG_RECORDS_AT)
        return err_fail(ERR_CORRUPT, "%s offset 0: the head of this log segment is damaged", path);
    *h = (struct log_segment_head){
        .cluster_id = get_le64(p + 16),
        .node_id = get_le64(p + 24),
        .epoch = get_le64(p + 32),
        .first_index = get_le64(p + 40),
        .prev_term = get_le64(p + 48),
        .chain = get_le64(p + 56),
        .salt = get_le64(p + 64),
    };
    return ERR_OK;
}

uint64_t log_record_bytes(uint64_t len)
{
    return LOG_RECORD_HEAD_BYTES + ((len + 7) & ~7ull);
}

uint64_t log_record_encode(uint8_t *out, const struct cns_item *item, uint64_t offset,
                           uint64_t synced, uint64_t salt, uint64_t chain)
{
    size_t len = item->payload == NULL ? 0 : item->payload->len;
    CHECK(len <= ENTRY_BYTES_MAX && offset <= UINT32_MAX && synced <= offset);
    set_le32(out, RECORD_MAGIC);
    set_le32(out + 4, (uint32_t)len);
    set_le64(out + 8, item->index);
    set_le64(out + 16, item->term);
    set_le32(out + 24, (uint32_t)item->kind);
    set_le32(out + 28, (uint32_t)synced);
    uint8_t *body = out + LOG_RECORD_HEAD_BYTES;
    if (len > 0)
        memcpy(body, item->payload->data, len);
    size_t padded = (size_t)log_record_bytes(len) - LOG_RECORD_HEAD_BYTES;
    memset(body + len, 0, padded - len);
    set_le64(out + 32, hash64(body, padded, chain));
    set_le64(out + 40, hash64(out, HEAD_HASHED, salt ^ offset));
    return hash64(out, HEAD_HASHED, chain);
}

void log_cursor_init(struct log_cursor *c, int fd, const char *path, uint64_t size, uint64_t salt)
{
    *c = (struct log_cursor){.fd = fd, .path = path, .salt = salt, .end = size};
}

void log_cursor_seek(struct log_cursor *c, uint64_t offset, uint64_t index, uint64_t term,
                     uint64_t chain)
{
    c->offset = offset;
    c->index = index - 1;
    c->term = term;
    c->chain = chain;
}

void log_cursor_fini(struct log_cursor *c)
{
    free(c->window);
    c->window = NULL;
}

/* The file's bytes [offset, offset + n), which must end before c->end; NULL: err_text(). */
static const uint8_t *view(struct log_cursor *c, uint64_t offset, size_t n)
{
    CHECK(offset + n <= c->end);
    if (offset >= c->window_at && offset + n <= c->window_at + c->window_n)
        return c->window + (offset - c->window_at);
    size_t want = n > WINDOW_BYTES ? n : WINDOW_BYTES;
    if (want > c->end - offset)
        want = (size_t)(c->end - offset);
    if (want > c->window_cap) {
        c->window = mem_realloc(c->window, want);
        c->window_cap = want;
    }
    c->window_n = 0;
    size_t got;
    if (file_read_at(c->fd, c->path, c->window, want, offset, &got) != ERR_OK)
        return NULL;
    memset(c->window + got, 0, want - got); /* cut short since: as if never written */
    c->window_at = offset;
    c->window_n = want;
    return c->window;
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static enum log_step bad(const struct log_cursor *c, const char *why)
{
    (void)err_fail(ERR_CORRUPT, "%s offset %llu: entry %llu %s", c->path,
                   (unsigned long long)c->offset, (unsigned long long)c->index + 1, why);
    return LOG_STEP_BAD;
}

static bool head_holds(const uint8_t *head, uint64_t offset, uint64_t salt)
{
    return get_le32(head) == RECORD_MAGIC &&
           get_le64(head + 40) == hash64(head, HEAD_HASHED, salt ^ offset);
}

/* Why the (self-consistent) head cannot stand here, or NULL. */
static const char *misplaced(const struct log_cursor *c, const uint8_t *head)
{
    uint32_t kind = get_le32(head + 24);
    if (get_le64(head + 8) != c->index + 1)
        return "has another entry's number";
    if (get_le64(head + 16) < c->term)
        return "has a lower term than the entry before it";
    if (kind != CNS_COMMAND && kind != CNS_BARRIER && kind != CNS_CHANGE)
        return "has an unknown kind";
    if (get_le32(head + 4) > ENTRY_BYTES_MAX || get_le32(head + 28) > c->offset)
        return "has impossible sizes";
    if (c->end - c->offset < log_record_bytes(get_le32(head + 4)))
        return "runs over the end of the file";
    return NULL;
}

enum log_step log_cursor_next(struct log_cursor *c, bool with_payload, struct log_record *out)
{
    if (c->offset >= c->end || c->end - c->offset < LOG_RECORD_HEAD_BYTES)
        return LOG_STEP_ZEROS;
    const uint8_t *head = view(c, c->offset, LOG_RECORD_HEAD_BYTES);
    if (head == NULL)
        return LOG_STEP_FAILED;
    if (all_zero(head, LOG_RECORD_HEAD_BYTES))
        return LOG_STEP_ZEROS;
    if (!head_holds(head, c->offset, c->salt))
        return bad(c, "has a head that fails its checksum");
    const char *why = misplaced(c, head);
    if (why != NULL)
        return bad(c, why);
    uint32_t len = get_le32(head + 4);
    uint64_t chain = hash64(head, HEAD_HASHED, c->chain);
    struct log_record r = {
        .index = get_le64(head + 8),
        .term = get_le64(head + 16),
        .offset = c->offset,
        .kind = (enum cns_kind)get_le32(head + 24),
        .len = len,
        .chain = chain,
    };
    if (with_payload) {
        uint64_t want = get_le64(head + 32);
        size_t bytes = (size_t)log_record_bytes(len);
        const uint8_t *record = view(c, c->offset, bytes);
        if (record == NULL)
            return LOG_STEP_FAILED;
        r.payload = record + LOG_RECORD_HEAD_BYTES;
        if (hash64(r.payload, bytes - LOG_RECORD_HEAD_BYTES, c->chain) != want)
            return bad(c, "has a payload that fails its checksum");
        if (r.kind == CNS_CHANGE && cns_message_check_members(r.payload, len) != ERR_OK)
            return bad(c, "is a change of members that does not decode");
    }
    c->offset += log_record_bytes(len);
    c->index = r.index;
    c->term = r.term;
    c->chain = chain;
    *out = r;
    return LOG_STEP_RECORD;
}

enum err log_cursor_look_behind(struct log_cursor *c, bool *rest, uint64_t *proof)
{
    *rest = false;
    *proof = 0;
    uint64_t at = c->offset;
    while (at < c->end) {
        size_t n = c->end - at < WINDOW_BYTES ? (size_t)(c->end - at) : WINDOW_BYTES;
        const uint8_t *p = view(c, at, n);
        if (p == NULL)
            return ERR_IO;
        if (all_zero(p, n)) {
            at += n;
            continue;
        }
        *rest = true;
        for (size_t i = 0; i + LOG_RECORD_HEAD_BYTES <= n; i += 8)
            if (head_holds(p + i, at + i, c->salt) && get_le32(p + i + 28) > c->offset) {
                *proof = at + i;
                return ERR_OK;
            }
        if (at + n == c->end)
            break;
        at += n - LOG_RECORD_HEAD_BYTES; /* a head may straddle two windows */
    }
    return ERR_OK;
}
