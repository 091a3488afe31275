/* libcuda.so.1 of a virtual device: GPUs whose memory is the host's. It has what FFmpeg calls to
 * encode from system memory and from CUDA frames; the other names exist, as the loader wants
 * them, and answer that they are not supported. */
#include "log.h"
#include "nvenc_gpu.h"

#include <dynlink_cuda.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const CUresult INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3,
                      INVALID_DEVICE = 101, INVALID_CONTEXT = 201, NOT_SUPPORTED = 801;

static int initialized;
static int contexts, allocations;

/* The contexts that a thread has pushed. */
static _Thread_local struct gpu_context *stack[64];
static _Thread_local int depth;

static int gpu_count(void)
{
    char name[128];
    int count = 0;
    while (spec_item("gpus", count, name, sizeof name))
        count++;
    return count;
}

static CUresult device_error(CUdevice device)
{
    if (!initialized)
        return NOT_INITIALIZED;
    return device < 0 || device >= gpu_count() ? INVALID_DEVICE : CUDA_SUCCESS;
}

EXPORT CUresult cuInit(unsigned int flags)
{
    int code = fault_at("cuda-init", 0);
    if (code != 0)
        return code;
    initialized = 1;
    return flags == 0 ? 0 : INVALID_VALUE;
}

EXPORT CUresult cuDriverGetVersion(int *version)
{
    *version = (int)spec_number("cuda", 13010);
    return 0;
}

EXPORT CUresult cuGetErrorName(CUresult error, const char **text)
{
    static const struct {
        int code;
        const char *name;
    } names[] = {{0, "CUDA_SUCCESS"},
                 {1, "CUDA_ERROR_INVALID_VALUE"},
                 {2, "CUDA_ERROR_OUT_OF_MEMORY"},
                 {3, "CUDA_ERROR_NOT_INITIALIZED"},
                 {46, "CUDA_ERROR_DEVICE_UNAVAILABLE"},
                 {100, "CUDA_ERROR_NO_DEVICE"},
                 {101, "CUDA_ERROR_INVALID_DEVICE"},
                 {201, "CUDA_ERROR_INVALID_CONTEXT"},
                 {214, "CUDA_ERROR_ECC_UNCORRECTABLE"},
                 {801, "CUDA_ERROR_NOT_SUPPORTED"},
                 {802, "CUDA_ERROR_SYSTEM_NOT_READY"},
                 {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
                 {804, "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE"},
                 {999, "CUDA_ERROR_UNKNOWN"}};
    *text = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == (int)error)
            *text = names[i].name;
    return *text ? 0 : INVALID_VALUE;
}

EXPORT CUresult cuGetErrorString(CUresult error, const char **text)
{
    static const struct {
        int code;
        const char *text;
    } texts[] = {{0, "no error"},
                 {2, "out of memory"},
                 {46, "CUDA-capable device(s) is/are busy or unavailable"},
                 {100, "no CUDA-capable device is detected"},
                 {101, "invalid device ordinal"},
                 {803, "system has unsupported display driver / cuda driver combination"}};
    *text = "an error of the virtual device";
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].code == (int)error)
            *text = texts[i].text;
    return 0;
}

/* Devices. */

EXPORT CUresult cuDeviceGetCount(int *count)
{
    *count = gpu_count();
    return initialized ? 0 : NOT_INITIALIZED;
}

EXPORT CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return device_error(ordinal);
}

EXPORT CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    char item[128] = "";
    spec_item("gpus", device, item, sizeof item);
    item[strcspn(item, ":")] = 0;
    snprintf(name, (size_t)length, "%s", item);
    return device_error(device);
}

EXPORT CUresult cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    *major = 8;
    *minor = 9;
    return device_error(device);
}

EXPORT CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    switch ((int)attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR:
        *value = 8;
        break;
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR:
        *value = 9;
        break;
    case CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT:
        *value = 512;
        break;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID:
        *value = device + 1;
        break;
    default:
        *value = 0;
    }
    return device_error(device);
}

EXPORT CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    memset(uuid->bytes, 0, sizeof uuid->bytes);
    uuid->bytes[15] = (char)device;
    return device_error(device);
}

EXPORT CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    return cuDeviceGetUuid(uuid, device);
}

/* Contexts. */

static CUresult create(CUcontext *made, CUdevice device)
{
    int code = device_error(device);
    if (code == 0)
        code = fault_at("context", 0);
    if (code != 0)
        return code;
    struct gpu_context *context = malloc(sizeof *context);
    if (!context)
        return OUT_OF_MEMORY;
    *context = (struct gpu_context){CONTEXT_ALIVE, device, (int)getpid()};
    __atomic_fetch_add(&contexts, 1, __ATOMIC_RELAXED);
    *made = (CUcontext)context;
    return 0;
}

EXPORT CUresult cuCtxPushCurrent_v2(CUcontext handle)
{
    struct gpu_context *context = (struct gpu_context *)handle;
    if (!context || context->mark != CONTEXT_ALIVE) {
        violation("cuCtxPushCurrent: not a context, or one that was destroyed");
        return INVALID_CONTEXT;
    }
    if (depth == sizeof stack / sizeof *stack) {
        violation("cuCtxPushCurrent: pushed %d times and never popped", depth);
        return OUT_OF_MEMORY;
    }
    stack[depth++] = context;
    return 0;
}

EXPORT CUresult cuCtxPopCurrent_v2(CUcontext *handle)
{
    if (depth == 0) {
        violation("cuCtxPopCurrent: nothing was pushed");
        return INVALID_CONTEXT;
    }
    depth--;
    if (handle)
        *handle = (CUcontext)stack[depth];
    return 0;
}

EXPORT CUresult cuCtxCreate_v2(CUcontext *handle, unsigned int flags, CUdevice device)
{
    (void)flags;
    CUresult code = create(handle, device);
    return code == 0 ? cuCtxPushCurrent_v2(*handle) : code;
}

EXPORT CUresult cuCtxDestroy_v2(CUcontext handle)
{
    struct gpu_context *context = (struct gpu_context *)handle;
    if (!context || context->mark != CONTEXT_ALIVE) {
        violation("cuCtxDestroy: not a context, or one that was destroyed");
        return INVALID_CONTEXT;
    }
    context->mark = CONTEXT_ENDED;
    __atomic_fetch_sub(&contexts, 1, __ATOMIC_RELAXED);
    if (depth > 0 && stack[depth - 1] == context)
        depth--;
    return 0;
}

EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext *handle, CUdevice device)
{
    return create(handle, device);
}

EXPORT CUresult cuDevicePrimaryCtxRelease(CUdevice device)
{
    __atomic_fetch_sub(&contexts, 1, __ATOMIC_RELAXED);
    return device_error(device);
}

EXPORT CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    *flags = 0;
    *active = 0;
    return device_error(device);
}

EXPORT CUresult cuDevicePrimaryCtxSetFlags(CUdevice device, unsigned int flags)
{
    (void)flags;
    return device_error(device);
}

EXPORT CUresult cuCtxGetCurrent(CUcontext *handle)
{
    *handle = depth > 0 ? (CUcontext)stack[depth - 1] : NULL;
    return 0;
}

EXPORT CUresult cuCtxGetDevice(CUdevice *device)
{
    if (depth == 0)
        return INVALID_CONTEXT;
    *device = stack[depth - 1]->gpu;
    return 0;
}

EXPORT CUresult cuCtxSynchronize(void)
{
    return depth > 0 ? 0 : INVALID_CONTEXT;
}

/* Memory. */

EXPORT CUresult cuMemAlloc_v2(CUdeviceptr *pointer, size_t size)
{
    void *memory = malloc(size);
    if (!memory)
        return OUT_OF_MEMORY;
    __atomic_fetch_add(&allocations, 1, __ATOMIC_RELAXED);
    *pointer = (CUdeviceptr)(uintptr_t)memory;
    return 0;
}

EXPORT CUresult cuMemAllocPitch_v2(CUdeviceptr *pointer, size_t *pitch, size_t width,
                                   size_t height, unsigned int element)
{
    (void)element;
    *pitch = (width + 511) / 512 * 512;
    return cuMemAlloc_v2(pointer, *pitch * height);
}

EXPORT CUresult cuMemFree_v2(CUdeviceptr pointer)
{
    free((void *)(uintptr_t)pointer);
    __atomic_fetch_sub(&allocations, 1, __ATOMIC_RELAXED);
    return 0;
}

EXPORT CUresult cuMemAllocAsync(CUdeviceptr *pointer, size_t size, CUstream stream)
{
    (void)stream;
    return cuMemAlloc_v2(pointer, size);
}

EXPORT CUresult cuMemFreeAsync(CUdeviceptr pointer, CUstream stream)
{
    (void)stream;
    return cuMemFree_v2(pointer);
}

static uint8_t *origin(CUmemorytype type, const void *host, CUdeviceptr device)
{
    return type == CU_MEMORYTYPE_HOST     ? (uint8_t *)(uintptr_t)host
           : type == CU_MEMORYTYPE_DEVICE ? (uint8_t *)(uintptr_t)device
                                          : NULL;
}

EXPORT CUresult cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy)
{
    uint8_t *to = origin(copy->dstMemoryType, copy->dstHost, copy->dstDevice);
    const uint8_t *from = origin(copy->srcMemoryType, copy->srcHost, copy->srcDevice);
    if (!to || !from)
        return NOT_SUPPORTED;
    to += copy->dstY * copy->dstPitch + copy->dstXInBytes;
    from += copy->srcY * copy->srcPitch + copy->srcXInBytes;
    for (size_t y = 0; y < copy->Height; y++)
        memcpy(to + y * copy->dstPitch, from + y * copy->srcPitch, copy->WidthInBytes);
    return 0;
}

EXPORT CUresult cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    (void)stream;
    return cuMemcpy2D_v2(copy);
}

EXPORT CUresult cuMemsetD8Async(CUdeviceptr pointer, unsigned char value, size_t count,
                                CUstream stream)
{
    (void)stream;
    memset((void *)(uintptr_t)pointer, value, count);
    return 0;
}

/* Streams: everything is done when the call returns. */

EXPORT CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    (void)flags;
    static char only;
    *stream = (CUstream)(void *)&only;
    return 0;
}

EXPORT CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    (void)priority;
    return cuStreamCreate(stream, flags);
}

EXPORT CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    *least = *greatest = 0;
    return 0;
}

EXPORT CUresult cuStreamQuery(CUstream stream)
{
    (void)stream;
    return 0;
}

EXPORT CUresult cuStreamSynchronize(CUstream stream)
{
    (void)stream;
    return 0;
}

EXPORT CUresult cuStreamDestroy_v2(CUstream stream)
{
    (void)stream;
    return 0;
}

/* Names that a loader asks for and that nobody should call here. */
#define UNSUPPORTED(name)                                                                          \
    EXPORT CUresult name(void)                                                                     \
    {                                                                                              \
        violation(#name " is not part of the virtual device");                                     \
        return NOT_SUPPORTED;                                                                      \
    }

UNSUPPORTED(cuArray3DCreate_v2)
UNSUPPORTED(cuArray3DGetDescriptor_v2)
UNSUPPORTED(cuArrayCreate_v2)
UNSUPPORTED(cuArrayDestroy)
UNSUPPORTED(cuArrayGetPlane)
UNSUPPORTED(cuCtxSetLimit)
UNSUPPORTED(cuDestroyExternalMemory)
UNSUPPORTED(cuDestroyExternalSemaphore)
UNSUPPORTED(cuDeviceGetByPCIBusId)
UNSUPPORTED(cuDeviceGetLuid)
UNSUPPORTED(cuDeviceGetPCIBusId)
UNSUPPORTED(cuDevicePrimaryCtxReset)
UNSUPPORTED(cuEGLStreamConsumerDisconnect)
UNSUPPORTED(cuEGLStreamProducerConnect)
UNSUPPORTED(cuEGLStreamProducerDisconnect)
UNSUPPORTED(cuEGLStreamProducerPresentFrame)
UNSUPPORTED(cuEGLStreamProducerReturnFrame)
UNSUPPORTED(cuEventCreate)
UNSUPPORTED(cuEventDestroy_v2)
UNSUPPORTED(cuEventQuery)
UNSUPPORTED(cuEventRecord)
UNSUPPORTED(cuEventSynchronize)
UNSUPPORTED(cuExternalMemoryGetMappedBuffer)
UNSUPPORTED(cuExternalMemoryGetMappedMipmappedArray)
UNSUPPORTED(cuGLGetDevices_v2)
UNSUPPORTED(cuGraphicsGLRegisterImage)
UNSUPPORTED(cuGraphicsMapResources)
UNSUPPORTED(cuGraphicsResourceGetMappedPointer_v2)
UNSUPPORTED(cuGraphicsSubResourceGetMappedArray)
UNSUPPORTED(cuGraphicsUnmapResources)
UNSUPPORTED(cuGraphicsUnregisterResource)
UNSUPPORTED(cuImportExternalMemory)
UNSUPPORTED(cuImportExternalSemaphore)
UNSUPPORTED(cuLaunchHostFunc)
UNSUPPORTED(cuLaunchKernel)
UNSUPPORTED(cuLinkAddData)
UNSUPPORTED(cuLinkComplete)
UNSUPPORTED(cuLinkCreate)
UNSUPPORTED(cuLinkDestroy)
UNSUPPORTED(cuMemAllocManaged)
UNSUPPORTED(cuMemFreeHost)
UNSUPPORTED(cuMemHostAlloc)
UNSUPPORTED(cuMemcpy)
UNSUPPORTED(cuMemcpyAsync)
UNSUPPORTED(cuMemcpyDtoDAsync_v2)
UNSUPPORTED(cuMemcpyDtoD_v2)
UNSUPPORTED(cuMemcpyDtoHAsync_v2)
UNSUPPORTED(cuMemcpyDtoH_v2)
UNSUPPORTED(cuMemcpyHtoDAsync_v2)
UNSUPPORTED(cuMemcpyHtoD_v2)
UNSUPPORTED(cuMemsetD16Async)
UNSUPPORTED(cuMemsetD2D16Async)
UNSUPPORTED(cuMemsetD2D32Async)
UNSUPPORTED(cuMemsetD2D8Async)
UNSUPPORTED(cuMemsetD32Async)
UNSUPPORTED(cuMipmappedArrayDestroy)
UNSUPPORTED(cuMipmappedArrayGetLevel)
UNSUPPORTED(cuModuleGetFunction)
UNSUPPORTED(cuModuleGetGlobal)
UNSUPPORTED(cuModuleLoadData)
UNSUPPORTED(cuModuleUnload)
UNSUPPORTED(cuSignalExternalSemaphoresAsync)
UNSUPPORTED(cuStreamAddCallback)
UNSUPPORTED(cuStreamWaitEvent)
UNSUPPORTED(cuTexObjectCreate)
UNSUPPORTED(cuTexObjectDestroy)
UNSUPPORTED(cuWaitExternalSemaphoresAsync)

__attribute__((destructor)) static void unloaded(void)
{
    if (contexts != 0 || allocations != 0)
        log_event("leak", "\"what\":\"%d CUDA contexts and %d allocations at the end\"", contexts,
                  allocations);
}
