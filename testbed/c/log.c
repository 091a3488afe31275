#define _GNU_SOURCE
#include "log.h"

#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

size_t spec_text(const char *key, char *value, size_t size)
{
    const char *at = getenv("ENCODER_VIRTUAL_NVENC");
    size_t key_length = strlen(key);
    while (at && *at) {
        size_t length = strcspn(at, ";");
        if (length > key_length && strncmp(at, key, key_length) == 0 && at[key_length] == '=') {
            size_t value_length = length - key_length - 1;
            if (value_length >= size)
                value_length = size - 1;
            memcpy(value, at + key_length + 1, value_length);
            value[value_length] = 0;
            return value_length;
        }
        at += length + (at[length] == ';');
    }
    value[0] = 0;
    return 0;
}

long spec_number(const char *key, long otherwise)
{
    char value[32];
    return spec_text(key, value, sizeof value) > 0 ? strtol(value, NULL, 10) : otherwise;
}

int spec_item(const char *key, int index, char *value, size_t size)
{
    char list[2048];
    if (spec_text(key, list, sizeof list) == 0)
        return 0;
    char *at = list;
    for (; index > 0; index--) {
        at = strchr(at, '|');
        if (!at)
            return 0;
        at++;
    }
    at[strcspn(at, "|")] = 0;
    snprintf(value, size, "%s", at);
    return 1;
}

int open_in_folder(const char *name, int flags)
{
    char path[1024];
    size_t length = spec_text("dir", path, sizeof path);
    if (length == 0)
        return -1;
    snprintf(path + length, sizeof path - length, "/%s", name);
    return open(path, flags | O_CLOEXEC, 0666);
}

static void append(const char *event, const char *members, va_list arguments)
{
    int file = open_in_folder("log", O_WRONLY | O_APPEND | O_CREAT);
    if (file < 0)
        return;
    char line[4096];
    int length = snprintf(line, sizeof line, "{\"pid\":%d,\"event\":\"%s\"%s", (int)getpid(), event,
                          *members ? "," : "");
    length += vsnprintf(line + length, sizeof line - (size_t)length, members, arguments);
    if (length > (int)sizeof line - 3)
        length = sizeof line - 3;
    memcpy(line + length, "}\n", 2);
    /* One write for the whole line: other processes write here too. */
    if (write(file, line, (size_t)length + 2) < 0)
        perror("virtual NVENC: log");
    close(file);
}

void log_event(const char *event, const char *members, ...)
{
    va_list arguments;
    va_start(arguments, members);
    append(event, members, arguments);
    va_end(arguments);
}

void violation(const char *message, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, message);
    vsnprintf(text, sizeof text, message, arguments);
    va_end(arguments);
    log_event("violation", "\"what\":\"%s\"", text);
}

void pause_for(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&time, &time) != 0)
        ;
}

/* Whether this process is among the first that meet the fault. A library may be unloaded and
 * loaded again, so what was decided stands in a file. */
static int among_the_first(void)
{
    long wanted = spec_number("fault_processes", 0);
    if (wanted == 0)
        return 1;
    int file = open_in_folder("faulty", O_RDWR | O_APPEND | O_CREAT);
    if (file < 0)
        return 1;
    flock(file, LOCK_EX);
    pid_t process = 0, self = getpid();
    long before = 0;
    while (read(file, &process, sizeof process) == sizeof process && process != self)
        before++;
    if (process != self && write(file, &self, sizeof self) < 0)
        perror("virtual NVENC: fault");
    close(file);
    return before < wanted;
}

static int due(const char *place, long frame)
{
    static int struck;
    char wanted[32];
    spec_text("fault_place", wanted, sizeof wanted);
    if (strcmp(place, wanted) != 0 || frame < spec_number("fault_frame", 0))
        return 0;
    if (!among_the_first())
        return 0;
    long times = spec_number("fault_times", 1);
    return __atomic_fetch_add(&struck, 1, __ATOMIC_RELAXED) < times || times == 0;
}

int fault_at(const char *place, long frame)
{
    if (!due(place, frame))
        return 0;
    char action[32];
    spec_text("fault_action", action, sizeof action);
    int code = (int)spec_number("fault_code", 0);
    log_event("fault", "\"place\":\"%s\",\"action\":\"%s\",\"code\":%d,\"frame\":%ld", place, action,
              code, frame);
    if (strcmp(action, "error") == 0)
        return code;
    if (strcmp(action, "sleep") == 0)
        pause_for(code);
    else if (strcmp(action, "abort") == 0)
        abort();
    else if (strcmp(action, "segfault") == 0)
        raise(SIGSEGV);
    else if (strcmp(action, "exit") == 0)
        _exit(code);
    else /* hang; a signal handler that returns changes nothing */
        for (;;)
            pause();
    return 0;
}

const char *fault_in_output(long frame)
{
    static _Thread_local char action[32];
    if (!due("output", frame))
        return NULL;
    spec_text("fault_action", action, sizeof action);
    log_event("fault", "\"place\":\"output\",\"action\":\"%s\",\"frame\":%ld", action, frame);
    return action;
}
