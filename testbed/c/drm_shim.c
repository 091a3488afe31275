/* A render node where there is none, for LD_PRELOAD.
 *
 * Paths below /dev/dri, and what /sys tells about the node, lead into the folder of the virtual
 * device; so listing, opening and closing are the system's own. What is left are the two things
 * that a plain file cannot be: the type and number of the device, and its answers to ioctl. An
 * open file is known by being the file dri/renderD…, also after dup or in a child. */
#define _GNU_SOURCE
#include "mfx_testbed.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <libdrm/drm.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { MAJOR = 226 };

/* The numbers of the render nodes: of the device, and of the one that does not work, or 0. */
enum { NODES = 2 };

static unsigned minor_number(int which)
{
    return (unsigned)(which == 0 ? spec_number("node", 128) : spec_number("bad_node", 0));
}

/* The next definition of a function: the C library's. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* `path` with its beginning `from` replaced by `to` in the folder of the device. NULL: it begins
 * otherwise. */
static const char *moved(const char *path, const char *from, const char *to, char buffer[PATH_MAX])
{
    size_t length = strlen(from);
    if (strncmp(path, from, length) != 0 || (path[length] && path[length] != '/'))
        return NULL;
    size_t used = spec_text("dir", buffer, PATH_MAX);
    int size = snprintf(buffer + used, PATH_MAX - used, "%s%s", to, path + length);
    return used > 0 && used + (size_t)size < PATH_MAX ? buffer : NULL;
}

/* The path to use in place of `path`; `path` itself if it is none of ours. */
static const char *move(const char *path, char buffer[PATH_MAX])
{
    static const char *const folders[NODES] = {"/node", "/bad_node"};
    char node[64];
    const char *to = path ? moved(path, "/dev/dri", "/dri", buffer) : NULL;
    for (int which = 0; path && !to && which < NODES && minor_number(which) > 0; which++) {
        snprintf(node, sizeof node, "/sys/dev/char/%d:%u", MAJOR, minor_number(which));
        to = moved(path, node, folders[which], buffer);
        if (!to) {
            snprintf(node, sizeof node, "/sys/class/drm/renderD%u", minor_number(which));
            to = moved(path, node, folders[which], buffer);
        }
    }
    return to ? to : path;
}

/* The number of the node that this file is; 0 if it is none. */
static unsigned node_of(dev_t device, ino_t inode)
{
    char name[64], path[PATH_MAX];
    struct stat node;
    int saved = errno;
    unsigned found = 0;
    for (int which = 0; !found && which < NODES && minor_number(which) > 0; which++) {
        snprintf(name, sizeof name, "/dev/dri/renderD%u", minor_number(which));
        if (move(name, path) == path && NEXT(stat)(path, &node) == 0 && node.st_dev == device &&
            node.st_ino == inode)
            found = minor_number(which);
    }
    errno = saved;
    return found;
}

/* Opening. */

/* Whether the fault refuses the node; errno then says how. */
static int refused(const char *path, const char *moved_to)
{
    int error = path != moved_to && strstr(path, "/renderD") ? fault_at("node", 0) : 0;
    if (error)
        errno = error;
    return error != 0;
}

#pragma GCC visibility push(default)

#define OPEN(name)                                                                                 \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;             \
        va_end(arguments);                                                                         \
        char buffer[PATH_MAX];                                                                     \
        const char *to = move(path, buffer);                                                       \
        return refused(path, to) ? -1 : NEXT(name)(to, flags, mode);                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    int name(int folder, const char *path, int flags, ...)                                         \
    {                                                                                              \
        va_list arguments;                                                                         \
        va_start(arguments, flags);                                                                \
        mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;             \
        va_end(arguments);                                                                         \
        char buffer[PATH_MAX];                                                                     \
        const char *to = move(path, buffer);                                                       \
        return refused(path, to) ? -1 : NEXT(name)(folder, to, flags, mode);                       \
    }
OPENAT(openat)
OPENAT(openat64)

/* What the headers make of open where the flags are no constant. */
int __open_2(const char *path, int flags)
{
    return open(path, flags);
}

int __open64_2(const char *path, int flags)
{
    return open64(path, flags);
}

#define FOPEN(name)                                                                                \
    FILE *name(const char *path, const char *mode)                                                 \
    {                                                                                              \
        char buffer[PATH_MAX];                                                                     \
        return NEXT(name)(move(path, buffer), mode);                                               \
    }
FOPEN(fopen)
FOPEN(fopen64)

DIR *opendir(const char *path)
{
    char buffer[PATH_MAX];
    return NEXT(opendir)(move(path, buffer));
}

int access(const char *path, int mode)
{
    char buffer[PATH_MAX];
    const char *to = move(path, buffer);
    return refused(path, to) ? -1 : NEXT(access)(to, mode);
}

ssize_t readlink(const char *path, char *target, size_t size)
{
    char buffer[PATH_MAX];
    return NEXT(readlink)(move(path, buffer), target, size);
}

/* What a file is. */

#define AS_NODE(status)                                                                            \
    {                                                                                              \
        unsigned number = node_of((status)->st_dev, (status)->st_ino);                             \
        if (number) {                                                                              \
            (status)->st_mode = S_IFCHR | 0660;                                                    \
            (status)->st_rdev = makedev(MAJOR, number);                                            \
        }                                                                                          \
    }

#define STAT(name, type)                                                                           \
    int name(const char *path, struct type *status)                                                \
    {                                                                                              \
        char buffer[PATH_MAX];                                                                     \
        int result = NEXT(name)(move(path, buffer), status);                                       \
        if (result == 0)                                                                           \
            AS_NODE(status)                                                                        \
        return result;                                                                             \
    }
STAT(stat, stat)
STAT(stat64, stat64)
STAT(lstat, stat)
STAT(lstat64, stat64)

#define FSTAT(name, type)                                                                          \
    int name(int file, struct type *status)                                                        \
    {                                                                                              \
        int result = NEXT(name)(file, status);                                                     \
        if (result == 0)                                                                           \
            AS_NODE(status)                                                                        \
        return result;                                                                             \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

/* The same for programs that were linked against an older C library. */
#define XSTAT(name, type)                                                                          \
    int name(int version, const char *path, struct type *status);                                  \
    int name(int version, const char *path, struct type *status)                                   \
    {                                                                                              \
        char buffer[PATH_MAX];                                                                     \
        int result = NEXT(name)(version, move(path, buffer), status);                              \
        if (result == 0)                                                                           \
            AS_NODE(status)                                                                        \
        return result;                                                                             \
    }
XSTAT(__xstat, stat)
XSTAT(__xstat64, stat64)
XSTAT(__lxstat, stat)
XSTAT(__lxstat64, stat64)

#define FXSTAT(name, type)                                                                         \
    int name(int version, int file, struct type *status);                                          \
    int name(int version, int file, struct type *status)                                           \
    {                                                                                              \
        int result = NEXT(name)(version, file, status);                                            \
        if (result == 0)                                                                           \
            AS_NODE(status)                                                                        \
        return result;                                                                             \
    }
FXSTAT(__fxstat, stat)
FXSTAT(__fxstat64, stat64)

int statx(int folder, const char *path, int flags, unsigned mask, struct statx *status)
{
    char buffer[PATH_MAX];
    int result = NEXT(statx)(folder, move(path, buffer), flags, mask, status);
    unsigned number = 0;
    if (result == 0)
        number = node_of(makedev(status->stx_dev_major, status->stx_dev_minor), status->stx_ino);
    if (number) {
        status->stx_mode = S_IFCHR | 0660;
        status->stx_rdev_major = MAJOR;
        status->stx_rdev_minor = number;
    }
    return result;
}

#pragma GCC visibility pop

/* What the device answers. */

static void tell(char *to, __kernel_size_t *size, const char *text)
{
    size_t length = strlen(text);
    if (to)
        memcpy(to, text, length < *size ? length : *size);
    *size = length;
}

static int answer(unsigned number, unsigned long request, void *argument)
{
    if (request != DRM_IOCTL_VERSION) {
        errno = EINVAL;
        return -1;
    }
    char driver[32];
    const char *key = number == minor_number(0) ? "kernel_driver" : "bad_kernel_driver";
    spec_text(key, driver, sizeof driver);
    struct drm_version *version = argument;
    version->version_major = 1;
    version->version_minor = 6;
    version->version_patchlevel = 0;
    tell(version->name, &version->name_len, driver);
    tell(version->date, &version->date_len, "20201103");
    tell(version->desc, &version->desc_len, "Virtual render node");
    return 0;
}

EXPORT int ioctl(int file, unsigned long request, ...)
{
    va_list arguments;
    va_start(arguments, request);
    void *argument = va_arg(arguments, void *);
    va_end(arguments);
    struct stat status;
    if (_IOC_TYPE(request) == DRM_IOCTL_BASE && NEXT(fstat)(file, &status) == 0) {
        unsigned number = node_of(status.st_dev, status.st_ino);
        if (number)
            return answer(number, request, argument);
    }
    return NEXT(ioctl)(file, request, argument);
}
