#define _GNU_SOURCE
#include "mfx_encoder.h"

#include "mfx_testbed.h"
#include "picture.h"

#include <stdlib.h>
#include <string.h>

/* A frame on its way. It waits for its turn in decoding order without `bitstream`, then with it
 * for the client to ask for the result; the surface is locked until it is coded. */
struct frame {
    mfxFrameSurface1 *surface;
    enum picture_type type;
    int64_t order; /* in display order, from 0 */
    int64_t decode_time;
    mfxBitstream *bitstream;
    int coded;
    struct frame *next;
};

struct queue {
    struct frame *first, **end;
    int length;
};

struct avc_encoder {
    mfxInfoMFX mfx;
    mfxExtCodingOption option;
    mfxExtCodingOption2 option2;
    mfxExtCodingOption3 option3;
    struct picture_writer *writer;
    int session;
    int64_t frames;      /* taken */
    int64_t group_start; /* where the group of pictures began */
    int64_t groups;      /* since the last IDR picture */
    int64_t times[64];   /* of the last frames, by order: decoding times come from them */
    int64_t decoded;     /* how many have their place in decoding order */
    struct queue held;   /* B pictures that wait for the reference after them, in display order */
    struct queue ready;  /* in decoding order, without a bitstream */
    struct queue tasks;  /* with a bitstream */
    int most_tasks;      /* at once */
    char types[1024];    /* of the first pictures, in decoding order */
};

static void push(struct queue *queue, struct frame *frame)
{
    if (!queue->first)
        queue->end = &queue->first;
    frame->next = NULL;
    *queue->end = frame;
    queue->end = &frame->next;
    queue->length++;
}

static struct frame *pop(struct queue *queue)
{
    struct frame *frame = queue->first;
    queue->first = frame->next;
    queue->length--;
    return frame;
}

static int empty(struct queue *queue)
{
    struct frame *frame;
    int count = 0;
    for (; queue->first; free(frame), count++) {
        frame = pop(queue);
        if (!frame->coded)
            frame->surface->Data.Locked--;
    }
    return count;
}

/* Configuration. */

static const void *buffer(const mfxVideoParam *par, mfxU32 id, size_t size)
{
    for (int i = 0; i < par->NumExtParam; i++)
        if (par->ExtParam[i] && par->ExtParam[i]->BufferId == id &&
            par->ExtParam[i]->BufferSz >= size)
            return par->ExtParam[i];
    return NULL;
}

mfxStatus encoder_check(const mfxVideoParam *par)
{
    const mfxFrameInfo *info = &par->mfx.FrameInfo;
    if (par->mfx.CodecId != MFX_CODEC_AVC)
        return MFX_ERR_UNSUPPORTED;
    if (info->FourCC != MFX_FOURCC_NV12 || info->ChromaFormat != MFX_CHROMAFORMAT_YUV420 ||
        par->IOPattern != MFX_IOPATTERN_IN_SYSTEM_MEMORY ||
        info->PicStruct != MFX_PICSTRUCT_PROGRESSIVE)
        return MFX_ERR_INVALID_VIDEO_PARAM;
    if (info->Width == 0 || info->Height == 0 || info->Width % 16 || info->Height % 16 ||
        info->CropX + info->CropW > info->Width || info->CropY + info->CropH > info->Height ||
        info->CropW == 0 || info->CropH == 0 || info->CropW % 2 || info->CropH % 2)
        return MFX_ERR_INVALID_VIDEO_PARAM;
    if (info->FrameRateExtN == 0 || info->FrameRateExtD == 0 || par->mfx.TargetUsage > 7 ||
        par->mfx.GopRefDist > 16)
        return MFX_ERR_INVALID_VIDEO_PARAM;
    if (par->mfx.RateControlMethod == MFX_RATECONTROL_ICQ &&
        (par->mfx.ICQQuality < 1 || par->mfx.ICQQuality > 51))
        return MFX_ERR_INVALID_VIDEO_PARAM;
    return MFX_ERR_NONE;
}

static int b_frames(const struct avc_encoder *encoder)
{
    return encoder->mfx.GopRefDist > 1 ? encoder->mfx.GopRefDist - 1 : 0;
}

static struct picture_writer *writer_for(const struct avc_encoder *encoder, const mfxVideoParam *par)
{
    const mfxFrameInfo *info = &par->mfx.FrameInfo;
    const mfxExtVideoSignalInfo *colour =
        buffer(par, MFX_EXTBUFF_VIDEO_SIGNAL_INFO, sizeof *colour);
    int profile = par->mfx.CodecProfile & 0xff; /* above are constraint flags */
    struct picture_format format = {
        .width = info->CropW,
        .height = info->CropH,
        .b_frames = b_frames(encoder),
        .profile_idc = profile ? profile : MFX_PROFILE_AVC_HIGH,
        .level_idc = par->mfx.CodecLevel,
        .fps_num = (int)info->FrameRateExtN,
        .fps_den = (int)info->FrameRateExtD,
    };
    if (colour) {
        format.full_range_told = 1;
        format.full_range = colour->VideoFullRange != 0;
        format.colour_described = colour->ColourDescriptionPresent != 0;
        format.primaries = colour->ColourPrimaries;
        format.transfer = colour->TransferCharacteristics;
        format.matrix = colour->MatrixCoefficients;
    }
    return picture_writer_new(&format);
}

static void log_configuration(const struct avc_encoder *encoder, const mfxVideoParam *par)
{
    const mfxInfoMFX *mfx = &par->mfx;
    const mfxFrameInfo *info = &mfx->FrameInfo;
    const mfxExtVideoSignalInfo *colour =
        buffer(par, MFX_EXTBUFF_VIDEO_SIGNAL_INFO, sizeof *colour);
    char fourcc[5] = {0};
    memcpy(fourcc, &info->FourCC, 4);
    log_event("initialized",
              "\"session\":%d,\"width\":%d,\"height\":%d,\"crop\":[%d,%d,%d,%d],"
              "\"fourcc\":\"%s\",\"frame_rate\":[%u,%u],\"profile\":%d,\"level\":%d,"
              "\"target_usage\":%d,\"gop_pic_size\":%d,\"gop_ref_dist\":%d,\"idr_interval\":%d,"
              "\"rate_control\":%d,\"quality\":[%d,%d,%d],\"low_power\":%d,\"async_depth\":%d,"
              "\"look_ahead_depth\":%d,\"colour\":[%d,%d,%d,%d]",
              encoder->session, info->Width, info->Height, info->CropX, info->CropY, info->CropW,
              info->CropH, fourcc, info->FrameRateExtN, info->FrameRateExtD, mfx->CodecProfile,
              mfx->CodecLevel, mfx->TargetUsage, mfx->GopPicSize, mfx->GopRefDist,
              mfx->IdrInterval, mfx->RateControlMethod, mfx->QPI, mfx->QPP, mfx->QPB,
              mfx->LowPower, par->AsyncDepth, encoder->option2.LookAheadDepth,
              colour ? colour->ColourPrimaries : 2, colour ? colour->TransferCharacteristics : 2,
              colour ? colour->MatrixCoefficients : 2, colour ? colour->VideoFullRange : 0);
}

/* Keeps a copy of a client's buffer, to give back what is in force. */
#define KEEP(field, id)                                                                            \
    do {                                                                                           \
        const void *given = buffer(par, id, sizeof encoder->field);                                \
        if (given)                                                                                 \
            memcpy(&encoder->field, given, sizeof encoder->field);                                 \
        encoder->field.Header = (mfxExtBuffer){id, sizeof encoder->field};                         \
    } while (0)

mfxStatus encoder_new(const mfxVideoParam *par, int session, struct avc_encoder **result)
{
    struct avc_encoder *encoder = calloc(1, sizeof *encoder);
    if (!encoder)
        return MFX_ERR_MEMORY_ALLOC;
    encoder->mfx = par->mfx;
    encoder->session = session;
    KEEP(option, MFX_EXTBUFF_CODING_OPTION);
    KEEP(option2, MFX_EXTBUFF_CODING_OPTION2);
    KEEP(option3, MFX_EXTBUFF_CODING_OPTION3);
    /* A coded picture is its samples, escaped at worst by half, and headers. */
    const mfxFrameInfo *info = &par->mfx.FrameInfo;
    size_t kilobytes = (size_t)info->Width * info->Height * 9 / 4 / 1000 + 16;
    encoder->mfx.BRCParamMultiplier = (mfxU16)(kilobytes / 0xffff + 1);
    encoder->mfx.BufferSizeInKB = (mfxU16)(kilobytes / encoder->mfx.BRCParamMultiplier + 1);
    log_configuration(encoder, par);
    mfxStatus status = encoder_check(par);
    if (status == MFX_ERR_NONE)
        status = (mfxStatus)fault_at("init", 0);
    if (status == MFX_ERR_NONE) {
        encoder->writer = writer_for(encoder, par);
        if (!encoder->writer)
            status = MFX_ERR_INVALID_VIDEO_PARAM;
    }
    if (status != MFX_ERR_NONE) {
        free(encoder);
        return status;
    }
    *result = encoder;
    return MFX_ERR_NONE;
}

static mfxStatus copy_out(mfxU8 *to, mfxU16 *room, const uint8_t *from, size_t size)
{
    if (!to || *room < size)
        return MFX_ERR_NOT_ENOUGH_BUFFER;
    memcpy(to, from, size);
    *room = (mfxU16)size;
    return MFX_ERR_NONE;
}

static mfxStatus give_parameter_sets(struct avc_encoder *encoder, mfxExtCodingOptionSPSPPS *to)
{
    size_t size;
    const uint8_t *sps = picture_parameter_sets(encoder->writer, &size);
    const uint8_t *pps = memmem(sps + 4, size - 4, "\0\0\0\1", 4);
    mfxStatus status = copy_out(to->SPSBuffer, &to->SPSBufSize, sps, (size_t)(pps - sps));
    if (status != MFX_ERR_NONE)
        return status;
    return copy_out(to->PPSBuffer, &to->PPSBufSize, pps, size - (size_t)(pps - sps));
}

mfxStatus encoder_describe(struct avc_encoder *encoder, mfxVideoParam *par)
{
    par->mfx = encoder->mfx;
    const mfxExtBuffer *kept[] = {&encoder->option.Header, &encoder->option2.Header,
                                  &encoder->option3.Header};
    for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
        void *to = (void *)buffer(par, kept[i]->BufferId, kept[i]->BufferSz);
        if (to)
            memcpy(to, kept[i], kept[i]->BufferSz);
    }
    void *sets = (void *)buffer(par, MFX_EXTBUFF_CODING_OPTION_SPSPPS,
                                sizeof(mfxExtCodingOptionSPSPPS));
    return sets ? give_parameter_sets(encoder, sets) : MFX_ERR_NONE;
}

/* The order of pictures. */

static enum picture_type type_of(struct avc_encoder *encoder, const mfxEncodeCtrl *ctrl)
{
    const mfxInfoMFX *mfx = &encoder->mfx;
    int64_t place = encoder->frames - encoder->group_start;
    int wanted = ctrl ? ctrl->FrameType : 0;
    int new_group = mfx->GopPicSize > 0 && place >= mfx->GopPicSize;
    if (encoder->frames == 0 || wanted & MFX_FRAMETYPE_IDR ||
        (new_group && encoder->groups >= mfx->IdrInterval)) {
        encoder->group_start = encoder->frames;
        encoder->groups = 0;
        return PICTURE_IDR;
    }
    if (new_group || wanted & MFX_FRAMETYPE_I) {
        encoder->group_start = encoder->frames;
        encoder->groups += new_group;
        return PICTURE_I;
    }
    return place % (b_frames(encoder) + 1) == 0 ? PICTURE_P : PICTURE_B;
}

static int64_t time_of(const struct avc_encoder *encoder, int64_t order)
{
    return encoder->times[order % (int)(sizeof encoder->times / sizeof *encoder->times)];
}

/* Gives a frame its place in decoding order. With B pictures, decoding is one frame ahead. */
static void decode_next(struct avc_encoder *encoder, struct frame *frame)
{
    const mfxFrameInfo *info = &encoder->mfx.FrameInfo;
    int64_t index = encoder->decoded++;
    if (b_frames(encoder) == 0)
        frame->decode_time = time_of(encoder, index);
    else if (index > 0)
        frame->decode_time = time_of(encoder, index - 1);
    else
        frame->decode_time = time_of(encoder, 0) -
                             (int64_t)90000 * info->FrameRateExtD / info->FrameRateExtN;
    push(&encoder->ready, frame);
}

/* The held B pictures have no reference after them: the last becomes one. */
static void close_group(struct avc_encoder *encoder)
{
    struct queue held = encoder->held;
    encoder->held = (struct queue){0};
    if (!held.first)
        return;
    struct queue before = {0};
    while (held.length > 1)
        push(&before, pop(&held));
    struct frame *last = pop(&held);
    last->type = PICTURE_P;
    decode_next(encoder, last);
    while (before.first)
        decode_next(encoder, pop(&before));
}

static void place(struct avc_encoder *encoder, struct frame *frame)
{
    if (frame->type == PICTURE_B) {
        push(&encoder->held, frame);
        return;
    }
    if (frame->type == PICTURE_IDR)
        close_group(encoder);
    decode_next(encoder, frame);
    while (encoder->held.first)
        decode_next(encoder, pop(&encoder->held));
}

/* Work. */

static mfxStatus check_surface(const struct avc_encoder *encoder, const mfxFrameSurface1 *surface)
{
    const mfxFrameInfo *info = &surface->Info, *wanted = &encoder->mfx.FrameInfo;
    size_t pitch = (size_t)surface->Data.PitchHigh << 16 | surface->Data.PitchLow;
    if (!surface->Data.Y || !surface->Data.UV)
        violation("surface without samples");
    else if (info->FourCC != wanted->FourCC || info->Width != wanted->Width ||
             info->Height != wanted->Height)
        violation("surface of %dx%d in an encoder of %dx%d", info->Width, info->Height,
                  wanted->Width, wanted->Height);
    else if (pitch < wanted->Width)
        violation("pitch %zu for width %d", pitch, wanted->Width);
    else
        return MFX_ERR_NONE;
    return MFX_ERR_UNDEFINED_BEHAVIOR;
}

static mfxStatus take(struct avc_encoder *encoder, const mfxEncodeCtrl *ctrl,
                      mfxFrameSurface1 *surface)
{
    mfxStatus status = check_surface(encoder, surface);
    if (status == MFX_ERR_NONE)
        status = (mfxStatus)fault_at("encode", encoder->frames);
    if (status != MFX_ERR_NONE)
        return status;
    struct frame *frame = calloc(1, sizeof *frame);
    if (!frame)
        return MFX_ERR_MEMORY_ALLOC;
    frame->surface = surface;
    frame->type = type_of(encoder, ctrl);
    frame->order = encoder->frames++;
    encoder->times[frame->order % (int)(sizeof encoder->times / sizeof *encoder->times)] =
        (int64_t)surface->Data.TimeStamp;
    surface->Data.Locked++;
    if (ctrl && ctrl->FrameType)
        log_event("forced", "\"session\":%d,\"frame\":%ld,\"frame_type\":%d", encoder->session,
                  (long)frame->order, ctrl->FrameType);
    place(encoder, frame);
    return MFX_ERR_NONE;
}

mfxStatus encoder_submit(struct avc_encoder *encoder, const mfxEncodeCtrl *ctrl,
                         mfxFrameSurface1 *surface, mfxBitstream *bs, mfxSyncPoint *syncp)
{
    *syncp = NULL;
    if (surface) {
        mfxStatus status = take(encoder, ctrl, surface);
        if (status != MFX_ERR_NONE)
            return status;
    } else {
        close_group(encoder);
    }
    if (!encoder->ready.first)
        return MFX_ERR_MORE_DATA;
    size_t room = (size_t)encoder->mfx.BufferSizeInKB * encoder->mfx.BRCParamMultiplier * 1000;
    if (bs->MaxLength - bs->DataOffset - bs->DataLength < room)
        return MFX_ERR_NOT_ENOUGH_BUFFER;
    struct frame *frame = pop(&encoder->ready);
    frame->bitstream = bs;
    push(&encoder->tasks, frame);
    if (encoder->tasks.length > encoder->most_tasks)
        encoder->most_tasks = encoder->tasks.length;
    *syncp = (mfxSyncPoint)frame;
    return MFX_ERR_NONE;
}

static void fill_info(const struct avc_encoder *encoder, const struct frame *frame)
{
    mfxBitstream *bs = frame->bitstream;
    for (int i = 0; i < bs->NumExtParam; i++) {
        if (bs->ExtParam[i]->BufferId != MFX_EXTBUFF_ENCODED_FRAME_INFO)
            continue;
        mfxExtAVCEncodedFrameInfo *info = (mfxExtAVCEncodedFrameInfo *)bs->ExtParam[i];
        info->FrameOrder = (mfxU32)frame->order;
        info->QP = encoder->mfx.QPP;
    }
}

static void code(struct avc_encoder *encoder, struct frame *frame)
{
    static const mfxU16 types[] = {
        [PICTURE_IDR] = MFX_FRAMETYPE_IDR | MFX_FRAMETYPE_I | MFX_FRAMETYPE_REF,
        [PICTURE_I] = MFX_FRAMETYPE_I | MFX_FRAMETYPE_REF,
        [PICTURE_P] = MFX_FRAMETYPE_P | MFX_FRAMETYPE_REF,
        [PICTURE_B] = MFX_FRAMETYPE_B,
    };
    const mfxFrameData *data = &frame->surface->Data;
    const mfxFrameInfo *info = &encoder->mfx.FrameInfo;
    size_t pitch = (size_t)data->PitchHigh << 16 | data->PitchLow;
    const uint8_t *chroma = data->UV + pitch * (info->CropY / 2) + info->CropX / 2 * 2;
    struct picture_planes planes = {
        .data = {data->Y + pitch * info->CropY + info->CropX, chroma, chroma + 1},
        .stride = {pitch, pitch, pitch},
        .chroma_step = 2,
    };
    int with = frame->type == PICTURE_IDR ? PICTURE_WITH_PARAMETER_SETS : 0;
    if (encoder->option.AUDelimiter == MFX_CODINGOPTION_ON)
        with |= PICTURE_WITH_DELIMITER;
    pause_for(spec_number("frame_ms", 0));
    size_t size;
    const uint8_t *bytes =
        picture_write(encoder->writer, &planes, frame->type, frame->order, with, &size);
    mfxBitstream *bs = frame->bitstream;
    memcpy(bs->Data + bs->DataOffset + bs->DataLength, bytes, size);
    bs->DataLength += (mfxU32)size;
    bs->TimeStamp = data->TimeStamp;
    bs->DecodeTimeStamp = frame->decode_time;
    bs->PicStruct = MFX_PICSTRUCT_PROGRESSIVE;
    bs->FrameType = types[frame->type];
    fill_info(encoder, frame);
    size_t coded = strlen(encoder->types);
    if (coded + 1 < sizeof encoder->types)
        encoder->types[coded] = "IiPB"[frame->type];
    frame->surface->Data.Locked--;
    frame->coded = 1;
}

mfxStatus encoder_sync(struct avc_encoder *encoder, mfxSyncPoint syncp)
{
    struct frame *wanted = encoder->tasks.first;
    while (wanted && wanted != (struct frame *)syncp)
        wanted = wanted->next;
    if (!wanted) {
        violation("synchronization with no task");
        return MFX_ERR_INVALID_HANDLE;
    }
    /* In decoding order, whatever the client asks for first. */
    for (struct frame *frame = encoder->tasks.first;; frame = frame->next) {
        if (!frame->coded) {
            int status = fault_at("sync", frame->order);
            if (status)
                return (mfxStatus)status;
            code(encoder, frame);
        }
        if (frame == wanted)
            break;
    }
    struct frame **at = &encoder->tasks.first;
    while (*at != wanted)
        at = &(*at)->next;
    *at = wanted->next;
    if (!wanted->next)
        encoder->tasks.end = at;
    encoder->tasks.length--;
    free(wanted);
    return MFX_ERR_NONE;
}

int encoder_free(struct avc_encoder *encoder)
{
    int left = empty(&encoder->held) + empty(&encoder->ready) + empty(&encoder->tasks);
    log_event("finished", "\"session\":%d,\"frames\":%ld,\"left\":%d,\"most_tasks\":%d,"
              "\"types\":\"%s\"",
              encoder->session, (long)encoder->frames, left, encoder->most_tasks, encoder->types);
    picture_writer_free(encoder->writer);
    free(encoder);
    return left;
}
