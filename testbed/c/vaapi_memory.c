/* Objects, surfaces, images and buffers. */
#include "mfx_testbed.h"
#include "vaapi.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct {
    enum object kind;
    void *object;
} objects[4096];

enum { OBJECTS = sizeof objects / sizeof *objects };

VAGenericID object_new(enum object kind, void *object)
{
    VAGenericID number = 1;
    pthread_mutex_lock(&lock);
    while (number < OBJECTS && objects[number].kind != OBJECT_NONE)
        number++;
    if (number < OBJECTS) {
        objects[number].kind = kind;
        objects[number].object = object;
    }
    pthread_mutex_unlock(&lock);
    return number < OBJECTS ? number : VA_INVALID_ID;
}

static void *find(enum object kind, VAGenericID number, int take)
{
    void *object = NULL;
    pthread_mutex_lock(&lock);
    if (number < OBJECTS && objects[number].kind == kind) {
        object = objects[number].object;
        if (take)
            objects[number].kind = OBJECT_NONE;
    }
    pthread_mutex_unlock(&lock);
    return object;
}

void *object_get(enum object kind, VAGenericID number)
{
    return find(kind, number, 0);
}

void *object_take(enum object kind, VAGenericID number)
{
    return find(kind, number, 1);
}

int object_count(void)
{
    int count = 0;
    for (int i = 1; i < OBJECTS; i++)
        count += objects[i].kind != OBJECT_NONE;
    return count;
}

/* Surfaces. */

static VAStatus destroy_surfaces(VADriverContextP context, VASurfaceID *surfaces, int count)
{
    (void)context;
    VAStatus status = VA_STATUS_SUCCESS;
    for (int i = 0; i < count; i++) {
        struct surface *surface = object_take(OBJECT_SURFACE, surfaces[i]);
        if (!surface) {
            status = VA_STATUS_ERROR_INVALID_SURFACE;
            continue;
        }
        free(surface->data);
        free(surface);
    }
    return status;
}

static VASurfaceID create_surface(unsigned width, unsigned height)
{
    struct surface *surface = calloc(1, sizeof *surface);
    if (!surface)
        return VA_INVALID_SURFACE;
    surface->width = (int)(width + 15) / 16 * 16;
    surface->height = (int)(height + 15) / 16 * 16;
    surface->pitch = ((size_t)width + 127) / 128 * 128;
    surface->data = calloc((size_t)surface->height * 3 / 2, surface->pitch);
    VASurfaceID number =
        surface->data ? object_new(OBJECT_SURFACE, surface) : VA_INVALID_SURFACE;
    if (number == VA_INVALID_SURFACE) {
        free(surface->data);
        free(surface);
    }
    return number;
}

static VAStatus create_surfaces(VADriverContextP context, unsigned format, unsigned width,
                                unsigned height, VASurfaceID *surfaces, unsigned count,
                                VASurfaceAttrib *attributes, unsigned attribute_count)
{
    for (unsigned i = 0; i < attribute_count; i++)
        if (attributes[i].type == VASurfaceAttribPixelFormat &&
            attributes[i].value.value.i != VA_FOURCC_NV12)
            return VA_STATUS_ERROR_ATTR_NOT_SUPPORTED;
    if (format != VA_RT_FORMAT_YUV420)
        return VA_STATUS_ERROR_UNSUPPORTED_RT_FORMAT;
    for (unsigned i = 0; i < count; i++) {
        surfaces[i] = create_surface(width, height);
        if (surfaces[i] == VA_INVALID_SURFACE) {
            destroy_surfaces(context, surfaces, (int)i);
            return VA_STATUS_ERROR_ALLOCATION_FAILED;
        }
    }
    return VA_STATUS_SUCCESS;
}

static VAStatus query_surface_attributes(VADriverContextP context, VAConfigID config,
                                         VASurfaceAttrib *attributes, unsigned *count)
{
    static const struct {
        VASurfaceAttribType type;
        int value;
    } all[] = {
        {VASurfaceAttribPixelFormat, VA_FOURCC_NV12},
        {VASurfaceAttribMinWidth, 16},
        {VASurfaceAttribMinHeight, 16},
        {VASurfaceAttribMaxWidth, 8192},
        {VASurfaceAttribMaxHeight, 8192},
        {VASurfaceAttribMemoryType, VA_SURFACE_ATTRIB_MEM_TYPE_VA},
    };
    (void)context, (void)config;
    for (size_t i = 0; attributes && i < sizeof all / sizeof *all; i++)
        attributes[i] = (VASurfaceAttrib){
            .type = all[i].type,
            .flags = VA_SURFACE_ATTRIB_GETTABLE | VA_SURFACE_ATTRIB_SETTABLE,
            .value = {.type = VAGenericValueTypeInteger, .value.i = all[i].value},
        };
    *count = sizeof all / sizeof *all;
    return VA_STATUS_SUCCESS;
}

/* Buffers. */

static VAStatus create_buffer(VADriverContextP context, VAContextID encoder, VABufferType type,
                              unsigned size, unsigned elements, void *data, VABufferID *number)
{
    (void)context, (void)encoder;
    struct buffer *buffer = calloc(1, sizeof *buffer);
    if (!buffer)
        return VA_STATUS_ERROR_ALLOCATION_FAILED;
    buffer->type = type;
    buffer->size = (size_t)size * elements;
    buffer->data = calloc(1, buffer->size);
    *number = buffer->data ? object_new(OBJECT_BUFFER, buffer) : VA_INVALID_ID;
    if (*number == VA_INVALID_ID) {
        free(buffer->data);
        free(buffer);
        return VA_STATUS_ERROR_ALLOCATION_FAILED;
    }
    if (data)
        memcpy(buffer->data, data, buffer->size);
    return VA_STATUS_SUCCESS;
}

static VAStatus map_buffer(VADriverContextP context, VABufferID number, void **mapped)
{
    (void)context;
    struct buffer *buffer = object_get(OBJECT_BUFFER, number);
    if (!buffer)
        return VA_STATUS_ERROR_INVALID_BUFFER;
    *mapped = buffer->type == VAEncCodedBufferType ? &buffer->segment : buffer->data;
    return VA_STATUS_SUCCESS;
}

static VAStatus unmap_buffer(VADriverContextP context, VABufferID number)
{
    (void)context;
    return object_get(OBJECT_BUFFER, number) ? VA_STATUS_SUCCESS : VA_STATUS_ERROR_INVALID_BUFFER;
}

static VAStatus destroy_buffer(VADriverContextP context, VABufferID number)
{
    (void)context;
    struct buffer *buffer = object_take(OBJECT_BUFFER, number);
    if (!buffer)
        return VA_STATUS_ERROR_INVALID_BUFFER;
    if (!buffer->borrowed)
        free(buffer->data);
    free(buffer);
    return VA_STATUS_SUCCESS;
}

/* Images: always those of a surface, which lie in memory anyway. */

static VAStatus query_image_formats(VADriverContextP context, VAImageFormat *formats, int *count)
{
    (void)context;
    formats[0] = (VAImageFormat){
        .fourcc = VA_FOURCC_NV12, .byte_order = VA_LSB_FIRST, .bits_per_pixel = 12};
    *count = 1;
    return VA_STATUS_SUCCESS;
}

static VAStatus derive_image(VADriverContextP context, VASurfaceID number, VAImage *image)
{
    int count;
    struct surface *surface = object_get(OBJECT_SURFACE, number);
    struct buffer *buffer = surface ? calloc(1, sizeof *buffer) : NULL;
    if (!buffer)
        return surface ? VA_STATUS_ERROR_ALLOCATION_FAILED : VA_STATUS_ERROR_INVALID_SURFACE;
    unsigned luma = (unsigned)(surface->pitch * (size_t)surface->height);
    *buffer = (struct buffer){
        .type = VAImageBufferType, .size = luma * 3 / 2, .data = surface->data, .borrowed = 1};
    *image = (VAImage){
        .width = (uint16_t)surface->width,
        .height = (uint16_t)surface->height,
        .data_size = luma * 3 / 2,
        .num_planes = 2,
        .pitches = {(unsigned)surface->pitch, (unsigned)surface->pitch},
        .offsets = {0, luma},
    };
    query_image_formats(context, &image->format, &count);
    image->buf = object_new(OBJECT_BUFFER, buffer);
    if (image->buf != VA_INVALID_ID)
        image->image_id = object_new(OBJECT_IMAGE, buffer);
    if (image->buf == VA_INVALID_ID || image->image_id == VA_INVALID_ID) {
        object_take(OBJECT_BUFFER, image->buf);
        free(buffer);
        return VA_STATUS_ERROR_ALLOCATION_FAILED;
    }
    return VA_STATUS_SUCCESS;
}

static VAStatus destroy_image(VADriverContextP context, VAImageID number)
{
    (void)context;
    struct buffer *buffer = object_take(OBJECT_IMAGE, number);
    if (!buffer)
        return VA_STATUS_ERROR_INVALID_IMAGE;
    for (VABufferID other = 1; other < OBJECTS; other++)
        if (object_get(OBJECT_BUFFER, other) == buffer)
            object_take(OBJECT_BUFFER, other);
    free(buffer);
    return VA_STATUS_SUCCESS;
}

void vaapi_memory(struct VADriverVTable *table)
{
    table->vaCreateSurfaces2 = create_surfaces;
    table->vaDestroySurfaces = destroy_surfaces;
    table->vaQuerySurfaceAttributes = query_surface_attributes;
    table->vaCreateBuffer = create_buffer;
    table->vaMapBuffer = map_buffer;
    table->vaUnmapBuffer = unmap_buffer;
    table->vaDestroyBuffer = destroy_buffer;
    table->vaQueryImageFormats = query_image_formats;
    table->vaDeriveImage = derive_image;
    table->vaDestroyImage = destroy_image;
}
