/* libnvidia-encode.so.1 of a virtual device: what it exports. Like a real driver it serves
 * clients of older APIs, those whose headers are at hand. */
#include "log.h"
#include "nvenc_core.h"

#include <stdlib.h>
#include <string.h>

static uint32_t newest_api(void)
{
    char text[16];
    if (spec_text("api", text, sizeof text) == 0)
        return 13 << 4 | 1;
    char *minor;
    uint32_t major = (uint32_t)strtoul(text, &minor, 10);
    return major << 4 | (*minor == '.' ? (uint32_t)strtoul(minor + 1, NULL, 10) : 0);
}

EXPORT int NvEncodeAPIGetMaxSupportedVersion(uint32_t *version)
{
    *version = newest_api();
    return OK;
}

EXPORT int NvEncodeAPICreateInstance(void *list)
{
    static const struct {
        uint32_t api;
        int (*fill)(void *list);
    } known[] = {{11 << 4 | 1, nvenc_fill_11_1},
                 {13 << 4, nvenc_fill_13_0},
                 {13 << 4 | 1, nvenc_fill_13_1}};
    if (!list)
        return INVALID_PTR;
    int code = fault_at("load", 0);
    if (code != 0)
        return code;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i].api <= newest_api() && known[i].fill(list))
            return OK;
    uint32_t version; /* the first member of the list, in every version */
    memcpy(&version, list, sizeof version);
    violation("CreateInstance: function list of version %08x; 11.1, 13.0 and 13.1 are known",
              version);
    return INVALID_VERSION;
}
