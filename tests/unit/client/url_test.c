/* Addresses and settings in one text: what is taken, and what each mistake is told. */
#include "client/url.h"

#include "base/rng.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

TEST(url_of_addresses_alone)
{
    struct url u;
    EXPECT_OK(url_parse("a", &u));
    EXPECT(u.n_addresses == 1 && strcmp(u.addresses[0], "a") == 0);
    EXPECT(u.level == WIRE_SESSION && u.timeout_ms == 30000 && u.bound_ms == 0);
    EXPECT(strcmp(u.name, "liblectern") == 0);
    EXPECT_OK(url_parse("a:1,b,[::1]:7702,::1,:9,a:1,b", &u));
    EXPECT_EQ(u.n_addresses, 5);
    EXPECT(strcmp(u.addresses[2], "[::1]:7702") == 0 && strcmp(u.addresses[4], ":9") == 0);
}

TEST(url_in_full)
{
    struct url u;
    EXPECT_OK(
        url_parse("lectern://n1:7701,n2:7701/main?read=strong&timeout=1&name=my%20p%C3%A9", &u));
    EXPECT(u.n_addresses == 2 && strcmp(u.addresses[1], "n2:7701") == 0);
    EXPECT(u.level == WIRE_STRONG && u.timeout_ms == 1);
    EXPECT(strcmp(u.name, "my p\xc3\xa9") == 0);
    EXPECT_OK(url_parse("lectern://n1/?read=bounded:500&&timeout=86400000&", &u));
    EXPECT(u.level == WIRE_BOUNDED && u.bound_ms == 500 && u.timeout_ms == 86400000);
    EXPECT_OK(url_parse("n1?read=bounded%3a0", &u));
    EXPECT(u.level == WIRE_BOUNDED && u.bound_ms == 0);
    EXPECT_OK(url_parse("n1?read=bounded:5&read=any&name=", &u));
    EXPECT(u.level == WIRE_ANY && u.bound_ms == 0 && u.name[0] == '\0');
    EXPECT_OK(url_parse("n1?name=a://b", &u));
    EXPECT_OK(url_parse("lectern://n1/", &u));
    EXPECT_OK(url_parse("lectern://n1?", &u));
}

TEST(url_tells_what_is_wrong)
{
    static const struct {
        const char *text, *part;
    } wrong[] = {
        {"", "an address is missing"},
        {"lectern://", "an address is missing"},
        {"lectern:///main", "an address is missing"},
        {"a,", "an address is missing"},
        {",a", "an address is missing"},
        {"a,,b", "an address is missing"},
        {"http://a", "does not begin with lectern://"},
        {"LECTERN://a", "does not begin with lectern://"},
        {"a:b", "\"a:b\" is not an address"},
        {"a:0", "\"a:0\" is not an address"},
        {"a:65536", "\"a:65536\" is not an address"},
        {"a:", "\"a:\" is not an address"},
        {"[::1", "\"[::1\" is not an address"},
        {"a, b", "\" b\" is not an address"},
        {"me@a", "\"me@a\" is not an address"},
        {"a\n", "is not an address"},
        {"a/other", "no database \"other\""},
        {"a/main/", "no database \"main/\""},
        {"a?reed=any", "unknown parameter \"reed\""},
        {"a?=any", "unknown parameter \"\""},
        {"a?read=", "read=: write any"},
        {"a?read", "read=: write any"},
        {"a?read=ANY", "read=ANY: write any"},
        {"a?read=bounded", "read=bounded: write any"},
        {"a?read=bounded:", "read: \"\" is not 0 to 86400000 milliseconds"},
        {"a?read=bounded:-1", "read: \"-1\" is not 0 to"},
        {"a?timeout=0", "timeout: \"0\" is not 1 to"},
        {"a?timeout=86400001", "timeout: \"86400001\" is not"},
        {"a?timeout=99999999999999999999", "is not 1 to"},
        {"a?timeout=1s", "timeout: \"1s\" is not"},
        {"a?name=%", "write a percent sign as %25"},
        {"a?name=%2", "write a percent sign as %25"},
        {"a?name=%2g", "write a percent sign as %25"},
        {"a?name=%00", "a control character"},
        {"a?name=x%0a", "a control character"},
        {"a?name=0123456789012345678901234567890123456789012345678901234567890123",
         "is longer than 63 bytes"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        struct url u;
        EXPECT_ERR(ERR_CONFIG, url_parse(wrong[i].text, &u));
        if (strstr(err_text(), wrong[i].part) == NULL)
            test_fail(__FILE__, __LINE__, "%s: %s", wrong[i].text, err_text());
    }
}

TEST(url_bounds_what_it_holds)
{
    struct url u;
    char text[8192];
    size_t n = 0;
    for (int i = 0; i < URL_ADDRESSES_MAX; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%sh%d", i == 0 ? "" : ",", i);
    EXPECT_OK(url_parse(text, &u));
    EXPECT_EQ(u.n_addresses, URL_ADDRESSES_MAX);
    (void)snprintf(text + n, sizeof text - n, ",h0");
    EXPECT_OK(url_parse(text, &u));
    (void)snprintf(text + n, sizeof text - n, ",one-more");
    EXPECT_ERR(ERR_CONFIG, url_parse(text, &u));
    memset(text, 'x', sizeof text);
    text[URL_ADDRESS_MAX - 1] = '\0';
    EXPECT_OK(url_parse(text, &u));
    EXPECT_EQ(strlen(u.addresses[0]), URL_ADDRESS_MAX - 1);
    text[URL_ADDRESS_MAX - 1] = 'x';
    text[sizeof text - 1] = '\0';
    EXPECT_ERR(ERR_CONFIG, url_parse(text, &u));
}

/* Random texts of what matters to it, and nothing behind their ends (each in a block of its own).
 */
TEST(url_takes_any_bytes)
{
    static const char *const pieces[] = {
        "lectern://", "a",  ":",    ",",    "/",           "?",       "=",    "&",
        "%",          "%4", "%41",  "read", "bounded:",    "timeout", "name", "1",
        "[",          "]",  "\xff", "main", "99999999999", "://"};
    struct rng r = {test_seed()};
    unsigned fine = 0;
    for (uint64_t round = test_rounds(100000); round > 0; round--) {
        char text[256] = "a";
        size_t n = rng_once_in(&r, 2) ? 1 : 0;
        for (uint64_t i = rng_below(&r, 12); i > 0; i--)
            n += (size_t)snprintf(text + n, sizeof text - n, "%s",
                                  pieces[rng_below(&r, sizeof pieces / sizeof pieces[0])]);
        text[n] = '\0';
        char *exact = strdup(text);
        struct url u;
        EXPECT(exact != NULL);
        if (url_parse(exact, &u) == ERR_OK) {
            fine++;
            EXPECT(u.n_addresses >= 1 && u.n_addresses <= URL_ADDRESSES_MAX);
            EXPECT(u.timeout_ms >= 1 && u.timeout_ms <= URL_TIMEOUT_MS_MAX);
            EXPECT(memchr(u.name, '\0', sizeof u.name) != NULL);
        }
        free(exact);
    }
    EXPECT(fine > 0);
}
