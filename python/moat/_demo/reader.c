/* The demo worker's code: counts what is in files and finds the lines that hold a word.
 *
 *   reader WORD PATH...     report on each file; an empty WORD finds no lines
 *   reader --spin           use up fuel for ever
 *
 * A path that may not be read is reported on standard error as `refused: PATH: REASON` and left
 * out; the exit code is the number of these, at most 125. 126 means wrong usage.
 *
 * Build, in this directory (Debian clang 14.0.6 with lld, wasi-libc and libclang-rt-14-dev-wasm32):
 *   clang --target=wasm32-wasi -Oz -Wall -Wextra -Werror -Wl,--strip-all -o reader.wasm reader.c
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <unistd.h>

enum { CHUNK = 16384, LINE = 1024, MOST_REFUSED = 125, USAGE = 126 };

/* Collected output of one descriptor; written when full and at the end. */
typedef struct {
    int fd;
    size_t used;
    char bytes[4096];
} Out;

static Out out = {.fd = 1}, err = {.fd = 2};

static void flush(Out *to) {
    for (size_t done = 0; done < to->used;) {
        ssize_t n = write(to->fd, to->bytes + done, to->used - done);
        if (n <= 0) break;
        done += (size_t)n;
    }
    to->used = 0;
}

static void put(Out *to, const char *text, size_t len) {
    while (len > 0) {
        if (to->used == sizeof to->bytes) flush(to);
        size_t room = sizeof to->bytes - to->used, n = len < room ? len : room;
        memcpy(to->bytes + to->used, text, n);
        to->used += n, text += n, len -= n;
    }
}

static void puts_to(Out *to, const char *text) { put(to, text, strlen(text)); }

static void put_number(Out *to, unsigned long long n) {
    char digits[20];
    size_t at = sizeof digits;
    do digits[--at] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    put(to, digits + at, sizeof digits - at);
}

static void put_count(unsigned long long n, const char *one, const char *many) {
    put_number(&out, n);
    puts_to(&out, n == 1 ? one : many);
}

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static bool holds(const char *text, size_t len, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; n > 0 && i + n <= len; i++)
        if (text[i] == word[0] && memcmp(text + i, word, n) == 0) return true;
    return false;
}

/* One file as it is read. `line` keeps the first LINE bytes of the current line. */
typedef struct {
    unsigned long long lines, words, bytes, found;
    bool in_word, in_line;
    size_t len;
    char line[LINE];
} Count;

static void end_line(Count *c, const char *word) {
    c->lines++;
    if (holds(c->line, c->len, word)) {
        c->found++;
        puts_to(&out, "  line ");
        put_number(&out, c->lines);
        puts_to(&out, ": ");
        put(&out, c->line, c->len);
        puts_to(&out, "\n");
    }
    c->len = 0, c->in_line = false;
}

static void take(Count *c, const char *bytes, size_t len, const char *word) {
    c->bytes += len;
    for (size_t i = 0; i < len; i++) {
        bool space = is_space(bytes[i]);
        if (!space && !c->in_word) c->words++;
        c->in_word = !space;
        c->in_line = true;
        if (bytes[i] == '\n') end_line(c, word);
        else if (c->len < LINE) c->line[c->len++] = bytes[i];
    }
}

/* Reports on one file; 0 or an errno. */
static int report(const char *path, const char *word) {
    static char chunk[CHUNK];
    static Count c;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return errno;
    memset(&c, 0, sizeof c);
    ssize_t n = read(fd, chunk, sizeof chunk);
    int code = n < 0 ? errno : 0;
    if (code == 0) puts_to(&out, path), puts_to(&out, "\n");
    while (n > 0) {
        take(&c, chunk, (size_t)n, word);
        n = read(fd, chunk, sizeof chunk);
        if (n < 0) code = errno;
    }
    close(fd);
    if (code != 0) return code;
    if (c.in_line) end_line(&c, word);
    puts_to(&out, "  ");
    put_count(c.lines, " line, ", " lines, ");
    put_count(c.words, " word, ", " words, ");
    put_count(c.bytes, " byte", " bytes");
    if (word[0] != '\0') {
        puts_to(&out, ", `"), puts_to(&out, word), puts_to(&out, "` on ");
        put_count(c.found, " line", " lines");
    }
    puts_to(&out, "\n");
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2 && strcmp(argv[1], "--spin") == 0)
        for (volatile unsigned turns = 0;; turns++) {}
    if (argc < 3) {
        puts_to(&err, "usage: reader WORD PATH... | reader --spin\n");
        flush(&err);
        return USAGE;
    }
    int refused = 0;
    for (int i = 2; i < argc; i++) {
        int code = report(argv[i], argv[1]);
        if (code == 0) continue;
        if (refused < MOST_REFUSED) refused++;
        puts_to(&err, "refused: "), puts_to(&err, argv[i]);
        puts_to(&err, ": "), puts_to(&err, strerror(code)), puts_to(&err, "\n");
    }
    flush(&out);
    flush(&err);
    return refused;
}
