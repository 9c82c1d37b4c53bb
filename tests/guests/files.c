/* Does one thing to files and exits with 0 or the errno of what failed.
 *
 *   files read|list|make|append|cut|touch|mkdir|rmdir|unlink|stat|many PATH
 *   files touch-open PATH     open PATH to read it, then set its times
 *   files rename|link|symlink FROM TO
 *   files moved DIR FROM TO PATH    open DIR, rename FROM to TO if named, then make PATH in it
 *   files reads PATH TIMES    print PATH again and again, where it can be opened
 *   files again PATH TIMES    make PATH and remove it, whatever comes of it
 *   files raw PATH            read PATH through descriptor 3, asking for no rights at all
 *   files raw-read PATH       the same, asking for the right to read
 *   files raw-cut PATH        open PATH through descriptor 3 to empty it, asking for no rights
 *   files sub DIR PATH        open DIR through descriptor 3 as a directory, then read PATH in it
 *   files renumber PATH       move descriptor 3 to 4 and read PATH through it
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <wasi/api.h>

static int failed(int result) { return result < 0 ? errno : 0; }

static int copy_out(int fd) {
    char bytes[4096];
    ssize_t n;
    if (fd < 0) return errno;
    while ((n = read(fd, bytes, sizeof bytes)) > 0) fwrite(bytes, 1, (size_t)n, stdout);
    return n < 0 ? errno : 0;
}

static int put_in(int fd) { return fd < 0 ? errno : failed((int)write(fd, "new\n", 4)); }

static int list(const char *path) {
    DIR *dir = opendir(path);
    if (!dir) return errno;
    for (struct dirent *entry; errno = 0, (entry = readdir(dir));) puts(entry->d_name);
    return errno;
}

static int open_at(int dir, const char *path, int flags, __wasi_rights_t rights, int *fd) {
    __wasi_fd_t opened = 0;
    int code = __wasi_path_open(dir, 1, path, flags, rights, rights, 0, &opened);
    *fd = (int)opened;
    return code;
}

static int read_at(int dir, const char *path, __wasi_rights_t rights) {
    int fd, code = open_at(dir, path, 0, rights, &fd);
    return code ? code : copy_out(fd);
}

static int many(const char *path) {
    for (int i = 0; i < 100000; i++)
        if (open(path, O_RDONLY) < 0) return errno;
    return 0;
}

static int one(const char *what, const char *path) {
    struct stat stat_;
    int fd;
    if (!strcmp(what, "read")) return copy_out(open(path, O_RDONLY));
    if (!strcmp(what, "list")) return list(path);
    if (!strcmp(what, "make")) return put_in(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
    if (!strcmp(what, "append")) return put_in(open(path, O_WRONLY | O_APPEND));
    if (!strcmp(what, "cut")) return failed(truncate(path, 0));
    if (!strcmp(what, "touch")) return failed(utimensat(AT_FDCWD, path, NULL, 0));
    if (!strcmp(what, "touch-open")) {
        if ((fd = open(path, O_RDONLY)) < 0) return errno;
        return failed(futimens(fd, NULL));
    }
    if (!strcmp(what, "mkdir")) return failed(mkdir(path, 0700));
    if (!strcmp(what, "rmdir")) return failed(rmdir(path));
    if (!strcmp(what, "unlink")) return failed(unlink(path));
    if (!strcmp(what, "stat")) return failed(stat(path, &stat_));
    if (!strcmp(what, "many")) return many(path);
    if (!strcmp(what, "raw")) return read_at(3, path, 0);
    if (!strcmp(what, "raw-read")) return read_at(3, path, __WASI_RIGHTS_FD_READ);
    if (!strcmp(what, "raw-cut")) return open_at(3, path, __WASI_OFLAGS_TRUNC, 0, &fd);
    if (!strcmp(what, "renumber")) {
        int code = __wasi_fd_renumber(3, 4);
        return code ? code : read_at(4, path, __WASI_RIGHTS_FD_READ);
    }
    return EINVAL;
}

static int two(const char *what, const char *from, const char *to) {
    int dir, code;
    if (!strcmp(what, "rename")) return failed(rename(from, to));
    if (!strcmp(what, "link")) return failed(link(from, to));
    if (!strcmp(what, "symlink")) return failed(symlink(from, to));
    if (!strcmp(what, "reads")) {
        for (int left = atoi(to); left > 0; left--)
            if ((dir = open(from, O_RDONLY)) >= 0) {
                copy_out(dir);
                close(dir);
            }
        return 0;
    }
    if (!strcmp(what, "again")) {
        for (int left = atoi(to); left > 0; left--) {
            if ((dir = open(from, O_WRONLY | O_CREAT | O_TRUNC, 0600)) >= 0) {
                put_in(dir);
                close(dir);
            }
            unlink(from);
        }
        return 0;
    }
    if (!strcmp(what, "sub")) {
        code = open_at(3, from, __WASI_OFLAGS_DIRECTORY, 0, &dir);
        return code ? code : read_at(dir, to, __WASI_RIGHTS_FD_READ);
    }
    return EINVAL;
}

static int moved(const char *dir, const char *from, const char *to, const char *path) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY);
    if (fd < 0 || (*from && rename(from, to) < 0)) return errno;
    return put_in(openat(fd, path, O_WRONLY | O_CREAT | O_TRUNC, 0600));
}

int main(int argc, char **argv) {
    if (argc == 6 && !strcmp(argv[1], "moved")) return moved(argv[2], argv[3], argv[4], argv[5]);
    if (argc == 3) return one(argv[1], argv[2]);
    return argc == 4 ? two(argv[1], argv[2], argv[3]) : EINVAL;
}
