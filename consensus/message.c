/* Room: consensus. Thread: any.
 * Owns: what it decoded, until cns_message_fini.
 * Invariants: a decoded message has only values that libraft's core and our driver may be given;
 *             nothing is left over behind it; on failure nothing is owned.
 * Not here: frames, sequence numbers and the checksum of a head (peer_wire.c).
 *
 * libraft's own structs are copied field by field, never as memory: their layout is not ours. */
#include "consensus/message.h"

#include "base/check.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/sizes.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(24ull * CNS_MESSAGE_ITEMS_MAX + KIB(1) <= CNS_MESSAGE_HEAD_MAX,
               "a head of items fits");
_Static_assert((CNS_MESSAGE_ADDRESS_MAX + 13ull) * CNS_MESSAGE_MEMBERS_MAX +
                       CNS_MESSAGE_SNAPSHOT_MAX + KIB(1) <=
                   CNS_MESSAGE_HEAD_MAX,
               "a snapshot record fits");
_Static_assert((int)CNS_COMMAND == (int)RAFT_COMMAND && (int)CNS_BARRIER == (int)RAFT_BARRIER &&
                   (int)CNS_CHANGE == (int)RAFT_CHANGE,
               "kinds are libraft's");

#define FLAG_DISRUPT  1u
#define FLAG_PRE_VOTE 2u
#define FLAG_GRANTED  1u
#define CONF_FORMAT   1u /* libraft's encoding of a configuration */

/* --- encoding --------------------------------------------------------------------------------- */

static enum err put_items(struct buf *b, uint64_t prev, const struct cns_item *items, unsigned n)
{
    if (n > CNS_MESSAGE_ITEMS_MAX)
        return err_fail(ERR_TOO_BIG, "an append message of %u entries is over the limit of %u", n,
                        CNS_MESSAGE_ITEMS_MAX);
    buf_put_u32(b, n);
    for (unsigned i = 0; i < n; i++) {
        const struct cns_item *it = &items[i];
        CHECK(it->index == prev + 1 + i);
        size_t len = it->payload == NULL ? 0 : it->payload->len;
        if (len > ENTRY_BYTES_MAX)
            return err_fail(ERR_TOO_BIG, "entry %llu of %zu bytes is over the limit of %llu",
                            (unsigned long long)it->index, len, ENTRY_BYTES_MAX);
        buf_put_u64(b, it->term);
        buf_put_u32(b, (uint32_t)len);
        buf_put_u32(b, (uint32_t)it->kind);
        buf_put_u64(b, hash64(len == 0 ? NULL : it->payload->data, len, 0));
    }
    return ERR_OK;
}

static enum err put_snapshot(struct buf *b, const struct raft_install_snapshot *s)
{
    if (s->conf.n > CNS_MESSAGE_MEMBERS_MAX || s->data.len > CNS_MESSAGE_SNAPSHOT_MAX)
        return err_fail(ERR_TOO_BIG,
                        "a snapshot record of %u members and %zu bytes is over the "
                        "limits of %u and %llu",
                        s->conf.n, s->data.len, CNS_MESSAGE_MEMBERS_MAX, CNS_MESSAGE_SNAPSHOT_MAX);
    buf_put_u64(b, s->term);
    buf_put_u64(b, s->last_index);
    buf_put_u64(b, s->last_term);
    buf_put_u64(b, s->conf_index);
    buf_put_u16(b, (uint16_t)s->conf.n);
    for (unsigned i = 0; i < s->conf.n; i++) {
        const struct raft_server *server = &s->conf.servers[i];
        if (strlen(server->address) > CNS_MESSAGE_ADDRESS_MAX)
            return err_fail(ERR_TOO_BIG, "the address of member %llu has more than %u bytes",
                            server->id, CNS_MESSAGE_ADDRESS_MAX);
        buf_put_u64(b, server->id);
        buf_put_u8(b, (uint8_t)server->role);
        buf_put_cstr(b, server->address);
    }
    buf_put_str(b, s->data.base, s->data.len);
    return ERR_OK;
}

enum err cns_message_encode(struct buf *head, const struct raft_message *m,
                            const struct cns_item *items, unsigned n_items)
{
    CHECK(n_items == 0 || m->type == RAFT_APPEND_ENTRIES);
    buf_put_u8(head, (uint8_t)m->type);
    switch (m->type) {
    case RAFT_REQUEST_VOTE: {
        const struct raft_request_vote *v = &m->request_vote;
        buf_put_u8(head, v->version);
        buf_put_u64(head, v->term);
        buf_put_u64(head, v->candidate_id);
        buf_put_u64(head, v->last_log_index);
        buf_put_u64(head, v->last_log_term);
        buf_put_u8(head, (uint8_t)((v->disrupt_leader ? FLAG_DISRUPT : 0) |
                                   (v->pre_vote ? FLAG_PRE_VOTE : 0)));
        break;
    }
    case RAFT_REQUEST_VOTE_RESULT: {
        const struct raft_request_vote_result *v = &m->request_vote_result;
        buf_put_u8(head, v->version);
        buf_put_u64(head, v->term);
        buf_put_u8(head, (uint8_t)((v->vote_granted ? FLAG_GRANTED : 0) |
                                   (v->pre_vote ? FLAG_PRE_VOTE : 0)));
        buf_put_u16(head, v->features);
        buf_put_u16(head, v->capacity);
        break;
    }
    case RAFT_APPEND_ENTRIES: {
        const struct raft_append_entries *a = &m->append_entries;
        buf_put_u8(head, a->version);
        buf_put_u64(head, a->term);
        buf_put_u64(head, a->prev_log_index);
        buf_put_u64(head, a->prev_log_term);
        buf_put_u64(head, a->leader_commit);
        TRY(put_items(head, a->prev_log_index, items, n_items));
        break;
    }
    case RAFT_APPEND_ENTRIES_RESULT: {
        const struct raft_append_entries_result *a = &m->append_entries_result;
        buf_put_u8(head, a->version);
        buf_put_u64(head, a->term);
        buf_put_u64(head, a->rejected);
        buf_put_u64(head, a->last_log_index);
        buf_put_u16(head, a->features);
        buf_put_u16(head, a->capacity);
        break;
    }
    case RAFT_INSTALL_SNAPSHOT:
        buf_put_u8(head, m->install_snapshot.version);
        TRY(put_snapshot(head, &m->install_snapshot));
        break;
    case RAFT_TIMEOUT_NOW:
        buf_put_u8(head, m->timeout_now.version);
        buf_put_u64(head, m->timeout_now.term);
        buf_put_u64(head, m->timeout_now.last_log_index);
        buf_put_u64(head, m->timeout_now.last_log_term);
        break;
    default:
        return err_fail(ERR_PROTOCOL, "libraft asks to send a message of unknown type %d",
                        (int)m->type);
    }
    return buf_status(head);
}

/* --- decoding --------------------------------------------------------------------------------- */

#define MALFORMED(what) err_fail(ERR_PROTOCOL, "malformed peer message: %s", what)

static enum err get_flags(struct rd *r, uint8_t known, uint8_t *flags)
{
    *flags = rd_u8(r);
    return (*flags & ~known) != 0 ? MALFORMED("unknown flags") : ERR_OK;
}

/* The payload of one item: its own copy. */
static enum err get_payload(struct cns_item *it, size_t len, uint64_t hash, struct rd *payloads)
{
    const uint8_t *p = rd_bytes(payloads, len);
    if (payloads->failed)
        return MALFORMED("payloads shorter than announced");
    if (hash64(p, len, 0) != hash)
        return MALFORMED("a payload fails its checksum");
    if (it->kind == CNS_BARRIER)
        return len == 0 ? ERR_OK : MALFORMED("a barrier with a payload");
    if (it->kind == CNS_CHANGE)
        TRY(cns_message_check_members(p, len));
    uint8_t *copy = mem_alloc(len);
    if (len > 0)
        memcpy(copy, p, len);
    it->payload = cns_payload_take(copy, len);
    return ERR_OK;
}

static enum err get_item(struct cns_item *it, struct rd *r, struct rd *payloads)
{
    it->term = rd_u64(r);
    uint32_t len = rd_u32(r);
    uint32_t kind = rd_u32(r);
    uint64_t hash = rd_u64(r);
    if (kind != CNS_COMMAND && kind != CNS_BARRIER && kind != CNS_CHANGE)
        return MALFORMED("an entry of unknown kind");
    it->kind = (enum cns_kind)kind;
    if (len > ENTRY_BYTES_MAX)
        return MALFORMED("an entry over the size limit");
    return get_payload(it, len, hash, payloads);
}

static enum err get_append(struct rd *r, struct rd *payloads, struct cns_message *out)
{
    struct raft_append_entries *a = &out->m.append_entries;
    a->term = rd_u64(r);
    a->prev_log_index = rd_u64(r);
    a->prev_log_term = rd_u64(r);
    a->leader_commit = rd_u64(r);
    uint32_t n = rd_u32(r);
    if (n > CNS_MESSAGE_ITEMS_MAX || rd_left(r) != 24ull * n)
        return MALFORMED("a wrong count of entries");
    if (a->prev_log_index > UINT64_MAX - 1 - n || a->prev_log_term > a->term)
        return MALFORMED("an impossible position in the log");
    if (n == 0)
        return ERR_OK;
    out->items = mem_zalloc(n * sizeof *out->items);
    uint64_t term = a->prev_log_term;
    for (uint32_t i = 0; i < n; i++) {
        struct cns_item *it = &out->items[out->n_items++];
        it->index = a->prev_log_index + 1 + i;
        TRY(get_item(it, r, payloads));
        /* Terms never fall along a log, and a leader has no entries of the future. */
        if (it->term < term || it->term > a->term)
            return MALFORMED("an entry of an impossible term");
        term = it->term;
    }
    return ERR_OK;
}

static enum err get_member(struct rd *r, struct raft_configuration *conf)
{
    char address[CNS_MESSAGE_ADDRESS_MAX + 1];
    uint64_t id = rd_u64(r);
    uint8_t role = rd_u8(r);
    size_t n;
    const char *s = rd_str(r, &n);
    if (r->failed || id == 0 || n == 0 || n > CNS_MESSAGE_ADDRESS_MAX || memchr(s, 0, n) != NULL)
        return MALFORMED("a member that cannot be");
    memcpy(address, s, n);
    address[n] = 0;
    int rc = raft_configuration_add(conf, id, address, role); /* checks role and duplicates */
    if (rc == RAFT_NOMEM)
        return err_fail(ERR_NOMEM, "out of memory for a member of the configuration");
    return rc == 0 ? ERR_OK : MALFORMED("a member twice, or of unknown role");
}

static enum err get_snapshot(struct rd *r, struct raft_install_snapshot *s)
{
    s->term = rd_u64(r);
    s->last_index = rd_u64(r);
    s->last_term = rd_u64(r);
    s->conf_index = rd_u64(r);
    uint16_t n = rd_u16(r);
    if (r->failed || n == 0 || n > CNS_MESSAGE_MEMBERS_MAX)
        return MALFORMED("a wrong count of members");
    if (s->last_index == 0 || s->conf_index > s->last_index || s->last_term > s->term)
        return MALFORMED("a snapshot of an impossible position");
    for (uint16_t i = 0; i < n; i++)
        TRY(get_member(r, &s->conf));
    size_t len;
    const char *data = rd_str(r, &len);
    if (r->failed || len > CNS_MESSAGE_SNAPSHOT_MAX)
        return MALFORMED("a snapshot record that is cut off or too large");
    s->data.base = raft_malloc(len == 0 ? 1 : len);
    if (s->data.base == NULL)
        return err_fail(ERR_NOMEM, "out of memory for a snapshot record");
    s->data.len = len;
    if (len > 0)
        memcpy(s->data.base, data, len);
    return ERR_OK;
}

static enum err get_vote(struct rd *r, struct raft_request_vote *v)
{
    uint8_t flags;
    v->term = rd_u64(r);
    v->candidate_id = rd_u64(r);
    v->last_log_index = rd_u64(r);
    v->last_log_term = rd_u64(r);
    TRY(get_flags(r, FLAG_DISRUPT | FLAG_PRE_VOTE, &flags));
    v->disrupt_leader = (flags & FLAG_DISRUPT) != 0;
    v->pre_vote = (flags & FLAG_PRE_VOTE) != 0;
    return v->candidate_id == 0 && !r->failed ? MALFORMED("a candidate without id") : ERR_OK;
}

static enum err get_vote_result(struct rd *r, struct raft_request_vote_result *v)
{
    uint8_t flags;
    v->term = rd_u64(r);
    TRY(get_flags(r, FLAG_GRANTED | FLAG_PRE_VOTE, &flags));
    v->vote_granted = (flags & FLAG_GRANTED) != 0;
    v->pre_vote = (flags & FLAG_PRE_VOTE) != 0;
    v->features = rd_u16(r);
    v->capacity = rd_u16(r);
    return ERR_OK;
}

static enum err get_body(struct rd *r, struct rd *payloads, uint8_t type, uint8_t version,
                         struct cns_message *out)
{
    struct raft_message *m = &out->m;
    switch (type) {
    case RAFT_REQUEST_VOTE:
        m->type = RAFT_REQUEST_VOTE;
        m->request_vote.version = version;
        return get_vote(r, &m->request_vote);
    case RAFT_REQUEST_VOTE_RESULT:
        m->type = RAFT_REQUEST_VOTE_RESULT;
        m->request_vote_result.version = version;
        return get_vote_result(r, &m->request_vote_result);
    case RAFT_APPEND_ENTRIES:
        m->type = RAFT_APPEND_ENTRIES;
        m->append_entries.version = version;
        return get_append(r, payloads, out);
    case RAFT_APPEND_ENTRIES_RESULT:
        m->type = RAFT_APPEND_ENTRIES_RESULT;
        m->append_entries_result.version = version;
        m->append_entries_result.term = rd_u64(r);
        m->append_entries_result.rejected = rd_u64(r);
        m->append_entries_result.last_log_index = rd_u64(r);
        m->append_entries_result.features = rd_u16(r);
        m->append_entries_result.capacity = rd_u16(r);
        return ERR_OK;
    case RAFT_INSTALL_SNAPSHOT:
        m->type = RAFT_INSTALL_SNAPSHOT;
        m->install_snapshot.version = version;
        return get_snapshot(r, &m->install_snapshot);
    case RAFT_TIMEOUT_NOW:
        m->type = RAFT_TIMEOUT_NOW;
        m->timeout_now.version = version;
        m->timeout_now.term = rd_u64(r);
        m->timeout_now.last_log_index = rd_u64(r);
        m->timeout_now.last_log_term = rd_u64(r);
        return ERR_OK;
    default:
        return err_fail(ERR_PROTOCOL, "malformed peer message: unknown type %u", type);
    }
}

enum err cns_message_decode(const uint8_t *head, size_t head_n, const uint8_t *payloads,
                            size_t payloads_n, struct cns_message *out)
{
    memset(out, 0, sizeof *out);
    struct rd r = rd_of(head, head_n), rest = rd_of(payloads, payloads_n);
    uint8_t type = rd_u8(&r);
    uint8_t version = rd_u8(&r);
    enum err e = get_body(&r, &rest, type, version, out);
    if (e == ERR_OK && (r.failed || rd_left(&r) != 0 || rd_left(&rest) != 0))
        e = MALFORMED(r.failed ? "cut off" : "bytes left over");
    if (e != ERR_OK)
        cns_message_fini(out);
    return e;
}

void cns_message_fini(struct cns_message *m)
{
    if (m->items != NULL)
        cns_items_free(m->items, m->n_items);
    if (m->m.type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&m->m.install_snapshot.conf);
        raft_free(m->m.install_snapshot.data.base);
    }
    memset(m, 0, sizeof *m);
}

/* --- libraft's encoding of a configuration ---------------------------------------------------- */

struct member {
    uint64_t id;
    const char *address; /* zero-terminated inside the bytes */
};

static enum err check_member(struct rd *r, struct member *all, unsigned n)
{
    uint64_t id = rd_u64(r);
    const char *address = (const char *)r->p;
    size_t len = r->failed ? 0 : strnlen(address, rd_left(r));
    if (rd_bytes(r, len + 1) == NULL || id == 0 || len == 0 || len > CNS_MESSAGE_ADDRESS_MAX)
        return MALFORMED("a member of a configuration that cannot be");
    uint8_t role = rd_u8(r);
    if (r->failed || (role != RAFT_VOTER && role != RAFT_STANDBY && role != RAFT_SPARE))
        return MALFORMED("a member of unknown role in a configuration");
    for (unsigned i = 0; i < n; i++)
        if (all[i].id == id || strcmp(all[i].address, address) == 0)
            return MALFORMED("a member twice in a configuration");
    all[n] = (struct member){id, address};
    return ERR_OK;
}

enum err cns_message_check_members(const uint8_t *p, size_t n)
{
    struct member all[CNS_MESSAGE_MEMBERS_MAX];
    struct rd r = rd_of(p, n);
    uint8_t format = rd_u8(&r);
    uint64_t count = rd_u64(&r);
    if (r.failed || format != CONF_FORMAT || count == 0 || count > CNS_MESSAGE_MEMBERS_MAX)
        return MALFORMED("a configuration of unknown format or wrong count");
    for (unsigned i = 0; i < count; i++)
        TRY(check_member(&r, all, i));
    /* Padded with zeros to a multiple of 8. */
    if (n % 8 != 0 || rd_left(&r) >= 8)
        return MALFORMED("bytes left over behind a configuration");
    while (rd_left(&r) > 0)
        if (rd_u8(&r) != 0)
            return MALFORMED("bytes left over behind a configuration");
    return ERR_OK;
}
