/* stuck-folder FOLDER FILE PROGRAM ARGUMENTS…
 *
 * Runs a program while the file system in FOLDER never answers the opening of FILE: a process that
 * opens it is in uninterruptible sleep, as in a driver that hangs, and SIGKILL has no effect on it.
 * Needs to be run in a user and mount namespace of its own, where it may mount file systems.
 *
 * When the program has ended, the state of each process that opened the file is written to stderr:
 * "stuck: process 42 is in state D". Closing the file system frees them. The exit status is that of
 * the program; 125 if it has not ended after two minutes, 126 if nothing can be mounted. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROOT = 1, FILE_NODE = 2, MOST = 16, LIMIT_MS = 120000, TICK_MS = 20 };

static int device;
static const char *file_name;
static unsigned stuck[MOST];
static int stuck_count;

static void reply(const struct fuse_in_header *in, int error, const void *body, size_t size)
{
    char buffer[4096];
    struct fuse_out_header out = {(unsigned)(sizeof out + size), -error, in->unique};
    memcpy(buffer, &out, sizeof out);
    if (size > 0)
        memcpy(buffer + sizeof out, body, size);
    if (write(device, buffer, sizeof out + size) < 0 && errno != ENOENT)
        perror("stuck-folder: reply");
}

static struct fuse_attr attributes(unsigned long node)
{
    struct fuse_attr attr = {.ino = node, .nlink = 1, .blksize = 4096};
    attr.mode = node == ROOT ? S_IFDIR | 0755 : S_IFREG | 0755;
    attr.size = node == ROOT ? 0 : 4096;
    return attr;
}

static void answer(const struct fuse_in_header *in, const char *body)
{
    switch (in->opcode) {
    case FUSE_INIT: {
        const struct fuse_init_in *init = (const void *)body;
        struct fuse_init_out out = {.major = FUSE_KERNEL_VERSION,
                                    .minor = init->minor,
                                    .max_write = 4096,
                                    .max_readahead = init->max_readahead};
        reply(in, 0, &out, sizeof out);
        break;
    }
    case FUSE_LOOKUP: {
        if (strcmp(body, file_name) != 0) {
            reply(in, ENOENT, NULL, 0);
            break;
        }
        struct fuse_entry_out out = {.nodeid = FILE_NODE, .attr = attributes(FILE_NODE)};
        reply(in, 0, &out, sizeof out);
        break;
    }
    case FUSE_GETATTR: {
        struct fuse_attr_out out = {.attr = attributes(in->nodeid)};
        reply(in, 0, &out, sizeof out);
        break;
    }
    case FUSE_OPEN:
        /* Never answered. */
        if (stuck_count < MOST)
            stuck[stuck_count++] = in->pid;
        break;
    case FUSE_FORGET:
    case FUSE_BATCH_FORGET:
    case FUSE_INTERRUPT:
        break;
    default:
        reply(in, ENOSYS, NULL, 0);
    }
}

/* Writes the states of the processes that opened the file. */
static void show_stuck(void)
{
    for (int i = 0; i < stuck_count; i++) {
        char path[64], line[512] = "";
        snprintf(path, sizeof path, "/proc/%u/stat", stuck[i]);
        FILE *stat = fopen(path, "r");
        if (stat && fgets(line, sizeof line, stat)) {
            const char *end = strrchr(line, ')');
            fprintf(stderr, "stuck: process %u is in state %c\n", stuck[i], end ? end[2] : '?');
        }
        if (stat)
            fclose(stat);
    }
}

int main(int count, char **arguments)
{
    if (count < 4)
        return 126;
    file_name = arguments[2];
    device = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    char options[128];
    snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=%u,group_id=%u,allow_other",
             device, getuid(), getgid());
    if (device < 0 || mount("stuck", arguments[1], "fuse", MS_NOSUID | MS_NODEV, options) != 0) {
        perror("stuck-folder");
        return 126;
    }
    pid_t child = fork();
    if (child == 0) {
        execvp(arguments[3], arguments + 3);
        perror("stuck-folder");
        _exit(127);
    }
    static char buffer[1 << 17] __attribute__((aligned(8)));
    int status = 125 << 8;
    for (long ms = 0; ms < LIMIT_MS; ms += TICK_MS) {
        struct pollfd wait_for = {device, POLLIN, 0};
        while (poll(&wait_for, 1, TICK_MS) > 0) {
            ssize_t size = read(device, buffer, sizeof buffer);
            if (size >= (ssize_t)sizeof(struct fuse_in_header))
                answer((const void *)buffer, buffer + sizeof(struct fuse_in_header));
        }
        if (waitpid(child, &status, WNOHANG) == child)
            break;
    }
    show_stuck();
    umount2(arguments[1], MNT_DETACH);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
