/* The Quick Sync runtime as both dispatchers load it: libmfx-gen.so.1.2, with the entry points of
 * the Media SDK (MFXInitEx) and of oneVPL (MFXInitialize, MFXQueryImplsDescription). Sessions and
 * what they pass on; the encoder is in mfx_encoder.c, the rest of the API in mfx_unsupported.c. */
#include "mfx_encoder.h"
#include "mfx_testbed.h"

#include <pthread.h>
#include <stdlib.h>

#define MFX EXPORT mfxStatus MFX_CDECL

struct _mfxSession {
    int number;
    mfxVersion version;
    mfxHDL display;
    struct _mfxSession *parent; /* that this one joined */
    struct avc_encoder *encoder;
};

static pthread_mutex_t counts = PTHREAD_MUTEX_INITIALIZER;
static int sessions_made, sessions_open;

/* Sessions. */

static mfxStatus open_session(mfxVersion version, const char *interface, mfxSession *session)
{
    mfxStatus status = (mfxStatus)fault_at("session", 0);
    if (status != MFX_ERR_NONE)
        return status;
    *session = calloc(1, sizeof **session);
    if (!*session)
        return MFX_ERR_MEMORY_ALLOC;
    pthread_mutex_lock(&counts);
    (*session)->number = ++sessions_made;
    sessions_open++;
    pthread_mutex_unlock(&counts);
    (*session)->version = version;
    log_event("opened", "\"session\":%d,\"interface\":\"%s\"", (*session)->number, interface);
    return MFX_ERR_NONE;
}

MFX MFXInitEx(mfxInitParam par, mfxSession *session)
{
    (void)par;
    /* A 2.x runtime that is asked in the old way says that it knows all of 1.x. */
    return open_session((mfxVersion){{255, 1}}, "MFXInitEx", session);
}

MFX MFXInit(mfxIMPL implementation, mfxVersion *version, mfxSession *session)
{
    (void)implementation, (void)version;
    return open_session((mfxVersion){{255, 1}}, "MFXInit", session);
}

MFX MFXInitialize(mfxInitializationParam par, mfxSession *session)
{
    (void)par;
    mfxVersion version = {{MFX_VERSION_MINOR, MFX_VERSION_MAJOR}};
    return open_session(version, "MFXInitialize", session);
}

MFX MFXCloneSession(mfxSession session, mfxSession *clone)
{
    return session ? open_session(session->version, "MFXCloneSession", clone)
                   : MFX_ERR_INVALID_HANDLE;
}

MFX MFXVideoENCODE_Close(mfxSession session)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (!session->encoder)
        return MFX_ERR_NOT_INITIALIZED;
    encoder_free(session->encoder);
    session->encoder = NULL;
    return MFX_ERR_NONE;
}

MFX MFXClose(mfxSession session)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (session->encoder) {
        violation("session %d is closed before its encoder", session->number);
        MFXVideoENCODE_Close(session);
    }
    log_event("closed", "\"session\":%d", session->number);
    free(session);
    pthread_mutex_lock(&counts);
    sessions_open--;
    pthread_mutex_unlock(&counts);
    return MFX_ERR_NONE;
}

/* The library is unloaded, or the process ends. */
__attribute__((destructor)) static void unloaded(void)
{
    if (sessions_open > 0)
        log_event("leak", "\"what\":\"%d sessions\"", sessions_open);
}

MFX MFXJoinSession(mfxSession session, mfxSession child)
{
    if (!session || !child)
        return MFX_ERR_INVALID_HANDLE;
    child->parent = session;
    return MFX_ERR_NONE;
}

MFX MFXDisjoinSession(mfxSession session)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    session->parent = NULL;
    return MFX_ERR_NONE;
}

MFX MFXQueryIMPL(mfxSession session, mfxIMPL *implementation)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    *implementation = MFX_IMPL_HARDWARE | MFX_IMPL_VIA_VAAPI;
    return MFX_ERR_NONE;
}

MFX MFXQueryVersion(mfxSession session, mfxVersion *version)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    *version = session->version;
    return MFX_ERR_NONE;
}

MFX MFXVideoCORE_SetHandle(mfxSession session, mfxHandleType type, mfxHDL handle)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (type != MFX_HANDLE_VA_DISPLAY)
        return MFX_ERR_UNSUPPORTED;
    if (!handle)
        return MFX_ERR_NULL_PTR;
    session->display = handle;
    return MFX_ERR_NONE;
}

MFX MFXVideoCORE_GetHandle(mfxSession session, mfxHandleType type, mfxHDL *handle)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (type != MFX_HANDLE_VA_DISPLAY || !session->display)
        return MFX_ERR_NOT_FOUND;
    *handle = session->display;
    return MFX_ERR_NONE;
}

MFX MFXVideoCORE_SetFrameAllocator(mfxSession session, mfxFrameAllocator *allocator)
{
    /* Frames in system memory are the client's own: nothing is ever allocated. */
    (void)allocator;
    return session ? MFX_ERR_NONE : MFX_ERR_INVALID_HANDLE;
}

/* Encoding. */

MFX MFXVideoENCODE_Query(mfxSession session, mfxVideoParam *in, mfxVideoParam *out)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (in) {
        out->AsyncDepth = in->AsyncDepth;
        out->IOPattern = in->IOPattern;
        out->mfx = in->mfx;
    }
    return MFX_ERR_NONE;
}

MFX MFXVideoENCODE_QueryIOSurf(mfxSession session, mfxVideoParam *par,
                               mfxFrameAllocRequest *request)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    request->Info = par->mfx.FrameInfo;
    request->Type = MFX_MEMTYPE_FROM_ENCODE | MFX_MEMTYPE_SYSTEM_MEMORY | MFX_MEMTYPE_EXTERNAL_FRAME;
    request->NumFrameMin = (mfxU16)(par->AsyncDepth + par->mfx.GopRefDist + 1);
    request->NumFrameSuggested = request->NumFrameMin;
    return MFX_ERR_NONE;
}

MFX MFXVideoENCODE_Init(mfxSession session, mfxVideoParam *par)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (session->encoder)
        return MFX_ERR_UNDEFINED_BEHAVIOR;
    mfxHDL display = session->display;
    if (!display && session->parent)
        display = session->parent->display;
    if (!display) {
        violation("an encoder without a display");
        return MFX_ERR_DEVICE_FAILED;
    }
    return encoder_new(par, session->number, &session->encoder);
}

MFX MFXVideoENCODE_GetVideoParam(mfxSession session, mfxVideoParam *par)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    return session->encoder ? encoder_describe(session->encoder, par) : MFX_ERR_NOT_INITIALIZED;
}

MFX MFXVideoENCODE_EncodeFrameAsync(mfxSession session, mfxEncodeCtrl *ctrl,
                                    mfxFrameSurface1 *surface, mfxBitstream *bs,
                                    mfxSyncPoint *syncp)
{
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    if (!session->encoder)
        return MFX_ERR_NOT_INITIALIZED;
    return encoder_submit(session->encoder, ctrl, surface, bs, syncp);
}

MFX MFXVideoCORE_SyncOperation(mfxSession session, mfxSyncPoint syncp, mfxU32 wait)
{
    (void)wait; /* the work is done here and now */
    if (!session)
        return MFX_ERR_INVALID_HANDLE;
    return session->encoder ? encoder_sync(session->encoder, syncp) : MFX_ERR_NOT_INITIALIZED;
}

/* What the oneVPL dispatcher asks before it opens a session. */

EXPORT mfxHDL *MFX_CDECL MFXQueryImplsDescription(mfxImplCapsDeliveryFormat format, mfxU32 *count)
{
    static mfxAccelerationMode modes[] = {MFX_ACCEL_MODE_VIA_VAAPI};
    static mfxImplDescription description = {
        .Version = {{2, 1}},
        .Impl = MFX_IMPL_TYPE_HARDWARE,
        .AccelerationMode = MFX_ACCEL_MODE_VIA_VAAPI,
        .ApiVersion = {{MFX_VERSION_MINOR, MFX_VERSION_MAJOR}},
        .ImplName = "virtual",
        .License = "",
        .Keywords = "virtual",
        .VendorID = 0x8086,
        .Dev = {.Version = {{1, 1}}, .DeviceID = "56a0/0"},
        .AccelerationModeDescription = {.NumAccelerationModes = 1, .Mode = modes},
    };
    static mfxHDL all[] = {&description};
    if (format != MFX_IMPLCAPS_IMPLDESCSTRUCTURE || !count)
        return NULL;
    *count = 1;
    return all;
}

MFX MFXReleaseImplDescription(mfxHDL description)
{
    (void)description; /* not allocated */
    return MFX_ERR_NONE;
}
