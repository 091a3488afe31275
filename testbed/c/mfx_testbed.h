/* What ties the virtual Quick Sync device to the test that made it: the folder of this device,
 * the faults that the test asked for, and the log that it reads afterwards. */
#ifndef MFX_TESTBED_H
#define MFX_TESTBED_H

/* Each library has its own copy. */
#pragma GCC visibility push(hidden)

/* The folder of this device, from TESTBED_QSV: dri/ and node/ in place of the system's, and the
 * log. NULL: this process has no such device. */
const char *testbed_folder(void);

/* A fault from TESTBED_QSV_FAULT. */
struct fault {
    int told;   /* whether the test asked for it */
    long value; /* a status, milliseconds; 0 where none was given */
    long frame; /* the frame that it strikes, from 0; -1: every frame */
};

/* TESTBED_QSV_FAULT is words with commas between, each NAME[=VALUE][@FRAME]:
 * "session=-9", "slow=20", "encode=-17@5", "hang@5". */
struct fault testbed_fault(const char *name);

/* Whether the fault is told and strikes this frame. */
int testbed_strikes(struct fault fault, long frame);

/* Appends one line to the log: {"event":EVENT,"process":N,FIELDS}. FIELDS is a format for
 * the inside of a JSON object: "\"frame\":%d". */
__attribute__((format(printf, 2, 3))) void testbed_log(const char *event, const char *fields, ...);

#pragma GCC visibility pop

#endif
