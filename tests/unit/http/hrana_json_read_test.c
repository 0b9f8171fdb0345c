/* Room: tests. node/http/hrana_json_read: what drivers send (written down from @libsql/client
 * 0.15.15, libsql 0.5 and @tursodatabase/serverless 1.4 as they talked to a server that noted it),
 * every version's limits, and all that is wrong, with its place. */
#include "base/rng.h"
#include "base/sizes.h"
#include "tests/lib/test.h"
#include "tests/unit/http/hrana_show.h"

#include <stdlib.h>
#include <string.h>

TEST(hrana_json_reads_what_libsql_client_sends)
{
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT ?, ?, ?, ?, ?,"
                 " ?, ?\",\"args\":[{\"type\":\"float\",\"value\":1},{\"type\":\"float\",\"value"
                 "\":1.5},{\"type\":\"null\"},{\"type\":\"text\",\"value\":\"tä\\\"xt\\u0000\\n"
                 "\"},{\"type\":\"blob\",\"base64\":\"AQID/w==\"},{\"type\":\"integer\",\"value"
                 "\":\"9007199254740993\"},{\"type\":\"integer\",\"value\":\"1\"}],\"named_args"
                 "\":[],\"want_rows\":true}},{\"type\":\"close\"}]}",
                 "execute \"SELECT ?, ?, ?, ?, ?, ?, ?\" (1f 1.5f null 'tä\"xt\\00\\0a' x010203f"
                 "f 9007199254740993 1) | close");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT :a, @b, $c\","
                 "\"args\":[],\"named_args\":[{\"name\":\"a\",\"value\":{\"type\":\"integer\",\""
                 "value\":\"1\"}},{\"name\":\"@b\",\"value\":{\"type\":\"float\",\"value\":0}},{"
                 "\"name\":\"$c\",\"value\":{\"type\":\"integer\",\"value\":\"0\"}}],\"want_rows"
                 "\":true}},{\"type\":\"close\"}]}",
                 "execute \"SELECT :a, @b, $c\" (a=1 @b=0f $c=0) | close");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"store_sql\",\"sql_id\":0,\"sql\":\"INSERT INTO t VA"
                 "LUES(1)\"},{\"type\":\"store_sql\",\"sql_id\":1,\"sql\":\"INSERT INTO t VALUES"
                 "(?)\"},{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"BEGIN IM"
                 "MEDIATE\",\"args\":[],\"named_args\":[],\"want_rows\":false}},{\"condition\":{"
                 "\"type\":\"ok\",\"step\":0},\"stmt\":{\"sql_id\":0,\"args\":[],\"named_args\":"
                 "[],\"want_rows\":true}},{\"condition\":{\"type\":\"ok\",\"step\":1},\"stmt\":{"
                 "\"sql_id\":1,\"args\":[{\"type\":\"text\",\"value\":\"x\"}],\"named_args\":[],"
                 "\"want_rows\":true}},{\"condition\":{\"type\":\"ok\",\"step\":2},\"stmt\":{\"s"
                 "ql\":\"COMMIT\",\"args\":[],\"named_args\":[],\"want_rows\":false}},{\"conditi"
                 "on\":{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":3}},\"stmt\":{\"sql"
                 "\":\"ROLLBACK\",\"args\":[],\"named_args\":[],\"want_rows\":false}}]}},{\"type"
                 "\":\"close\"}]}",
                 "store_sql #0 \"INSERT INTO t VALUES(1)\" norows | store_sql #1 \"INSERT INTO t"
                 " VALUES(?)\" norows | batch [\"BEGIN IMMEDIATE\" norows; if ok(0): #0; if ok(1"
                 "): #1 ('x'); if ok(2): \"COMMIT\" norows; if not(ok(3)): \"ROLLBACK\" norows] "
                 "| close");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"sequence\",\"sql\":\"CREATE TABLE a(b); DROP TABLE "
                 "a;\"},{\"type\":\"close\"}]}",
                 "sequence \"CREATE TABLE a(b); DROP TABLE a;\" norows | close");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"baton\":\"B1\",\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"s"
                 "tmt\":{\"sql_id\":1,\"args\":[{\"type\":\"integer\",\"value\":\"3\"}],\"named_"
                 "args\":[],\"want_rows\":true}}]}}]}",
                 "baton B1: batch [#1 (3)]");
}

TEST(hrana_json_reads_what_the_rust_core_sends)
{
    EXPECT_SHOWN(PIPELINE_3,
                 "{\"baton\":null,\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"con"
                 "dition\":null,\"stmt\":{\"sql\":\"INSERT INTO a VALUES (?, ?, ?);\",\"sql_id\""
                 ":null,\"args\":[{\"type\":\"float\",\"value\":1.0},{\"type\":\"text\",\"value"
                 "\":\"x\"},{\"type\":\"blob\",\"base64\":\"AQIDBA\"}],\"named_args\":[],\"want_"
                 "rows\":true,\"replication_index\":null}}],\"replication_index\":null}},{\"type"
                 "\":\"get_autocommit\"},{\"type\":\"close\"}]}",
                 "batch [\"INSERT INTO a VALUES (?, ?, ?);\" (1f 'x' x01020304)] | autocommit | "
                 "close");
    EXPECT_SHOWN(PIPELINE_3,
                 "{\"baton\":null,\"requests\":[{\"type\":\"describe\",\"sql\":\"SELECT * FROM a"
                 " WHERE b=:b\",\"sql_id\":null,\"replication_index\":null}]}",
                 "describe \"SELECT * FROM a WHERE b=:b\" norows");
    EXPECT_SHOWN(CURSOR,
                 "{\"baton\":\"B\",\"batch\":{\"steps\":[{\"condition\":null,\"stmt\":{\"sql\":"
                 "\"SELECT * FROM a WHERE b = :b;\",\"sql_id\":null,\"args\":[],\"named_args\":["
                 "],\"want_rows\":true,\"replication_index\":null}}],\"replication_index\":null}"
                 "}",
                 "baton B: open_cursor [\"SELECT * FROM a WHERE b = :b;\"]");
}

TEST(hrana_json_reads_what_turso_serverless_sends)
{
    EXPECT_SHOWN(CURSOR,
                 "{\"baton\":null,\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"BEGIN IMMEDIATE\","
                 "\"args\":[],\"named_args\":[],\"want_rows\":false}},{\"stmt\":{\"sql\":\"INSER"
                 "T INTO t VALUES (1)\",\"args\":[],\"named_args\":[],\"want_rows\":true},\"cond"
                 "ition\":{\"type\":\"ok\",\"step\":0}},{\"stmt\":{\"sql\":\"SELECT 2\",\"args\""
                 ":[],\"named_args\":[],\"want_rows\":true},\"condition\":{\"type\":\"ok\",\"ste"
                 "p\":1}},{\"stmt\":{\"sql\":\"COMMIT\",\"args\":[],\"named_args\":[],\"want_row"
                 "s\":false},\"condition\":{\"type\":\"ok\",\"step\":2}},{\"stmt\":{\"sql\":\"RO"
                 "LLBACK\",\"args\":[],\"named_args\":[],\"want_rows\":false},\"condition\":{\"t"
                 "ype\":\"and\",\"conds\":[{\"type\":\"ok\",\"step\":0},{\"type\":\"not\",\"cond"
                 "\":{\"type\":\"ok\",\"step\":3}}]}},{\"stmt\":{\"sql\":\"SELECT 1\",\"args\":["
                 "],\"named_args\":[],\"want_rows\":false},\"condition\":{\"type\":\"is_autocomm"
                 "it\"}}]}}",
                 "open_cursor [\"BEGIN IMMEDIATE\" norows; if ok(0): \"INSERT INTO t VALUES (1)"
                 "\"; if ok(1): \"SELECT 2\"; if ok(2): \"COMMIT\" norows; if and(ok(0),not(ok(3"
                 "))): \"ROLLBACK\" norows; if autocommit: \"SELECT 1\" norows]");
}

TEST(hrana_json_reads_what_comes_over_a_websocket)
{
    EXPECT_SHOWN(WS_2, "{\"type\":\"hello\"}", "hello");
    EXPECT_SHOWN(WS_1, "{\"type\":\"hello\",\"jwt\":null}", "hello");
    EXPECT_SHOWN(WS_3, "{\"type\":\"hello\",\"jwt\":\"ey.x\"}", "hello ey.x");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":0,\"request\":{\"type\":\"open_stream\","
                 "\"stream_id\":7}}",
                 "0 open_stream s7 c0");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"store_sql\",\"s"
                 "ql_id\":0,\"sql\":\"SELECT ?\"}}",
                 "1 store_sql #0 \"SELECT ?\" norows");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"execute\",\"str"
                 "eam_id\":7,\"stmt\":{\"sql_id\":0,\"args\":[{\"type\":\"float\",\"value\":1}],"
                 "\"named_args\":[],\"want_rows\":true}}}",
                 "2 execute s7 c0 #0 (1f)");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":-3,\"request\":{\"type\":\"close_stream\""
                 ",\"stream_id\":-7}}",
                 "-3 close_stream s-7 c0");
    EXPECT_SHOWN(WS_1,
                 "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"batch\",\"strea"
                 "m_id\":1,\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"BEGIN\",\"want_rows\":fals"
                 "e}},{\"condition\":{\"type\":\"error\",\"step\":0},\"stmt\":{\"sql\":\"ROLLBAC"
                 "K\",\"want_rows\":false}}]}}}",
                 "2 batch s1 c0 [\"BEGIN\" norows; if error(0): \"ROLLBACK\" norows]");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"sequence\",\"st"
                 "ream_id\":3,\"sql\":\"SELECT 1; SELECT 2\"}}",
                 "2 sequence s3 c0 \"SELECT 1; SELECT 2\" norows");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"describe\",\"st"
                 "ream_id\":3,\"sql_id\":4}}",
                 "2 describe s3 c0 #4 norows");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"close_sql\",\"s"
                 "ql_id\":4}}",
                 "2 close_sql #4");
    EXPECT_SHOWN(WS_3,
                 "{\"type\":\"request\",\"request_id\":5,\"request\":{\"type\":\"open_cursor\","
                 "\"stream_id\":3,\"cursor_id\":9,\"batch\":{\"steps\":[]}}}",
                 "5 open_cursor s3 c9 []");
    EXPECT_SHOWN(WS_3,
                 "{\"type\":\"request\",\"request_id\":5,\"request\":{\"type\":\"fetch_cursor\","
                 "\"cursor_id\":9,\"max_count\":4294967295}}",
                 "5 fetch_cursor s0 c9 max 4294967295");
    EXPECT_SHOWN(WS_3,
                 "{\"type\":\"request\",\"request_id\":5,\"request\":{\"type\":\"close_cursor\","
                 "\"cursor_id\":9}}",
                 "5 close_cursor s0 c9");
    EXPECT_SHOWN(WS_3,
                 "{\"type\":\"request\",\"request_id\":5,\"request\":{\"type\":\"get_autocommit"
                 "\",\"stream_id\":3}}",
                 "5 autocommit s3 c0");
}

TEST(hrana_json_reads_the_first_http_form)
{
    EXPECT_SHOWN(V1_EXECUTE,
                 "{\"stmt\":{\"sql\":\"SELECT 1\",\"args\":[],\"named_args\":[],\"want_rows\":tr"
                 "ue}}",
                 "execute \"SELECT 1\"");
    EXPECT_SHOWN(V1_BATCH,
                 "{\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"SELECT 1\",\"want_rows\":true}}]}}",
                 "batch [\"SELECT 1\"]");
    EXPECT_SHOWN(V1_EXECUTE, "{\"stmt\":{\"sql_id\":1}}",
                 "error: stmt.sql_id: is only supported in protocol version hrana2 and higher");
    EXPECT_SHOWN(V1_EXECUTE, "{\"batch\":{\"steps\":[]}}",
                 "error: stmt: is missing, and must be an object");
    EXPECT_SHOWN(V1_BATCH, "{\"stmt\":{\"sql\":\"\"}}",
                 "error: batch: is missing, and must be an object");
}

TEST(hrana_json_takes_what_is_left_out_or_null)
{
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[]}", "");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\"}}]}",
                 "execute \"s\"");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"\",\"args\":null,\"na"
                 "med_args\":null,\"want_rows\":null,\"sql_id\":null,\"replication_index\":null}"
                 "}]}",
                 "execute \"\"");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":null,\"sql_id\":-214748"
                 "3648}}]}",
                 "execute #-2147483648");
    EXPECT_SHOWN(PIPELINE_2, "{\"more\":{\"x\":[]},\"requests\":[{\"more\":1,\"type\":\"close\"}]}",
                 "close");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\",\"value\":7}],\"named_args\":[{\"name\":\"\",\"value\":{\"type\":"
                 "\"null\"}}]}}]}",
                 "execute \"s\" (null) (=null)");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"sql\":\"b\"}}]}",
                 "execute \"b\"");
    EXPECT_SHOWN(PIPELINE_3,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"},\"condition\":null}]}}]}",
                 "batch [\"a\"]");
}

TEST(hrana_json_reads_replication_indexes)
{
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"replication_ind"
                 "ex\":\"18446744073709551615\"}}]}",
                 "execute \"s\" @18446744073709551615");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"replication_ind"
                 "ex\":12}}]}",
                 "execute \"s\" @12");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[],\"replication_index"
                 "\":\"3\"}}]}",
                 "batch [] @3");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"sequence\",\"sql\":\"s\",\"replication_index\":\"3"
                 "\"}]}",
                 "sequence \"s\" norows @3");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":2,\"request\":{\"type\":\"execute\",\"str"
                 "eam_id\":1,\"replication_index\":\"9\",\"stmt\":{\"sql\":\"s\",\"replication_i"
                 "ndex\":\"5\"}}}",
                 "2 execute s1 c0 \"s\" @9");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"replication_ind"
                 "ex\":-1}}]}",
                 "error: requests[0].stmt.replication_index: must be a whole number, or one in a"
                 " string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"replication_ind"
                 "ex\":\"x\"}}]}",
                 "error: requests[0].stmt.replication_index: must be a whole number, or one in a"
                 " string");
}

TEST(hrana_json_reads_values)
{
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":\"-9223372036854775808\"},{\"type"
                 "\":\"integer\",\"value\":\"9223372036854775807\"}]}}]}",
                 "execute \"s\" (null -9223372036854775808 9223372036854775807)");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":9223372036854775807},{\"type\":\""
                 "integer\",\"value\":-1},{\"type\":\"integer\",\"value\":5.0},{\"type\":\"integ"
                 "er\",\"value\":1e3}]}}]}",
                 "execute \"s\" (null 9223372036854775807 -1 5 1000)");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"float\",\"value\":-0.0},{\"type\":\"float\",\"value\""
                 ":1e300},{\"type\":\"float\",\"value\":7}]}}]}",
                 "execute \"s\" (null -0f 1.0000000000000001e+300f 7f)");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"text\",\"value\":\"\"},{\"type\":\"blob\",\"base64\":"
                 "\"\"},{\"type\":\"blob\",\"base64\":\"/+8\"}]}}]}",
                 "execute \"s\" (null '' x xffef)");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":\"9223372036854775808\"}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":9223372036854775808}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":1.5}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":1e999}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":\" 1\"}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":\"\"}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\",\"value\":true}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"integer\"}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a whole number of 64 bits in a "
                 "string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"float\",\"value\":\"1\"}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a number");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"float\",\"value\":null}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a number");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"text\",\"value\":1}]}}]}",
                 "error: requests[0].stmt.args[1].value: must be a string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"text\"}]}}]}",
                 "error: requests[0].stmt.args[1].value: is missing, and must be a string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"blob\",\"value\":\"AA==\"}]}}]}",
                 "error: requests[0].stmt.args[1].base64: is missing, and must be a string of ba"
                 "se64");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"blob\",\"base64\":\"A\"}]}}]}",
                 "error: requests[0].stmt.args[1].base64: is not base64");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"blob\",\"base64\":[]}]}}]}",
                 "error: requests[0].stmt.args[1].base64: must be a string of base64");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":\"boolean\",\"value\":true}]}}]}",
                 "error: requests[0].stmt.args[1].type: unknown type of a value \"boolean\"");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"value\":\"1\"}]}}]}",
                 "error: requests[0].stmt.args[1].type: is missing, and must be a string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},{\"type\":null}]}}]}",
                 "error: requests[0].stmt.args[1].type: must be a string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},1]}}]}",
                 "error: requests[0].stmt.args[1]: must be an object");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"s\",\"args\":[{\"type"
                 "\":\"null\"},null]}}]}",
                 "error: requests[0].stmt.args[1]: must be an object");
}

TEST(hrana_json_says_where_a_statement_is_wrong)
{
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":1}}]}",
                 "error: requests[0].stmt.sql: must be a string");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"execute\",\"stmt\":{}}]}",
                 "error: requests[0].stmt: has neither sql nor sql_id");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"sql_id\":1}}]}",
                 "error: requests[0].stmt: has both sql and sql_id, and may have one of them");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql_id\":\"1\"}}]}",
                 "error: requests[0].stmt.sql_id: must be a whole number of 32 bits");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql_id\":2147483648}}]}",
                 "error: requests[0].stmt.sql_id: must be a whole number of 32 bits");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql_id\":1.5}}]}",
                 "error: requests[0].stmt.sql_id: must be a whole number of 32 bits");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"args\":{}}}]}",
                 "error: requests[0].stmt.args: must be an array");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"named_args\":\""
                 "x\"}}]}",
                 "error: requests[0].stmt.named_args: must be an array");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"named_args\":[1"
                 "]}}]}",
                 "error: requests[0].stmt.named_args[0]: must be an object");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"named_args\":[{"
                 "\"value\":{\"type\":\"null\"}}]}}]}",
                 "error: requests[0].stmt.named_args[0].name: is missing, and must be a string");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"named_args\":[{"
                 "\"name\":\"x\"}]}}]}",
                 "error: requests[0].stmt.named_args[0].value: is missing, and must be an object");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"named_args\":[{"
                 "\"name\":\"x\",\"value\":{\"type\":\"x\"}}]}}]}",
                 "error: requests[0].stmt.named_args[0].value.type: unknown type of a value \"x"
                 "\"");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"a\",\"want_rows\":1}}"
                 "]}",
                 "error: requests[0].stmt.want_rows: must be true or false");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"execute\"}]}",
                 "error: requests[0].stmt: is missing, and must be an object");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"close\"},{\"type\":\"describe\",\"sql\":\"a\",\"sql"
                 "_id\":2}]}",
                 "error: requests[1]: has both sql and sql_id, and may have one of them");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"store_sql\",\"sql\":\"a\"}]}",
                 "error: requests[0].sql_id: is missing, and must be a whole number of 32 bits");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"store_sql\",\"sql_id\":1}]}",
                 "error: requests[0].sql: is missing, and must be a string");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"close_sql\",\"sql_id\":null}]}",
                 "error: requests[0].sql_id: must be a whole number of 32 bits");
}

TEST(hrana_json_says_where_a_batch_is_wrong)
{
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"batch\"}]}",
                 "error: requests[0].batch: is missing, and must be an object");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"batch\",\"batch\":{}}]}",
                 "error: requests[0].batch.steps: is missing, and must be an array");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":null}}]}",
                 "error: requests[0].batch.steps: must be an array");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[1]}}]}",
                 "error: requests[0].batch.steps[0]: must be an object");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{}]}}]}",
                 "error: requests[0].batch.steps[0].stmt: is missing, and must be an object");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"},\"condition\":{\"type\":\"ok\",\"step\":0}}]}}]}",
                 "error: requests[0].batch.steps[0].condition.step: must be that of a step before "
                 "this one, 0");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"ok\",\"step\":1}}]}}"
                 "]}",
                 "error: requests[0].batch.steps[1].condition.step: must be that of a step before "
                 "this one, 1");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"error\",\"step\":-1}"
                 "}]}}]}",
                 "error: requests[0].batch.steps[1].condition.step: must be a whole number of 32"
                 " bits, not below zero");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"ok\"}}]}}]}",
                 "error: requests[0].batch.steps[1].condition.step: is missing, and must be a wh"
                 "ole number of 32 bits, not below zero");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"ok\",\"step\":\"0\"}"
                 "}]}}]}",
                 "error: requests[0].batch.steps[1].condition.step: must be a whole number of 32"
                 " bits, not below zero");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"not\"}}]}}]}",
                 "error: requests[0].batch.steps[1].condition.cond: is missing, and must be an o"
                 "bject");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"and\"}}]}}]}",
                 "error: requests[0].batch.steps[1].condition.conds: is missing, and must be an "
                 "array");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"or\",\"conds\":[{\"t"
                 "ype\":\"ok\",\"step\":0},{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":"
                 "2}}]}}]}}]}",
                 "error: requests[0].batch.steps[1].condition.conds[1].cond.step: must be "
                 "that of a step before this one, 1");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"xor\"}}]}}]}",
                 "error: requests[0].batch.steps[1].condition.type: unknown type of a condition "
                 "\"xor\"");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":\"ok\"}]}}]}",
                 "error: requests[0].batch.steps[1].condition: must be an object");
    EXPECT_SHOWN(PIPELINE_2,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"is_autocommit\"}}]}}"
                 "]}",
                 "error: requests[0].batch.steps[1].condition.type: is_autocommit is only suppor"
                 "ted in protocol version hrana3 and higher");
    EXPECT_SHOWN(PIPELINE_3,
                 "{\"requests\":[{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\""
                 "a\"}},{\"stmt\":{\"sql\":\"b\"},\"condition\":{\"type\":\"or\",\"conds\":[{\"t"
                 "ype\":\"is_autocommit\"},{\"type\":\"and\",\"conds\":[]}]}}]}}]}",
                 "batch [\"a\"; if or(autocommit,and()): \"b\"]");
}

TEST(hrana_json_says_which_message_is_wrong)
{
    EXPECT_SHOWN(PIPELINE_2, "[]", "error: the message: must be an object");
    EXPECT_SHOWN(PIPELINE_2, "{}", "error: requests: is missing, and must be an array");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":{}}", "error: requests: must be an array");
    EXPECT_SHOWN(PIPELINE_2, "{\"baton\":1,\"requests\":[]}", "error: baton: must be a string");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[1]}", "error: requests[0]: must be an object");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{}]}",
                 "error: requests[0].type: is missing, and must be a string");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"close\"},{\"type\":\"execut\"}]}",
                 "error: requests[1].type: unknown type of a request \"execut\"");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"open_stream\",\"stream_id\":1}]}",
                 "error: requests[0].type: unknown type of a request \"open_stream\"");
    EXPECT_SHOWN(PIPELINE_2, "{\"requests\":[{\"type\":\"get_autocommit\"}]}",
                 "error: requests[0].type: get_autocommit is only supported in protocol version "
                 "hrana3 and higher");
    EXPECT_SHOWN(CURSOR, "{\"baton\":null}", "error: batch: is missing, and must be an object");
    EXPECT_SHOWN(CURSOR, "\"x\"", "error: the message: must be an object");
    EXPECT_SHOWN(WS_2, "{}", "error: type: is missing, and must be a string");
    EXPECT_SHOWN(WS_2, "{\"type\":\"helo\"}", "error: type: unknown type of a message \"helo\"");
    EXPECT_SHOWN(WS_2, "{\"type\":\"hello\",\"jwt\":1}", "error: jwt: must be a string");
    EXPECT_SHOWN(WS_2, "{\"type\":\"request\"}",
                 "error: request_id: is missing, and must be a whole number of 32 bits");
    EXPECT_SHOWN(WS_2, "{\"type\":\"request\",\"request_id\":1}",
                 "error: request: is missing, and must be an object");
    EXPECT_SHOWN(WS_2, "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"close\"}}",
                 "error: request.type: unknown type of a request \"close\"");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"execute\",\"stm"
                 "t\":{\"sql\":\"a\"}}}",
                 "error: request.stream_id: is missing, and must be a whole number of 32 bits");
    EXPECT_SHOWN(WS_1,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"sequence\",\"st"
                 "ream_id\":1,\"sql\":\"a\"}}",
                 "error: request.type: sequence is only supported in protocol version hrana2 and"
                 " higher");
    EXPECT_SHOWN(WS_1,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"store_sql\",\"s"
                 "ql_id\":1,\"sql\":\"a\"}}",
                 "error: request.type: store_sql is only supported in protocol version hrana2 an"
                 "d higher");
    EXPECT_SHOWN(WS_2,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"open_cursor\","
                 "\"stream_id\":1,\"cursor_id\":1,\"batch\":{\"steps\":[]}}}",
                 "error: request.type: open_cursor is only supported in protocol version hrana3 "
                 "and higher");
    EXPECT_SHOWN(WS_3,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"open_cursor\","
                 "\"stream_id\":1,\"batch\":{\"steps\":[]}}}",
                 "error: request.cursor_id: is missing, and must be a whole number of 32 bits");
    EXPECT_SHOWN(WS_3,
                 "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"fetch_cursor\","
                 "\"cursor_id\":1}}",
                 "error: request.max_count: is missing, and must be a whole number of 32 bits, n"
                 "ot below zero");
}

TEST(hrana_json_bounds_batches_conditions_and_memory)
{
    struct buf text, out;
    buf_init(&text, MIB(4));
    buf_init(&out, MIB(4));
    buf_printf(&text, "{\"batch\":{\"steps\":[");
    for (uint32_t i = 0; i < HRANA_STEPS_MAX; i++)
        buf_printf(&text, "{\"stmt\":{\"sql\":\"a\"}}%s", i + 1 < HRANA_STEPS_MAX ? "," : "");
    size_t most = text.len;
    buf_printf(&text, "]}}");
    EXPECT_OK(show_json(CURSOR, (const char *)text.data, text.len, MIB(64), &out));
    EXPECT_ERR(ERR_TOO_BIG, show_json(CURSOR, (const char *)text.data, text.len, MIB(2), &out));
    text.len = most;
    buf_printf(&text, ",{\"stmt\":{\"sql\":\"a\"}}]}}");
    EXPECT_ERR(ERR_TOO_BIG, show_json(CURSOR, (const char *)text.data, text.len, MIB(64), &out));
    EXPECT(strcmp(err_text(), "batch.steps: has 10001 steps, and may have 10000") == 0);
    for (int depth = 55; depth <= 65; depth += 10) { /* 6 levels around it, 64 in all */
        buf_reset(&text);
        buf_printf(&text, "{\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"a\"},\"condition\":");
        for (int i = 0; i < depth; i++)
            buf_printf(&text, "{\"type\":\"not\",\"cond\":");
        buf_printf(&text, "{\"type\":\"is_autocommit\"}");
        for (int i = 0; i < depth; i++)
            buf_printf(&text, "}");
        buf_printf(&text, "}]}}");
        EXPECT_ERR(depth == 55 ? ERR_OK : ERR_TOO_BIG,
                   show_json(CURSOR, (const char *)text.data, text.len, MIB(64), &out));
    }
    buf_fini(&text);
    buf_fini(&out);
}

/* At every size of the arena a message is decoded whole, or refused for its size. */
TEST(hrana_json_survives_a_full_arena_anywhere)
{
    static const char text[] =
        "{\"baton\":\"B\",\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT\","
        "\"args\":"
        "[{\"type\":\"blob\",\"base64\":\"AQIDBA\"}],\"named_args\":[{\"name\":\"a\",\"value\":"
        "{\"type\":\"null\"}}]}},{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql_id\":1}"
        "},"
        "{\"stmt\":{\"sql\":\"x\"},\"condition\":{\"type\":\"and\",\"conds\":[{\"type\":\"not\","
        "\"cond\":"
        "{\"type\":\"ok\",\"step\":0}}]}}]}}]}";
    struct buf out;
    bool whole = false;
    buf_init(&out, KIB(64));
    for (size_t max = 0; max < KIB(16); max += 16) {
        buf_reset(&out);
        enum err e = show_json(PIPELINE_3, text, sizeof text - 1, max, &out);
        EXPECT(e == (whole ? ERR_OK : e) && (e == ERR_OK || e == ERR_TOO_BIG));
        whole = e == ERR_OK;
    }
    EXPECT(whole);
    buf_fini(&out);
}

/* Whatever a byte is changed to, cut or doubled: decoded within bounds, or refused. */
TEST(hrana_json_survives_mutations)
{
    static const char pipeline[] =
        "{\"baton\":\"B\",\"requests\":[{\"type\":\"execute\",\"stmt\":{\"sql\":\"SELECT\","
        "\"args\":"
        "[{\"type\":\"blob\",\"base64\":\"AQID/w==\"},{\"type\":\"integer\",\"value\":\"12\"}],"
        "\"named_args\":[{\"name\":\"a\",\"value\":{\"type\":\"float\",\"value\":1.5}}]}},"
        "{\"type\":\"batch\",\"batch\":{\"steps\":[{\"stmt\":{\"sql_id\":1}},{\"stmt\":{\"sql\":"
        "\"x\"},"
        "\"condition\":{\"type\":\"not\",\"cond\":{\"type\":\"ok\",\"step\":0}}}]}}]}";
    static const char message[] =
        "{\"type\":\"request\",\"request_id\":1,\"request\":{\"type\":\"open_cursor\",\"stream_"
        "id\":1,"
        "\"cursor_id\":2,\"batch\":{\"steps\":[{\"stmt\":{\"sql\":\"a\"}}]}}}";
    static const char oldest[] =
        "{\"statements\":[\"SELECT 1\",{\"q\":\"SELECT ?\",\"params\":[1,\"a\",null,true,1.5,"
        "{\"base64\":\"AA\"}]},{\"q\":\"SELECT :a\",\"params\":{\":a\":1}}]}";
    static const char *const texts[] = {pipeline, message, oldest};
    struct rng rng = {test_seed()};
    struct buf out;
    buf_init(&out, MIB(1));
    for (uint64_t round = test_rounds(30000); round > 0; round--) {
        const char *from = texts[rng_below(&rng, 3)];
        size_t n = strlen(from), cut = rng_below(&rng, n), some = rng_below(&rng, 8);
        char *text = malloc(n + 8);
        memcpy(text, from, n);
        if (rng_once_in(&rng, 3) && cut + some < n) { /* some bytes again */
            memmove(text + cut + some, text + cut, n - cut);
            n += some;
        }
        for (uint64_t k = rng_below(&rng, 3); k > 0; k--)
            text[rng_below(&rng, n)] = "\"{}[]:,0129-.eEtfn\\ \xc3\xff"[rng_below(&rng, 22)];
        buf_reset(&out);
        enum show_form form = (enum show_form)rng_below(&rng, WS_3 + 1);
        enum err e = show_json(form, text, n, KIB(64), &out);
        EXPECT(e == ERR_OK || e == ERR_PROTOCOL || e == ERR_TOO_BIG);
        EXPECT(buf_status(&out) == ERR_OK);
        free(text);
    }
    buf_fini(&out);
}
