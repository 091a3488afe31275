/* Sessions and buffers: what may be called when. */
#include "nvenc_core.h"

#include "log.h"
#include "nvenc_slots.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SESSION_OPEN = 0x53455353, SESSION_CLOSED = 0x53455343 };

static int open_sessions;

static enum status keep_error(struct session *session, enum status status, const char *why,
                              va_list arguments)
{
    vsnprintf(session->error, sizeof session->error, why, arguments);
    return status;
}

enum status refuse(struct session *session, enum status status, const char *why, ...)
{
    va_list arguments;
    va_start(arguments, why);
    keep_error(session, status, why, arguments);
    va_end(arguments);
    return status;
}

enum status misuse(struct session *session, enum status status, const char *why, ...)
{
    va_list arguments;
    va_start(arguments, why);
    keep_error(session, status, why, arguments);
    va_end(arguments);
    violation("%s", session->error);
    return status;
}

/* Sessions. */

struct session *session_of(void *encoder, const char *call)
{
    struct session *session = encoder;
    if (session && session->mark == SESSION_OPEN)
        return session;
    violation("%s: %s", call, session ? "the session is closed" : "no session");
    return NULL;
}

enum status session_open(struct gpu_context *context, const char *api, struct session **opened)
{
    if (!context || context->mark != CONTEXT_ALIVE) {
        violation("OpenEncodeSessionEx: the CUDA context does not exist");
        return INVALID_ENCODERDEVICE;
    }
    char name[128];
    spec_item("gpus", context->gpu, name, sizeof name);
    if (strstr(name, ":no-encoder"))
        return UNSUPPORTED_DEVICE;
    int code = fault_at("open", 0);
    if (code != 0)
        return (enum status)code;
    int limit = (int)spec_number("sessions", 0);
    int slot = slot_take(limit > 0 && limit < SLOTS ? limit : SLOTS, context->gpu);
    if (slot == -1) {
        log_event("refused", "\"gpu\":%d,\"sessions\":%d", context->gpu, limit);
        return (enum status)spec_number("session_code", OUT_OF_MEMORY);
    }
    struct session *session = calloc(1, sizeof *session);
    if (!session)
        return OUT_OF_MEMORY;
    session->mark = SESSION_OPEN;
    session->context = context;
    session->slot = slot;
    __atomic_fetch_add(&open_sessions, 1, __ATOMIC_RELAXED);
    log_event("opened", "\"gpu\":%d,\"api\":\"%s\"", context->gpu, api);
    *opened = session;
    return OK;
}

static void tell(const struct session *session)
{
    const struct config *c = &session->config;
    char members[2048];
    snprintf(members, sizeof members,
             "\"gpu\":%d,\"preset\":\"%s\",\"tuning\":\"%s\",\"profile\":\"%s\",\"level\":%d,"
             "\"width\":%d,\"height\":%d,\"fps\":[%d,%d],\"chroma_444\":%s,"
             "\"rate_control\":\"%s\",\"bitrate\":%u,\"max_bitrate\":%u,\"vbv_size\":%u,"
             "\"target_quality\":%.8g,\"qp\":[%d,%d,%d],"
             "\"gop_length\":%u,\"idr_period\":%u,\"frame_interval_p\":%d,"
             "\"in_band_headers\":%s,\"repeat_headers\":%s,"
             "\"lookahead\":%d,\"spatial_aq\":%s,\"temporal_aq\":%s,\"aq_strength\":%d,"
             "\"zero_reorder_delay\":%s,\"multipass\":%d,\"weighted_prediction\":%s,"
             "\"full_range\":%s,\"colour\":",
             session->context->gpu, c->preset, c->tuning, c->profile, c->level, c->width,
             c->height, c->fps_num, c->fps_den, c->chroma_444 ? "true" : "false", c->rate_control,
             c->bitrate, c->max_bitrate, c->vbv_size, c->target_quality, c->qp_i, c->qp_p,
             c->qp_b, c->gop_length, c->idr_period, c->frame_interval_p,
             c->in_band_headers ? "true" : "false", c->repeat_headers ? "true" : "false",
             c->lookahead, c->spatial_aq ? "true" : "false", c->temporal_aq ? "true" : "false",
             c->aq_strength, c->zero_reorder_delay ? "true" : "false", c->multipass,
             c->weighted_prediction ? "true" : "false",
             !c->signal_told ? "null" : c->full_range ? "true" : "false");
    if (c->colour_told)
        log_event("initialized", "%s[%d,%d,%d]", members, c->primaries, c->transfer, c->matrix);
    else
        log_event("initialized", "%snull", members);
}

enum status session_initialize(struct session *session, const struct config *config,
                               const struct limits *limits)
{
    if (session->initialized)
        return misuse(session, INVALID_CALL, "InitializeEncoder: called twice");
    int code = fault_at("initialize", 0);
    if (code != 0)
        return refuse(session, (enum status)code, "Injected.");
    session->config = *config;
    struct config *c = &session->config;
    if (c->width < limits->width_min || c->height < limits->height_min)
        return refuse(session, INVALID_PARAM,
                      "Frame Dimension less than the minimum supported value.");
    if (c->width > limits->width_max || c->height > limits->height_max)
        return refuse(session, INVALID_PARAM,
                      "Frame Dimension greater than the maximum supported value.");
    if (c->frame_interval_p < 0 || c->frame_interval_p > limits->b_frames + 1)
        return refuse(session, INVALID_PARAM, "More B frames than supported.");
    if (c->idr_period == 0)
        c->idr_period = c->gop_length;
    if (c->gop_length == 0)
        return refuse(session, INVALID_PARAM, "The GOP has no length.");
    if (c->qp_i > 51 || c->qp_p > 51 || c->qp_b > 51 || c->target_quality > 51)
        return refuse(session, INVALID_PARAM, "QP above 51.");
    if (c->lookahead > 32)
        return refuse(session, INVALID_PARAM, "Lookahead of more than 32 frames.");
    if (c->fps_num <= 0 || c->fps_den <= 0)
        return refuse(session, INVALID_PARAM, "The frame rate is not a number.");
    if (c->profile_idc == 66 && c->frame_interval_p > 1)
        c->frame_interval_p = 1; /* baseline has none */
    struct picture_format format = {
        .width = c->width,
        .height = c->height,
        .chroma_444 = c->chroma_444,
        .b_frames = c->frame_interval_p > 1 ? c->frame_interval_p - 1 : 0,
        .profile_idc = c->profile_idc,
        .level_idc = c->level,
        .fps_num = c->fps_num,
        .fps_den = c->fps_den,
        .colour_described = c->colour_told,
        .primaries = c->primaries,
        .transfer = c->transfer,
        .matrix = c->matrix,
        .full_range_told = c->signal_told,
        .full_range = c->full_range,
    };
    session->writer = picture_writer_new(&format);
    if (!session->writer)
        return refuse(session, INVALID_PARAM, "Size or profile does not fit the chroma format.");
    session->initialized = 1;
    slot_tell(session->slot, session->context->gpu, c->width, c->height);
    tell(session);
    return OK;
}

enum status session_close(struct session *session)
{
    int code = fault_at("close", 0);
    int buffers = 0;
    if (session->waiting_count + session->group_count > 0)
        violation("DestroyEncoder: %d pictures were not flushed",
                  session->waiting_count + session->group_count);
    while (session->inputs) {
        struct input *input = session->inputs;
        session->inputs = input->next;
        if (input->own)
            free(input->memory);
        free(input);
        buffers++;
    }
    while (session->outputs) {
        struct output *output = session->outputs;
        session->outputs = output->next;
        free(output->bytes);
        free(output);
        buffers++;
    }
    if (buffers > 0)
        log_event("leak", "\"what\":\"DestroyEncoder: %d buffers still exist\"", buffers);
    log_event("closed", "\"submitted\":%lld,\"coded\":%lld,\"read\":%lld,\"bytes\":%lld",
              (long long)session->submitted, (long long)session->coded, (long long)session->locks,
              (long long)session->bytes);
    picture_writer_free(session->writer);
    free(session->previous);
    if (session->slot >= 0)
        close(session->slot);
    session->mark = SESSION_CLOSED; /* not freed: a call that comes too late is told apart */
    __atomic_fetch_sub(&open_sessions, 1, __ATOMIC_RELAXED);
    return (enum status)code;
}

__attribute__((destructor)) static void unloaded(void)
{
    if (open_sessions != 0)
        log_event("leak", "\"what\":\"%d sessions at the end\"", open_sessions);
}

/* Input buffers. */

struct input *input_of(struct session *session, void *handle, int own)
{
    for (struct input *input = session->inputs; input; input = input->next)
        if (input == handle && input->own == own)
            return input;
    return NULL;
}

static enum status input_add(struct session *session, const struct input *made,
                             struct input **created)
{
    const struct config *config = &session->config;
    if (!session->initialized)
        return misuse(session, ENCODER_NOT_INITIALIZED, "a buffer before InitializeEncoder");
    if (made->format != NV12 && made->format != YV12 && made->format != IYUV &&
        made->format != YUV444)
        return refuse(session, UNSUPPORTED_PARAM, "No such input format here.");
    if (made->width != config->width || made->height != config->height)
        return misuse(session, INVALID_PARAM, "a buffer of %dx%d for pictures of %dx%d",
                      made->width, made->height, config->width, config->height);
    if ((made->format == YUV444) != config->chroma_444)
        return misuse(session, INVALID_PARAM, "a buffer whose chroma format is not the stream's");
    if (made->pitch < (size_t)made->width)
        return misuse(session, INVALID_PARAM, "a pitch of %zu for %d samples", made->pitch,
                      made->width);
    int code = fault_at("buffer", 0);
    if (code != 0)
        return refuse(session, (enum status)code, "Injected.");
    struct input *input = malloc(sizeof *input);
    if (!input)
        return OUT_OF_MEMORY;
    *input = *made;
    input->next = session->inputs;
    session->inputs = input;
    *created = input;
    return OK;
}

enum status input_create(struct session *session, enum format format, int width, int height,
                         struct input **created)
{
    /* Always wider than the picture, so that nobody does without it. */
    size_t pitch = ((size_t)width + 63) / 64 * 64 + 64;
    size_t size = pitch * (size_t)height * 3;
    struct input made = {.format = format, .width = width, .height = height, .pitch = pitch};
    made.own = 1;
    made.memory = malloc(size);
    if (!made.memory)
        return OUT_OF_MEMORY;
    memset(made.memory, 0xeb, size); /* what was never written shows */
    enum status status = input_add(session, &made, created);
    if (status != OK)
        free(made.memory);
    return status;
}

enum status input_register(struct session *session, enum format format, int width, int height,
                           size_t pitch, void *memory, struct input **created)
{
    struct input made = {.format = format, .width = width, .height = height, .pitch = pitch};
    made.memory = memory;
    return input_add(session, &made, created);
}

enum status input_destroy(struct session *session, void *handle, int own)
{
    struct input *input = input_of(session, handle, own);
    if (!input)
        return misuse(session, INVALID_PARAM, "the end of an input that does not exist");
    if (input->locked || input->mapped || input->pending)
        misuse(session, OK, "the end of an input that is %s",
               input->pending ? "still to be read" : "locked or mapped");
    struct input **link = &session->inputs;
    while (*link != input)
        link = &(*link)->next;
    *link = input->next;
    if (own)
        free(input->memory);
    free(input);
    return OK;
}

enum status input_lock(struct session *session, void *handle, struct input **locked)
{
    struct input *input = input_of(session, handle, 1);
    if (!input)
        return misuse(session, INVALID_PARAM, "LockInputBuffer: no such buffer");
    if (input->locked || input->pending)
        return misuse(session, LOCK_BUSY, "LockInputBuffer: the buffer is %s",
                      input->locked ? "locked already" : "still to be read");
    input->locked = 1;
    *locked = input;
    return OK;
}

enum status input_unlock(struct session *session, void *handle)
{
    struct input *input = input_of(session, handle, 1);
    if (!input || !input->locked)
        return misuse(session, INVALID_PARAM, "UnlockInputBuffer: no such buffer, or not locked");
    input->locked = 0;
    return OK;
}

enum status input_map(struct session *session, void *handle, struct input **mapped)
{
    struct input *input = input_of(session, handle, 0);
    if (!input)
        return misuse(session, INVALID_PARAM, "MapInputResource: no such resource");
    input->mapped++;
    *mapped = input;
    return OK;
}

enum status input_unmap(struct session *session, void *handle)
{
    struct input *input = input_of(session, handle, 0);
    if (!input || input->mapped == 0 || input->pending)
        return misuse(session, INVALID_PARAM,
                      "UnmapInputResource: no such resource, not mapped, or still to be read");
    input->mapped--;
    return OK;
}

/* Output buffers. */

struct output *output_of(struct session *session, void *handle)
{
    for (struct output *output = session->outputs; output; output = output->next)
        if (output == handle)
            return output;
    return NULL;
}

enum status output_create(struct session *session, struct output **created)
{
    if (!session->initialized)
        return misuse(session, ENCODER_NOT_INITIALIZED, "a buffer before InitializeEncoder");
    struct output *output = calloc(1, sizeof *output);
    if (!output)
        return OUT_OF_MEMORY;
    output->next = session->outputs;
    session->outputs = output;
    *created = output;
    return OK;
}

enum status output_destroy(struct session *session, void *handle)
{
    struct output *output = output_of(session, handle);
    if (!output)
        return misuse(session, INVALID_PARAM, "DestroyBitstreamBuffer: no such buffer");
    if (output->locked || output->state == PENDING)
        misuse(session, OK, "DestroyBitstreamBuffer: the buffer is %s",
               output->locked ? "locked" : "still to be written");
    struct output **link = &session->outputs;
    while (*link != output)
        link = &(*link)->next;
    *link = output->next;
    free(output->bytes);
    free(output);
    return OK;
}

enum status output_lock(struct session *session, void *handle, struct output **locked)
{
    struct output *output = output_of(session, handle);
    if (!output)
        return misuse(session, INVALID_PARAM, "LockBitstream: no such buffer");
    if (output->locked || output->state != READY)
        return misuse(session, INVALID_PARAM, "LockBitstream: the buffer %s",
                      output->locked            ? "is locked already"
                      : output->state == PENDING ? "waits for a picture that needs more input"
                                                 : "holds no picture");
    /* The hardware works while the client does something else; it is here that one waits. */
    pause_for(spec_number("frame_ms", 0));
    int code = fault_at("lock", (long)session->locks);
    if (code != 0)
        return refuse(session, (enum status)code, "Injected.");
    session->locks++;
    output->locked = 1;
    *locked = output;
    return OK;
}

enum status output_unlock(struct session *session, void *handle)
{
    struct output *output = output_of(session, handle);
    if (!output || !output->locked)
        return misuse(session, INVALID_PARAM, "UnlockBitstream: no such buffer, or not locked");
    output->locked = 0;
    output->state = FREE;
    return OK;
}
