/* Room: replication. Thread: any; blocks.
 * Owns: the names; the order of renames and removals.
 * Invariants:
 *   - main.db.fetch is never written while it has another name, nor opened with SQLite;
 *   - main.db beside main.db.fetch, without main.db.fetched, is an ordinary database: taking it out
 *     of the way is the first step, and one rename;
 *   - main.db never stands beside a WAL, a position or hashes of another database: those are
 * removed after the old main.db is gone and before the new one comes;
 *   - between two steps the directory is synced, so a power cut leaves a prefix of them.
 * Not here: the pages (fetch.c), what main.db.fetched says (fetched.c).
 *
 *                     main.db    .fetch    .fetched    wal, position, hashes
 *   NONE              old, or -  -         -           the old ones, or none
 *     begin           -          old       -           the old ones       state: BEGUN
 *                     -          old       -           none
 *     (pages)         -          any       -           none
 *     complete        -          whole     whole       none               state: COMPLETE
 *     install         -          whole     whole       the new ones
 *                     whole      -         whole       the new ones
 *   NONE              whole      -         -           the new ones */
#include "replication/fetch_files.h"

#include "base/check.h"
#include "base/file.h"
#include "base/log.h"
#include "base/mem.h"
#include "base/sizes.h"
#include "replication/fetched.h"
#include "replication/position.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* SQLite's locks lie on these bytes of a database file (os.h: PENDING, RESERVED, SHARED). Who has
 * the database open in WAL mode holds SHARED. */
#define SQLITE_LOCK_BYTES     0x40000000
#define SQLITE_LOCK_BYTES_LEN 512

void fetch_files_init(struct fetch_files *f, const char *path)
{
    const char *slash = strrchr(path, '/');
    f->dir = slash == NULL ? mem_strdup(".") : file_beside(path, "");
    f->db = mem_strdup(path);
    f->db_new = mem_printf("%s.new", path);
    f->fetch = mem_printf("%s.fetch", path);
    f->fetched = mem_printf("%s.fetched", path);
    f->fetched_new = mem_printf("%s.fetched.new", path);
    f->wal = mem_printf("%s-wal", path);
    f->shm = mem_printf("%s-shm", path);
    f->journal = mem_printf("%s-journal", path);
    f->position = file_beside(path, "position");
    f->pos_new = file_beside(path, "position.new");
    f->hashes = file_beside(path, "hashes");
    f->hashes_new = file_beside(path, "hashes.new");
}

void fetch_files_fini(struct fetch_files *f)
{
    char *const all[] = {f->dir,         f->db,     f->db_new,    f->fetch,   f->fetched,
                         f->fetched_new, f->wal,    f->shm,       f->journal, f->position,
                         f->pos_new,     f->hashes, f->hashes_new};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        free(all[i]);
    *f = (struct fetch_files){0};
}

static enum err file_exists(const char *path, bool *exists)
{
    struct stat st;
    *exists = lstat(path, &st) == 0;
    return *exists || errno == ENOENT ? ERR_OK : file_error("stat", path);
}

static enum err remove_file(const char *path)
{
    return unlink(path) == 0 || errno == ENOENT ? ERR_OK : file_error("remove", path);
}

static enum err rename_file(const char *from, const char *to)
{
    return rename(from, to) == 0 ? ERR_OK : file_error("rename", from);
}

/* What belongs to a main.db that is gone; `hashes` may be the new one's already. */
static enum err remove_companions(const struct fetch_files *f, bool hashes)
{
    const char *const all[] = {f->wal,    f->shm,         f->journal, f->position,
                               f->db_new, f->fetched_new, f->pos_new, f->hashes_new};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        TRY(remove_file(all[i]));
    if (hashes)
        TRY(remove_file(f->hashes));
    return file_sync_dir(f->dir);
}

/* --- begin ------------------------------------------------------------------------------------ */

/* An open-file-description lock: ours until FD is closed, whatever else this process closes. */
static enum err lock_against_sqlite(int fd, const char *path, bool *locked)
{
    struct flock l = {.l_type = F_WRLCK,
                      .l_whence = SEEK_SET,
                      .l_start = SQLITE_LOCK_BYTES,
                      .l_len = SQLITE_LOCK_BYTES_LEN};
    *locked = fcntl(fd, F_OFD_SETLK, &l) == 0;
    return *locked || errno == EAGAIN || errno == EACCES ? ERR_OK : file_error("lock", path);
}

/* main.db -> main.db.fetch. Somebody who reads it keeps his file, which goes on without a name. */
static enum err take_database(const struct fetch_files *f, int *fd)
{
    bool locked;
    TRY(file_open(f->db, O_RDWR, 0, fd));
    TRY(lock_against_sqlite(*fd, f->db, &locked));
    if (locked) {
        TRY(rename_file(f->db, f->fetch));
        return file_sync_dir(f->dir);
    }
    log_warn("replication",
             "another process reads %s: it keeps the old pages, this node fetches all of them",
             f->db);
    (void)close(*fd);
    /* First the empty file, then the name: in between, main.db is an ordinary database. */
    TRY(remove_file(f->fetch));
    TRY(file_open(f->fetch, O_RDWR | O_CREAT | O_EXCL, 0644, fd));
    TRY(file_sync_dir(f->dir));
    TRY(remove_file(f->db));
    TRY(file_sync_dir(f->dir));
    TRY(lock_against_sqlite(*fd, f->fetch, &locked));
    return locked ? ERR_OK : err_fail(ERR_LOCKED, "another process uses %s", f->fetch);
}

static enum err take_fetch(const struct fetch_files *f, int *fd)
{
    bool locked;
    TRY(file_open(f->fetch, O_RDWR | O_CREAT, 0644, fd));
    TRY(lock_against_sqlite(*fd, f->fetch, &locked));
    if (!locked)
        return err_fail(ERR_LOCKED,
                        "another process reads %s, a database that is being fetched and not whole; "
                        "stop it",
                        f->fetch);
    return file_sync_dir(f->dir);
}

enum err fetch_files_unsay(const struct fetch_files *f)
{
    bool said;
    TRY(file_exists(f->fetched, &said));
    if (!said)
        return ERR_OK;
    TRY(remove_file(f->fetched));
    return file_sync_dir(f->dir);
}

enum err fetch_files_begin(const struct fetch_files *f, int *fd)
{
    bool has_db;
    *fd = -1;
    TRY(fetch_files_unsay(f));
    TRY(file_exists(f->db, &has_db));
    enum err e = has_db ? take_database(f, fd) : take_fetch(f, fd);
    if (e == ERR_OK)
        e = remove_companions(f, true);
    if (e != ERR_OK && *fd >= 0) {
        (void)close(*fd);
        *fd = -1;
    }
    return e;
}

static enum err drop(const struct fetch_files *f)
{
    int fd;
    TRY(fetch_files_begin(f, &fd));
    (void)close(fd);
    TRY(remove_file(f->fetch));
    return file_sync_dir(f->dir);
}

enum err repl_fetch_drop(const char *path)
{
    struct fetch_files f;
    fetch_files_init(&f, path);
    enum err e = drop(&f);
    fetch_files_fini(&f);
    return e;
}

/* --- what there is ---------------------------------------------------------------------------- */

/* The word COMPLETE, when there is one that counts. A damaged one is worth nothing and does no
 * harm: what it spoke of is compared once more, or is installed already. */
static enum err read_word(const struct fetch_files *f, struct repl_image_head *head, uint8_t *note,
                          size_t *note_len, bool *complete)
{
    enum err e = fetched_read(f->fetched, head, note, note_len);
    *complete = e == ERR_OK;
    if (e == ERR_CORRUPT)
        log_warn("replication", "ignored reason=\"%s\"", err_text());
    return e == ERR_CORRUPT || e == ERR_NOT_FOUND ? ERR_OK : e;
}

static enum err look(const struct fetch_files *f, enum repl_fetch_state *state,
                     struct repl_image_head *head, uint8_t *note, size_t *note_len)
{
    bool complete, has_db, has_fetch;
    TRY(read_word(f, head, note, note_len, &complete));
    TRY(file_exists(f->db, &has_db));
    TRY(file_exists(f->fetch, &has_fetch));
    if (complete && (has_db || has_fetch))
        *state = REPL_FETCH_COMPLETE;
    else if (has_fetch && !has_db)
        *state = REPL_FETCH_BEGUN;
    else if (complete)
        return err_fail(ERR_CORRUPT,
                        "%s says that a database was fetched, but neither %s nor %s is there; "
                        "remove it, and the database is fetched again",
                        f->fetched, f->fetch, f->db);
    return ERR_OK;
}

enum err repl_fetch_look(const char *path, enum repl_fetch_state *state,
                         struct repl_image_head *head, uint8_t *note, size_t *note_len)
{
    struct fetch_files f;
    *state = REPL_FETCH_NONE;
    *head = (struct repl_image_head){0};
    *note_len = 0;
    fetch_files_init(&f, path);
    enum err e = look(&f, state, head, note, note_len);
    fetch_files_fini(&f);
    return e;
}

/* --- install ---------------------------------------------------------------------------------- */

static enum err create_position(const struct fetch_files *f, const struct repl_image_head *head)
{
    struct position_file *p;
    struct position_record r = {.database_id = head->database_id,
                                .page_size = head->page_size,
                                .closed = true,
                                .closed_seq = head->seq,
                                .closed_checksum = head->checksum};
    TRY(position_create(f->position, &r, &p));
    position_close(p);
    return ERR_OK;
}

/* main.db.fetch was verified before main.db.fetched was written; of another size, it was not left
 * alone since. */
static enum err check_size(const struct fetch_files *f, const struct repl_image_head *head)
{
    struct stat st;
    if (stat(f->fetch, &st) != 0)
        return file_error("stat", f->fetch);
    if ((uint64_t)st.st_size == (uint64_t)head->pages * head->page_size)
        return ERR_OK;
    return err_fail(ERR_CORRUPT,
                    "%s has %llu bytes, %s says %u pages of %u: another program changed it; remove "
                    "%s, and what differs is fetched again",
                    f->fetch, (unsigned long long)st.st_size, f->fetched, head->pages,
                    head->page_size, f->fetched);
}

static enum err install(const struct fetch_files *f)
{
    struct repl_image_head head;
    bool has_fetch, has_db;
    TRY(fetched_read(f->fetched, &head, NULL, NULL));
    TRY(file_exists(f->fetch, &has_fetch));
    TRY(file_exists(f->db, &has_db));
    if (has_fetch && has_db)
        return err_fail(ERR_CORRUPT,
                        "%s was fetched to become %s, but another program has put that there "
                        "meanwhile; remove %s, or keep it and remove %s and %s",
                        f->fetch, f->db, f->db, f->fetch, f->fetched);
    if (!has_fetch && !has_db)
        return err_fail(ERR_CORRUPT, "%s speaks of %s, which is gone; remove it", f->fetched,
                        f->fetch);
    if (has_fetch) {
        TRY(check_size(f, &head));
        TRY(remove_companions(f, false));
        TRY(create_position(f, &head));
        TRY(rename_file(f->fetch, f->db));
        TRY(file_sync_dir(f->dir));
    }
    TRY(remove_file(f->fetched));
    TRY(file_sync_dir(f->dir));
    log_info("replication", "fetched database installed path=%s seq=%llu checksum=%016llx pages=%u",
             f->db, (unsigned long long)head.seq, (unsigned long long)head.checksum, head.pages);
    return ERR_OK;
}

enum err repl_fetch_install(const char *path)
{
    struct fetch_files f;
    fetch_files_init(&f, path);
    enum err e = install(&f);
    fetch_files_fini(&f);
    return e;
}
