/* Who a node is at a start: DIR/node, the flags, and where they contradict each other. */
#include "node/join.h"

#include "base/file.h"
#include "tests/lib/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A configuration by flags, as main makes it. ARGS: separated by blanks. */
static enum err load(struct config *c, const char *args)
{
    static char text[1000];
    char *argv[32] = {(char *)"lecternd"}, *rest = text, *one;
    int argc = 1;
    enum config_wish wish;
    (void)snprintf(text, sizeof text, "--data %s%s%s", test_dir(), args[0] != 0 ? " " : "", args);
    while ((one = strsep(&rest, " ")) != NULL)
        argv[argc++] = one;
    return config_load(c, argc, argv, &wish);
}

/* join_prepare with these flags; frees the configuration. */
static enum err prepare(const char *args, struct identity *who)
{
    struct config c;
    thread_become(THREAD_LOOP);
    thread_expect_loop();
    enum err e = load(&c, args);
    if (e == ERR_OK)
        e = join_prepare(&c, who);
    if (e == ERR_OK &&
        (c.id != who->id || c.cluster_id != who->cluster_id || c.database_id != who->database_id))
        test_fail(__FILE__, __LINE__, "the configuration has another identity");
    config_fini(&c);
    return e;
}

static void make_log(void)
{
    EXPECT_OK(file_make_dirs(test_path("raft")));
    EXPECT_OK(file_replace(test_path("raft/identity"), "x", 1));
}

#define CLUSTER "--cluster 1=127.0.0.1:1,2=127.0.0.1:2"

TEST(join_a_first_member_has_its_identity_from_the_flags_and_keeps_it)
{
    struct identity who;
    EXPECT_OK(prepare("--id 2 --cluster-id 7 " CLUSTER, &who));
    EXPECT(who.id == 2 && who.cluster_id == 7 && who.database_id == 7 && !who.joined);
    EXPECT(!identity_exists(test_dir())); /* not before its log is there */
    make_log();
    EXPECT_OK(identity_note_begun(test_dir(), &who));
    EXPECT_OK(prepare("--id 2 --cluster-id 7 " CLUSTER, &who));
    EXPECT_OK(prepare("", &who));
    EXPECT(who.id == 2 && who.cluster_id == 7);
    EXPECT_ERR(ERR_CONFIG, prepare("--id 1 --cluster-id 7 " CLUSTER, &who));
    EXPECT_ERR(ERR_CONFIG, prepare("--id 2 --cluster-id 8 " CLUSTER, &who));
    EXPECT_ERR(ERR_CONFIG, prepare("--id 2 " CLUSTER, &who));
    EXPECT_ERR(ERR_CONFIG, prepare("--cluster-id 8", &who));
}

TEST(join_a_node_that_lost_its_log_does_not_start)
{
    struct identity who = {
        .id = 3, .cluster_id = 1, .database_id = 1, .peer = "127.0.0.1:7801", .begun = true};
    EXPECT_OK(identity_write(test_dir(), &who));
    EXPECT_ERR(ERR_CONFIG, prepare("", &who));
    EXPECT(strstr(err_text(), "--replace 3") != NULL);
    EXPECT(strstr(err_text(), "/raft is missing") != NULL);
    EXPECT_OK(file_make_dirs(test_path("raft")));
    EXPECT_ERR(ERR_CONFIG, prepare("", &who));
    EXPECT(strstr(err_text(), "/raft/identity is missing") != NULL);
    EXPECT(strstr(err_text(), "--replace 3") != NULL);
    make_log();
    EXPECT_OK(prepare("", &who));
}

TEST(join_a_node_that_joined_wants_no_list_of_members)
{
    struct identity who = {.id = 4,
                           .cluster_id = 7,
                           .database_id = 5,
                           .peer = "127.0.0.1:7801",
                           .contacts = "127.0.0.1:1",
                           .joined = true};
    EXPECT_OK(identity_write(test_dir(), &who));
    EXPECT_OK(prepare("--join 127.0.0.1:1", &who)); /* its first flags stay harmless */
    EXPECT(who.id == 4 && who.database_id == 5);
    EXPECT_ERR(ERR_CONFIG, prepare("--id 1 --cluster-id 7 " CLUSTER, &who));
}

TEST(join_wants_an_empty_directory_and_flags_that_agree)
{
    struct identity who;
    struct config c;
    static const char *const wrong[] = {
        "--join 127.0.0.1:1 --id 1",
        "--join 127.0.0.1:1 " CLUSTER,
        "--join 127.0.0.1:1 --replica --replace 2",
        "--replica --id 1 " CLUSTER,
        "--replace 2 --id 1 " CLUSTER,
        "--join 127.0.0.1:1 --peer-listen 0.0.0.0:7801",
        "--join 127.0.0.1:1 --peer-advertise nowhere",
        "--join 127.0.0.1:1 --replica=maybe",
        "",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        EXPECT_ERR(ERR_CONFIG, load(&c, wrong[i]));
        config_fini(&c);
    }
    EXPECT_OK(load(&c, "--join 127.0.0.1:1 --replica"));
    EXPECT(c.replica == 1 && c.replace == 0);
    config_fini(&c);
    EXPECT_OK(file_replace(test_path("main.db"), "x", 1));
    EXPECT_ERR(ERR_CONFIG, prepare("--join 127.0.0.1:1", &who));
    EXPECT(!identity_exists(test_dir()));
}

TEST(join_a_recovery_that_was_not_finished_keeps_the_node_from_starting)
{
    struct identity who = {.id = 3, .cluster_id = 1, .database_id = 1, .begun = true};
    make_log();
    EXPECT_OK(identity_write(test_dir(), &who));
    EXPECT_OK(file_make_dirs(test_path("recovery")));
    EXPECT_OK(prepare("", &who)); /* not decided yet: nothing happened */
    EXPECT_OK(identity_write(test_path("recovery"), &who));
    EXPECT_ERR(ERR_CONFIG, prepare("", &who));
    EXPECT(strstr(err_text(), "lecternd recover") != NULL);
}
