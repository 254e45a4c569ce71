/* Loaded before the C library: calls on the files of one folder are counted, written down, and made to fail.
 *
 * `disk_arm` chooses the folder and the fault; `disk_note` writes a word of the test between the calls. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, CUT = 8, REMOVE = 16, ALLOCATE = 32, RENAME = 64, READ = 128 };

static pthread_mutex_t one_call = PTHREAD_MUTEX_INITIALIZER;
static char folder[PATH_MAX];
static long calls, first, last;
static int kinds, number, is_short, trace = -1;

/* Let calls `from` to `to` of these kinds fail with `error`; a write may store half of its bytes before.
 * `trace_fd` gets a record of each call that succeeds; -1 keeps none. */
void disk_arm(const char *where, int which, long from, long to, int error, int half, int trace_fd) {
    pthread_mutex_lock(&one_call);
    snprintf(folder, sizeof folder, "%s", where);
    kinds = which, first = from, last = to, number = error, is_short = half, trace = trace_fd, calls = 0;
    pthread_mutex_unlock(&one_call);
}

long disk_calls(void) { return calls; }

static const char *inside(const char *path) {
    size_t length = strlen(folder);
    if (length == 0 || strncmp(path, folder, length) != 0) return NULL;
    if (path[length] == '\0') return ".";
    return path[length] == '/' ? path + length + 1 : NULL;
}

static const char *name_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    if (length < 0) return NULL;
    path[length] = '\0';
    return inside(path);
}

static int fails(int kind) {
    if (!(kinds & kind)) return 0;
    calls++;
    return first && first <= calls && calls <= last;
}

static void record(char kind, const char *name, long offset, const void *bytes, size_t length) {
    char head[PATH_MAX + 64];
    if (trace < 0) return;
    int size = snprintf(head, sizeof head, "%c %ld %zu %s\n", kind, offset, length, name);
    syscall(SYS_write, trace, head, size);
    if (bytes) syscall(SYS_write, trace, bytes, length);
}

void disk_note(const char *text) {
    pthread_mutex_lock(&one_call);
    record('N', text, 0, NULL, 0);
    pthread_mutex_unlock(&one_call);
}

static ssize_t store(int fd, const void *bytes, size_t length, long offset) {
    char path[PATH_MAX];
    pthread_mutex_lock(&one_call);
    const char *name = name_of(fd, path);
    ssize_t done;
    size_t fit = length;
    int failing = name && fails(WRITE);
    if (failing && !is_short) {
        errno = number, done = -1;
    } else {
        if (failing) {
            fit = length / 2;
            last = calls + 1; /* the rest of the bytes finds no room */
            is_short = 0;
        }
        if (name && offset < 0) {
            long at = lseek(fd, 0, SEEK_CUR);
            done = syscall(SYS_write, fd, bytes, fit);
            if (done > 0) record('W', name, at, bytes, done);
        } else if (offset < 0) {
            done = syscall(SYS_write, fd, bytes, fit);
        } else {
            done = syscall(SYS_pwrite64, fd, bytes, fit, offset);
            if (name && done > 0) record('W', name, offset, bytes, done);
        }
    }
    pthread_mutex_unlock(&one_call);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return store(fd, bytes, length, -1); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return store(fd, bytes, length, offset);
}
ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return store(fd, bytes, length, offset);
}

static ssize_t load(int fd, void *bytes, size_t length, long offset) {
    char path[PATH_MAX];
    pthread_mutex_lock(&one_call);
    int failing = name_of(fd, path) && fails(READ);
    ssize_t done = failing ? -1 : syscall(SYS_pread64, fd, bytes, length, offset);
    if (failing) errno = number;
    pthread_mutex_unlock(&one_call);
    return done;
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) { return load(fd, bytes, length, offset); }
ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) { return load(fd, bytes, length, offset); }

/* One call on an open file: `doing` returns 0, or -1 and errno. */
static int on_file(int fd, int kind, char letter, long size, int (*doing)(int, long)) {
    char path[PATH_MAX];
    pthread_mutex_lock(&one_call);
    const char *name = name_of(fd, path);
    int done = -1;
    if (name && fails(kind)) {
        errno = number;
    } else {
        done = doing(fd, size);
        if (name && done == 0) record(letter, name, size, NULL, 0);
    }
    pthread_mutex_unlock(&one_call);
    return done;
}

static int do_sync(int fd, long unused) { (void)unused; return syscall(SYS_fsync, fd); }
static int do_cut(int fd, long size) { return syscall(SYS_ftruncate, fd, size); }
static int do_allocate(int fd, long size) { return syscall(SYS_fallocate, fd, 0, 0L, size); }

int fsync(int fd) { return on_file(fd, SYNC, 'S', 0, do_sync); }
int fdatasync(int fd) { return on_file(fd, SYNC, 'S', 0, do_sync); }
int ftruncate(int fd, off_t size) { return on_file(fd, CUT, 'T', size, do_cut); }
int ftruncate64(int fd, off64_t size) { return on_file(fd, CUT, 'T', size, do_cut); }
int posix_fallocate64(int fd, off64_t offset, off64_t size) {
    return on_file(fd, ALLOCATE, 'A', offset + size, do_allocate) ? errno : 0;
}
int posix_fallocate(int fd, off_t offset, off_t size) { return posix_fallocate64(fd, offset, size); }

int unlink(const char *path) {
    pthread_mutex_lock(&one_call);
    const char *name = inside(path);
    int done = -1;
    if (name && fails(REMOVE)) {
        errno = number;
    } else {
        done = syscall(SYS_unlinkat, AT_FDCWD, path, 0);
        if (name && done == 0) record('U', name, 0, NULL, 0);
    }
    pthread_mutex_unlock(&one_call);
    return done;
}

int rename(const char *from, const char *to) {
    pthread_mutex_lock(&one_call);
    int done = -1;
    if (inside(from) && fails(RENAME)) {
        errno = number;
    } else {
        done = syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
    }
    pthread_mutex_unlock(&one_call);
    return done;
}

static int open_file(const char *path, int flags, mode_t mode) {
    pthread_mutex_lock(&one_call);
    const char *name = inside(path);
    struct stat found;
    int done = -1;
    if (name && fails(OPEN)) {
        errno = number;
    } else {
        int is_new = name && (flags & O_CREAT) && stat(path, &found) != 0;
        done = syscall(SYS_openat, AT_FDCWD, path, flags, mode);
        if (done >= 0 && is_new) record('C', name, 0, NULL, 0);
    }
    pthread_mutex_unlock(&one_call);
    return done;
}

#define OPENED(declared)                          \
    int declared(const char *path, int flags, ...) { \
        va_list rest;                             \
        va_start(rest, flags);                    \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest);                             \
        return open_file(path, flags, mode);      \
    }
OPENED(open)
OPENED(open64)
