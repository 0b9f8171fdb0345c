/* Room: client.   Thread: one.   Owns: libedit's handle, the history and its file.
 *
 * Invariants: the history file is the user's alone (0600), also if it was not before.
 *
 * We read the characters ourselves: libedit's own reader swallows the first interrupted read, and
 * Ctrl-C would do nothing. */
#include "client/shell_edit.h"

#include "client/shell.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 2000

struct shell_edit {
    EditLine *el;
    History *history;
    char path[1024]; /* "": none */
    const char *prompt;
    char *line;
    bool changed;
};

static char *prompt_of(EditLine *el)
{
    static char text[64];
    struct shell_edit *e = NULL;
    (void)el_get(el, EL_CLIENTDATA, &e);
    (void)snprintf(text, sizeof text, "%s", e->prompt);
    return text;
}

/* One character of the terminal; -1 with EINTR after Ctrl-C. */
static int read_char(EditLine *el, wchar_t *out)
{
    mbstate_t state = {0};
    (void)el;
    for (;;) {
        char c;
        ssize_t n = read(STDIN_FILENO, &c, 1);
        if (n < 0 && errno == EINTR && !shell_interrupted)
            continue;
        if (n <= 0)
            return (int)n;
        size_t used = mbrtowc(out, &c, 1, &state);
        if (used == (size_t)-2) /* the rest of the character is still to come */
            continue;
        if (used == (size_t)-1)
            *out = L'?';
        if (used == 0)
            *out = L'\0';
        return 1;
    }
}

static void find_history(struct shell_edit *e)
{
    const char *home = getenv("HOME");
    const struct passwd *pw = home == NULL ? getpwuid(getuid()) : NULL;
    if (pw != NULL)
        home = pw->pw_dir;
    if (home == NULL || *home == '\0')
        return;
    int n = snprintf(e->path, sizeof e->path, "%s/.lectern_history", home);
    if (n < 0 || (size_t)n >= sizeof e->path)
        e->path[0] = '\0';
}

struct shell_edit *shell_edit_open(void)
{
    HistEvent event;
    struct shell_edit *e = calloc(1, sizeof *e);
    if (e == NULL)
        return NULL;
    e->prompt = "";
    find_history(e);
    e->history = history_init();
    e->el = el_init("lectern", stdin, stdout, stderr);
    if (e->history == NULL || e->el == NULL) {
        shell_edit_close(e);
        return NULL;
    }
    (void)history(e->history, &event, H_SETSIZE, HISTORY_LINES);
    (void)history(e->history, &event, H_SETUNIQUE, 1);
    if (e->path[0] != '\0')
        (void)history(e->history, &event, H_LOAD, e->path);
    (void)el_set(e->el, EL_CLIENTDATA, e);
    (void)el_set(e->el, EL_PROMPT, prompt_of);
    (void)el_set(e->el, EL_EDITOR, "emacs");
    (void)el_set(e->el, EL_HIST, history, e->history);
    (void)el_set(e->el, EL_GETCFN, read_char);
    (void)el_set(e->el, EL_BIND, "^R", "em-inc-search-prev", NULL);
    (void)el_source(e->el, NULL); /* the user's ~/.editrc */
    return e;
}

static void save_history(struct shell_edit *e)
{
    HistEvent event;
    if (!e->changed || e->path[0] == '\0')
        return;
    int fd = open(e->path, O_WRONLY | O_CREAT | O_CLOEXEC, S_IRUSR | S_IWUSR);
    if (fd < 0)
        return; /* a home that cannot be written: no history, no fuss */
    (void)fchmod(fd, S_IRUSR | S_IWUSR);
    (void)close(fd);
    (void)history(e->history, &event, H_SAVE, e->path);
}

void shell_edit_close(struct shell_edit *e)
{
    if (e == NULL)
        return;
    if (e->history != NULL)
        save_history(e);
    if (e->el != NULL)
        el_end(e->el);
    if (e->history != NULL)
        history_end(e->history);
    free(e->line);
    free(e);
}

enum err shell_edit_line(struct shell_edit *e, const char *prompt, const char **line, size_t *n)
{
    HistEvent event;
    int count = 0;
    e->prompt = prompt;
    const char *got = el_gets(e->el, &count);
    if (shell_interrupted) {
        (void)el_set(e->el, EL_UNBUFFERED, 0);
        el_reset(e->el);
        return err_fail(ERR_CANCELLED, "interrupted");
    }
    if (got == NULL || count <= 0)
        return err_fail(ERR_CLOSED, "end of input");
    size_t len = strcspn(got, "\r\n");
    free(e->line);
    e->line = strndup(got, len);
    if (e->line == NULL)
        return err_fail(ERR_NOMEM, "out of memory");
    if (strspn(e->line, " \t") != len) {
        (void)history(e->history, &event, H_ENTER, e->line);
        e->changed = true;
    }
    *line = e->line;
    *n = len;
    return ERR_OK;
}
