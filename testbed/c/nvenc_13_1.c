/* The encode API 13.1: the structs of 13.0, and another number in every version word. */
#include <nvenc-13.0/nvEncodeAPI.h>

#undef NVENCAPI_MINOR_VERSION
#define NVENCAPI_MINOR_VERSION 1
#define NVENC_FILL nvenc_fill_13_1
#define NVENC_API "13.1"
#include "nvenc_adapter.h"
