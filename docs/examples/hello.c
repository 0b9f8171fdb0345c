/* Ten lines: connect, write, read.
 *     cc hello.c $(pkg-config --cflags --libs lectern) && ./a.out lectern://127.0.0.1:7701 */
#include <lectern.h>
#include <stdio.h>

static int print(void *arg, int n, char **values, char **names)
{
    for (int i = 0; i < n; i++)
        printf("%s=%s ", names[i], values[i] ? values[i] : "NULL");
    (void)arg;
    return puts("") < 0;
}

int main(int argc, char **argv)
{
    lectern *db;
    int code = lectern_open(argc > 1 ? argv[1] : "lectern://127.0.0.1:7701", &db);
    if (code == LECTERN_OK)
        code = lectern_exec(db,
                            "CREATE TABLE IF NOT EXISTS greeting(id INTEGER PRIMARY KEY, text);"
                            "INSERT INTO greeting(text) VALUES('hello, cluster');"
                            "SELECT id, text FROM greeting ORDER BY id DESC LIMIT 3",
                            print, NULL, NULL);
    if (code != LECTERN_OK)
        fprintf(stderr, "%s\n", lectern_errmsg(db));
    lectern_close(db);
    return code != LECTERN_OK;
}
