/* Room: tests. consensus/message: what goes in comes out, and nothing else comes in. */
#include "consensus/message.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/rng.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

/* A message with everything that goes with it, and its bytes. */
struct sample {
    struct raft_message m;
    struct cns_item *items;
    unsigned n_items;
    struct buf head, payloads;
};

static struct raft_configuration some_members(struct rng *r)
{
    struct raft_configuration c;
    char address[40];
    raft_configuration_init(&c);
    unsigned n = 1 + (unsigned)rng_below(r, 6);
    for (unsigned i = 0; i < n; i++) {
        (void)snprintf(address, sizeof address, "10.0.0.%u:%llu", i,
                       (unsigned long long)rng_below(r, 65536));
        EXPECT(raft_configuration_add(&c, i * 100 + 1, address, (int)rng_below(r, 3)) == 0);
    }
    return c;
}

static struct cns_payload *change_payload(struct rng *r)
{
    struct raft_configuration c = some_members(r);
    struct raft_buffer b;
    EXPECT(raft_configuration_encode(&c, &b) == 0);
    uint8_t *copy = mem_alloc(b.len);
    memcpy(copy, b.base, b.len);
    raft_free(b.base);
    raft_configuration_close(&c);
    return cns_payload_take(copy, b.len);
}

static struct cns_payload *some_bytes(struct rng *r, size_t n)
{
    uint8_t *p = mem_alloc(n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)rng_u64(r);
    return cns_payload_take(p, n);
}

static void make_append(struct sample *s, struct rng *r)
{
    struct raft_append_entries *a = &s->m.append_entries;
    a->term = 100 + rng_below(r, 100);
    a->prev_log_index = rng_below(r, 1u << 30);
    a->prev_log_term = rng_below(r, 50);
    a->leader_commit = rng_u64(r);
    s->n_items = rng_once_in(r, 4) ? 0 : (unsigned)rng_below(r, 20);
    s->items = mem_zalloc((s->n_items + 1) * sizeof *s->items);
    for (unsigned i = 0; i < s->n_items; i++) {
        struct cns_item *it = &s->items[i];
        it->index = a->prev_log_index + 1 + i;
        it->term = 50 + i;
        it->kind = (enum cns_kind)(1 + rng_below(r, 3));
        if (it->kind == CNS_CHANGE)
            it->payload = change_payload(r);
        if (it->kind == CNS_COMMAND)
            it->payload = some_bytes(r, rng_below(r, rng_once_in(r, 5) ? 5000 : 100));
    }
}

static void make_fields(struct sample *s, struct rng *r)
{
    struct raft_message *m = &s->m;
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        m->request_vote =
            (struct raft_request_vote){2,          rng_u64(r),        rng_u64(r) | 1,   rng_u64(r),
                                       rng_u64(r), rng_once_in(r, 2), rng_once_in(r, 2)};
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        m->request_vote_result = (struct raft_request_vote_result){2,
                                                                   rng_u64(r),
                                                                   rng_once_in(r, 2),
                                                                   rng_once_in(r, 2),
                                                                   (unsigned short)rng_u64(r),
                                                                   (unsigned short)rng_u64(r)};
        break;
    case RAFT_APPEND_ENTRIES:
        make_append(s, r);
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        m->append_entries_result = (struct raft_append_entries_result){2,
                                                                       rng_u64(r),
                                                                       rng_u64(r),
                                                                       rng_u64(r),
                                                                       (unsigned short)rng_u64(r),
                                                                       (unsigned short)rng_u64(r)};
        break;
    case RAFT_INSTALL_SNAPSHOT: {
        struct raft_install_snapshot *i = &m->install_snapshot;
        *i = (struct raft_install_snapshot){.term = 90, .last_index = 1 + rng_below(r, 1u << 30)};
        i->last_term = rng_below(r, 91);
        i->conf_index = rng_below(r, i->last_index + 1);
        i->conf = some_members(r);
        i->data.len = rng_below(r, 300);
        i->data.base = raft_malloc(i->data.len + 1);
        memset(i->data.base, 0x5a, i->data.len);
        break;
    }
    case RAFT_TIMEOUT_NOW:
        m->timeout_now = (struct raft_timeout_now){0, rng_u64(r), rng_u64(r), rng_u64(r)};
        break;
    }
}

static void make(struct sample *s, struct rng *r, enum raft_message_type type)
{
    memset(s, 0, sizeof *s);
    s->m.type = type;
    make_fields(s, r);
    buf_init(&s->head, CNS_MESSAGE_HEAD_MAX);
    buf_init(&s->payloads, MIB(4));
    EXPECT_OK(cns_message_encode(&s->head, &s->m, s->items, s->n_items));
    for (unsigned i = 0; i < s->n_items; i++)
        if (s->items[i].payload != NULL)
            buf_put(&s->payloads, s->items[i].payload->data, s->items[i].payload->len);
    EXPECT_OK(buf_status(&s->payloads));
}

static void drop(struct sample *s)
{
    if (s->items != NULL)
        cns_items_free(s->items, s->n_items);
    if (s->m.type == RAFT_INSTALL_SNAPSHOT) {
        raft_configuration_close(&s->m.install_snapshot.conf);
        raft_free(s->m.install_snapshot.data.base);
    }
    buf_fini(&s->head);
    buf_fini(&s->payloads);
}

static enum err decode(const struct sample *s, struct cns_message *out)
{
    return cns_message_decode(s->head.data, s->head.len, s->payloads.data, s->payloads.len, out);
}

static void expect_same_append(const struct sample *s, const struct cns_message *got)
{
    const struct raft_append_entries *a = &s->m.append_entries, *b = &got->m.append_entries;
    EXPECT(a->term == b->term && a->prev_log_index == b->prev_log_index &&
           a->prev_log_term == b->prev_log_term && a->leader_commit == b->leader_commit);
    EXPECT(b->entries == NULL && b->n_entries == 0);
    EXPECT_EQ(s->n_items, got->n_items);
    for (unsigned i = 0; i < s->n_items; i++) {
        const struct cns_item *x = &s->items[i], *y = &got->items[i];
        EXPECT(x->index == y->index && x->term == y->term && x->kind == y->kind);
        EXPECT((x->payload == NULL) == (y->payload == NULL));
        if (x->payload != NULL)
            EXPECT(x->payload->len == y->payload->len &&
                   memcmp(x->payload->data, y->payload->data, x->payload->len) == 0);
    }
}

static void expect_same_snapshot(const struct raft_install_snapshot *a,
                                 const struct raft_install_snapshot *b)
{
    EXPECT(a->term == b->term && a->last_index == b->last_index && a->last_term == b->last_term &&
           a->conf_index == b->conf_index);
    EXPECT(a->data.len == b->data.len && memcmp(a->data.base, b->data.base, a->data.len) == 0);
    EXPECT_EQ(a->conf.n, b->conf.n);
    for (unsigned i = 0; i < a->conf.n; i++)
        EXPECT(a->conf.servers[i].id == b->conf.servers[i].id &&
               a->conf.servers[i].role == b->conf.servers[i].role &&
               strcmp(a->conf.servers[i].address, b->conf.servers[i].address) == 0);
}

/* Equal field by field: encoding again gives the same bytes, and the odd ones are looked into. */
static void expect_same(const struct sample *s, const struct cns_message *got)
{
    struct buf again;
    EXPECT_EQ(s->m.type, got->m.type);
    buf_init(&again, CNS_MESSAGE_HEAD_MAX);
    EXPECT_OK(cns_message_encode(&again, &got->m, got->items, got->n_items));
    EXPECT(again.len == s->head.len && memcmp(again.data, s->head.data, again.len) == 0);
    buf_fini(&again);
    if (s->m.type == RAFT_APPEND_ENTRIES)
        expect_same_append(s, got);
    if (s->m.type == RAFT_INSTALL_SNAPSHOT)
        expect_same_snapshot(&s->m.install_snapshot, &got->m.install_snapshot);
    if (s->m.type == RAFT_REQUEST_VOTE) {
        const struct raft_request_vote *a = &s->m.request_vote, *b = &got->m.request_vote;
        EXPECT(a->version == b->version && a->term == b->term &&
               a->candidate_id == b->candidate_id && a->last_log_index == b->last_log_index &&
               a->last_log_term == b->last_log_term && a->disrupt_leader == b->disrupt_leader &&
               a->pre_vote == b->pre_vote);
    }
}

TEST(message_round_trip_of_every_type)
{
    struct rng r = {test_seed()};
    for (uint64_t round = 0; round < test_rounds(2000); round++)
        for (int type = RAFT_APPEND_ENTRIES; type <= RAFT_TIMEOUT_NOW; type++) {
            struct sample s;
            struct cns_message got;
            make(&s, &r, (enum raft_message_type)type);
            EXPECT_OK(decode(&s, &got));
            expect_same(&s, &got);
            cns_message_fini(&got);
            drop(&s);
        }
}

TEST(message_is_refused_when_cut_or_lengthened_anywhere)
{
    struct rng r = {test_seed()};
    for (int type = RAFT_APPEND_ENTRIES; type <= RAFT_TIMEOUT_NOW; type++) {
        struct sample s;
        struct cns_message got;
        make(&s, &r, (enum raft_message_type)type);
        for (size_t n = 0; n < s.head.len; n++) /* an exact copy: reading beyond it is seen */
        {
            uint8_t *copy = mem_alloc(n);
            memcpy(copy, s.head.data, n);
            EXPECT_ERR(ERR_PROTOCOL,
                       cns_message_decode(copy, n, s.payloads.data, s.payloads.len, &got));
            free(copy);
        }
        buf_put_u8(&s.head, 0);
        EXPECT_ERR(ERR_PROTOCOL, decode(&s, &got));
        s.head.len--;
        buf_put_u8(&s.payloads, 0);
        EXPECT_ERR(ERR_PROTOCOL, decode(&s, &got));
        s.payloads.len--;
        if (s.payloads.len > 0) {
            s.payloads.len--;
            EXPECT_ERR(ERR_PROTOCOL, decode(&s, &got));
        }
        drop(&s);
    }
}

TEST(message_never_crashes_on_mutated_bytes)
{
    struct rng r = {test_seed()};
    unsigned accepted = 0, refused = 0;
    for (uint64_t round = 0; round < test_rounds(200000); round++) {
        struct sample s;
        struct cns_message got;
        struct buf again;
        make(&s, &r, (enum raft_message_type)(1 + rng_below(&r, 6)));
        for (uint64_t i = rng_below(&r, 4); i < 4; i++)
            s.head.data[rng_below(&r, s.head.len)] = (uint8_t)rng_u64(&r);
        if (s.payloads.len > 0 && rng_once_in(&r, 3)) {
            s.payloads.data[rng_below(&r, s.payloads.len)] ^= 1;
            EXPECT_ERR(ERR_PROTOCOL, decode(&s, &got));
        } else if (decode(&s, &got) == ERR_OK) {
            /* What was accepted has one meaning: it encodes to the same bytes. */
            buf_init(&again, CNS_MESSAGE_HEAD_MAX);
            EXPECT_OK(cns_message_encode(&again, &got.m, got.items, got.n_items));
            EXPECT(again.len == s.head.len && memcmp(again.data, s.head.data, again.len) == 0);
            buf_fini(&again);
            cns_message_fini(&got);
            accepted++;
        } else
            refused++;
        drop(&s);
    }
    EXPECT(accepted > 10 && refused > 10);
}

TEST(message_refuses_what_is_over_a_limit)
{
    struct rng r = {test_seed()};
    struct buf head;
    struct raft_message m;
    memset(&m, 0, sizeof m);
    m.type = RAFT_APPEND_ENTRIES;
    struct cns_item big = {.index = 1, .term = 1, .kind = CNS_COMMAND};
    buf_init(&head, CNS_MESSAGE_HEAD_MAX);
    big.payload = some_bytes(&r, ENTRY_BYTES_MAX + 1);
    EXPECT_ERR(ERR_TOO_BIG, cns_message_encode(&head, &m, &big, 1));
    cns_payload_unref(big.payload);
    struct cns_item *many = mem_zalloc((CNS_MESSAGE_ITEMS_MAX + 1) * sizeof *many);
    for (unsigned i = 0; i <= CNS_MESSAGE_ITEMS_MAX; i++)
        many[i] = (struct cns_item){.index = i + 1, .kind = CNS_BARRIER};
    buf_reset(&head);
    EXPECT_ERR(ERR_TOO_BIG, cns_message_encode(&head, &m, many, CNS_MESSAGE_ITEMS_MAX + 1));
    buf_reset(&head);
    EXPECT_OK(cns_message_encode(&head, &m, many, CNS_MESSAGE_ITEMS_MAX));
    /* A count that the bytes do not hold costs nothing. */
    struct cns_message got;
    set_le32(head.data + 34, UINT32_MAX);
    EXPECT_ERR(ERR_PROTOCOL, cns_message_decode(head.data, head.len, NULL, 0, &got));
    set_le32(head.data + 34, CNS_MESSAGE_ITEMS_MAX);
    EXPECT_OK(cns_message_decode(head.data, head.len, NULL, 0, &got));
    cns_message_fini(&got);
    free(many);
    buf_fini(&head);
}

TEST(message_carries_an_empty_command)
{
    struct rng r = {1};
    struct sample s = {.n_items = 1};
    struct cns_message got;
    s.m.type = RAFT_APPEND_ENTRIES;
    s.m.append_entries.term = 1;
    s.items = mem_zalloc(sizeof *s.items);
    s.items[0] = (struct cns_item){1, 1, CNS_COMMAND, some_bytes(&r, 0)};
    buf_init(&s.head, 1000);
    buf_init(&s.payloads, 1000);
    EXPECT_OK(cns_message_encode(&s.head, &s.m, s.items, 1));
    EXPECT_OK(decode(&s, &got));
    EXPECT(got.items[0].payload != NULL && got.items[0].payload->len == 0);
    cns_message_fini(&got);
    drop(&s);
}

TEST(message_checks_members_as_libraft_encodes_them)
{
    struct rng r = {test_seed()};
    for (uint64_t round = 0; round < test_rounds(2000); round++) {
        struct cns_payload *p = change_payload(&r);
        EXPECT_OK(cns_message_check_members(p->data, p->len));
        for (size_t n = 0; n < p->len; n++) {
            uint8_t *copy = mem_alloc(n);
            memcpy(copy, p->data, n);
            EXPECT_ERR(ERR_PROTOCOL, cns_message_check_members(copy, n));
            free(copy);
        }
        p->data[rng_below(&r, p->len)] ^= (uint8_t)(1u << rng_below(&r, 8));
        if (cns_message_check_members(p->data, p->len) == ERR_OK) {
            struct raft_configuration c; /* then libraft takes it too, within its bounds */
            struct raft_buffer b = {p->data, p->len};
            EXPECT(raft_configuration_decode(&b, &c) == 0);
            raft_configuration_close(&c);
        }
        cns_payload_unref(p);
    }
}
