/* libnvidia-ml.so.1 of a virtual device: what monitoring programs call. No header of the vendor's
 * is at hand; the structs are those that NVML has kept for years. */
#include "log.h"
#include "nvenc_slots.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
};

/* Of the index. */
#define UUID_FORMAT "GPU-00000000-0000-0000-0000-%012u"

struct device {
    int gpu;
};

struct memory {
    unsigned long long total, free, used;
};

struct memory_v2 {
    unsigned int version;
    unsigned long long total, reserved, free, used;
};

struct utilization {
    unsigned int gpu, memory;
};

struct pci_info {
    char bus_id_legacy[16];
    unsigned int domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct encoder_session {
    unsigned int id, pid, vgpu, codec, width, height, average_fps, average_latency;
};

static struct device devices[SLOTS];
static int initialized;

/* Returns from the function unless the device exists. */
#define DEVICE(device)                                                                             \
    if (!initialized)                                                                              \
        return UNINITIALIZED;                                                                      \
    if (!(device) || (device) < devices || (device) >= devices + SLOTS)                            \
        return INVALID_ARGUMENT;

static int give(char *to, unsigned int size, const char *text)
{
    if (strlen(text) >= size)
        return INSUFFICIENT_SIZE;
    memcpy(to, text, strlen(text) + 1);
    return SUCCESS;
}

static int has_encoder(const struct device *device)
{
    char name[128] = "";
    spec_item("gpus", device->gpu, name, sizeof name);
    return !strstr(name, ":no-encoder");
}

EXPORT int nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    int code = fault_at("nvml-init", 0);
    if (code == SUCCESS)
        initialized++;
    return code;
}

EXPORT int nvmlInit_v2(void)
{
    return nvmlInitWithFlags(0);
}

EXPORT int nvmlShutdown(void)
{
    if (!initialized) {
        violation("nvmlShutdown without nvmlInit");
        return UNINITIALIZED;
    }
    initialized--;
    return SUCCESS;
}

EXPORT const char *nvmlErrorString(int code)
{
    switch (code) {
    case SUCCESS:
        return "Success";
    case UNINITIALIZED:
        return "Uninitialized";
    case INVALID_ARGUMENT:
        return "Invalid Argument";
    case NOT_SUPPORTED:
        return "Not Supported";
    case INSUFFICIENT_SIZE:
        return "Insufficient Size";
    case 9:
        return "Driver Not Loaded";
    case 15:
        return "GPU is lost";
    case 18:
        return "Driver/library version mismatch";
    default:
        return "Unknown Error";
    }
}

EXPORT int nvmlSystemGetDriverVersion(char *version, unsigned int size)
{
    char text[80];
    if (spec_text("driver", text, sizeof text) == 0)
        snprintf(text, sizeof text, "610.43.02");
    return initialized ? give(version, size, text) : UNINITIALIZED;
}

EXPORT int nvmlSystemGetNVMLVersion(char *version, unsigned int size)
{
    char driver[80], text[128];
    int code = nvmlSystemGetDriverVersion(driver, sizeof driver);
    if (code != SUCCESS)
        return code;
    snprintf(text, sizeof text, "%ld.%s", spec_number("cuda", 13010) / 1000, driver);
    return give(version, size, text);
}

EXPORT int nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    *version = (int)spec_number("cuda", 13010);
    return SUCCESS;
}

EXPORT int nvmlSystemGetCudaDriverVersion(int *version)
{
    return nvmlSystemGetCudaDriverVersion_v2(version);
}

EXPORT int nvmlDeviceGetCount_v2(unsigned int *count)
{
    char name[128];
    for (*count = 0; spec_item("gpus", (int)*count, name, sizeof name);)
        ++*count;
    return initialized ? SUCCESS : UNINITIALIZED;
}

EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct device **device)
{
    char name[128];
    if (!initialized)
        return UNINITIALIZED;
    if (index >= SLOTS || !spec_item("gpus", (int)index, name, sizeof name))
        return INVALID_ARGUMENT;
    devices[index].gpu = (int)index;
    *device = &devices[index];
    return SUCCESS;
}

EXPORT int nvmlDeviceGetHandleByUUID(const char *uuid, struct device **device)
{
    unsigned int index;
    int length = 0;
    if (sscanf(uuid, UUID_FORMAT "%n", &index, &length) != 1 || uuid[length])
        return initialized ? NOT_FOUND : UNINITIALIZED;
    int code = nvmlDeviceGetHandleByIndex_v2(index, device);
    return code == INVALID_ARGUMENT ? NOT_FOUND : code;
}

EXPORT int nvmlDeviceGetIndex(struct device *device, unsigned int *index)
{
    DEVICE(device)
    *index = (unsigned int)device->gpu;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetName(struct device *device, char *name, unsigned int size)
{
    DEVICE(device)
    char text[128] = "";
    spec_item("gpus", device->gpu, text, sizeof text);
    text[strcspn(text, ":")] = 0;
    return give(name, size, text);
}

EXPORT int nvmlDeviceGetUUID(struct device *device, char *uuid, unsigned int size)
{
    DEVICE(device)
    char text[80];
    snprintf(text, sizeof text, UUID_FORMAT, (unsigned int)device->gpu);
    return give(uuid, size, text);
}

EXPORT int nvmlDeviceGetMemoryInfo(struct device *device, struct memory *memory)
{
    DEVICE(device)
    *memory = (struct memory){8ull << 30, 7ull << 30, 1ull << 30};
    return SUCCESS;
}

EXPORT int nvmlDeviceGetMemoryInfo_v2(struct device *device, struct memory_v2 *memory)
{
    DEVICE(device)
    if (memory->version != (sizeof *memory | 2 << 24)) {
        violation("nvmlDeviceGetMemoryInfo_v2: version %08x", memory->version);
        return 25; /* argument version mismatch */
    }
    memory->total = 8ull << 30;
    memory->reserved = 0;
    memory->free = 7ull << 30;
    memory->used = 1ull << 30;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetUtilizationRates(struct device *device, struct utilization *rates)
{
    DEVICE(device)
    *rates = (struct utilization){0, 0};
    return SUCCESS;
}

EXPORT int nvmlDeviceGetPciInfo_v3(struct device *device, struct pci_info *info)
{
    DEVICE(device)
    memset(info, 0, sizeof *info);
    info->bus = (unsigned int)device->gpu + 1;
    info->device_id = 0x10de;
    snprintf(info->bus_id, sizeof info->bus_id, "00000000:%02X:00.0", info->bus);
    snprintf(info->bus_id_legacy, sizeof info->bus_id_legacy, "0000:%02X:00.0", info->bus);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetCudaComputeCapability(struct device *device, int *major, int *minor)
{
    DEVICE(device)
    *major = 8;
    *minor = 9;
    return SUCCESS;
}

/* The encoder. It is as busy as it has sessions: a tenth for each. */

static unsigned int busy(const struct device *device, struct slot slots[SLOTS], int *count)
{
    *count = slots_taken(device->gpu, slots);
    return *count >= 10 ? 100 : (unsigned int)*count * 10;
}

EXPORT int nvmlDeviceGetEncoderCapacity(struct device *device, int codec, unsigned int *capacity)
{
    DEVICE(device)
    if (!has_encoder(device) || codec != 0)
        return NOT_SUPPORTED;
    struct slot slots[SLOTS];
    int count;
    *capacity = 100 - busy(device, slots, &count);
    return SUCCESS;
}

EXPORT int nvmlDeviceGetEncoderUtilization(struct device *device, unsigned int *percent,
                                           unsigned int *period)
{
    DEVICE(device)
    if (!has_encoder(device))
        return NOT_SUPPORTED;
    struct slot slots[SLOTS];
    int count;
    *percent = busy(device, slots, &count);
    *period = 167000; /* microseconds */
    return SUCCESS;
}

EXPORT int nvmlDeviceGetEncoderStats(struct device *device, unsigned int *sessions,
                                     unsigned int *fps, unsigned int *latency)
{
    DEVICE(device)
    if (!has_encoder(device))
        return NOT_SUPPORTED;
    struct slot slots[SLOTS];
    *sessions = (unsigned int)slots_taken(device->gpu, slots);
    *fps = *sessions > 0 ? 30 : 0;
    *latency = *sessions > 0 ? 1000 : 0;
    return SUCCESS;
}

EXPORT int nvmlDeviceGetEncoderSessions(struct device *device, unsigned int *count,
                                        struct encoder_session *sessions)
{
    DEVICE(device)
    if (!has_encoder(device))
        return NOT_SUPPORTED;
    struct slot slots[SLOTS];
    unsigned int room = sessions ? *count : 0;
    *count = (unsigned int)slots_taken(device->gpu, slots);
    if (!sessions)
        return SUCCESS;
    if (*count > room)
        return INSUFFICIENT_SIZE;
    for (unsigned int i = 0; i < *count; i++)
        sessions[i] = (struct encoder_session){i,
                                               (unsigned int)slots[i].pid,
                                               0,
                                               0,
                                               (unsigned int)slots[i].width,
                                               (unsigned int)slots[i].height,
                                               30,
                                               1000};
    return SUCCESS;
}
