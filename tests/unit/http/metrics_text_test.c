/* Room: tests. node/http/metrics_text: the format, byte by byte. */
#include "node/http/metrics_text.h"
#include "tests/lib/test.h"

#include <stdlib.h>
#include <string.h>

static struct buf out;

static struct metrics_text begin(void)
{
    buf_init(&out, SIZE_MAX);
    return metrics_text_of(&out);
}

/* What was written is TEXT. */
static void expect_text(const char *text)
{
    if (out.len != strlen(text) || memcmp(out.data, text, out.len) != 0)
        test_fail(__FILE__, __LINE__, "wanted:\n%s\ngot:\n%.*s", text, (int)out.len,
                  (const char *)out.data);
    buf_fini(&out);
}

TEST(metrics_text_writes_gauges_and_counters)
{
    struct metrics_text t = begin();
    metrics_gauge(&t, "a", "What it is", 0);
    metrics_gauge_ms(&t, "b_seconds", "How long", 12034);
    metrics_counter(&t, "c_total", "How often", UINT64_MAX);
    expect_text("# HELP a What it is\n# TYPE a gauge\na 0\n"
                "# HELP b_seconds How long\n# TYPE b_seconds gauge\nb_seconds 12.034\n"
                "# HELP c_total How often\n# TYPE c_total counter\nc_total 18446744073709551615\n");
}

TEST(metrics_text_writes_samples_with_labels)
{
    struct metrics_text t = begin();
    metrics_family(&t, "a", "gauge", "A");
    metrics_sample(&t, "x=\"1\",y=\"2\"", 3);
    metrics_sample_ns(&t, "x=\"2\"", 1000000001);
    metrics_sample(&t, "", 4);
    expect_text("# HELP a A\n# TYPE a gauge\na{x=\"1\",y=\"2\"} 3\na{x=\"2\"} 1.000000001\na 4\n");
}

TEST(metrics_text_escapes_what_a_label_holds)
{
    (void)begin();
    metrics_label(&out, "v", "a\"b\\c\nd");
    expect_text("v=\"a\\\"b\\\\c\\nd\"");
}

TEST(metrics_text_writes_numbers_cumulated)
{
    struct histogram h = {0};
    struct histogram_copy c = {0};
    struct metrics_text t = begin();
    histogram_add(&h, 1);
    histogram_add(&h, 2);
    histogram_add(&h, 2);
    histogram_add(&h, 100); /* above the last bound */
    histogram_collect(&h, &c);
    metrics_family(&t, "n", "histogram", "N");
    metrics_numbers(&t, "k=\"v\"", &c, 2);
    expect_text("# HELP n N\n# TYPE n histogram\n"
                "n_bucket{k=\"v\",le=\"1\"} 1\nn_bucket{k=\"v\",le=\"2\"} 3\n"
                "n_bucket{k=\"v\",le=\"4\"} 3\nn_bucket{k=\"v\",le=\"+Inf\"} 4\n"
                "n_sum{k=\"v\"} 105\nn_count{k=\"v\"} 4\n");
}

/* The number behind LINE in what was written. */
static uint64_t number_of(const char *line)
{
    const char *at = memmem(out.data, out.len, line, strlen(line));
    if (at == NULL)
        test_fail(__FILE__, __LINE__, "there is no %s", line);
    return strtoull(at + strlen(line), NULL, 10);
}

TEST(metrics_text_writes_seconds_with_all_that_is_shorter_in_the_first_bucket)
{
    struct histogram h = {0};
    struct histogram_copy c = {0};
    struct metrics_text t = begin();
    histogram_add_ns(&h, 10);
    histogram_add_ns(&h, 8000);
    histogram_add_ns(&h, 8001);
    histogram_add_ns(&h, 3000000000);
    histogram_add_ns(&h, UINT64_C(100000000000)); /* 100 s */
    histogram_collect(&h, &c);
    metrics_family(&t, "s", "histogram", "S");
    metrics_seconds(&t, NULL, &c);
    EXPECT_EQ(number_of("s_bucket{le=\"0.000008\"} "), 2);
    EXPECT_EQ(number_of("s_bucket{le=\"0.000016\"} "), 3);
    EXPECT_EQ(number_of("s_bucket{le=\"2.097152\"} "), 3);
    EXPECT_EQ(number_of("s_bucket{le=\"4.194304\"} "), 4);
    EXPECT_EQ(number_of("s_bucket{le=\"67.108864\"} "), 4);
    EXPECT_EQ(number_of("s_bucket{le=\"+Inf\"} "), 5);
    EXPECT(memmem(out.data, out.len, "\ns_sum 103.000016011\n", 21) != NULL);
    EXPECT_EQ(number_of("s_count "), 5);
    buf_fini(&out);
}
