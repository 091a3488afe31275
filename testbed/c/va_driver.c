/* A VA-API driver that has a device and nothing else: it gives FFmpeg the display that a Quick
 * Sync session wants to be told. */
#include "mfx_testbed.h"

#include <string.h>
#include <va/va_backend.h>

/* Vendor and device, as on the PCI bus; the runtime describes itself with the same. */
enum { PCI_ID = 0x80864680 };

static VAStatus terminate(VADriverContextP context)
{
    (void)context;
    log_event("display", "\"open\":false");
    return VA_STATUS_SUCCESS;
}

static VAStatus query_config_profiles(VADriverContextP context, VAProfile *profiles, int *count)
{
    (void)context, (void)profiles;
    *count = 0;
    return VA_STATUS_SUCCESS;
}

static VAStatus query_image_formats(VADriverContextP context, VAImageFormat *formats, int *count)
{
    (void)context;
    formats[0] = (VAImageFormat){
        .fourcc = VA_FOURCC_NV12, .byte_order = VA_LSB_FIRST, .bits_per_pixel = 12};
    *count = 1;
    return VA_STATUS_SUCCESS;
}

static VAStatus get_display_attributes(VADriverContextP context, VADisplayAttribute *attributes,
                                       int count)
{
    (void)context;
    for (int i = 0; i < count; i++) {
        int known = attributes[i].type == VADisplayPCIID;
        attributes[i].value = known ? (int)PCI_ID : 0;
        attributes[i].flags = known ? VA_DISPLAY_ATTRIB_GETTABLE : VA_DISPLAY_ATTRIB_NOT_SUPPORTED;
    }
    return VA_STATUS_SUCCESS;
}

static VAStatus unsupported(VADriverContextP context)
{
    (void)context;
    return VA_STATUS_ERROR_UNIMPLEMENTED;
}

/* libva asks for __vaDriverInit_MAJOR_MINOR, from its own version down to 1.0. */
EXPORT VAStatus __vaDriverInit_1_0(VADriverContextP context);

VAStatus __vaDriverInit_1_0(VADriverContextP context)
{
    struct VADriverVTable *table = context->vtable;
    /* libva takes no driver with a gap in its table. The table is function pointers up to its
     * reserved end; on Linux a function may be called with more arguments than it reads. */
    VAStatus (**entries)(VADriverContextP) = (void *)table;
    for (size_t i = 0; i < offsetof(struct VADriverVTable, reserved) / sizeof *entries; i++)
        entries[i] = unsupported;
    table->vaTerminate = terminate;
    table->vaQueryConfigProfiles = query_config_profiles;
    table->vaQueryImageFormats = query_image_formats;
    table->vaGetDisplayAttributes = get_display_attributes;
    context->version_major = VA_MAJOR_VERSION;
    context->version_minor = VA_MINOR_VERSION;
    context->max_profiles = 1;
    context->max_entrypoints = 1;
    context->max_attributes = 1;
    context->max_image_formats = 1;
    context->max_subpic_formats = 1;
    context->max_display_attributes = 1;
    context->str_vendor = "Virtual device without a codec";
    log_event("display", "\"open\":true");
    return VA_STATUS_SUCCESS;
}
