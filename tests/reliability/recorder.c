// Records a process's operations on LMDB's data files, as a preloaded library: every write with its place and bytes, and every
// call that makes writes durable. tests/reliability/power_loss.rs replays the record.
//
// With RELAY_TEST_FAIL it can also fail as disks do: while that file exists, its first byte selects the failure. 'S' is EIO from
// fdatasync, 'N' no space (ENOSPC) for a write, 'M' EIO from a synchronous write, which is that of a meta page.
//
// One entry: kind ('W' write, 'S' sync, 'T' truncate), file (0 apps, 1 webhooks), durable (1 if the write itself is
// synchronous), 5 bytes of padding, offset or length (8 bytes), bytes that follow (8 bytes), and those bytes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int record_fd = -1;

__attribute__((constructor)) static void open_record(void) {
    const char *path = getenv("RELAY_TEST_RECORD");
    if (path) record_fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

// -1 for any other file.
static int data_file(int fd) {
    char link[64], path[4096];
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = saved;
    if (length < 0) return -1;
    path[length] = 0;
    const char *name = strrchr(path, '/');
    if (!name || strcmp(name, "/data.mdb")) return -1;
    return strstr(path, "/webhooks/data.mdb") != NULL;
}

// Whether this call must fail now.
static int fails(char what, int fd) {
    const char *path = getenv("RELAY_TEST_FAIL");
    char now = 0;
    if (!path || data_file(fd) < 0) return 0;
    int saved = errno, file = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (file >= 0) {
        if (syscall(SYS_read, file, &now, 1) != 1) now = 0;
        syscall(SYS_close, file);
    }
    errno = saved;
    if (now == 'M') return what == 'N' && (fcntl(fd, F_GETFL) & O_DSYNC) ? EIO : 0;
    return now != what ? 0 : what == 'N' ? ENOSPC : EIO;
}

#define FAIL(what, fd)                  \
    do {                                \
        int error = fails(what, fd);    \
        if (error) {                    \
            errno = error;              \
            return -1;                  \
        }                               \
    } while (0)

static void put(const void *bytes, size_t length) {
    for (size_t done = 0; done < length;) {
        long count = syscall(SYS_write, record_fd, (const char *)bytes + done, length - done);
        if (count <= 0) abort();
        done += (size_t)count;
    }
}

static void record(char kind, int file, int durable, uint64_t offset, const struct iovec *parts, int count, size_t bytes) {
    unsigned char head[24] = {(unsigned char)kind, (unsigned char)file, (unsigned char)durable};
    uint64_t length = bytes;
    memcpy(head + 8, &offset, 8);
    memcpy(head + 16, &length, 8);
    pthread_mutex_lock(&mutex);
    put(head, sizeof head);
    for (int part = 0; part < count && bytes; part++) {
        size_t take = parts[part].iov_len < bytes ? parts[part].iov_len : bytes;
        put(parts[part].iov_base, take);
        bytes -= take;
    }
    pthread_mutex_unlock(&mutex);
}

static void wrote(int fd, uint64_t offset, const struct iovec *parts, int count, ssize_t written) {
    int saved = errno, file = data_file(fd);
    if (written > 0 && file >= 0 && record_fd >= 0) {
        int durable = (fcntl(fd, F_GETFL) & O_DSYNC) != 0;
        record('W', file, durable, offset, parts, count, (size_t)written);
    }
    errno = saved;
}

static int synced(int fd, int result) {
    int saved = errno, file = data_file(fd);
    if (result == 0 && file >= 0 && record_fd >= 0) record('S', file, 0, 0, NULL, 0, 0);
    errno = saved;
    return result;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    FAIL('N', fd);
    ssize_t written = REAL(pwrite64)(fd, bytes, length, offset);
    struct iovec part = {(void *)bytes, length};
    wrote(fd, (uint64_t)offset, &part, 1, written);
    return written;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return pwrite64(fd, bytes, length, offset); }

ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset) {
    FAIL('N', fd);
    ssize_t written = REAL(pwritev64)(fd, parts, count, offset);
    wrote(fd, (uint64_t)offset, parts, count, written);
    return written;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) { return pwritev64(fd, parts, count, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    off_t offset = data_file(fd) >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    FAIL('N', fd);
    ssize_t written = REAL(writev)(fd, parts, count);
    wrote(fd, (uint64_t)offset, parts, count, written);
    return written;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    off_t offset = data_file(fd) >= 0 ? lseek(fd, 0, SEEK_CUR) : 0;
    ssize_t written = REAL(write)(fd, bytes, length);
    struct iovec part = {(void *)bytes, length};
    wrote(fd, (uint64_t)offset, &part, 1, written);
    return written;
}

int fdatasync(int fd) {
    FAIL('S', fd);
    return synced(fd, REAL(fdatasync)(fd));
}
int fsync(int fd) { return synced(fd, REAL(fsync)(fd)); }

int ftruncate64(int fd, off64_t length) {
    int result = REAL(ftruncate64)(fd, length), file = data_file(fd);
    if (result == 0 && file >= 0 && record_fd >= 0) record('T', file, 0, (uint64_t)length, NULL, 0, 0);
    return result;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }
