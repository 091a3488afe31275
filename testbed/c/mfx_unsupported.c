/* The rest of the API. The dispatchers load no runtime that lacks a function of the version that
 * it reports; FFmpeg's encoder calls none of these. */
#include "mfx_testbed.h"

/* Without the headers: on Linux a function may be called with more arguments than it reads. */
#define UNSUPPORTED(name)                                                                          \
    EXPORT int name(void);                                                                         \
    int name(void)                                                                                 \
    {                                                                                              \
        violation("%s is called", __func__);                                                       \
        return -3; /* MFX_ERR_UNSUPPORTED */                                                       \
    }

UNSUPPORTED(MFXSetPriority)
UNSUPPORTED(MFXGetPriority)
UNSUPPORTED(MFXDoWork)
UNSUPPORTED(MFXVideoCORE_SetBufferAllocator)
UNSUPPORTED(MFXVideoCORE_QueryPlatform)
UNSUPPORTED(MFXVideoENCODE_Reset)
UNSUPPORTED(MFXVideoENCODE_GetEncodeStat)
UNSUPPORTED(MFXVideoDECODE_Query)
UNSUPPORTED(MFXVideoDECODE_DecodeHeader)
UNSUPPORTED(MFXVideoDECODE_QueryIOSurf)
UNSUPPORTED(MFXVideoDECODE_Init)
UNSUPPORTED(MFXVideoDECODE_Reset)
UNSUPPORTED(MFXVideoDECODE_Close)
UNSUPPORTED(MFXVideoDECODE_GetVideoParam)
UNSUPPORTED(MFXVideoDECODE_GetDecodeStat)
UNSUPPORTED(MFXVideoDECODE_SetSkipMode)
UNSUPPORTED(MFXVideoDECODE_GetPayload)
UNSUPPORTED(MFXVideoDECODE_DecodeFrameAsync)
UNSUPPORTED(MFXVideoVPP_Query)
UNSUPPORTED(MFXVideoVPP_QueryIOSurf)
UNSUPPORTED(MFXVideoVPP_Init)
UNSUPPORTED(MFXVideoVPP_Reset)
UNSUPPORTED(MFXVideoVPP_Close)
UNSUPPORTED(MFXVideoVPP_GetVideoParam)
UNSUPPORTED(MFXVideoVPP_GetVPPStat)
UNSUPPORTED(MFXVideoVPP_RunFrameVPPAsync)
UNSUPPORTED(MFXVideoVPP_RunFrameVPPAsyncEx)
UNSUPPORTED(MFXVideoVPP_ProcessFrameAsync)
UNSUPPORTED(MFXVideoUSER_Register)
UNSUPPORTED(MFXVideoUSER_Unregister)
UNSUPPORTED(MFXVideoUSER_GetPlugin)
UNSUPPORTED(MFXVideoUSER_ProcessFrameAsync)
UNSUPPORTED(MFXVideoENC_Query)
UNSUPPORTED(MFXVideoENC_QueryIOSurf)
UNSUPPORTED(MFXVideoENC_Init)
UNSUPPORTED(MFXVideoENC_Reset)
UNSUPPORTED(MFXVideoENC_Close)
UNSUPPORTED(MFXVideoENC_GetVideoParam)
UNSUPPORTED(MFXVideoENC_ProcessFrameAsync)
UNSUPPORTED(MFXVideoPAK_Query)
UNSUPPORTED(MFXVideoPAK_QueryIOSurf)
UNSUPPORTED(MFXVideoPAK_Init)
UNSUPPORTED(MFXVideoPAK_Reset)
UNSUPPORTED(MFXVideoPAK_Close)
UNSUPPORTED(MFXVideoPAK_GetVideoParam)
UNSUPPORTED(MFXVideoPAK_ProcessFrameAsync)
UNSUPPORTED(MFXVideoDECODE_VPP_Init)
UNSUPPORTED(MFXVideoDECODE_VPP_DecodeFrameAsync)
UNSUPPORTED(MFXVideoDECODE_VPP_Reset)
UNSUPPORTED(MFXVideoDECODE_VPP_GetChannelParam)
UNSUPPORTED(MFXVideoDECODE_VPP_Close)
UNSUPPORTED(MFXMemory_GetSurfaceForVPP)
UNSUPPORTED(MFXMemory_GetSurfaceForVPPOut)
UNSUPPORTED(MFXMemory_GetSurfaceForEncode)
UNSUPPORTED(MFXMemory_GetSurfaceForDecode)
