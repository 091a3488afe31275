/* A VA-API encoder for H.264: surfaces, buffers and pictures of the driver iHD_drv_video.so. */
#ifndef VAAPI_H
#define VAAPI_H

#include <va/va_backend.h>

/* Enters the functions of vaapi_memory.c and of vaapi_encoder.c. */
void vaapi_memory(struct VADriverVTable *table);
void vaapi_encoder(struct VADriverVTable *table);

struct surface {
    int width, height;
    size_t pitch;  /* in bytes, of both planes */
    uint8_t *data; /* NV12; chroma is at pitch * height */
};

struct buffer {
    VABufferType type;
    size_t size;
    void *data;
    int borrowed;                 /* data belongs to a surface */
    VACodedBufferSegment segment; /* of a coded buffer: what is in it */
};

enum object { OBJECT_NONE, OBJECT_CONFIG, OBJECT_SURFACE, OBJECT_BUFFER, OBJECT_IMAGE, OBJECT_CONTEXT };

/* Objects are known by a number above 0. Safe to use from several threads; an object itself is
 * not. VA_INVALID_ID: there are too many. */
VAGenericID object_new(enum object kind, void *object);

/* NULL: there is none of this kind with this number. */
void *object_get(enum object kind, VAGenericID number);

/* The same, and the number is free. */
void *object_take(enum object kind, VAGenericID number);

/* How many there are. */
int object_count(void);

#endif
