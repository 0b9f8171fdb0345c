/* Room: client.   Thread: one.   Owns: the text of the statement that is being collected.
 *
 * Invariants: every byte is scanned once (a dump's statement of 200 KB over thousands of lines
 * costs linear time); a dot command is seen only between statements, at the beginning of a line.
 *
 * Not here: where a statement ends (sql_split.c), what it does (shell_run.c). */
#include "client/shell_input.h"

#include "base/buf.h"
#include "client/shell_dot.h"
#include "client/shell_edit.h"
#include "client/shell_run.h"
#include "client/sql_split.h"

#include <errno.h>
#include <string.h>

struct input {
    struct sql_split split;
    struct buf text;
    unsigned line, first_line; /* the current one; where the statement began */
    bool line_start;
};

static void input_init(struct input *in)
{
    *in = (struct input){.line = 1, .line_start = true};
    sql_split_init(&in->split);
    buf_init(&in->text, INPUT_STATEMENT_MAX);
}

static void forget(struct input *in)
{
    sql_split_init(&in->split);
    buf_reset(&in->text);
}

static void run_collected(struct shell *sh, struct input *in)
{
    sh->line = in->first_line;
    if (buf_status(&in->text) == ERR_OK) {
        shell_run(sh, (const char *)in->text.data, in->text.len);
    } else {
        shell_complain(sh, "a statement of more than %llu MiB", INPUT_STATEMENT_MAX >> 20);
        sh->quit = true;
    }
    buf_reset(&in->text);
}

/* Takes bytes that hold no line end, except as their last one. */
static void take_bytes(struct shell *sh, struct input *in, const char *p, size_t n)
{
    while (n > 0 && !shell_must_stop(sh)) {
        bool complete;
        if (in->text.len == 0)
            in->first_line = in->line;
        size_t used = sql_split_feed(&in->split, p, n, &complete);
        buf_put(&in->text, p, used);
        if (complete)
            run_collected(sh, in);
        p += used;
        n -= used;
    }
    if (sql_split_blank(&in->split))
        buf_reset(&in->text); /* comments between statements */
}

/* A whole line or, of a long one, a piece. ENDED: the line's end follows. */
static void take_line(struct shell *sh, struct input *in, char *p, size_t n, bool ended)
{
    bool fresh = in->line_start && in->text.len == 0;
    in->line_start = ended;
    if (fresh && n > 0 && (p[0] == '.' || p[0] == '#')) {
        sh->line = in->line;
        p[n] = '\0';
        if (!ended)
            shell_complain(sh, "a dot command of more than %u bytes", INPUT_PIECE_BYTES);
        else if (p[0] == '.')
            shell_dot(sh, p);
    } else {
        take_bytes(sh, in, p, n);
        if (ended)
            take_bytes(sh, in, "\n", 1);
    }
    in->line += ended;
}

static void input_end(struct shell *sh, struct input *in)
{
    if (!shell_must_stop(sh) && in->text.len > 0)
        run_collected(sh, in); /* the last statement needs no semicolon */
    buf_fini(&in->text);
}

/* Reads up to N bytes of a line, without its end (LF or CR LF). False: nothing is left. */
static bool read_piece(FILE *f, char *to, size_t room, size_t *n, bool *ended)
{
    int c = EOF;
    *n = 0;
    *ended = false;
    while (*n < room && (c = getc(f)) != EOF && c != '\n') {
        if (c == '\r') {
            int next = getc(f);
            if (next == '\n')
                c = next;
            else if (next != EOF)
                (void)ungetc(next, f);
            if (c == '\n')
                break;
        }
        to[(*n)++] = (char)c;
    }
    *ended = c == '\n' || c == EOF;
    return *n > 0 || c != EOF;
}

void shell_input_file(struct shell *sh, FILE *f)
{
    static const char mark[] = "\xef\xbb\xbf"; /* the byte order mark that some editors put first */
    char piece[INPUT_PIECE_BYTES + 1];
    struct input in;
    size_t n;
    bool ended, first = true;
    unsigned line = sh->line, failures = sh->failures_before;
    sh->failures_before = sh->failures;
    input_init(&in);
    while (!shell_must_stop(sh) && read_piece(f, piece, INPUT_PIECE_BYTES, &n, &ended)) {
        char *p = piece;
        if (first && n >= 3 && memcmp(piece, mark, 3) == 0) {
            p += 3;
            n -= 3;
        }
        first = false;
        take_line(sh, &in, p, n, ended);
    }
    if (ferror(f)) {
        sh->line = in.line;
        if (shell_interrupted != 0) /* Ctrl-C ends a read */
            shell_complain(sh, "interrupted");
        else
            shell_complain(sh, "cannot read the input: %s", strerror(errno));
    }
    input_end(sh, &in);
    sh->line = line;
    sh->failures_before = failures;
}

void shell_input_text(struct shell *sh, const char *text)
{
    struct input in;
    unsigned line = sh->line;
    input_init(&in);
    sh->line = 0;
    if (text[0] == '.') {
        char command[INPUT_PIECE_BYTES];
        if (strlen(text) >= sizeof command) {
            shell_complain(sh, "a dot command of more than %u bytes", INPUT_PIECE_BYTES);
        } else {
            memcpy(command, text, strlen(text) + 1);
            shell_dot(sh, command);
        }
    } else {
        in.line = 0; /* there are no lines to name */
        take_bytes(sh, &in, text, strlen(text));
    }
    input_end(sh, &in);
    sh->line = line;
}

static const char *prompt(const struct shell *sh, const struct input *in)
{
    bool open = !lectern_get_autocommit(sh->db);
    if (in->text.len > 0)
        return open ? "    ...> " : "   ...> ";
    return open ? "lectern*> " : "lectern> ";
}

void shell_input_terminal(struct shell *sh)
{
    struct input in;
    bool again = false; /* Ctrl-C at an empty prompt once: the next one leaves */
    input_init(&in);
    for (;;) {
        const char *line;
        char piece[INPUT_PIECE_BYTES + 1];
        size_t n;
        /* A person goes on after an error and after Ctrl-C. */
        shell_interrupted = 0;
        sh->failures_before = sh->failures;
        if (shell_must_stop(sh))
            break;
        enum err err = shell_edit_line(sh->edit, prompt(sh, &in), &line, &n);
        if (err == ERR_CANCELLED) {
            (void)fputs("^C\n", sh->out);
            if (again && in.text.len == 0)
                break;
            again = true;
            forget(&in);
            continue;
        }
        again = false;
        if (err != ERR_OK) {
            (void)fputs("\n", sh->out);
            break;
        }
        for (size_t done = 0; done == 0 || done < n;) {
            size_t part = n - done < INPUT_PIECE_BYTES ? n - done : INPUT_PIECE_BYTES;
            memcpy(piece, line + done, part);
            take_line(sh, &in, piece, part, done + part == n);
            done += part;
            if (part == 0)
                break;
        }
    }
    buf_fini(&in.text); /* what is not ended by a semicolon is not run */
}
