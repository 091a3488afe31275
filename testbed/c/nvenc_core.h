/* The virtual encoder itself, apart from how a version of the API lays out its structs: that is
 * nvenc_adapter.h, which is compiled once for each version. */
#ifndef NVENC_CORE_H
#define NVENC_CORE_H

#include "nvenc_gpu.h"
#include "picture.h"

#include <stddef.h>
#include <stdint.h>

/* The codes and formats that are used here; the adapters assert that they are the vendor's. */
enum status {
    OK = 0,
    UNSUPPORTED_DEVICE = 2,
    INVALID_ENCODERDEVICE = 3,
    INVALID_PTR = 6,
    INVALID_PARAM = 8,
    INVALID_CALL = 9,
    OUT_OF_MEMORY = 10,
    ENCODER_NOT_INITIALIZED = 11,
    UNSUPPORTED_PARAM = 12,
    LOCK_BUSY = 13,
    INVALID_VERSION = 15,
    NEED_MORE_INPUT = 17,
    UNIMPLEMENTED = 22,
};

enum format { NV12 = 0x1, YV12 = 0x10, IYUV = 0x100, YUV444 = 0x1000 };

enum flags { FORCE_INTRA = 1, FORCE_IDR = 2, OUTPUT_SPSPPS = 4, END_OF_STREAM = 8 };

/* What a session is initialised with, as far as the device heeds it or tells of it. */
struct config {
    const char *preset, *tuning, *profile, *rate_control;
    int width, height, fps_num, fps_den;
    uint32_t gop_length, idr_period; /* UINT32_MAX: no end */
    int frame_interval_p;            /* 0: intra only; 1: no B pictures */
    int profile_idc, level;
    int chroma_444;
    int in_band_headers, repeat_headers, delimiters;
    int lookahead; /* pictures; 0: none */
    int spatial_aq, temporal_aq, aq_strength, zero_reorder_delay, multipass, weighted_prediction;
    uint32_t bitrate, max_bitrate, vbv_size;
    double target_quality;
    int qp_i, qp_p, qp_b;
    int signal_told, full_range, colour_told, primaries, transfer, matrix;
};

/* A buffer for one picture, or a mapped CUDA frame. */
struct input {
    struct input *next;
    enum format format;
    int width, height;
    size_t pitch;
    uint8_t *memory;
    int own;     /* memory is ours; else a registered CUDA frame */
    int locked;  /* input buffers: the client writes to it */
    int mapped;  /* CUDA frames: how often */
    int pending; /* the device will still read it */
};

struct output {
    struct output *next;
    enum { FREE, PENDING, READY } state;
    int locked;
    uint8_t *bytes;
    size_t size, capacity;
    int64_t pts;
    uint64_t duration;
    uint32_t frame_index;
    enum picture_type type;
};

/* A picture on its way. */
struct submitted {
    struct input *input;
    int64_t order, pts;
    uint64_t duration;
    uint32_t frame_index, flags;
};

enum { QUEUE = 64 };

struct session {
    uint32_t mark;
    struct gpu_context *context;
    int slot; /* file */
    char error[160];
    int initialized;
    struct config config;
    struct picture_writer *writer;
    struct input *inputs;
    struct output *outputs;
    struct submitted waiting[QUEUE]; /* for the lookahead; in display order */
    struct submitted group[QUEUE];   /* pictures that may become B pictures */
    struct output *free_outputs[QUEUE];
    int waiting_count, group_count, free_count;
    int64_t submitted, coded, locks, bytes;
    uint32_t since_idr, since_intra;
    uint8_t *previous; /* the picture before, where the fault is to give it out again */
    size_t previous_size;
};

/* The session behind the handle; NULL and a violation when there is none. */
struct session *session_of(void *encoder, const char *call);

/* Both set what GetLastErrorString says and give `status`; misuse is logged as a violation. */
enum status refuse(struct session *session, enum status status, const char *why, ...)
    __attribute__((format(printf, 3, 4)));
enum status misuse(struct session *session, enum status status, const char *why, ...)
    __attribute__((format(printf, 3, 4)));

enum status session_open(struct gpu_context *context, const char *api, struct session **opened);
/* `limits`: widths and heights, least and greatest; B pictures. */
struct limits {
    int width_min, width_max, height_min, height_max, b_frames;
};
enum status session_initialize(struct session *session, const struct config *config,
                               const struct limits *limits);
enum status session_close(struct session *session);

enum status input_create(struct session *session, enum format format, int width, int height,
                         struct input **created);
enum status input_register(struct session *session, enum format format, int width, int height,
                           size_t pitch, void *memory, struct input **created);
enum status input_destroy(struct session *session, void *handle, int own);
enum status input_lock(struct session *session, void *handle, struct input **locked);
enum status input_unlock(struct session *session, void *handle);
enum status input_map(struct session *session, void *handle, struct input **mapped);
enum status input_unmap(struct session *session, void *handle);

enum status output_create(struct session *session, struct output **created);
enum status output_destroy(struct session *session, void *handle);
enum status output_lock(struct session *session, void *handle, struct output **locked);
enum status output_unlock(struct session *session, void *handle);

struct input *input_of(struct session *session, void *handle, int own);
struct output *output_of(struct session *session, void *handle);

/* nvenc_pictures.c: takes a picture, and codes all that can be coded now. */
enum status pictures_submit(struct session *session, struct input *input, struct output *output,
                            const struct submitted *picture);
/* Codes what is left. */
void pictures_flush(struct session *session);

/* The adapters: fill a function list of their version; 0: it is of another version. */
int nvenc_fill_11_1(void *list);
int nvenc_fill_13_0(void *list);
int nvenc_fill_13_1(void *list);

#endif
