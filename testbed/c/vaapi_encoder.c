/* Configurations, contexts and pictures. The driver announces no packed headers, so it writes the
 * parameter sets and slice headers itself. */
#include "mfx_testbed.h"
#include "picture.h"
#include "vaapi.h"

#include <stdlib.h>
#include <string.h>
#include <va/va_enc_h264.h>

struct config {
    VAProfile profile;
    unsigned rate_control;
};

/* An encoder. */
struct encoder {
    struct config config;
    VAContextID number;
    VAEncSequenceParameterBufferH264 sequence;
    VAEncPictureParameterBufferH264 picture;
    VAEncSliceParameterBufferH264 slice;
    VAEncMiscParameterRateControl rate;
    VAEncMiscParameterBufferQualityLevel quality;
    struct surface *surface; /* of the picture that is being encoded */
    struct picture_writer *writer;
    int64_t pictures;
    int64_t idr_order; /* of the last IDR picture, in display order */
    char types[1024];  /* of the first pictures, in decoding order */
};

static const VAProfile profiles[] = {VAProfileH264ConstrainedBaseline, VAProfileH264Main,
                                     VAProfileH264High};

enum { PROFILES = sizeof profiles / sizeof *profiles };

static VAStatus query_profiles(VADriverContextP context, VAProfile *list, int *count)
{
    (void)context;
    memcpy(list, profiles, sizeof profiles);
    *count = PROFILES;
    return VA_STATUS_SUCCESS;
}

static int known(VAProfile profile)
{
    for (int i = 0; i < PROFILES; i++)
        if (profiles[i] == profile)
            return 1;
    return 0;
}

/* Whether the device has only the low-power encoder: "low-power" lists that alone, "listed" lists
 * the normal one too, which then does not work. */
static int is_low_power(const char *value)
{
    char mode[16];
    spec_text("entrypoint", mode, sizeof mode);
    return value ? strcmp(mode, value) == 0 : mode[0] != 0;
}

static VAStatus query_entrypoints(VADriverContextP context, VAProfile profile, VAEntrypoint *list,
                                  int *count)
{
    (void)context;
    *count = 0;
    if (!is_low_power("low-power"))
        list[(*count)++] = VAEntrypointEncSlice;
    if (is_low_power(NULL))
        list[(*count)++] = VAEntrypointEncSliceLP;
    if (!known(profile))
        *count = 0;
    return known(profile) ? VA_STATUS_SUCCESS : VA_STATUS_ERROR_UNSUPPORTED_PROFILE;
}

static VAStatus get_attributes(VADriverContextP context, VAProfile profile, VAEntrypoint entrypoint,
                               VAConfigAttrib *list, int count)
{
    (void)context, (void)profile, (void)entrypoint;
    for (int i = 0; i < count; i++)
        switch (list[i].type) {
        case VAConfigAttribRTFormat:
            list[i].value = VA_RT_FORMAT_YUV420;
            break;
        case VAConfigAttribRateControl:
            list[i].value = VA_RC_CQP | VA_RC_CBR | VA_RC_VBR | VA_RC_ICQ;
            break;
        case VAConfigAttribEncPackedHeaders:
            list[i].value = VA_ENC_PACKED_HEADER_NONE;
            break;
        case VAConfigAttribEncMaxRefFrames:
            list[i].value = 1 | 1 << 16; /* one in each list */
            break;
        case VAConfigAttribEncMaxSlices:
            list[i].value = 1;
            break;
        case VAConfigAttribEncQualityRange:
            list[i].value = 7;
            break;
        default:
            list[i].value = VA_ATTRIB_NOT_SUPPORTED;
        }
    return VA_STATUS_SUCCESS;
}

static VAStatus create_config(VADriverContextP context, VAProfile profile, VAEntrypoint entrypoint,
                              VAConfigAttrib *list, int count, VAConfigID *number)
{
    (void)context;
    if (!known(profile))
        return VA_STATUS_ERROR_UNSUPPORTED_PROFILE;
    if (entrypoint != (is_low_power(NULL) ? VAEntrypointEncSliceLP : VAEntrypointEncSlice))
        return VA_STATUS_ERROR_UNSUPPORTED_ENTRYPOINT;
    struct config *config = calloc(1, sizeof *config);
    if (!config)
        return VA_STATUS_ERROR_ALLOCATION_FAILED;
    config->profile = profile;
    for (int i = 0; i < count; i++)
        if (list[i].type == VAConfigAttribRateControl)
            config->rate_control = list[i].value;
    *number = object_new(OBJECT_CONFIG, config);
    return VA_STATUS_SUCCESS;
}

static VAStatus destroy_config(VADriverContextP context, VAConfigID number)
{
    (void)context;
    struct config *config = object_take(OBJECT_CONFIG, number);
    free(config);
    return config ? VA_STATUS_SUCCESS : VA_STATUS_ERROR_INVALID_CONFIG;
}

static VAStatus create_context(VADriverContextP context, VAConfigID config_number, int width,
                               int height, int flag, VASurfaceID *targets, int target_count,
                               VAContextID *number)
{
    (void)context, (void)width, (void)height, (void)flag, (void)targets, (void)target_count;
    const struct config *config = object_get(OBJECT_CONFIG, config_number);
    if (!config)
        return VA_STATUS_ERROR_INVALID_CONFIG;
    int error = fault_at("init", 0);
    if (error)
        return error;
    struct encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder)
        return VA_STATUS_ERROR_ALLOCATION_FAILED;
    encoder->config = *config;
    encoder->number = *number = object_new(OBJECT_CONTEXT, encoder);
    return VA_STATUS_SUCCESS;
}

static VAStatus destroy_context(VADriverContextP context, VAContextID number)
{
    (void)context;
    struct encoder *encoder = object_take(OBJECT_CONTEXT, number);
    if (!encoder)
        return VA_STATUS_ERROR_INVALID_CONTEXT;
    log_event("vafinished", "\"context\":%u,\"frames\":%ld,\"types\":\"%s\"", number,
              (long)encoder->pictures, encoder->types);
    picture_writer_free(encoder->writer);
    free(encoder);
    return VA_STATUS_SUCCESS;
}

/* Pictures. */

static VAStatus begin_picture(VADriverContextP context, VAContextID number, VASurfaceID target)
{
    (void)context;
    struct encoder *encoder = object_get(OBJECT_CONTEXT, number);
    if (!encoder)
        return VA_STATUS_ERROR_INVALID_CONTEXT;
    encoder->surface = object_get(OBJECT_SURFACE, target);
    return encoder->surface ? VA_STATUS_SUCCESS : VA_STATUS_ERROR_INVALID_SURFACE;
}

static void take(void *to, size_t size, const struct buffer *from)
{
    if (from->size < size)
        violation("a parameter buffer of %zu bytes in place of %zu", from->size, size);
    else
        memcpy(to, from->data, size);
}

static void take_misc(struct encoder *encoder, const struct buffer *buffer)
{
    const VAEncMiscParameterBuffer *misc = buffer->data;
    struct buffer inside = {.size = buffer->size - sizeof *misc, .data = (void *)misc->data};
    if (misc->type == VAEncMiscParameterTypeRateControl)
        take(&encoder->rate, sizeof encoder->rate, &inside);
    if (misc->type == VAEncMiscParameterTypeQualityLevel)
        take(&encoder->quality, sizeof encoder->quality, &inside);
}

static VAStatus render_picture(VADriverContextP context, VAContextID number, VABufferID *buffers,
                               int count)
{
    (void)context;
    struct encoder *encoder = object_get(OBJECT_CONTEXT, number);
    if (!encoder || !encoder->surface)
        return VA_STATUS_ERROR_INVALID_CONTEXT;
    for (int i = 0; i < count; i++) {
        const struct buffer *buffer = object_get(OBJECT_BUFFER, buffers[i]);
        if (!buffer)
            return VA_STATUS_ERROR_INVALID_BUFFER;
        if (buffer->type == VAEncSequenceParameterBufferType)
            take(&encoder->sequence, sizeof encoder->sequence, buffer);
        else if (buffer->type == VAEncPictureParameterBufferType)
            take(&encoder->picture, sizeof encoder->picture, buffer);
        else if (buffer->type == VAEncSliceParameterBufferType)
            take(&encoder->slice, sizeof encoder->slice, buffer);
        else if (buffer->type == VAEncMiscParameterBufferType)
            take_misc(encoder, buffer);
        else
            violation("a buffer of type %d", buffer->type);
    }
    return VA_STATUS_SUCCESS;
}

static struct picture_writer *writer_for(const struct encoder *encoder)
{
    const VAEncSequenceParameterBufferH264 *s = &encoder->sequence;
    int cut = s->frame_cropping_flag ? 2 : 0;
    struct picture_format format = {
        .width = s->picture_width_in_mbs * 16 - cut * (int)s->frame_crop_right_offset,
        .height = s->picture_height_in_mbs * 16 - cut * (int)s->frame_crop_bottom_offset,
        .b_frames = s->ip_period > 1 ? (int)s->ip_period - 1 : 0,
        .profile_idc = encoder->config.profile == VAProfileH264High   ? 100
                       : encoder->config.profile == VAProfileH264Main ? 77
                                                                      : 66,
        .level_idc = s->level_idc,
        .fps_num = (int)(s->time_scale / 2),
        .fps_den = (int)s->num_units_in_tick,
    };
    log_event("vainitialized",
              "\"context\":%u,\"width\":%d,\"height\":%d,\"frame_rate\":[%u,%u],\"profile\":%d,"
              "\"level\":%d,\"intra_period\":%u,\"intra_idr_period\":%u,\"ip_period\":%u,"
              "\"rate_control\":%u,\"qp\":%d,\"bits_per_second\":%u,\"icq_quality\":%u,"
              "\"quality_level\":%u",
              encoder->number, format.width, format.height, s->time_scale / 2,
              s->num_units_in_tick, format.profile_idc, s->level_idc, s->intra_period,
              s->intra_idr_period, s->ip_period, encoder->config.rate_control,
              encoder->picture.pic_init_qp, encoder->rate.bits_per_second,
              encoder->rate.ICQ_quality_factor, encoder->quality.quality_level);
    return picture_writer_new(&format);
}

static enum picture_type type_of(const struct encoder *encoder)
{
    static const enum picture_type types[] = {PICTURE_P, PICTURE_B, PICTURE_I};
    if (encoder->picture.pic_fields.bits.idr_pic_flag)
        return PICTURE_IDR;
    return types[encoder->slice.slice_type % 5 % 3];
}

static VAStatus end_picture(VADriverContextP context, VAContextID number)
{
    (void)context;
    struct encoder *encoder = object_get(OBJECT_CONTEXT, number);
    if (!encoder || !encoder->surface)
        return VA_STATUS_ERROR_INVALID_CONTEXT;
    int error = fault_at("encode", encoder->pictures);
    if (error)
        return error;
    struct buffer *coded = object_get(OBJECT_BUFFER, encoder->picture.coded_buf);
    if (!coded || coded->type != VAEncCodedBufferType)
        return VA_STATUS_ERROR_INVALID_BUFFER;
    if (!encoder->writer)
        encoder->writer = writer_for(encoder);
    if (!encoder->writer)
        return VA_STATUS_ERROR_INVALID_PARAMETER;
    const struct surface *surface = encoder->surface;
    const uint8_t *chroma = surface->data + surface->pitch * (size_t)surface->height;
    struct picture_planes planes = {
        .data = {surface->data, chroma, chroma + 1},
        .stride = {surface->pitch, surface->pitch, surface->pitch},
        .chroma_step = 2,
    };
    enum picture_type type = type_of(encoder);
    if (type == PICTURE_B && encoder->picture.pic_fields.bits.reference_pic_flag)
        return VA_STATUS_ERROR_UNIMPLEMENTED; /* the writer has no such pictures */
    if (type == PICTURE_IDR)
        encoder->idr_order = encoder->pictures;
    if (encoder->pictures + 1 < (int64_t)sizeof encoder->types)
        encoder->types[encoder->pictures] = "IiPB"[type];
    encoder->pictures++;
    pause_for(spec_number("frame_ms", 0));
    size_t size;
    int64_t order = encoder->idr_order + encoder->picture.CurrPic.TopFieldOrderCnt;
    const uint8_t *bytes =
        picture_write(encoder->writer, &planes, type, order,
                      type == PICTURE_IDR ? PICTURE_WITH_PARAMETER_SETS : 0, &size);
    if (size > coded->size)
        return VA_STATUS_ERROR_ENCODING_ERROR;
    memcpy(coded->data, bytes, size);
    coded->segment = (VACodedBufferSegment){.size = (uint32_t)size, .buf = coded->data};
    encoder->surface = NULL;
    return VA_STATUS_SUCCESS;
}

/* Pictures are coded when they end; so what could be waited for is done. */

static VAStatus sync_surface(VADriverContextP context, VASurfaceID surface)
{
    (void)context;
    return object_get(OBJECT_SURFACE, surface) ? VA_STATUS_SUCCESS
                                               : VA_STATUS_ERROR_INVALID_SURFACE;
}

static VAStatus sync_buffer(VADriverContextP context, VABufferID buffer, uint64_t timeout)
{
    (void)context, (void)timeout;
    return object_get(OBJECT_BUFFER, buffer) ? VA_STATUS_SUCCESS : VA_STATUS_ERROR_INVALID_BUFFER;
}

void vaapi_encoder(struct VADriverVTable *table)
{
    table->vaQueryConfigProfiles = query_profiles;
    table->vaQueryConfigEntrypoints = query_entrypoints;
    table->vaGetConfigAttributes = get_attributes;
    table->vaCreateConfig = create_config;
    table->vaDestroyConfig = destroy_config;
    table->vaCreateContext = create_context;
    table->vaDestroyContext = destroy_context;
    table->vaBeginPicture = begin_picture;
    table->vaRenderPicture = render_picture;
    table->vaEndPicture = end_picture;
    table->vaSyncSurface = sync_surface;
    table->vaSyncBuffer = sync_buffer;
}
