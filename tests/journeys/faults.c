/* Preloaded into the real daemon: its n-th write to the store fails, as a full or broken disk would have it.
 *
 * A write is any call that changes the files of the store: open for creating, write, fsync, truncate, allocate, rename,
 * link, unlink, mkdir, rmdir on corral.db (-wal, -shm, -journal), audit.head, ballast, backups, and fsync of their
 * folder; on models (and on another folder for them, a tier) only where it is asked for, by a name that begins with
 * models/ or by "all". The test and the daemon share one page (struct control): the test arms and lifts faults, and sets
 * the daemon's clock, while it runs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NAMES 8192
#define NAME 56

struct control {
    int64_t count; /* writes seen */
    int64_t from;  /* the first that fails, counted from 1; 0: none */
    int64_t last;  /* the last that fails */
    int64_t error; /* errno, or -1: the process is killed instead */
    int64_t failed;
    int64_t clock; /* seconds by which the host's clock was set forward */
    char only[24]; /* fail and count only writes to names that begin so; empty: all but models; "all": these too */
    char names[NAMES][NAME]; /* what each write was */
};

static struct control *shared;
static char folder[4096], tier[4096];

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("CORRAL_FAULT_CONTROL"), *where = getenv("CORRAL_FAULT_FOLDER");
    if (!file || !where) return;
    snprintf(folder, sizeof folder, "%s", where);
    if ((where = getenv("CORRAL_FAULT_TIER"))) snprintf(tier, sizeof tier, "%s", where);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CLOEXEC, 0);
    if (fd < 0) return;
    void *at = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (at != MAP_FAILED) shared = at;
}

int clock_gettime(clockid_t which, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, which, now);
    if (!failed && shared && which == CLOCK_REALTIME) now->tv_sec += shared->clock;
    return failed;
}

static int starts(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

/* The name below a folder; NULL for what lies elsewhere. */
static const char *below(const char *path, const char *above) {
    size_t length = strlen(above);
    if (!length || strncmp(path, above, length)) return NULL;
    return path[length] == '/' ? path + length + 1 : path[length] ? NULL : path + length;
}

/* 1 if this call shall fail: errno is set. */
static int fails(const char *call, const char *path) {
    if (!shared) return 0;
    int all = !strcmp(shared->only, "all");
    const char *name = below(path, folder), *there = name ? NULL : below(path, tier);
    if (!name && !(there && all)) return 0;
    if (name && starts(name, "models/") && !all && !starts(shared->only, "models/")) return 0;
    if (name && (*name ? !(starts(name, "models/") || starts(name, "corral.db") || starts(name, "audit.head") ||
                           starts(name, "ballast") || starts(name, "backups"))
                       : strcmp(call, "fsync")))
        return 0;
    if (!all && !starts(*name ? name : "/", shared->only)) return 0;
    int64_t n = __atomic_add_fetch(&shared->count, 1, __ATOMIC_SEQ_CST);
    if (n <= NAMES)
        snprintf(shared->names[n - 1], NAME, "%s %s%s", call, there ? "tier/" : "", there ? there : *name ? name : "the folder");
    if (!shared->from || n < shared->from || n > shared->last) return 0;
    __atomic_add_fetch(&shared->failed, 1, __ATOMIC_SEQ_CST);
    if (shared->error < 0) {
        syscall(SYS_kill, getpid(), SIGKILL);
        for (;;) pause();
    }
    if ((shared->error == ENOSPC || shared->error == EDQUOT) && (!strcmp(call, "unlink") || !strcmp(call, "rmdir")))
        return 0; /* a full disk can be cleared */
    errno = (int)shared->error;
    return 1;
}

/* The same of a name below an open folder, or of an open file itself. */
static int fails_at(const char *call, int fd, const char *name) {
    char link[64], path[8192];
    if (!shared) return 0;
    if (name && *name == '/') return fails(call, name);
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, 4095);
    if (n <= 0) return 0;
    snprintf(path + n, sizeof path - n, "%s%s", name ? "/" : "", name ? name : "");
    return fails(call, path);
}
static int fails_fd(const char *call, int fd) { return fails_at(call, fd, NULL); }

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)
#define MODE \
    mode_t mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { REAL(name); MODE; \
        return flags & O_CREAT && fails("create", path) ? -1 : real(path, flags, mode); }
#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { REAL(name); MODE; \
        return flags & O_CREAT && fails_at("create", at, path) ? -1 : real(at, path, flags, mode); }
OPEN(open) OPEN(open64) OPENAT(openat) OPENAT(openat64)

#define ON_FD(type, name, call, declared, ...) \
    type name declared { REAL(name); return fails_fd(call, fd) ? -1 : real(__VA_ARGS__); }
ON_FD(ssize_t, write, "write", (int fd, const void *data, size_t size), fd, data, size)
ON_FD(ssize_t, pwrite, "write", (int fd, const void *data, size_t size, off_t at), fd, data, size, at)
ON_FD(ssize_t, pwrite64, "write", (int fd, const void *data, size_t size, off64_t at), fd, data, size, at)
ON_FD(ssize_t, writev, "write", (int fd, const struct iovec *data, int count), fd, data, count)
ON_FD(ssize_t, pwritev, "write", (int fd, const struct iovec *data, int count, off_t at), fd, data, count, at)
ON_FD(int, fsync, "fsync", (int fd), fd)
ON_FD(int, fdatasync, "fsync", (int fd), fd)
ON_FD(int, ftruncate, "truncate", (int fd, off_t size), fd, size)
ON_FD(int, ftruncate64, "truncate", (int fd, off64_t size), fd, size)
ON_FD(int, fallocate, "allocate", (int fd, int mode, off_t at, off_t size), fd, mode, at, size)
ON_FD(int, fchmod, "chmod", (int fd, mode_t mode), fd, mode)

int posix_fallocate(int fd, off_t at, off_t size) {
    REAL(posix_fallocate);
    return fails_fd("allocate", fd) ? errno : real(fd, at, size);
}
int posix_fallocate64(int fd, off64_t at, off64_t size) {
    REAL(posix_fallocate64);
    return fails_fd("allocate", fd) ? errno : real(fd, at, size);
}

#define ON_PATH(name, call, declared, ...) \
    int name declared { REAL(name); return fails(call, path) ? -1 : real(__VA_ARGS__); }
ON_PATH(rename, "rename", (const char *path, const char *to), path, to)
ON_PATH(unlink, "unlink", (const char *path), path)
ON_PATH(mkdir, "mkdir", (const char *path, mode_t mode), path, mode)
ON_PATH(chmod, "chmod", (const char *path, mode_t mode), path, mode)
ON_PATH(link, "link", (const char *from, const char *path), from, path)
ON_PATH(rmdir, "rmdir", (const char *path), path)
int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat);
    return fails_at(flags & AT_REMOVEDIR ? "rmdir" : "unlink", at, path) ? -1 : real(at, path, flags);
}
int linkat(int at, const char *from, int to, const char *path, int flags) {
    REAL(linkat);
    return fails_at("link", to, path) ? -1 : real(at, from, to, path, flags);
}
