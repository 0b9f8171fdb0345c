/* Room: node. Thread: any.
 *
 * PCRE2 means other things than Python's re module by \Z \v \N \h \R \K \u, by [[:alpha:]] and by
 * {,3}, and has constructs that Python has not: recursion, verbs like (*COMMIT), callouts. So a
 * pattern is read by Python's rules (Lib/re/_parser.py) and written in what both mean alike; what
 * Python refuses is refused. Verbose patterns, (?x), lose their white space here.
 *
 * Callouts, (?C1), stand at the start, behind each repetition and before each alternative: wherever
 * a search can go several ways, or far. There functions_regexp.c counts its work: PCRE2's own limit
 * is for each start position anew, and does not see how long a text one step runs over.
 *
 * What stays different: docs/FUNCTIONS.md. */
#include "node/functions_pattern.h"

#include <ctype.h>
#include <string.h>

#define DEPTH_MAX 200 /* PCRE2 itself refuses more than 250 */
#define CALLOUT   "(?C1)"

struct translation {
    const char *begin, *p, *end;
    sqlite3_str *out;
    const char *why;
    size_t at;
    bool ascii;
    bool verbose;
    bool verbose_outside[DEPTH_MAX]; /* of each open group */
    int number[DEPTH_MAX];           /* the same; 0: it captures nothing */
    int depth, groups;
    bool nothing;  /* behind ( or | or *, or at the start: nothing to repeat */
    bool at_start; /* nothing but global flags so far */
};

static bool fail(struct translation *t, const char *why)
{
    if (t->why == NULL) {
        t->why = why;
        t->at = (size_t)(t->p - t->begin);
    }
    return false;
}

static void put(struct translation *t, const char *s)
{
    sqlite3_str_appendall(t->out, s);
}

static void put_code(struct translation *t, unsigned code)
{
    sqlite3_str_appendf(t->out, "\\x{%x}", code);
}

static bool take(struct translation *t, const char *s)
{
    size_t n = strlen(s);
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, s, n) != 0)
        return false;
    t->p += n;
    return true;
}

/* A literal byte: ASCII's punctuation is escaped, and so stays literal everywhere. */
static void put_literal(struct translation *t, char c)
{
    if (ispunct((unsigned char)c) && c != '_')
        sqlite3_str_appendchar(t->out, 1, '\\');
    sqlite3_str_appendchar(t->out, 1, c);
}

/* --- escapes --- */

static bool take_hex(struct translation *t, int digits)
{
    unsigned code = 0;
    for (int i = 0; i < digits; i++, t->p++) {
        if (t->p == t->end || !isxdigit((unsigned char)*t->p))
            return fail(t, "incomplete escape");
        unsigned c = (unsigned char)*t->p;
        code = code * 16 + (c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
        return fail(t, "no such character");
    put_code(t, code);
    return true;
}

/* \n, \x41, \u0041 and others that are one character, in and outside of sets; C is taken. false
 * without `why`: it is none. */
static bool escape_character(struct translation *t, char c)
{
    static const char from[] = "afnrtv", to[] = "\a\f\n\r\t\v";
    const char *found = strchr(from, c);
    if (c != 0 && found != NULL) {
        put_code(t, (unsigned char)to[found - from]);
        return true;
    }
    if (c == 'x' || c == 'u' || c == 'U')
        return take_hex(t, c == 'x' ? 2 : c == 'u' ? 4 : 8);
    if (isalnum((unsigned char)c))
        return false;
    put_literal(t, c);
    return true;
}

static bool is_octal(const struct translation *t, size_t i)
{
    return (size_t)(t->end - t->p) > i && t->p[i] >= '0' && t->p[i] <= '7';
}

/* An octal number of up to MAX digits. */
static bool take_octal(struct translation *t, size_t max)
{
    unsigned code = 0;
    for (size_t i = 0; i < max && is_octal(t, 0); i++)
        code = code * 8 + (unsigned)(*t->p++ - '0');
    if (code > 0377)
        return fail(t, "octal escape value outside of range 0-0o377");
    put_code(t, code);
    return true;
}

/* \1 ... \99, or an octal number; the first digit is still there. */
static bool digit_escape(struct translation *t)
{
    if (*t->p == '0' || (is_octal(t, 0) && is_octal(t, 1) && is_octal(t, 2)))
        return take_octal(t, 3);
    int group = *t->p++ - '0';
    if (t->p < t->end && isdigit((unsigned char)*t->p))
        group = group * 10 + (*t->p++ - '0');
    if (group > t->groups)
        return fail(t, "invalid group reference");
    for (int i = 0; i < t->depth; i++)
        if (t->number[i] == group)
            return fail(t, "cannot refer to an open group");
    sqlite3_str_appendf(t->out, "\\g{%d}", group);
    return true;
}

static bool escape(struct translation *t)
{
    if (t->p == t->end)
        return fail(t, "bad escape (end of pattern)");
    char c = *t->p;
    if (isdigit((unsigned char)c))
        return digit_escape(t);
    t->p++;
    if (c != 0 && strchr("AbBdDsSwW", c) != NULL) {
        sqlite3_str_appendf(t->out, "\\%c", c);
        return true;
    }
    if (c == 'Z' || c == 'z') {
        put(t, "\\z");
        return true;
    }
    return escape_character(t, c) || fail(t, "bad escape");
}

static bool set_escape(struct translation *t)
{
    if (t->p == t->end)
        return fail(t, "unterminated character set");
    if (is_octal(t, 0))
        return take_octal(t, 3);
    char c = *t->p++;
    if (c != 0 && strchr("dDsSwW", c) != NULL) {
        sqlite3_str_appendf(t->out, "\\%c", c);
        return true;
    }
    if (c == 'b') {
        put_code(t, 8);
        return true;
    }
    return escape_character(t, c) || fail(t, "bad escape");
}

/* --- sets, groups, quantifiers --- */

/* The [ is taken. */
static bool set(struct translation *t)
{
    put(t, "[");
    if (take(t, "^"))
        put(t, "^");
    for (bool first = true;; first = false) {
        if (t->p == t->end)
            return fail(t, "unterminated character set");
        char c = *t->p++;
        if (c == ']' && !first)
            break;
        if (c == '-')
            put(t, "-"); /* a range, or itself at the ends: as in PCRE2 */
        else if (c != '\\')
            put_literal(t, c);
        else if (!set_escape(t))
            return false;
    }
    put(t, "]");
    return true;
}

static bool open_group(struct translation *t, const char *text)
{
    if (t->depth == DEPTH_MAX)
        return fail(t, "groups are nested too deeply");
    t->number[t->depth] = 0;
    t->verbose_outside[t->depth++] = t->verbose;
    put(t, text);
    t->nothing = true;
    return true;
}

static bool open_capture(struct translation *t, const char *text)
{
    if (!open_group(t, text))
        return false;
    t->number[t->depth - 1] = ++t->groups;
    return true;
}

/* A name up to END, copied between BEFORE and AFTER. */
static bool copy_name(struct translation *t, const char *before, char end, const char *after)
{
    const char *stop = memchr(t->p, end, (size_t)(t->end - t->p));
    if (stop == NULL || stop == t->p)
        return fail(t, "missing group name");
    for (const char *c = t->p; c < stop; c++)
        if (!isalnum((unsigned char)*c) && *c != '_' && (unsigned char)*c < 0x80)
            return fail(t, "bad character in group name");
    put(t, before);
    sqlite3_str_append(t->out, t->p, (int)(stop - t->p));
    put(t, after);
    t->p = stop + 1;
    return true;
}

/* (?(1)...) and (?(name)...) */
static bool condition(struct translation *t)
{
    bool number = t->p < t->end && isdigit((unsigned char)*t->p);
    if (t->p < t->end && *t->p == '0')
        return fail(t, "bad group number");
    if (!open_group(t, "(?"))
        return false;
    return copy_name(t, number ? "(" : "(<", ')', number ? ")" : ">)");
}

/* (?ims-x:...) or (?ims): the letters are still there. */
static bool flags(struct translation *t)
{
    char on[64] = "(?";
    size_t n = 2;
    bool minus = false, verbose = t->verbose, ascii = false;
    const char *begin = t->p;
    for (;; t->p++) {
        if (t->p == t->end)
            return fail(t, "missing -, : or )");
        char c = *t->p;
        if (n >= sizeof on - 2)
            return fail(t, "too many flags");
        if (c == 'i' || c == 'm' || c == 's' || (c == '-' && !minus))
            on[n++] = c;
        else if (c == 'x')
            verbose = !minus;
        else if (c == 'a' && !minus)
            ascii = true;
        else if (c != 'u' || minus)
            break;
        minus = minus || c == '-';
    }
    on[n] = 0;
    if (take(t, ":")) {
        if (ascii)
            return fail(t, "(?a:...) is not supported, only (?a) at the start");
        on[n++] = ':';
        on[n] = 0;
        if (!open_group(t, on))
            return false;
        t->verbose = verbose;
        return true;
    }
    if (minus || t->p == begin || !take(t, ")"))
        return fail(t, "unknown extension, or unknown flag");
    if (!t->at_start)
        return fail(t, "global flags not at the start of the expression");
    on[n++] = ')';
    on[n] = 0;
    if (n > 3)
        put(t, on);
    t->verbose = verbose;
    t->ascii = t->ascii || ascii;
    return true;
}

/* (?#...): \) does not end it. */
static bool comment(struct translation *t)
{
    while (t->p < t->end && *t->p != ')')
        t->p += *t->p == '\\' && t->end - t->p > 1 ? 2 : 1;
    return take(t, ")") || fail(t, "missing ), unterminated comment");
}

/* The ( is taken. */
static bool group(struct translation *t)
{
    static const char *const plain[] = {"?:", "?=", "?!", "?<=", "?<!", "?>"};
    char text[8];
    if (t->p == t->end || *t->p != '?')
        return open_capture(t, "(");
    for (size_t i = 0; i < sizeof plain / sizeof plain[0]; i++)
        if (take(t, plain[i])) {
            sqlite3_snprintf((int)sizeof text, text, "(%s", plain[i]);
            return open_group(t, text);
        }
    if (take(t, "?P<"))
        return open_capture(t, "") && copy_name(t, "(?P<", '>', ">");
    if (take(t, "?P=")) {
        t->nothing = false;
        return copy_name(t, "(?P=", ')', ")");
    }
    if (take(t, "?("))
        return condition(t);
    if (take(t, "?#"))
        return comment(t);
    t->p++;
    return flags(t);
}

/* The quantifier is written, but for the ? or + that makes it lazy or possessive. */
static bool end_quantifier(struct translation *t)
{
    if (take(t, "?"))
        put(t, "?");
    else if (take(t, "+"))
        put(t, "+");
    put(t, CALLOUT);
    t->nothing = true;
    return true;
}

/* A { is taken: {3} {3,} {,3} {3,5} {,} repeat, everything else is a literal {. */
static bool braces(struct translation *t)
{
    const char *p = t->p, *low = p, *low_end, *high, *high_end;
    while (p < t->end && isdigit((unsigned char)*p))
        p++;
    low_end = high = high_end = p;
    bool comma = p < t->end && *p == ',';
    if (comma) {
        high = ++p;
        while (p < t->end && isdigit((unsigned char)*p))
            p++;
        high_end = p;
    }
    if (p == t->end || *p != '}' || (!comma && low == low_end)) {
        put(t, "\\{");
        t->nothing = false;
        return true;
    }
    if (t->nothing)
        return fail(t, "nothing to repeat");
    t->p = p + 1;
    put(t, low == low_end ? "{0" : "{");
    sqlite3_str_append(t->out, low, (int)(low_end - low));
    if (comma)
        put(t, ",");
    sqlite3_str_append(t->out, high, (int)(high_end - high));
    put(t, "}");
    return end_quantifier(t);
}

static bool close_group(struct translation *t)
{
    if (t->depth == 0)
        return fail(t, "unbalanced parenthesis");
    t->verbose = t->verbose_outside[--t->depth];
    put(t, ")");
    t->nothing = false;
    return true;
}

static bool quantifier(struct translation *t, char c)
{
    if (t->nothing)
        return fail(t, "nothing to repeat");
    sqlite3_str_appendchar(t->out, 1, c);
    return end_quantifier(t);
}

static bool item(struct translation *t, char c)
{
    bool start = t->at_start;
    t->at_start = false;
    switch (c) {
    case '(':
        t->at_start = start && t->depth == 0;
        if (!group(t))
            return false;
        t->at_start = t->at_start && t->depth == 0 && t->p[-1] == ')';
        return true;
    case ')':
        return close_group(t);
    case '{':
        return braces(t);
    case '*':
    case '+':
    case '?':
        return quantifier(t, c);
    case '|':
        t->nothing = true;
        put(t, "|" CALLOUT);
        return true;
    default:
        break;
    }
    t->nothing = false;
    if (c == '\\')
        return escape(t);
    if (c == '[')
        return set(t);
    if (c == '.' || c == '^' || c == '$')
        sqlite3_str_appendchar(t->out, 1, c);
    else
        put_literal(t, c);
    return true;
}

static void skip_line(struct translation *t)
{
    while (t->p < t->end && *t->p != '\n')
        t->p++;
}

void pattern_translate(const char *p, size_t n, struct pattern *out)
{
    struct translation t = {.begin = p, .p = p, .end = p + n, .nothing = true, .at_start = true};
    *out = (struct pattern){0};
    t.out = sqlite3_str_new(NULL);
    put(&t, CALLOUT "(?:");
    while (t.p < t.end && t.why == NULL) {
        char c = *t.p++;
        if (t.verbose && (c == ' ' || (c >= '\t' && c <= '\r')))
            continue;
        if (t.verbose && c == '#')
            skip_line(&t);
        else if (!item(&t, c))
            break;
    }
    if (t.why == NULL && t.depth > 0)
        (void)fail(&t, "missing ), unterminated subpattern");
    put(&t, ")");
    out->ascii = t.ascii;
    out->why = t.why;
    out->at = t.at;
    out->n = (size_t)sqlite3_str_length(t.out);
    bool bad = t.why != NULL || sqlite3_str_errcode(t.out) != SQLITE_OK;
    out->text = sqlite3_str_finish(t.out);
    if (bad) {
        sqlite3_free(out->text);
        out->text = NULL;
    }
}
