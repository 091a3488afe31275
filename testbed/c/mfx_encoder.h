/* The encoder of a Quick Sync session: H.264 from NV12 in system memory, written without loss. */
#ifndef MFX_ENCODER_H
#define MFX_ENCODER_H

#include <vpl/mfx.h>

struct avc_encoder;

/* What MFXVideoENCODE_Query, _Init and so on do for one encoder; see the API reference. */
mfxStatus encoder_check(const mfxVideoParam *par);
mfxStatus encoder_new(const mfxVideoParam *par, int session, struct avc_encoder **encoder);
mfxStatus encoder_describe(struct avc_encoder *encoder, mfxVideoParam *par);
mfxStatus encoder_submit(struct avc_encoder *encoder, const mfxEncodeCtrl *ctrl,
                         mfxFrameSurface1 *surface, mfxBitstream *bs, mfxSyncPoint *syncp);
mfxStatus encoder_sync(struct avc_encoder *encoder, mfxSyncPoint syncp);

/* Returns how many frames it still held. */
int encoder_free(struct avc_encoder *encoder);

#endif
