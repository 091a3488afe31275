/* The encode API 13.0. */
#include <nvenc-13.0/nvEncodeAPI.h>

#define NVENC_FILL nvenc_fill_13_0
#define NVENC_API "13.0"
#include "nvenc_adapter.h"
