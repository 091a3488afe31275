/* The encode API 11.1, which FFmpeg 5.1 of Debian 12 asks for. */
#include <nvenc-11.1/nvEncodeAPI.h>

#define NVENC_FILL nvenc_fill_11_1
#define NVENC_API "11.1"
#include "nvenc_adapter.h"
