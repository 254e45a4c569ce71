/* Loaded before the C library: what the machine tells a daemon is read from a page that the test writes.
 *
 * The wall clock and the time since boot are moved by an offset, the machine's boot has another name, and the disk
 * below one folder takes only so many more bytes: what would grow a file beyond them fails with ENOSPC, as on a full
 * disk; what is overwritten or given back does not count. Or all writes and syncs below it fail with an error.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

typedef struct {
    int64_t wall_ns, boot_ns;       /* added to the clocks */
    _Atomic int64_t free_bytes;     /* negative: no quota */
    _Atomic int64_t failing;        /* errno of writes and syncs; 0: they work */
    char boot_id_file[512];         /* empty: the machine's own */
    char folder[512];
} Page;

#define REAL(type, name) ((type)dlsym(RTLD_NEXT, name))

static Page *page(void) {
    static Page *mapped;
    static Page nothing = {.free_bytes = -1};
    if (mapped) return mapped;
    const char *path = getenv("CHAOS_PAGE");
    int fd = path ? REAL(int (*)(const char *, int, ...), "open64")(path, O_RDWR | O_CLOEXEC) : -1;
    void *at = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) close(fd);
    return mapped = at == MAP_FAILED ? &nothing : at;
}

/* ---- clocks ---- */
static int64_t offset_of(clockid_t clock) {
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) return page()->wall_ns;
    return clock == CLOCK_BOOTTIME ? page()->boot_ns : 0;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = REAL(int (*)(clockid_t, struct timespec *), "clock_gettime");
    int status = real(clock, now);
    int64_t offset = status ? 0 : offset_of(clock);
    if (offset) {
        int64_t ns = (int64_t)now->tv_sec * 1000000000 + now->tv_nsec + offset;
        now->tv_sec = ns / 1000000000;
        now->tv_nsec = ns % 1000000000;
    }
    return status;
}

time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *out, void *zone) {
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *out = (struct timeval){.tv_sec = now.tv_sec, .tv_usec = now.tv_nsec / 1000};
    return 0;
}

/* ---- the boot ---- */
static const char *moved(const char *path) {
    const char *own = page()->boot_id_file;
    return *own && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0 ? own : path;
}

#define OPEN(name)                                                             \
    int name(const char *path, int flags, ...) {                               \
        va_list arguments;                                                     \
        va_start(arguments, flags);                                            \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(arguments, mode_t) : 0; \
        va_end(arguments);                                                     \
        return REAL(int (*)(const char *, int, ...), #name)(moved(path), flags, mode); \
    }
OPEN(open)
OPEN(open64)

/* ---- the disk ---- */
static int is_ours(const char *path) {
    size_t n = strlen(page()->folder);
    return n && strncmp(path, page()->folder, n) == 0;
}

static int is_below(int fd) {
    char link[64], path[512];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = '\0';
    return is_ours(path);
}

static int is_counted(int fd) { return atomic_load(&page()->free_bytes) >= 0 && is_below(fd); }

static int fails(int fd) {
    int error = (int)atomic_load(&page()->failing);
    if (!error || !is_below(fd)) return 0;
    errno = error;
    return 1;
}

/* Take the bytes that a file needs to reach `end`; false when the disk does not have them. */
static int grow(int fd, int64_t end) {
    struct stat now;
    if (fails(fd)) return 0;
    if (!is_counted(fd) || fstat(fd, &now) != 0 || end <= now.st_size) return 1;
    int64_t wanted = end - now.st_size;
    if (atomic_fetch_sub(&page()->free_bytes, wanted) >= wanted) return 1;
    atomic_fetch_add(&page()->free_bytes, wanted);
    errno = ENOSPC;
    return 0;
}

#define PWRITE(name)                                                                    \
    ssize_t name(int fd, const void *bytes, size_t n, off_t at) {                       \
        static ssize_t (*real)(int, const void *, size_t, off_t);                       \
        if (!real) real = REAL(ssize_t (*)(int, const void *, size_t, off_t), #name);   \
        return grow(fd, at + (int64_t)n) ? real(fd, bytes, n, at) : -1;                 \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define TRUNCATE(name)                                                                  \
    int name(int fd, off_t length) {                                                    \
        struct stat before;                                                             \
        if (fails(fd)) return -1;                                                       \
        int64_t size = is_counted(fd) && fstat(fd, &before) == 0 ? before.st_size : 0;  \
        int status = REAL(int (*)(int, off_t), #name)(fd, length);                      \
        if (status == 0 && size > length) atomic_fetch_add(&page()->free_bytes, size - length); \
        return status;                                                                  \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(name)                                                                      \
    int name(int fd) { return fails(fd) ? -1 : REAL(int (*)(int), #name)(fd); }
SYNC(fsync)
SYNC(fdatasync)

#define ALLOCATE(name)                                                                  \
    int name(int fd, off_t at, off_t n) {                                               \
        if (is_counted(fd)) {                                                           \
            int64_t wanted = n;                                                         \
            if (atomic_fetch_sub(&page()->free_bytes, wanted) < wanted) {               \
                atomic_fetch_add(&page()->free_bytes, wanted);                          \
                return ENOSPC;                                                          \
            }                                                                           \
        }                                                                               \
        return REAL(int (*)(int, off_t, off_t), #name)(fd, at, n);                      \
    }
ALLOCATE(posix_fallocate)
ALLOCATE(posix_fallocate64)

int unlink(const char *path) {
    struct stat gone;
    int counted = atomic_load(&page()->free_bytes) >= 0 && is_ours(path) && stat(path, &gone) == 0;
    int status = REAL(int (*)(const char *), "unlink")(path);
    if (status == 0 && counted) atomic_fetch_add(&page()->free_bytes, gone.st_size);
    return status;
}

#define STATVFS(name, type)                                                             \
    int name(const char *path, struct type *out) {                                      \
        int status = REAL(int (*)(const char *, struct type *), #name)(path, out);      \
        int64_t left = atomic_load(&page()->free_bytes);                                \
        if (status == 0 && left >= 0 && is_ours(path)) {                                \
            out->f_bavail = out->f_bfree = (uint64_t)left / out->f_frsize;              \
        }                                                                               \
        return status;                                                                  \
    }
STATVFS(statvfs, statvfs)
STATVFS(statvfs64, statvfs64)
