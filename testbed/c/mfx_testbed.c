#include "mfx_testbed.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

size_t spec_text(const char *key, char *value, size_t size)
{
    const char *at = getenv("ENCODER_VIRTUAL_QSV");
    size_t key_length = strlen(key), length = 0;
    for (; at && *at; at += length + (at[length] == ';')) {
        length = strcspn(at, ";");
        if (length < key_length || strncmp(at, key, key_length) != 0 || at[key_length] != '=')
            continue;
        size_t wanted = length - key_length - 1;
        size_t taken = wanted < size ? wanted : size - 1;
        memcpy(value, at + key_length + 1, taken);
        value[taken] = 0;
        return taken;
    }
    value[0] = 0;
    return 0;
}

long spec_number(const char *key, long otherwise)
{
    char value[32];
    return spec_text(key, value, sizeof value) > 0 ? strtol(value, NULL, 10) : otherwise;
}

static void append(const char *event, const char *members, va_list arguments)
{
    char path[PATH_MAX], line[4096];
    size_t length = spec_text("dir", path, sizeof path - sizeof "/log");
    if (length == 0)
        return;
    strcpy(path + length, "/log");
    int used = snprintf(line, sizeof line, "{\"pid\":%d,\"event\":\"%s\",", (int)getpid(), event);
    used += vsnprintf(line + used, sizeof line - (size_t)used, members, arguments);
    if (used > (int)sizeof line - 3)
        abort(); /* better seen than cut */
    memcpy(line + used, "}\n", 2);
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    /* One write for the whole line: other processes write here too. */
    if (file < 0 || write(file, line, (size_t)used + 2) < 0)
        perror("virtual Quick Sync: log");
    if (file >= 0)
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

int fault_at(const char *place, long frame)
{
    char wanted[32], action[32];
    spec_text("fault_place", wanted, sizeof wanted);
    if (strcmp(place, wanted) != 0 || frame < spec_number("fault_frame", 0))
        return 0;
    spec_text("fault_action", action, sizeof action);
    int code = (int)spec_number("fault_code", 0);
    log_event("fault", "\"place\":\"%s\",\"action\":\"%s\",\"code\":%d,\"frame\":%ld", place, action,
              code, frame);
    if (strcmp(action, "error") == 0)
        return code;
    if (strcmp(action, "segfault") == 0)
        raise(SIGSEGV);
    for (;;) /* hang; a signal handler that returns changes nothing */
        pause();
}
