/* The VA-API driver: it gives FFmpeg the display that a Quick Sync session wants to be told, and
 * it can encode H.264 itself. */
#include "mfx_testbed.h"
#include "vaapi.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <va/va_backend.h>
#include <va/va_drmcommon.h>

/* Vendor and device, as on the PCI bus. */
static int pci_id(void)
{
    char vendor[8], model[8];
    spec_text("vendor", vendor, sizeof vendor);
    spec_text("model", model, sizeof model);
    return (int)(strtoul(vendor, NULL, 16) << 16 | strtoul(model, NULL, 16));
}

static VAStatus terminate(VADriverContextP context)
{
    (void)context;
    if (object_count() > 0)
        log_event("leak", "\"what\":\"%d objects of VA-API\"", object_count());
    log_event("display", "\"open\":false");
    return VA_STATUS_SUCCESS;
}

static VAStatus get_display_attributes(VADriverContextP context, VADisplayAttribute *attributes,
                                       int count)
{
    (void)context;
    for (int i = 0; i < count; i++) {
        int known = attributes[i].type == VADisplayPCIID;
        attributes[i].value = known ? pci_id() : 0;
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

/* Whether the display is on the node that does not work. */
static int is_bad_node(VADriverContextP context)
{
    struct drm_state *drm = context->drm_state;
    struct stat status;
    return drm && fstat(drm->fd, &status) == 0 &&
           minor(status.st_rdev) == (unsigned)spec_number("bad_node", -1);
}

VAStatus __vaDriverInit_1_0(VADriverContextP context)
{
    if (is_bad_node(context))
        return VA_STATUS_ERROR_UNKNOWN;
    struct VADriverVTable *table = context->vtable;
    /* libva takes no driver with a gap in its table. The table is function pointers up to its
     * reserved end; on Linux a function may be called with more arguments than it reads. */
    VAStatus (**entries)(VADriverContextP) = (void *)table;
    for (size_t i = 0; i < offsetof(struct VADriverVTable, reserved) / sizeof *entries; i++)
        entries[i] = unsupported;
    table->vaTerminate = terminate;
    table->vaGetDisplayAttributes = get_display_attributes;
    vaapi_memory(table);
    vaapi_encoder(table);
    context->version_major = VA_MAJOR_VERSION;
    context->version_minor = VA_MINOR_VERSION;
    context->max_profiles = 3;
    context->max_entrypoints = 2;
    context->max_attributes = 1;
    context->max_image_formats = 1;
    context->max_subpic_formats = 1;
    context->max_display_attributes = 1;
    context->str_vendor = "Virtual device";
    log_event("display", "\"open\":true");
    return VA_STATUS_SUCCESS;
}
