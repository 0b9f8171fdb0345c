/* Money from one account to another, all or nothing, whatever happens to the nodes meanwhile.
 *     cc transaction.c $(pkg-config --cflags --libs lectern) && ./a.out lectern://127.0.0.1:7701 */
#include <lectern.h>
#include <stdio.h>

struct transfer {
    int64_t from, to, amount;
};

/* Adds AMOUNT to ACCOUNT. A CHECK of the table refuses a balance below zero. */
static int add(lectern *db, int64_t account, int64_t amount)
{
    lectern_stmt *s;
    int code =
        lectern_prepare(db, "UPDATE account SET balance = balance + ? WHERE id = ?", -1, &s, NULL);
    if (code != LECTERN_OK)
        return code;
    lectern_bind_int64(s, 1, amount);
    lectern_bind_int64(s, 2, account);
    code = lectern_step(s);
    lectern_finalize(s);
    return code == LECTERN_DONE ? LECTERN_OK : code;
}

/* May be run more than once, so it changes nothing but the database. */
static int move_money(lectern *db, void *arg)
{
    const struct transfer *t = arg;
    int code = add(db, t->from, -t->amount);
    return code == LECTERN_OK ? add(db, t->to, t->amount) : code;
}

int main(int argc, char **argv)
{
    lectern *db;
    struct transfer t = {.from = 1, .to = 2, .amount = 25};
    int code = lectern_open(argc > 1 ? argv[1] : "lectern://127.0.0.1:7701", &db);
    if (code == LECTERN_OK)
        code = lectern_exec(db,
                            "CREATE TABLE IF NOT EXISTS account("
                            "    id INTEGER PRIMARY KEY, balance CHECK(balance >= 0));"
                            "INSERT OR IGNORE INTO account VALUES(1, 100), (2, 0)",
                            NULL, NULL, NULL);
    if (code == LECTERN_OK)
        code = lectern_transaction(db, NULL, move_money, &t);
    switch (code) {
    case LECTERN_OK:
        printf("done at position %llu\n", (unsigned long long)lectern_position(db));
        break;
    case LECTERN_CONSTRAINT:
        printf("not enough money: nothing was done\n");
        break;
    case LECTERN_UNKNOWN:
        printf("done or not, nobody can tell: look at the accounts before you try again\n");
        break;
    default:
        fprintf(stderr, "%s\n", lectern_errmsg(db));
    }
    lectern_close(db);
    return code != LECTERN_OK && code != LECTERN_CONSTRAINT;
}
