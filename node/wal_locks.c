/* Room: node. Thread: any; blocks. Owns: nothing.
 * Not here: our own readers (reader_watch.c).
 *
 * SQLite's readers hold a POSIX read lock on one of five bytes of `-shm` (the read marks). A line:
 *     7: POSIX  ADVISORY  READ 4242 fd:01:393231 123 123
 * The numbers are the process, the file (device and inode, as stat tells them) and the bytes. */
#include "node/wal_locks.h"

#include "base/file.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define READ_MARK_FIRST 123 /* WALINDEX_LOCK_OFFSET (120) + WAL_READ_LOCK(0) (3): FORMATS.md */
#define READ_MARK_LAST  127

/* The next word of a line, which is changed; "" at its end. */
static const char *next_word(char **line)
{
    char *word = *line + strspn(*line, " \n");
    char *end = word + strcspn(word, " \n");
    *line = *end == 0 ? end : end + 1;
    *end = 0;
    return word;
}

/* "fd:01:393231": is it that file? */
static bool is_file(const char *text, const struct stat *file)
{
    char *end;
    unsigned long major_no = strtoul(text, &end, 16);
    unsigned long minor_no = *end == ':' ? strtoul(end + 1, &end, 16) : 0;
    unsigned long long inode = *end == ':' ? strtoull(end + 1, &end, 10) : 0;
    return *end == 0 && major_no == major(file->st_dev) && minor_no == minor(file->st_dev) &&
           inode == file->st_ino;
}

/* The process of a line about a read mark of that file; -1: it is about something else. A lock that
 * is waited for has an arrow behind its number, so that the words do not fit: it holds nothing. */
static long line_owner(char *line, const struct stat *file)
{
    (void)next_word(&line);
    bool is_posix = strcmp(next_word(&line), "POSIX") == 0;
    (void)next_word(&line); /* ADVISORY */
    bool is_read = strcmp(next_word(&line), "READ") == 0;
    long pid = strtol(next_word(&line), NULL, 10);
    bool is_ours = is_file(next_word(&line), file);
    long long first = strtoll(next_word(&line), NULL, 10);
    const char *end = next_word(&line);
    long long last = strcmp(end, "EOF") == 0 ? READ_MARK_LAST : strtoll(end, NULL, 10);
    if (!is_posix || !is_read || !is_ours || last < READ_MARK_FIRST || first > READ_MARK_LAST)
        return -1;
    return pid < 0 ? 0 : pid;
}

static void name_of(long pid, char *to, size_t n)
{
    char path[64];
    (void)snprintf(to, n, "?");
    (void)snprintf(path, sizeof path, "/proc/%ld/comm", pid);
    FILE *f = pid == 0 ? NULL : fopen(path, "re");
    if (f == NULL)
        return;
    if (fgets(to, (int)n, f) == NULL)
        (void)snprintf(to, n, "?");
    for (char *c = to; *c != 0; c++) /* it will be logged */
        if (*c < ' ' || *c > '~' || *c == '"')
            *c = c[1] == 0 ? 0 : '?';
    (void)fclose(f);
}

enum err wal_locks_of_others(const char *shm_path, struct wal_lock_owner *owners, unsigned max,
                             unsigned *n)
{
    struct stat file;
    char line[256];
    *n = 0;
    if (stat(shm_path, &file) != 0)
        return file_error("stat", shm_path);
    FILE *f = fopen("/proc/locks", "re");
    if (f == NULL)
        return file_error("open", "/proc/locks");
    while (*n < max && fgets(line, sizeof line, f) != NULL) {
        long pid = line_owner(line, &file);
        bool known = pid < 0 || pid == (long)getpid();
        for (unsigned i = 0; i < *n; i++)
            known = known || owners[i].pid == pid;
        if (known)
            continue;
        owners[*n].pid = pid;
        name_of(pid, owners[*n].command, sizeof owners[*n].command);
        ++*n;
    }
    (void)fclose(f);
    return ERR_OK;
}
