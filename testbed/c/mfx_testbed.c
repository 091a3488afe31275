#include "mfx_testbed.h"

#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *testbed_folder(void)
{
    return getenv("TESTBED_QSV");
}

struct fault testbed_fault(const char *name)
{
    struct fault fault = {0, 0, -1};
    const char *word = getenv("TESTBED_QSV_FAULT");
    size_t length = strlen(name);
    for (; word; word = strchr(word, ',')) {
        word += *word == ',';
        if (strncmp(word, name, length) != 0)
            continue;
        char *at = (char *)word + length;
        if (*at == '=')
            fault.value = strtol(at + 1, &at, 10);
        if (*at == '@')
            fault.frame = strtol(at + 1, &at, 10);
        fault.told = *at == ',' || *at == 0;
        if (fault.told)
            break;
    }
    return fault;
}

int testbed_strikes(struct fault fault, long frame)
{
    return fault.told && (fault.frame < 0 || fault.frame == frame);
}

void testbed_log(const char *event, const char *fields, ...)
{
    const char *folder = testbed_folder();
    char path[PATH_MAX], line[4096];
    if (!folder || snprintf(path, sizeof path, "%s/log", folder) >= (int)sizeof path)
        return;
    size_t used = (size_t)snprintf(line, sizeof line, "{\"event\":\"%s\",\"process\":%d,", event,
                                   (int)getpid());
    va_list arguments;
    va_start(arguments, fields);
    used += (size_t)vsnprintf(line + used, sizeof line - used, fields, arguments);
    va_end(arguments);
    if (used + 2 > sizeof line)
        abort(); /* a line of ours is too long: better seen than cut */
    memcpy(line + used, "}\n", 2);
    /* One write per line: lines of several processes do not mix. */
    int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0 || write(file, line, used + 2) != (ssize_t)(used + 2))
        abort();
    close(file);
}
