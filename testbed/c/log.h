/* What the libraries of a virtual device share: the spec that describes the device, the log of
 * what happened, and the fault that is asked for.
 *
 * The spec is the environment variable ENCODER_VIRTUAL_NVENC: "key=value;key=value". Keys:
 *
 * dir              folder for the log, the slots and the count of faulty processes
 * gpus             names of the GPUs, "A|B"; ":no-encoder" after a name: it cannot encode
 * driver           version of the driver
 * cuda             version of CUDA, 1000 * major + 10 * minor
 * api              the newest encode API that the driver knows, "13.1"
 * sessions         how many encode sessions may be open at once, in all processes; 0: any number
 * session_code     what an open fails with above that
 * cap_NAME         a capability: see nvenc_adapter.h
 * frame_ms         how long each picture takes
 * fault_place      where the fault strikes: a place that the libraries name in fault_at
 * fault_action     error, hang, abort, segfault, exit, sleep; at the place "output" a kind of
 *                  wrong output, see nvenc_pictures.c
 * fault_code       the code of an error; the milliseconds of a sleep; the status of an exit
 * fault_frame      from which picture on, counted from 0
 * fault_times      how often; 0: for ever
 * fault_processes  how many processes get the fault, the first ones; 0: all */
#ifndef LOG_H
#define LOG_H

#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

/* The value of `key`, or "". Returns its length. */
size_t spec_text(const char *key, char *value, size_t size);
long spec_number(const char *key, long otherwise);

/* Item `index` of a spec's list "A|B". Returns 0 when there are fewer. */
int spec_item(const char *key, int index, char *value, size_t size);

/* Opens `name` in the device's folder. -1: no folder, or no such file. */
int open_in_folder(const char *name, int flags);

/* Appends {"pid":…,"event":"NAME",MEMBERS} to the log, MEMBERS as printf writes them. */
void log_event(const char *event, const char *members, ...)
    __attribute__((format(printf, 2, 3)));

/* A call that a real driver could take amiss. */
void violation(const char *message, ...) __attribute__((format(printf, 1, 2)));

/* Milliseconds. */
void pause_for(long milliseconds);

/* What the fault makes of this place: 0 when it is not due here; the code of the error that it
 * asks for; or no return at all. `frame` is the number of the picture, 0 outside of pictures. */
int fault_at(const char *place, long frame);

/* The kind of wrong output that is due for this picture. NULL: none. */
const char *fault_in_output(long frame);

#endif
