/* Room: tests. node/functions_zone: names that lead elsewhere, and files written by somebody
 * hostile. That the offsets are Python's is tests/cluster/test_functions.py's. */
#include "base/buf.h"
#include "base/rng.h"
#include "node/functions_zone.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static enum zone_result find(struct zones *zs, const char *name)
{
    const struct zone *zone;
    const char *why = NULL;
    enum zone_result r = zones_find(zs, name, strlen(name), &zone, &why);
    EXPECT(r == ZONE_FOUND || why != NULL);
    return r;
}

TEST(functions_zone_names_stay_in_the_database)
{
    static const char *const bad[] = {
        "",
        "/etc/passwd",
        "../../../etc/passwd",
        "Europe/../UTC",
        "Europe",
        "Europe/",
        "a//b",
        "localtime",
        "posixrules",
        ".",
        "zone.tab",
        "tzdata.zi",
        "UTC ",
        "+05:30",
        "Europe/Berlin\n",
        "\xc3\xa4",
        "posix/../x",
        "-",
    };
    struct zones zs = {0};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (find(&zs, bad[i]) != ZONE_UNKNOWN)
            test_fail(__FILE__, __LINE__, "%s is found", bad[i]);
    char name[200];
    memset(name, 'a', sizeof name);
    name[sizeof name - 1] = 0;
    EXPECT_EQ(find(&zs, name), ZONE_UNKNOWN);
    EXPECT_EQ(find(&zs, "UTC"), ZONE_FOUND);
    const struct zone *zone;
    const char *why;
    EXPECT_EQ(zones_find(&zs, "UTC\0x", 5, &zone, &why), ZONE_UNKNOWN);
    zones_fini(&zs);
}

TEST(functions_zone_cache_is_bounded)
{
    struct zones zs = {0};
    for (int round = 0; round < 3; round++)
        for (int i = 1; i <= 12; i++) {
            char name[32];
            int fold;
            const struct zone *zone;
            const char *why;
            (void)snprintf(name, sizeof name, "Etc/GMT+%d", i);
            EXPECT_EQ(zones_find(&zs, name, strlen(name), &zone, &why), ZONE_FOUND);
            EXPECT(zone_offset_at(zone, 0, &fold) == -i * 3600);
            (void)snprintf(name, sizeof name, "Etc/GMT-%d", i);
            EXPECT_EQ(zones_find(&zs, name, strlen(name), &zone, &why), ZONE_FOUND);
            EXPECT(zone_offset_of_local(zone, 0) == i * 3600);
        }
    zones_fini(&zs);
}

static void be32(struct buf *b, uint32_t v)
{
    uint8_t p[4];
    set_be32(p, v);
    buf_put(b, p, 4);
}

static void header(struct buf *b, uint32_t changes, uint32_t kinds)
{
    static const uint8_t zeros[15];
    buf_put(b, "TZif2", 5);
    buf_put(b, zeros, 15);
    be32(b, 0); /* isut, isstd, leap */
    be32(b, 0);
    be32(b, 0);
    be32(b, changes);
    be32(b, kinds);
    be32(b, 4); /* abbreviations */
}

/* Standard time of +1 h until 1000, then +2 h, and FOOTER. */
static void make(struct buf *b, const char *footer)
{
    buf_init(b, 65536);
    header(b, 0, 1);
    buf_put(b, "\0\0\0\0\0\0XYZ", 10);
    header(b, 1, 2);
    be32(b, 0);
    be32(b, 1000);
    buf_put_u8(b, 1);
    be32(b, 3600);
    buf_put(b, "\0\0", 2);
    be32(b, 7200);
    buf_put(b, "\0\0", 2);
    buf_put(b, "XYZ", 4);
    buf_put(b, "\n", 1);
    buf_put(b, footer, strlen(footer));
    buf_put(b, "\n", 1);
}

static enum zone_result parse(const char *footer, struct zone **zone)
{
    struct buf b;
    const char *why;
    make(&b, footer);
    enum zone_result r = zone_parse(b.data, b.len, zone, &why);
    buf_fini(&b);
    return r;
}

TEST(functions_zone_reads_a_file)
{
    struct zone *zone;
    int fold;
    EXPECT_EQ(parse("XYZ-2", &zone), ZONE_FOUND);
    EXPECT(zone_offset_at(zone, 999, &fold) == 3600 && fold == 0);
    EXPECT(zone_offset_at(zone, 1000, &fold) == 7200);
    EXPECT(zone_offset_of_local(zone, 999 + 3600) == 3600);
    EXPECT(zone_offset_of_local(zone, 1000 + 3600) == 3600); /* in the gap: from before it */
    EXPECT(zone_offset_of_local(zone, 1000 + 7200) == 7200);
    zone_free(zone);
    EXPECT_EQ(parse("", &zone), ZONE_FOUND);
    EXPECT(zone_offset_at(zone, INT64_C(1) << 40, &fold) == 7200);
    zone_free(zone);
    EXPECT_EQ(parse("<+02>-2<+03>-3:30,J60/0,364/-2", &zone), ZONE_FOUND);
    EXPECT(zone_offset_at(zone, 86400 * 30, &fold) == 7200);
    EXPECT(zone_offset_at(zone, 86400 * 200, &fold) == 12600);
    zone_free(zone);
}

TEST(functions_zone_refuses_bad_rules)
{
    static const char *const bad[] = {
        "X",
        "XYZ",
        "XYZ-",
        "XYZ-99",
        "XYZ-2ABC",
        "XYZ-2ABC,",
        "XYZ-2ABC,M3.5.0",
        "XYZ-2ABC,M13.5.0,M1.1.1",
        "XYZ-2ABC,M3.6.0,M1.1.1",
        "XYZ-2ABC,M3.0.0,M1.1.1",
        "XYZ-2ABC,M3.5.7,M1.1.1",
        "XYZ-2ABC,J0,J1",
        "XYZ-2ABC,J366,J1",
        "XYZ-2ABC,366,1",
        "XYZ-2ABC,1,1/168",
        "XYZ-2ABC,1,1x",
        "<X-2",
        "XYZ-2:60",
        "XYZ99999999999999999999",
    };
    struct zone *zone;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (parse(bad[i], &zone) != ZONE_BROKEN)
            test_fail(__FILE__, __LINE__, "%s is taken", bad[i]);
}

/* Cut short, or with bytes changed: an error or a zone, never more. */
TEST(functions_zone_survives_any_file)
{
    struct buf b;
    struct rng rng = {test_seed()};
    struct zone *zone;
    const char *why;
    int fold;

    make(&b, "CET-1CEST,M3.5.0,M10.5.0/3");
    for (size_t n = 0; n < b.len; n++) {
        uint8_t *copy = malloc(n + 1); /* exactly as long, for AddressSanitizer */
        EXPECT(copy != NULL);
        memcpy(copy, b.data, n);
        EXPECT_EQ(zone_parse(copy, n, &zone, &why), ZONE_BROKEN);
        free(copy);
    }
    for (uint64_t i = 0; i < test_rounds(100000); i++) {
        uint8_t copy[256];
        EXPECT(b.len <= sizeof copy);
        memcpy(copy, b.data, b.len);
        for (uint64_t k = rng_below(&rng, 4) + 1; k > 0; k--)
            copy[rng_below(&rng, b.len)] = (uint8_t)rng_below(&rng, 256);
        if (zone_parse(copy, b.len, &zone, &why) == ZONE_FOUND) {
            int64_t at = (int64_t)rng_below(&rng, UINT64_C(1) << 38) - (INT64_C(1) << 37);
            (void)zone_offset_at(zone, at, &fold);
            (void)zone_offset_of_local(zone, at);
            zone_free(zone);
        }
    }
    buf_fini(&b);
}
