/* Room: node. Thread: any. Owns: nothing.
 * Both come from the disk or from a peer when they are read: every field is checked. */
#include "node/record.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <string.h>

#define NOTE_VERSION   1u
#define NOTE_BYTES     28u
#define RECORD_VERSION 1u
#define RECORD_CHECK   8u /* the checksum at its end */
#define MEMBERS_MAX    KIB(56)
#define PAGE_SIZE_MIN  512u

size_t note_encode(const struct lane_mark *m, uint8_t out[CNS_SNAPSHOT_DATA_MAX])
{
    _Static_assert(NOTE_BYTES <= CNS_SNAPSHOT_DATA_MAX, "the note fits its place");
    set_le32(out, NOTE_VERSION);
    set_le32(out + 4, m->page_size);
    set_le32(out + 8, m->pages);
    set_le64(out + 12, m->seq);
    set_le64(out + 20, m->checksum);
    return NOTE_BYTES;
}

enum err note_decode(const struct cns_snapshot *s, struct lane_mark *out)
{
    struct rd r = rd_of(s->data, s->data_len);
    uint32_t version = rd_u32(&r);
    if (!r.failed && version != NOTE_VERSION)
        return err_fail(ERR_FORMAT,
                        "the snapshot record has a note of version %u, this program reads %u",
                        version, NOTE_VERSION);
    out->index = s->index;
    out->page_size = rd_u32(&r);
    out->pages = rd_u32(&r);
    out->seq = rd_u64(&r);
    out->checksum = rd_u64(&r);
    bool sane = out->page_size >= PAGE_SIZE_MIN && out->page_size <= PAGE_SIZE_MAX &&
                (out->page_size & (out->page_size - 1)) == 0 && out->pages > 0;
    if (r.failed || rd_left(&r) != 0 || !sane)
        return err_fail(ERR_CORRUPT, "the snapshot record's note makes no sense");
    return ERR_OK;
}

void record_put(struct buf *b, const struct cns_snapshot *s)
{
    size_t begun = b->len;
    CHECK(s->members->len <= MEMBERS_MAX && s->data_len <= CNS_SNAPSHOT_DATA_MAX);
    buf_put_u32(b, RECORD_VERSION);
    buf_put_u64(b, s->index);
    buf_put_u64(b, s->term);
    buf_put_u64(b, s->members_index);
    buf_put_u64(b, s->highest_id);
    buf_put_str(b, (const char *)s->members->data, s->members->len);
    buf_put_str(b, (const char *)s->data, s->data_len);
    if (b->failed == ERR_OK)
        buf_put_u64(b, hash64(b->data + begun, b->len - begun, 0));
}

enum err record_get(const uint8_t *p, size_t n, struct cns_snapshot *out)
{
    size_t members_len, data_len;
    *out = (struct cns_snapshot){0};
    if (n < RECORD_CHECK + 4 || get_le64(p + n - RECORD_CHECK) != hash64(p, n - RECORD_CHECK, 0))
        return err_fail(ERR_CORRUPT, "a record of %zu bytes with a wrong checksum", n);
    struct rd r = rd_of(p, n - RECORD_CHECK);
    uint32_t version = rd_u32(&r);
    if (version != RECORD_VERSION)
        return err_fail(ERR_FORMAT, "a record of version %u, this program reads %u", version,
                        RECORD_VERSION);
    out->index = rd_u64(&r);
    out->term = rd_u64(&r);
    out->members_index = rd_u64(&r);
    out->highest_id = rd_u64(&r);
    const char *members = rd_str(&r, &members_len);
    const char *data = rd_str(&r, &data_len);
    bool sane = out->index > 0 && out->term > 0 && out->members_index <= out->index &&
                members_len > 0 && members_len <= MEMBERS_MAX && data_len <= sizeof out->data;
    if (r.failed || rd_left(&r) != 0 || !sane)
        return err_fail(ERR_CORRUPT, "a record that makes no sense");
    memcpy(out->data, data, data_len);
    out->data_len = data_len;
    uint8_t *copy = mem_alloc(members_len);
    memcpy(copy, members, members_len);
    out->members = cns_payload_take(copy, members_len);
    return ERR_OK;
}
