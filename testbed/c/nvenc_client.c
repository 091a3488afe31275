/* A client that misuses the device in the way that its argument names, to show that the device
 * sees it: "nothing" for a client without fault. It encodes a few pictures. */
#include <nvenc-13.0/nvEncodeAPI.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *misuse;

static int is(const char *name)
{
    return strcmp(misuse, name) == 0;
}

static void *symbol(const char *library, const char *name)
{
    void *handle = dlopen(library, RTLD_NOW), *found = handle ? dlsym(handle, name) : NULL;
    if (!found) {
        fprintf(stderr, "%s\n", dlerror());
        exit(2);
    }
    return found;
}

/* A call that must succeed even in a client with a fault elsewhere. */
static void must(const char *call, int code)
{
    if (code == 0)
        return;
    fprintf(stderr, "%s: %d\n", call, code);
    exit(3);
}

#define CUDA(name, ...)                                                                            \
    must(#name, ((int (*)())symbol("libcuda.so.1", #name))(__VA_ARGS__))

static NV_ENCODE_API_FUNCTION_LIST api = {.version = NV_ENCODE_API_FUNCTION_LIST_VER};
static NV_ENC_PRESET_CONFIG preset = {.version = NV_ENC_PRESET_CONFIG_VER,
                                      .presetCfg = {.version = NV_ENC_CONFIG_VER}};

static void initialize(void *encoder)
{
    GUID p1 = NV_ENC_PRESET_P1_GUID;
    NV_ENC_TUNING_INFO tuning = NV_ENC_TUNING_INFO_HIGH_QUALITY;
    must("preset", api.nvEncGetEncodePresetConfigEx(encoder, NV_ENC_CODEC_H264_GUID, p1, tuning,
                                                    &preset));
    int group = is("not-flushed") || is("too-early") || is("write-in-flight");
    preset.presetCfg.frameIntervalP = group ? 3 : 1;
    NV_ENC_INITIALIZE_PARAMS params = {
        .version = NV_ENC_INITIALIZE_PARAMS_VER,
        .encodeGUID = NV_ENC_CODEC_H264_GUID,
        .presetGUID = p1,
        .tuningInfo = tuning,
        .encodeWidth = 160,
        .encodeHeight = 96,
        .frameRateNum = 30,
        .frameRateDen = 1,
        .enablePTD = 1,
        .encodeConfig = &preset.presetCfg,
    };
    must("initialize", api.nvEncInitializeEncoder(encoder, &params));
    if (is("initialize-twice"))
        api.nvEncInitializeEncoder(encoder, &params);
}

static void encode(void *encoder, NV_ENC_INPUT_PTR input, NV_ENC_OUTPUT_PTR output, int frame)
{
    NV_ENC_LOCK_INPUT_BUFFER lock = {.version = NV_ENC_LOCK_INPUT_BUFFER_VER};
    lock.inputBuffer = input;
    must("lock input", api.nvEncLockInputBuffer(encoder, &lock));
    memset(lock.bufferDataPtr, frame, lock.pitch * 96 * 3 / 2);
    if (is("lock-twice"))
        api.nvEncLockInputBuffer(encoder, &lock);
    if (!is("encode-locked"))
        must("unlock input", api.nvEncUnlockInputBuffer(encoder, input));
    if (is("unlock-twice"))
        api.nvEncUnlockInputBuffer(encoder, input);
    NV_ENC_PIC_PARAMS picture = {
        .version = is("version") ? NV_ENC_LOCK_BITSTREAM_VER : NV_ENC_PIC_PARAMS_VER,
        .inputWidth = 160,
        .inputHeight = 96,
        .inputPitch = is("pitch") ? 160 : lock.pitch,
        .inputBuffer = input,
        .outputBitstream = output,
        .bufferFmt = is("format") ? NV_ENC_BUFFER_FORMAT_YV12 : NV_ENC_BUFFER_FORMAT_NV12,
        .pictureStruct = NV_ENC_PIC_STRUCT_FRAME,
        .inputTimeStamp = (uint64_t)frame,
    };
    NVENCSTATUS status = api.nvEncEncodePicture(encoder, &picture);
    if (status == NV_ENC_ERR_NEED_MORE_INPUT && is("too-early")) {
        NV_ENC_LOCK_BITSTREAM early = {.version = NV_ENC_LOCK_BITSTREAM_VER};
        early.outputBitstream = output;
        api.nvEncLockBitstream(encoder, &early);
    }
    if (status == NV_ENC_ERR_NEED_MORE_INPUT && is("write-in-flight"))
        api.nvEncLockInputBuffer(encoder, &lock);
    if (status != NV_ENC_SUCCESS)
        return;
    NV_ENC_LOCK_BITSTREAM coded = {.version = NV_ENC_LOCK_BITSTREAM_VER};
    coded.outputBitstream = output;
    must("lock output", api.nvEncLockBitstream(encoder, &coded));
    if (!is("output-stays-locked"))
        must("unlock output", api.nvEncUnlockBitstream(encoder, output));
}

int main(int count, char **arguments)
{
    misuse = count > 1 ? arguments[1] : "nothing";
    NVENCSTATUS (*create)(NV_ENCODE_API_FUNCTION_LIST *) =
        symbol("libnvidia-encode.so.1", "NvEncodeAPICreateInstance");
    int device;
    void *context, *popped;
    CUDA(cuInit, 0);
    CUDA(cuDeviceGet, &device, 0);
    CUDA(cuCtxCreate_v2, &context, 0, device);
    CUDA(cuCtxPopCurrent_v2, &popped);
    must("create", create(&api));

    NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS open = {
        .version = NV_ENC_OPEN_ENCODE_SESSION_EX_PARAMS_VER,
        .deviceType = NV_ENC_DEVICE_TYPE_CUDA,
        .device = context,
        .apiVersion = NVENCAPI_VERSION,
    };
    void *encoder;
    must("open", api.nvEncOpenEncodeSessionEx(&open, &encoder));
    initialize(encoder);
    NV_ENC_CREATE_INPUT_BUFFER input = {.version = NV_ENC_CREATE_INPUT_BUFFER_VER};
    input.width = is("size") ? 176 : 160;
    input.height = 96;
    input.bufferFmt = NV_ENC_BUFFER_FORMAT_NV12;
    NV_ENC_CREATE_BITSTREAM_BUFFER output = {.version = NV_ENC_CREATE_BITSTREAM_BUFFER_VER};
    if (api.nvEncCreateInputBuffer(encoder, &input) != NV_ENC_SUCCESS)
        return 0;
    must("output", api.nvEncCreateBitstreamBuffer(encoder, &output));
    for (int frame = 0; frame < (is("not-flushed") ? 2 : 4); frame++)
        encode(encoder, input.inputBuffer, output.bitstreamBuffer, frame);
    NV_ENC_PIC_PARAMS end = {.version = NV_ENC_PIC_PARAMS_VER};
    end.encodePicFlags = NV_ENC_PIC_FLAG_EOS;
    if (!is("not-flushed"))
        must("end", api.nvEncEncodePicture(encoder, &end));
    if (!is("buffers-stay")) {
        api.nvEncDestroyInputBuffer(encoder, input.inputBuffer);
        api.nvEncDestroyBitstreamBuffer(encoder, output.bitstreamBuffer);
    }
    if (!is("session-stays"))
        must("destroy", api.nvEncDestroyEncoder(encoder));
    if (is("too-late"))
        api.nvEncDestroyEncoder(encoder);
    if (!is("context-stays"))
        CUDA(cuCtxDestroy_v2, context);
    return 0;
}
