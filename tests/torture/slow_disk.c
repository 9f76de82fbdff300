/* A slow disk, to be loaded with LD_PRELOAD: each call that writes to a file below INKSTREAM_DATA_DIR, or
 * makes it durable, takes SLOW_DISK_MS milliseconds longer. The time passes before the write: a process that
 * is killed meanwhile has written nothing. Linux alone, where /proc names the file behind a descriptor.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

static char folder[PATH_MAX];
static size_t folder_length;
static struct timespec delay;

__attribute__((constructor)) static void read_environment(void)
{
    const char *path = getenv("INKSTREAM_DATA_DIR"), *milliseconds = getenv("SLOW_DISK_MS");
    if (!path || !milliseconds)
        return;
    folder_length = (size_t)snprintf(folder, sizeof folder, "%s/", path);
    long long nanoseconds = (long long)(strtod(milliseconds, NULL) * 1e6);
    delay.tv_sec = nanoseconds / 1000000000;
    delay.tv_nsec = nanoseconds % 1000000000;
}

static int is_slow(int fd)
{
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path);
    return folder_length && length > (ssize_t)folder_length && !memcmp(path, folder, folder_length);
}

static void dawdle(int fd)
{
    if (!is_slow(fd))
        return;
    struct timespec left = delay;
    while (nanosleep(&left, &left) && errno == EINTR)
        continue;
}

#define SLOW(result, name, parameters, arguments)                      \
    result name parameters                                             \
    {                                                                  \
        static result(*real) parameters;                               \
        if (!real)                                                     \
            real = (result(*) parameters)dlsym(RTLD_NEXT, #name);      \
        dawdle(fd);                                                    \
        return real arguments;                                         \
    }

SLOW(ssize_t, write, (int fd, const void *bytes, size_t count), (fd, bytes, count))
SLOW(ssize_t, pwrite, (int fd, const void *bytes, size_t count, off_t at), (fd, bytes, count, at))
SLOW(ssize_t, pwrite64, (int fd, const void *bytes, size_t count, off64_t at), (fd, bytes, count, at))
SLOW(int, fsync, (int fd), (fd))
SLOW(int, fdatasync, (int fd), (fd))
SLOW(int, ftruncate, (int fd, off_t length), (fd, length))
SLOW(int, ftruncate64, (int fd, off64_t length), (fd, length))
