/* What the libraries of the virtual Quick Sync device share: the spec that describes the device,
 * the log of what happened, and the fault that is asked for.
 *
 * The spec is the environment variable ENCODER_VIRTUAL_QSV: "key=value;key=value". Keys:
 *
 * dir            folder of the device: dri/ and node/ in place of the system's, and the log
 * node           number of the render node, 128 and up
 * kernel_driver  the kernel's driver of the node: i915, amdgpu
 * bad_node       number of a second node, on which nothing works; bad_node/ describes it
 * bad_kernel_driver  its kernel's driver
 * entrypoint     low-power: the VA-API encoder has only that entrypoint; listed: it lists the normal
 *                one too, which does not work
 * vendor, model  the PCI device, in hexadecimal
 * frame_ms       how long each picture takes
 * fault_place    where the fault strikes: node, session, init, encode, sync
 * fault_action   error, hang, segfault
 * fault_code     the code of an error: a mfxStatus; at the place "node" an errno
 * fault_frame    from which frame on, in display order, counted from 0 */
#ifndef MFX_TESTBED_H
#define MFX_TESTBED_H

#include <stddef.h>

#define EXPORT __attribute__((visibility("default")))

/* The value of `key`, or "". Returns its length. */
size_t spec_text(const char *key, char *value, size_t size);
long spec_number(const char *key, long otherwise);

/* Appends {"pid":…,"event":"NAME",MEMBERS} to the log, MEMBERS as printf writes them. */
void log_event(const char *event, const char *members, ...) __attribute__((format(printf, 2, 3)));

/* A call that a real runtime could take amiss. */
void violation(const char *message, ...) __attribute__((format(printf, 1, 2)));

/* Milliseconds. */
void pause_for(long milliseconds);

/* What the fault makes of this place: 0 when it is not due here; the code of the error that it
 * asks for; or no return at all. `frame` is 0 outside of pictures. */
int fault_at(const char *place, long frame);

#endif
