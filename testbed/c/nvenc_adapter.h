/* One version of the encode API: checks the version word of every struct that arrives, as the
 * vendor's header lays it out, and passes its fields on to the device. Included by a file that
 * has included the header and has defined
 *
 * NVENC_FILL   the name of the function here that fills a function list
 * NVENC_API    the version in words */
#include "log.h"
#include "nvenc_core.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

_Static_assert((int)UNSUPPORTED_DEVICE == NV_ENC_ERR_UNSUPPORTED_DEVICE &&
                   (int)INVALID_ENCODERDEVICE == NV_ENC_ERR_INVALID_ENCODERDEVICE &&
                   (int)INVALID_PTR == NV_ENC_ERR_INVALID_PTR &&
                   (int)INVALID_PARAM == NV_ENC_ERR_INVALID_PARAM &&
                   (int)INVALID_CALL == NV_ENC_ERR_INVALID_CALL &&
                   (int)OUT_OF_MEMORY == NV_ENC_ERR_OUT_OF_MEMORY &&
                   (int)ENCODER_NOT_INITIALIZED == NV_ENC_ERR_ENCODER_NOT_INITIALIZED &&
                   (int)UNSUPPORTED_PARAM == NV_ENC_ERR_UNSUPPORTED_PARAM &&
                   (int)LOCK_BUSY == NV_ENC_ERR_LOCK_BUSY &&
                   (int)INVALID_VERSION == NV_ENC_ERR_INVALID_VERSION &&
                   (int)NEED_MORE_INPUT == NV_ENC_ERR_NEED_MORE_INPUT &&
                   (int)UNIMPLEMENTED == NV_ENC_ERR_UNIMPLEMENTED,
               "status codes");
_Static_assert((int)NV12 == NV_ENC_BUFFER_FORMAT_NV12 && (int)YV12 == NV_ENC_BUFFER_FORMAT_YV12 &&
                   (int)IYUV == NV_ENC_BUFFER_FORMAT_IYUV &&
                   (int)YUV444 == NV_ENC_BUFFER_FORMAT_YUV444,
               "formats");
_Static_assert((int)FORCE_INTRA == NV_ENC_PIC_FLAG_FORCEINTRA &&
                   (int)FORCE_IDR == NV_ENC_PIC_FLAG_FORCEIDR &&
                   (int)OUTPUT_SPSPPS == NV_ENC_PIC_FLAG_OUTPUT_SPSPPS &&
                   (int)END_OF_STREAM == NV_ENC_PIC_FLAG_EOS,
               "flags");

/* Gives `session` for the handle `encoder`, or returns from the function. */
#define SESSION(call)                                                                              \
    struct session *session = session_of(encoder, call);                                           \
    if (!session)                                                                                  \
        return NV_ENC_ERR_INVALID_ENCODERDEVICE;

/* Returns from the function when the struct is not of the version that `word` tells. */
#define VERSION(params, word, call)                                                                \
    if (!(params))                                                                                 \
        return (NVENCSTATUS)misuse(session, INVALID_PTR, call ": no parameters");                  \
    if ((params)->version != (uint32_t)(word))                                                     \
        return (NVENCSTATUS)misuse(session, INVALID_VERSION, call ": version %08x, not %08x",      \
                                   (params)->version, (uint32_t)(word));

static int same(const GUID *a, const GUID *b)
{
    return memcmp(a, b, sizeof *a) == 0;
}

/* Names. */

static int preset_number(GUID guid)
{
    const GUID presets[7] = {NV_ENC_PRESET_P1_GUID, NV_ENC_PRESET_P2_GUID, NV_ENC_PRESET_P3_GUID,
                             NV_ENC_PRESET_P4_GUID, NV_ENC_PRESET_P5_GUID, NV_ENC_PRESET_P6_GUID,
                             NV_ENC_PRESET_P7_GUID};
    for (int i = 0; i < 7; i++)
        if (same(&guid, &presets[i]))
            return i + 1;
    return 0;
}

static const char *tuning_name(NV_ENC_TUNING_INFO tuning)
{
    switch ((int)tuning) {
    case NV_ENC_TUNING_INFO_HIGH_QUALITY:
        return "hq";
    case NV_ENC_TUNING_INFO_LOW_LATENCY:
        return "ll";
    case NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY:
        return "ull";
    case NV_ENC_TUNING_INFO_LOSSLESS:
        return "lossless";
#if NVENCAPI_MAJOR_VERSION >= 13
    case NV_ENC_TUNING_INFO_ULTRA_HIGH_QUALITY:
        return "uhq";
#endif
    default:
        return NULL;
    }
}

static const char *rate_control_name(NV_ENC_PARAMS_RC_MODE mode)
{
    return mode == NV_ENC_PARAMS_RC_CONSTQP ? "constqp"
           : mode == NV_ENC_PARAMS_RC_VBR   ? "vbr"
           : mode == NV_ENC_PARAMS_RC_CBR   ? "cbr"
                                            : NULL;
}

static int profile_of(GUID guid, int chroma_444, const char **name)
{
    struct {
        GUID guid;
        int idc;
        const char *name;
    } profiles[] = {{NV_ENC_H264_PROFILE_BASELINE_GUID, 66, "baseline"},
                    {NV_ENC_H264_PROFILE_MAIN_GUID, 77, "main"},
                    {NV_ENC_H264_PROFILE_HIGH_GUID, 100, "high"},
                    {NV_ENC_H264_PROFILE_HIGH_444_GUID, 244, "high444p"},
                    {NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID, chroma_444 ? 244 : 100, "auto"}};
    for (size_t i = 0; i < sizeof profiles / sizeof *profiles; i++)
        if (same(&guid, &profiles[i].guid)) {
            *name = profiles[i].name;
            return profiles[i].idc;
        }
    return 0;
}

/* Capabilities: the names in the spec are cap_NAME. What is not here is 0. */

static int capability(NV_ENC_CAPS cap)
{
    static const struct {
        NV_ENC_CAPS cap;
        const char *key;
        int value;
    } caps[] = {{NV_ENC_CAPS_NUM_MAX_BFRAMES, "cap_b_frames", 4},
                {NV_ENC_CAPS_SUPPORTED_RATECONTROL_MODES, "cap_rate_control", 63},
                {NV_ENC_CAPS_SUPPORT_CABAC, "cap_cabac", 1},
                {NV_ENC_CAPS_LEVEL_MAX, "cap_level_max", 62},
                {NV_ENC_CAPS_LEVEL_MIN, "cap_level_min", 10},
                {NV_ENC_CAPS_WIDTH_MAX, "cap_width_max", 4096},
                {NV_ENC_CAPS_HEIGHT_MAX, "cap_height_max", 4096},
                {NV_ENC_CAPS_WIDTH_MIN, "cap_width_min", 145},
                {NV_ENC_CAPS_HEIGHT_MIN, "cap_height_min", 49},
                {NV_ENC_CAPS_MB_NUM_MAX, "cap_macroblocks", 65536},
                {NV_ENC_CAPS_MB_PER_SEC_MAX, "cap_macroblocks_per_second", 983040},
                {NV_ENC_CAPS_SUPPORT_YUV444_ENCODE, "cap_yuv444", 1},
                {NV_ENC_CAPS_SUPPORT_LOSSLESS_ENCODE, "cap_lossless", 1},
                {NV_ENC_CAPS_SUPPORT_10BIT_ENCODE, "cap_ten_bit", 0},
                {NV_ENC_CAPS_SUPPORT_LOOKAHEAD, "cap_lookahead", 1},
                {NV_ENC_CAPS_SUPPORT_TEMPORAL_AQ, "cap_temporal_aq", 1},
                {NV_ENC_CAPS_SUPPORT_WEIGHTED_PREDICTION, "cap_weighted_prediction", 1},
                {NV_ENC_CAPS_SUPPORT_BFRAME_REF_MODE, "cap_b_reference", 3},
                {NV_ENC_CAPS_SUPPORT_MULTIPLE_REF_FRAMES, "cap_references", 1},
                {NV_ENC_CAPS_SUPPORT_DYN_BITRATE_CHANGE, "cap_dynamic_bitrate", 1},
                {NV_ENC_CAPS_SUPPORT_CUSTOM_VBV_BUF_SIZE, "cap_vbv", 1},
                {NV_ENC_CAPS_NUM_ENCODER_ENGINES, "cap_engines", 1}};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++)
        if (caps[i].cap == cap)
            return (int)spec_number(caps[i].key, caps[i].value);
    return 0;
}

static NVENCSTATUS get_caps(void *encoder, GUID codec, NV_ENC_CAPS_PARAM *params, int *value)
{
    SESSION("GetEncodeCaps")
    VERSION(params, NV_ENC_CAPS_PARAM_VER, "GetEncodeCaps")
    if (!same(&codec, &NV_ENC_CODEC_H264_GUID))
        return (NVENCSTATUS)refuse(session, INVALID_PARAM, "The device encodes H.264 only.");
    *value = capability(params->capsToQuery);
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS get_codec_count(void *encoder, uint32_t *count)
{
    SESSION("GetEncodeGUIDCount")
    *count = 1;
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS get_codecs(void *encoder, GUID *guids, uint32_t size, uint32_t *count)
{
    SESSION("GetEncodeGUIDs")
    if (size < 1)
        return (NVENCSTATUS)misuse(session, INVALID_PARAM, "GetEncodeGUIDs: no room");
    guids[0] = NV_ENC_CODEC_H264_GUID;
    *count = 1;
    return NV_ENC_SUCCESS;
}

/* Presets. Their contents are made up, in the manner of real ones. */

static void fill_preset(NV_ENC_CONFIG *config, int preset, NV_ENC_TUNING_INFO tuning)
{
    int quality = tuning != NV_ENC_TUNING_INFO_LOW_LATENCY &&
                  tuning != NV_ENC_TUNING_INFO_ULTRA_LOW_LATENCY;
    memset(config, 0, sizeof *config);
    config->version = NV_ENC_CONFIG_VER;
    config->profileGUID = NV_ENC_CODEC_PROFILE_AUTOSELECT_GUID;
    config->gopLength = quality ? 250 : NVENC_INFINITE_GOPLENGTH;
    config->frameIntervalP = tuning == NV_ENC_TUNING_INFO_HIGH_QUALITY && preset >= 4 ? 3 : 1;
    config->frameFieldMode = NV_ENC_PARAMS_FRAME_FIELD_MODE_FRAME;
    config->mvPrecision = NV_ENC_MV_PRECISION_QUARTER_PEL;
    NV_ENC_RC_PARAMS *rc = &config->rcParams;
    rc->version = NV_ENC_RC_PARAMS_VER;
    rc->rateControlMode = tuning == NV_ENC_TUNING_INFO_LOSSLESS ? NV_ENC_PARAMS_RC_CONSTQP
                          : quality                             ? NV_ENC_PARAMS_RC_VBR
                                                                : NV_ENC_PARAMS_RC_CBR;
    rc->zeroReorderDelay = !quality;
    rc->multiPass = preset >= 5 && quality ? NV_ENC_TWO_PASS_QUARTER_RESOLUTION
                                           : NV_ENC_MULTI_PASS_DISABLED;
    NV_ENC_CONFIG_H264 *h264 = &config->encodeCodecConfig.h264Config;
    h264->idrPeriod = config->gopLength;
    h264->chromaFormatIDC = 1;
#if NVENCAPI_MAJOR_VERSION >= 13
    h264->inputBitDepth = h264->outputBitDepth = NV_ENC_BIT_DEPTH_8;
#endif
}

static NVENCSTATUS get_preset(void *encoder, GUID codec, GUID preset, NV_ENC_TUNING_INFO tuning,
                              NV_ENC_PRESET_CONFIG *params)
{
    SESSION("GetEncodePresetConfigEx")
    VERSION(params, NV_ENC_PRESET_CONFIG_VER, "GetEncodePresetConfigEx")
    if (params->presetCfg.version != (uint32_t)NV_ENC_CONFIG_VER)
        return (NVENCSTATUS)misuse(session, INVALID_VERSION,
                                   "GetEncodePresetConfigEx: version %08x of the configuration",
                                   params->presetCfg.version);
    int code = fault_at("preset", 0);
    if (code != 0)
        return (NVENCSTATUS)code;
    if (!same(&codec, &NV_ENC_CODEC_H264_GUID) || !preset_number(preset) || !tuning_name(tuning))
        return (NVENCSTATUS)refuse(session, UNSUPPORTED_PARAM, "No such preset.");
    fill_preset(&params->presetCfg, preset_number(preset), tuning);
    return NV_ENC_SUCCESS;
}

/* Sessions. */

static NVENCSTATUS open_session(NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS *params, void **encoder)
{
    if (!params || !encoder)
        return NV_ENC_ERR_INVALID_PTR;
    if (params->version != NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER ||
        params->apiVersion != NVENCAPI_VERSION) {
        violation("OpenEncodeSessionEx: version %08x, API %08x", params->version,
                  params->apiVersion);
        return NV_ENC_ERR_INVALID_VERSION;
    }
    if (params->deviceType != NV_ENC_DEVICE_TYPE_CUDA)
        return NV_ENC_ERR_UNSUPPORTED_DEVICE;
    struct session *session = NULL;
    enum status status = session_open(params->device, NVENC_API, &session);
    *encoder = session;
    return (NVENCSTATUS)status;
}

static NVENCSTATUS destroy_encoder(void *encoder)
{
    SESSION("DestroyEncoder")
    return (NVENCSTATUS)session_close(session);
}

static const char *last_error(void *encoder)
{
    struct session *session = session_of(encoder, "GetLastErrorString");
    return session ? session->error : "no session";
}

static void take_vui(struct config *to, const NV_ENC_CONFIG_H264_VUI_PARAMETERS *vui)
{
    to->signal_told = vui->videoSignalTypePresentFlag != 0;
    to->full_range = vui->videoFullRangeFlag != 0;
    to->colour_told = to->signal_told && vui->colourDescriptionPresentFlag;
    to->primaries = (int)vui->colourPrimaries;
    to->transfer = (int)vui->transferCharacteristics;
    to->matrix = (int)vui->colourMatrix;
}

static void take_rate_control(struct config *to, const NV_ENC_RC_PARAMS *rc)
{
    to->rate_control = rate_control_name(rc->rateControlMode);
    to->bitrate = rc->averageBitRate;
    to->max_bitrate = rc->maxBitRate;
    to->vbv_size = rc->vbvBufferSize;
    to->target_quality = rc->targetQuality + rc->targetQualityLSB / 256.0;
    to->qp_i = (int)rc->constQP.qpIntra;
    to->qp_p = (int)rc->constQP.qpInterP;
    to->qp_b = (int)rc->constQP.qpInterB;
    to->lookahead = rc->enableLookahead ? rc->lookaheadDepth : 0;
    to->spatial_aq = rc->enableAQ;
    to->temporal_aq = rc->enableTemporalAQ;
    to->aq_strength = (int)rc->aqStrength;
    to->zero_reorder_delay = rc->zeroReorderDelay;
    to->multipass = (int)rc->multiPass;
}

static struct config config_of(const NV_ENC_INITIALIZE_PARAMS *params, const NV_ENC_CONFIG *from)
{
    static const char *const presets[8] = {NULL, "p1", "p2", "p3", "p4", "p5", "p6", "p7"};
    const NV_ENC_CONFIG_H264 *h264 = &from->encodeCodecConfig.h264Config;
    struct config to = {
        .preset = presets[preset_number(params->presetGUID)],
        .tuning = tuning_name(params->tuningInfo),
        .width = (int)params->encodeWidth,
        .height = (int)params->encodeHeight,
        .fps_num = (int)params->frameRateNum,
        .fps_den = (int)params->frameRateDen,
        .gop_length = from->gopLength,
        .idr_period = h264->idrPeriod,
        .frame_interval_p = from->frameIntervalP,
        .level = (int)h264->level,
        .chroma_444 = h264->chromaFormatIDC == 3,
        .in_band_headers = !h264->disableSPSPPS,
        .repeat_headers = h264->repeatSPSPPS,
        .delimiters = h264->outputAUD,
        .weighted_prediction = params->enableWeightedPrediction,
    };
    to.profile_idc = profile_of(from->profileGUID, to.chroma_444, &to.profile);
    take_rate_control(&to, &from->rcParams);
    take_vui(&to, &h264->h264VUIParameters);
    return to;
}

static NVENCSTATUS initialize(void *encoder, NV_ENC_INITIALIZE_PARAMS *params)
{
    SESSION("InitializeEncoder")
    VERSION(params, NV_ENC_INITIALIZE_PARAMS_VER, "InitializeEncoder")
    NV_ENC_CONFIG preset;
    const NV_ENC_CONFIG *config = params->encodeConfig;
    if (!config) {
        fill_preset(&preset, preset_number(params->presetGUID), params->tuningInfo);
        config = &preset;
    }
    if (config->version != (uint32_t)NV_ENC_CONFIG_VER ||
        config->rcParams.version != (uint32_t)NV_ENC_RC_PARAMS_VER)
        return (NVENCSTATUS)misuse(session, INVALID_VERSION,
                                   "InitializeEncoder: version %08x, rate control %08x",
                                   config->version, config->rcParams.version);
    if (!same(&params->encodeGUID, &NV_ENC_CODEC_H264_GUID))
        return (NVENCSTATUS)refuse(session, UNSUPPORTED_PARAM, "The device encodes H.264 only.");
    if (!params->enablePTD || params->enableEncodeAsync)
        return (NVENCSTATUS)refuse(session, UNSUPPORTED_PARAM,
                                   "Picture types of one's own and events are not supported.");
    struct config plain = config_of(params, config);
    if (!plain.preset || !plain.tuning || !plain.profile || !plain.rate_control)
        return (NVENCSTATUS)refuse(session, UNSUPPORTED_PARAM,
                                   "No such preset, tuning, profile or rate control.");
    if (plain.chroma_444 && !capability(NV_ENC_CAPS_SUPPORT_YUV444_ENCODE))
        return (NVENCSTATUS)refuse(session, UNSUPPORTED_PARAM, "4:4:4 is not supported.");
    if (plain.level != 0 && plain.level != NV_ENC_LEVEL_H264_1b &&
        (plain.level < capability(NV_ENC_CAPS_LEVEL_MIN) ||
         plain.level > capability(NV_ENC_CAPS_LEVEL_MAX)))
        return (NVENCSTATUS)refuse(session, INVALID_PARAM, "Level out of range.");
    struct limits limits = {
        .width_min = capability(NV_ENC_CAPS_WIDTH_MIN),
        .width_max = capability(NV_ENC_CAPS_WIDTH_MAX),
        .height_min = capability(NV_ENC_CAPS_HEIGHT_MIN),
        .height_max = capability(NV_ENC_CAPS_HEIGHT_MAX),
        .b_frames = capability(NV_ENC_CAPS_NUM_MAX_BFRAMES),
    };
    return (NVENCSTATUS)session_initialize(session, &plain, &limits);
}

static NVENCSTATUS reconfigure(void *encoder, NV_ENC_RECONFIGURE_PARAMS *params)
{
    SESSION("ReconfigureEncoder")
    VERSION(params, NV_ENC_RECONFIGURE_PARAMS_VER, "ReconfigureEncoder")
    const NV_ENC_INITIALIZE_PARAMS *again = &params->reInitEncodeParams;
    if ((int)again->encodeWidth != session->config.width ||
        (int)again->encodeHeight != session->config.height)
        return (NVENCSTATUS)refuse(session, INVALID_PARAM, "The size cannot change.");
    log_event("reconfigured", "\"bitrate\":%u",
              again->encodeConfig ? again->encodeConfig->rcParams.averageBitRate : 0);
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS set_streams(void *encoder, NV_ENC_CUSTREAM_PTR in, NV_ENC_CUSTREAM_PTR out)
{
    SESSION("SetIOCudaStreams")
    if (!in || !out)
        return (NVENCSTATUS)misuse(session, INVALID_PTR, "SetIOCudaStreams: no streams");
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS get_headers(void *encoder, NV_ENC_SEQUENCE_PARAM_PAYLOAD *params)
{
    SESSION("GetSequenceParams")
    VERSION(params, NV_ENC_SEQUENCE_PARAM_PAYLOAD_VER, "GetSequenceParams")
    if (!session->initialized)
        return (NVENCSTATUS)misuse(session, ENCODER_NOT_INITIALIZED, "GetSequenceParams");
    size_t size;
    const uint8_t *bytes = picture_parameter_sets(session->writer, &size);
    if (size > params->inBufferSize)
        return (NVENCSTATUS)refuse(session, INVALID_PARAM, "The buffer is too small.");
    memcpy(params->spsppsBuffer, bytes, size);
    *params->outSPSPPSPayloadSize = (uint32_t)size;
    return NV_ENC_SUCCESS;
}

/* Buffers. */

static NVENCSTATUS create_input(void *encoder, NV_ENC_CREATE_INPUT_BUFFER *params)
{
    SESSION("CreateInputBuffer")
    VERSION(params, NV_ENC_CREATE_INPUT_BUFFER_VER, "CreateInputBuffer")
    struct input *input = NULL;
    enum status status = input_create(session, (enum format)params->bufferFmt, (int)params->width,
                                      (int)params->height, &input);
    params->inputBuffer = input;
    return (NVENCSTATUS)status;
}

static NVENCSTATUS destroy_input(void *encoder, NV_ENC_INPUT_PTR handle)
{
    SESSION("DestroyInputBuffer")
    return (NVENCSTATUS)input_destroy(session, handle, 1);
}

static NVENCSTATUS lock_input(void *encoder, NV_ENC_LOCK_INPUT_BUFFER *params)
{
    SESSION("LockInputBuffer")
    VERSION(params, NV_ENC_LOCK_INPUT_BUFFER_VER, "LockInputBuffer")
    struct input *input = NULL;
    enum status status = input_lock(session, params->inputBuffer, &input);
    if (status == OK) {
        params->bufferDataPtr = input->memory;
        params->pitch = (uint32_t)input->pitch;
    }
    return (NVENCSTATUS)status;
}

static NVENCSTATUS unlock_input(void *encoder, NV_ENC_INPUT_PTR handle)
{
    SESSION("UnlockInputBuffer")
    return (NVENCSTATUS)input_unlock(session, handle);
}

static NVENCSTATUS register_resource(void *encoder, NV_ENC_REGISTER_RESOURCE *params)
{
    SESSION("RegisterResource")
    VERSION(params, NV_ENC_REGISTER_RESOURCE_VER, "RegisterResource")
    if (params->resourceType != NV_ENC_INPUT_RESOURCE_TYPE_CUDADEVICEPTR)
        return (NVENCSTATUS)refuse(session, UNSUPPORTED_PARAM, "CUDA memory only.");
    struct input *input = NULL;
    enum status status = input_register(session, (enum format)params->bufferFormat,
                                        (int)params->width, (int)params->height, params->pitch,
                                        params->resourceToRegister, &input);
    params->registeredResource = input;
    return (NVENCSTATUS)status;
}

static NVENCSTATUS unregister_resource(void *encoder, NV_ENC_REGISTERED_PTR handle)
{
    SESSION("UnregisterResource")
    return (NVENCSTATUS)input_destroy(session, handle, 0);
}

static NVENCSTATUS map_resource(void *encoder, NV_ENC_MAP_INPUT_RESOURCE *params)
{
    SESSION("MapInputResource")
    VERSION(params, NV_ENC_MAP_INPUT_RESOURCE_VER, "MapInputResource")
    struct input *input = NULL;
    enum status status = input_map(session, params->registeredResource, &input);
    if (status == OK) {
        params->mappedResource = input;
        params->mappedBufferFmt = (NV_ENC_BUFFER_FORMAT)input->format;
    }
    return (NVENCSTATUS)status;
}

static NVENCSTATUS unmap_resource(void *encoder, NV_ENC_INPUT_PTR handle)
{
    SESSION("UnmapInputResource")
    return (NVENCSTATUS)input_unmap(session, handle);
}

static NVENCSTATUS create_output(void *encoder, NV_ENC_CREATE_BITSTREAM_BUFFER *params)
{
    SESSION("CreateBitstreamBuffer")
    VERSION(params, NV_ENC_CREATE_BITSTREAM_BUFFER_VER, "CreateBitstreamBuffer")
    struct output *output = NULL;
    enum status status = output_create(session, &output);
    params->bitstreamBuffer = output;
    return (NVENCSTATUS)status;
}

static NVENCSTATUS destroy_output(void *encoder, NV_ENC_OUTPUT_PTR handle)
{
    SESSION("DestroyBitstreamBuffer")
    return (NVENCSTATUS)output_destroy(session, handle);
}

static NVENCSTATUS lock_output(void *encoder, NV_ENC_LOCK_BITSTREAM *params)
{
    SESSION("LockBitstream")
    VERSION(params, NV_ENC_LOCK_BITSTREAM_VER, "LockBitstream")
    struct output *output = NULL;
    enum status status = output_lock(session, params->outputBitstream, &output);
    if (status != OK)
        return (NVENCSTATUS)status;
    params->bitstreamBufferPtr = output->bytes;
    params->bitstreamSizeInBytes = (uint32_t)output->size;
    params->outputTimeStamp = (uint64_t)output->pts;
    params->outputDuration = output->duration;
    params->frameIdx = output->frame_index;
    params->numSlices = 1;
    params->frameAvgQP = 1;
    params->pictureStruct = NV_ENC_PIC_STRUCT_FRAME;
    params->pictureType = output->type == PICTURE_IDR ? NV_ENC_PIC_TYPE_IDR
                          : output->type == PICTURE_I ? NV_ENC_PIC_TYPE_I
                          : output->type == PICTURE_P ? NV_ENC_PIC_TYPE_P
                                                      : NV_ENC_PIC_TYPE_B;
    return NV_ENC_SUCCESS;
}

static NVENCSTATUS unlock_output(void *encoder, NV_ENC_OUTPUT_PTR handle)
{
    SESSION("UnlockBitstream")
    return (NVENCSTATUS)output_unlock(session, handle);
}

/* Pictures. */

static NVENCSTATUS encode(void *encoder, NV_ENC_PIC_PARAMS *params)
{
    SESSION("EncodePicture")
    VERSION(params, NV_ENC_PIC_PARAMS_VER, "EncodePicture")
    if (!session->initialized)
        return (NVENCSTATUS)misuse(session, ENCODER_NOT_INITIALIZED, "EncodePicture");
    if (params->encodePicFlags & NV_ENC_PIC_FLAG_EOS) {
        int code = fault_at("end", 0);
        pictures_flush(session);
        return (NVENCSTATUS)code;
    }
    struct input *input = input_of(session, params->inputBuffer, 1);
    if (!input)
        input = input_of(session, params->inputBuffer, 0);
    struct output *output = output_of(session, params->outputBitstream);
    if (!input || input->locked || (!input->own && !input->mapped))
        return (NVENCSTATUS)misuse(session, INVALID_PARAM,
                                   "EncodePicture: the input does not exist, is locked, or is "
                                   "not mapped");
    if (!output || output->locked || output->state != FREE)
        return (NVENCSTATUS)misuse(session, INVALID_PARAM,
                                   "EncodePicture: the output does not exist or is in use");
    if ((int)params->bufferFmt != (int)input->format ||
        params->pictureStruct != NV_ENC_PIC_STRUCT_FRAME)
        return (NVENCSTATUS)misuse(session, INVALID_PARAM, "EncodePicture: format %x, struct %d",
                                   params->bufferFmt, params->pictureStruct);
    if (params->inputPitch != input->pitch)
        misuse(session, OK, "EncodePicture: pitch %u, not %zu", params->inputPitch, input->pitch);
    int code = fault_at("encode", (long)session->submitted);
    if (code != 0)
        return (NVENCSTATUS)refuse(session, (enum status)code, "Injected.");
    struct submitted picture = {
        .pts = (int64_t)params->inputTimeStamp,
        .duration = params->inputDuration,
        .frame_index = params->frameIdx,
        .flags = params->encodePicFlags,
    };
    return (NVENCSTATUS)pictures_submit(session, input, output, &picture);
}

static NVENCSTATUS unimplemented(void)
{
    violation("a function of the encode API that is not part of the virtual device");
    return NV_ENC_ERR_UNIMPLEMENTED;
}

int NVENC_FILL(void *handed)
{
    NV_ENCODE_API_FUNCTION_LIST *list = handed;
    if (list->version != NV_ENCODE_API_FUNCTION_LIST_VER)
        return 0;
    NVENCSTATUS (*other)(void) = unimplemented;
    size_t end = offsetof(NV_ENCODE_API_FUNCTION_LIST, reserved2);
    for (size_t at = offsetof(NV_ENCODE_API_FUNCTION_LIST, nvEncOpenEncodeSession); at < end;
         at += sizeof other)
        memcpy((char *)list + at, &other, sizeof other);
    list->reserved1 = NULL;
    list->nvEncOpenEncodeSessionEx = open_session;
    list->nvEncDestroyEncoder = destroy_encoder;
    list->nvEncGetLastErrorString = last_error;
    list->nvEncGetEncodeGUIDCount = get_codec_count;
    list->nvEncGetEncodeGUIDs = get_codecs;
    list->nvEncGetEncodeCaps = get_caps;
    list->nvEncGetEncodePresetConfigEx = get_preset;
    list->nvEncInitializeEncoder = initialize;
    list->nvEncReconfigureEncoder = reconfigure;
    list->nvEncSetIOCudaStreams = set_streams;
    list->nvEncGetSequenceParams = get_headers;
    list->nvEncCreateInputBuffer = create_input;
    list->nvEncDestroyInputBuffer = destroy_input;
    list->nvEncLockInputBuffer = lock_input;
    list->nvEncUnlockInputBuffer = unlock_input;
    list->nvEncRegisterResource = register_resource;
    list->nvEncUnregisterResource = unregister_resource;
    list->nvEncMapInputResource = map_resource;
    list->nvEncUnmapInputResource = unmap_resource;
    list->nvEncCreateBitstreamBuffer = create_output;
    list->nvEncDestroyBitstreamBuffer = destroy_output;
    list->nvEncLockBitstream = lock_output;
    list->nvEncUnlockBitstream = unlock_output;
    list->nvEncEncodePicture = encode;
    return 1;
}
