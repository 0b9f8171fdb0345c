/* Room: client.   Thread: one.   Owns: libedit's handle, the history and its file.
 *
 * Invariants: the history file is the user's alone (0600), also if it was not before.
 *
 * We read the characters ourselves: libedit's own reader tries an interrupted read again, and
 * Ctrl-C would do nothing. */
#include "client/shell_edit.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <poll.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wchar.h>

#define HISTORY_LINES 2000

/* Ctrl-C writes here: unlike an interrupted read it cannot be missed in the moment before the read.
 * -1: no line editor. */
static int wake_fd = -1;

struct shell_edit {
    EditLine *el;
    History *history;
    char path[1024]; /* "": none */
    const char *prompt;
    char *line;
    bool changed, interrupted;
};

static char *prompt_of(EditLine *el)
{
    static char text[64];
    struct shell_edit *e = NULL;
    (void)el_get(el, EL_CLIENTDATA, &e);
    (void)snprintf(text, sizeof text, "%s", e->prompt);
    return text;
}

void shell_edit_interrupt(void)
{
    uint64_t one = 1;
    int saved = errno;
    ssize_t n = wake_fd < 0 ? 0 : write(wake_fd, &one, sizeof one);
    (void)n; /* full: it is readable already */
    errno = saved;
}

static bool take_interrupt(void)
{
    uint64_t count;
    return read(wake_fd, &count, sizeof count) == (ssize_t)sizeof count;
}

/* One byte of the terminal: 1, 0 at its end, -1 after Ctrl-C. */
static int read_byte(char *c)
{
    for (;;) {
        struct pollfd p[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                              {.fd = wake_fd, .events = POLLIN}};
        if (poll(p, 2, -1) < 0 && errno != EINTR)
            return -1;
        if (p[1].revents != 0)
            return -1;
        if (p[0].revents == 0)
            continue;
        ssize_t n = read(STDIN_FILENO, c, 1);
        if (n >= 0 || (errno != EINTR && errno != EAGAIN))
            return (int)n;
    }
}

/* One character of the terminal. */
static int read_char(EditLine *el, wchar_t *out)
{
    mbstate_t state = {0};
    struct shell_edit *e = NULL;
    (void)el_get(el, EL_CLIENTDATA, &e);
    for (;;) {
        char c;
        int n = read_byte(&c);
        e->interrupted = n < 0 && take_interrupt();
        if (n <= 0)
            return n;
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
    wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    find_history(e);
    e->history = history_init();
    e->el = el_init("lectern", stdin, stdout, stderr);
    if (wake_fd < 0 || e->history == NULL || e->el == NULL) {
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
    if (wake_fd >= 0)
        (void)close(wake_fd);
    wake_fd = -1;
    free(e->line);
    free(e);
}

enum err shell_edit_line(struct shell_edit *e, const char *prompt, const char **line, size_t *n)
{
    HistEvent event;
    int count = 0;
    e->prompt = prompt;
    const char *got = el_gets(e->el, &count);
    if (e->interrupted) {
        e->interrupted = false;
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
