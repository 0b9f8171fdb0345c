/* Room: tests. node/config: one table, three sources, clear refusals. */
#include "node/config.h"
#include "node/http/door_settings.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define THREE "1=127.0.0.1:1,2=127.0.0.1:2,3=127.0.0.1:3"

static enum err load(struct config *c, char **argv)
{
    enum config_wish wish;
    int argc = 0;
    while (argv[argc] != NULL)
        argc++;
    return config_load(c, argc, argv, &wish);
}

static void expect_refusal(char **argv, const char *needle)
{
    struct config c;
    EXPECT_ERR(ERR_CONFIG, load(&c, argv));
    if (strstr(err_text(), needle) == NULL)
        test_fail(__FILE__, __LINE__, "\"%s\" not in \"%s\"", needle, err_text());
    config_fini(&c);
}

TEST(config_flags_win_over_environment_and_file)
{
    struct config c;
    const char *path = test_path("lectern.conf");
    FILE *f = fopen(path, "w");
    EXPECT(f != NULL);
    (void)fprintf(f, "[node]\nid = 1\nheartbeat = 50\nreaders = 2\nwal-restart = 32MiB\n");
    (void)fclose(f);
    (void)setenv("LECTERN_READERS", "3", 1);
    (void)setenv("LECTERN_HEARTBEAT", "60", 1);
    char *argv[] = {"lecternd",  "--config", (char *)(uintptr_t)path, "--data", "d",
                    "--cluster", THREE,      "--heartbeat",           "70",     NULL};
    EXPECT_OK(load(&c, argv));
    EXPECT_EQ(c.id, 1);
    EXPECT_EQ(c.heartbeat_ms, 70);
    EXPECT_EQ(c.readers, 3);
    EXPECT_EQ(c.wal_restart_bytes, 32u << 20);
    EXPECT_EQ(c.election_ms, 1000);
    config_fini(&c);
}

TEST(config_refuses_with_a_sentence)
{
    expect_refusal((char *[]){"lecternd", "--id", "1", "--cluster", THREE, NULL}, "data");
    expect_refusal((char *[]){"lecternd", "--id", "4", "--data", "d", "--cluster", THREE, NULL},
                   "not a member");
    expect_refusal((char *[]){"lecternd", "--id", "x", "--data", "d", NULL}, "whole number");
    expect_refusal((char *[]){"lecternd", "--nonsense", NULL}, "there is no flag --nonsense;");
    expect_refusal((char *[]){"lecternd", "--http-listn=a:1", NULL},
                   "there is no flag --http-listn;");
    expect_refusal((char *[]){"lecternd", "-x", NULL}, "there is no flag -x;");
    expect_refusal((char *[]){"lecternd", "--data", NULL}, "--data needs a value;");
    expect_refusal((char *[]){"lecternd", "--data", "d", "--config", NULL},
                   "--config needs a value;");
    expect_refusal((char *[]){"lecternd", "--http=1", NULL}, "--http is short for several");
    expect_refusal((char *[]){"lecternd", "--version=1", NULL}, "--version takes no value");
    expect_refusal((char *[]){"lecternd", "--data", "d", "word", NULL}, "word: not a flag");
    expect_refusal(
        (char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", "1=a:1,1=b:2", NULL},
        "twice");
    expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", "1=a", NULL},
                   "ID=HOST:PORT");
    expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                              "--listen", "nowhere", NULL},
                   "HOST:PORT");
    expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                              "--election-timeout", "100", NULL},
                   "heartbeats");
    expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                              "--wal-restart", "65MiB", NULL},
                   "wal-limit must not be below");
    expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                              "--log-keep", "63KiB", NULL},
                   "log-keep must be at least 64KiB");
    expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                              "--waiting-bytes", "127MiB", NULL},
                   "waiting-bytes must be 128MiB");
    expect_refusal((char *[]){"lecternd", "--config", "/does/not/exist", NULL}, "cannot be read");
}

TEST(config_refuses_to_advertise_every_address)
{
    static char *const every[] = {"0.0.0.0:7701", "[::]:7701", ":::7701", "*:7701"};
    for (size_t i = 0; i < sizeof every / sizeof every[0]; i++) {
        expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                                  "--listen", every[i], NULL},
                       "--advertise HOST:PORT");
        expect_refusal((char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                                  "--advertise", every[i], NULL},
                       "--advertise HOST:PORT");
    }
    struct config c;
    EXPECT_OK(
        load(&c, (char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE, "--listen",
                            "0.0.0.0:7701", "--advertise", "10.0.0.1:7701", NULL}));
    config_fini(&c);
}

/* The settings of a node with an HTTP port, and NAME = VALUE. */
static enum err load_http(struct config *c, char *listen, char *name, char *value)
{
    return load(c, (char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                              "--listen", "0.0.0.0:7701", "--advertise", "10.0.0.1:7701",
                              "--http-listen", listen, name, value, NULL});
}

TEST(config_judges_origins)
{
    static char *const right[] = {"", "*", "https://app.example",
                                  "http://localhost:3000, http://[::1]:8081 ,app+x://a_b",
                                  "http://a:443,https://a:80"};
    static const struct {
        char *value, *says;
    } wrong[] = {{"foo", "is no origin"},
                 {"https://app.example/", "a slash at its end"},
                 {"\"https://app.example\"", "quotes"},
                 {"https://", "is no origin"},
                 {"https://a,https://b/c", "\"https://b/c\""},
                 {"http://a:", "is no origin"},
                 {"http://a:65536", "is no origin"},
                 {"http://[::1", "is no origin"},
                 {"http://[]", "is no origin"},
                 {"http://a b", "\"b\""},
                 {"://a", "is no origin"},
                 {"https://*.example", "is no origin"},
                 {"https://App.example", "lower case"},
                 {"https://app.example:443", ":443"},
                 {"http://app.example:80", ":80"}};
    struct config c;
    for (size_t i = 0; i < sizeof right / sizeof right[0]; i++) {
        EXPECT_OK(load_http(&c, "127.0.0.1:8080", "--http-cors", right[i]));
        config_fini(&c);
    }
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        EXPECT_ERR(ERR_CONFIG, load_http(&c, "127.0.0.1:8080", "--http-cors", wrong[i].value));
        if (strstr(err_text(), wrong[i].says) == NULL)
            test_fail(__FILE__, __LINE__, "%s: %s", wrong[i].value, err_text());
        config_fini(&c);
    }
}

TEST(config_judges_urls_and_levels)
{
    static char *const urls[] = {"foo",          "ftp://a",    "http://a/b",
                                 "http://",      "http://a//", "http://a:x",
                                 "\"http://a\"", "http://a?x", "//a"};
    static char *const levels[] = {"", "weak", "bounded", "bounded:", "bounded:x", "Strong"};
    struct config c;
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        EXPECT_ERR(ERR_CONFIG, load_http(&c, "127.0.0.1:8080", "--http-url", urls[i]));
        EXPECT(strstr(err_text(), "is not http://HOST[:PORT]") != NULL);
        config_fini(&c);
    }
    for (size_t i = 0; i < sizeof levels / sizeof levels[0]; i++) {
        EXPECT_ERR(ERR_CONFIG, load_http(&c, "127.0.0.1:8080", "--http-read", levels[i]));
        EXPECT(strstr(err_text(), "bounded:MILLISECONDS") != NULL);
        config_fini(&c);
    }
    EXPECT_ERR(ERR_CONFIG, load_http(&c, "127.0.0.1:8080", "--http-begin", "IMMEDIATE"));
    EXPECT(strstr(err_text(), "deferred or immediate") != NULL);
    config_fini(&c);
    EXPECT_ERR(ERR_CONFIG, load_http(&c, "", "--http-url", "http://a"));
    EXPECT(strstr(err_text(), "http-listen") != NULL);
    config_fini(&c);
    EXPECT_OK(load_http(&c, "127.0.0.1:8080", "--http-read", "bounded:500"));
    EXPECT(strcmp(c.http_read, "bounded:500") == 0);
    config_fini(&c);
}

static void expect_told(char *listen, char *url, const char *told)
{
    struct config c;
    char text[64];
    EXPECT_OK(load_http(&c, listen, "--http-url", url));
    door_settings_url(&c, text, sizeof text);
    if (strcmp(text, told) != 0)
        test_fail(__FILE__, __LINE__, "\"%s\" is told, not \"%s\"", text, told);
    config_fini(&c);
}

TEST(config_tells_an_http_address_that_can_be_used)
{
    expect_told("", "", "");
    expect_told("127.0.0.1:8080", "", "http://127.0.0.1:8080");
    expect_told("0.0.0.0:8080", "", "http://10.0.0.1:8080"); /* --advertise */
    expect_told("[::]:8080", "", "http://10.0.0.1:8080");
    expect_told("0.0.0.0:8080", "https://db1.example", "https://db1.example");
    expect_told("0.0.0.0:8080", "http://Db1:80/", "http://Db1:80");
}

TEST(config_lowers_connections_to_what_can_be_opened)
{
    struct config c;
    EXPECT_OK(
        load(&c, (char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE, NULL}));
    EXPECT_OK(config_fit_descriptors(&c, 1u << 20));
    EXPECT_EQ(c.connections_max, 10000);
    EXPECT_OK(config_fit_descriptors(&c, UINT64_MAX));
    EXPECT_EQ(c.connections_max, 10000);
    EXPECT_OK(config_fit_descriptors(&c, 1024));
    EXPECT(c.connections_max >= 270 && c.connections_max + (36 + 32) * 4 + 352 <= 1024);
    EXPECT_ERR(ERR_CONFIG, config_fit_descriptors(&c, 256));
    EXPECT(strstr(err_text(), "ulimit -n") != NULL);
    config_fini(&c);
}

TEST(config_counts_http_connections_with_the_others)
{
    const uint64_t limits[] = {645, 700, 1024, 4096, 20000};
    for (size_t i = 0; i < sizeof limits / sizeof limits[0]; i++) {
        struct config c;
        EXPECT_OK(load(&c, (char *[]){"lecternd", "--id", "1", "--data", "d", "--cluster", THREE,
                                      "--http-listen", "127.0.0.1:8080", "--http-connections",
                                      "20000", NULL}));
        EXPECT_OK(config_fit_descriptors(&c, limits[i]));
        uint64_t others = (c.readers + c.reader_connections + c.read_transactions) * 4 + 352;
        EXPECT_EQ(c.connections_max + c.http_connections_max, limits[i] - others);
        EXPECT(c.connections_max >= 10 && c.http_connections_max >= 10);
        if (limits[i] > 1000) /* in proportion */
            EXPECT(c.http_connections_max / c.connections_max == 2 ||
                   c.http_connections_max / c.connections_max == 1);
        EXPECT_ERR(ERR_CONFIG, config_fit_descriptors(&c, others + 19));
        config_fini(&c);
    }
}
