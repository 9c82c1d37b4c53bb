/* Prints everything it was given: arguments, environment and preopened directories. */
#include <stdio.h>
#include <wasi/api.h>

extern char **environ;

int main(int argc, char **argv) {
    for (int i = 0; i < argc; i++) printf("arg %s\n", argv[i]);
    for (char **entry = environ; *entry; entry++) printf("env %s\n", *entry);
    for (__wasi_fd_t fd = 3;; fd++) {
        __wasi_prestat_t stat;
        char path[1024] = "";
        if (__wasi_fd_prestat_get(fd, &stat) != 0) return 0;
        if (__wasi_fd_prestat_dir_name(fd, (uint8_t *)path, stat.u.dir.pr_name_len) != 0) return 1;
        printf("dir %s\n", path);
    }
}
