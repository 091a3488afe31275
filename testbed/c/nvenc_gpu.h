/* What libcuda and libnvidia-encode know of each other. */
#ifndef NVENC_GPU_H
#define NVENC_GPU_H

#include <stdint.h>

/* Behind a CUcontext. Never freed: a context that is used after its end is told apart. */
struct gpu_context {
    uint32_t mark;
    int gpu;
    int owner; /* the process */
};

enum { CONTEXT_ALIVE = 0x43545841, CONTEXT_ENDED = 0x43545844 };

#endif
