/* Preloaded into a board's helper: makes calls on its directory fail as shared storage does.
 *
 * FAULT="CALL ERRNO WHEN COUNT": the first COUNT times that CALL (open, openat, linkat, fsync, write) is made, it fails
 * with ERRNO; with WHEN `after` it does its work all the same, as when a reply is lost. ERRNO 0 sleeps for ever.
 * FAULT_ROOT is the directory: what is opened elsewhere by `open` is left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char call[32], when[32];
static int error_number, left = -1;

static int strikes(const char *name) {
    if (left < 0) {
        const char *fault = getenv("FAULT");
        left = 0;
        if (!fault || sscanf(fault, "%31s %d %31s %d", call, &error_number, when, &left) != 4)
            left = 0;
    }
    if (left == 0 || strcmp(call, name) != 0)
        return 0;
    left--;
    while (error_number == 0)
        sleep(1000);
    return 1;
}

/* The real call's answer, unless the fault strikes: then it is not made, or its answer is lost. */
#define FAULTY(name, real)                                                                                             \
    do {                                                                                                               \
        if (!strikes(name))                                                                                            \
            return real;                                                                                               \
        if (strcmp(when, "after") == 0)                                                                                \
            (void)!(real);                                                                                             \
        errno = error_number;                                                                                          \
        return -1;                                                                                                     \
    } while (0)

#define REAL(name, type) ((type)dlsym(RTLD_NEXT, name))

typedef int open_call(const char *, int, ...);
typedef int openat_call(int, const char *, int, ...);

static int is_board(const char *path) {
    const char *root = getenv("FAULT_ROOT");
    return root && strcmp(path, root) == 0;
}

#define MODE(flags, mode)                                                                                              \
    va_list list;                                                                                                      \
    va_start(list, flags);                                                                                             \
    mode = va_arg(list, int);                                                                                          \
    va_end(list)

int open(const char *path, int flags, ...) {
    int mode;
    MODE(flags, mode);
    open_call *real = REAL("open", open_call *);
    if (!is_board(path))
        return real(path, flags, mode);
    FAULTY("open", real(path, flags, mode));
}

int open64(const char *path, int flags, ...) {
    int mode;
    MODE(flags, mode);
    open_call *real = REAL("open64", open_call *);
    if (!is_board(path))
        return real(path, flags, mode);
    FAULTY("open", real(path, flags, mode));
}

int openat(int directory, const char *path, int flags, ...) {
    int mode;
    MODE(flags, mode);
    openat_call *real = REAL("openat", openat_call *);
    if (directory == AT_FDCWD && !is_board(path))
        return real(directory, path, flags, mode);
    FAULTY("openat", real(directory, path, flags, mode));
}

int openat64(int directory, const char *path, int flags, ...) {
    int mode;
    MODE(flags, mode);
    openat_call *real = REAL("openat64", openat_call *);
    if (directory == AT_FDCWD && !is_board(path))
        return real(directory, path, flags, mode);
    FAULTY("openat", real(directory, path, flags, mode));
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    int (*real)(int, const char *, int, const char *, int) = REAL("linkat", int (*)(int, const char *, int, const char *, int));
    FAULTY("linkat", real(from, old, to, new, flags));
}

int fsync(int file) {
    int (*real)(int) = REAL("fsync", int (*)(int));
    FAULTY("fsync", real(file));
}

/* Only files: what the helper says to its node goes through sockets, at descriptor 1. */
ssize_t write(int file, const void *bytes, size_t length) {
    ssize_t (*real)(int, const void *, size_t) = REAL("write", ssize_t (*)(int, const void *, size_t));
    if (file < 3)
        return real(file, bytes, length);
    FAULTY("write", real(file, bytes, length));
}
