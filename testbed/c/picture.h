/* Lossless H.264 without a codec.
 *
 * Every macroblock is written as its samples (I_PCM), or as "the same as in the reference" where
 * nothing changed, in CAVLC and without deblocking. What a decoder gives back is therefore, bit
 * for bit, what was handed in: a test can prove a whole data path with it.
 *
 * Use: picture_writer_new; for each picture in decoding order picture_write; picture_writer_free.
 * Nothing here is thread safe, and nothing is shared between writers. */
#ifndef PICTURE_H
#define PICTURE_H

#include <stddef.h>
#include <stdint.h>

enum picture_type {
    PICTURE_IDR, /* a new start: nothing before it is needed */
    PICTURE_I,   /* intra, but no new start */
    PICTURE_P,   /* a reference for later pictures */
    PICTURE_B    /* between two references; no reference itself; needs b_frames > 0 */
};

struct picture_format {
    int width, height; /* visible, in samples; even unless 4:4:4 */
    int chroma_444;    /* 0: 4:2:0 */
    int b_frames;      /* most B pictures in a row; 0: decoding order is display order */
    int profile_idc;   /* 66, 77, 100 or 244; 0: the lowest that fits */
    int level_idc;     /* 10 times the level; 0: from the size */
    int fps_num, fps_den; /* pictures per second; 0: not told */
    /* VUI codes as in the H.264 standard; 2 is "unspecified". */
    int colour_described; /* whether primaries, transfer and matrix are told */
    int primaries, transfer, matrix;
    int full_range_told; /* whether full_range is told; colour_described implies it */
    int full_range;
};

/* The samples of a picture. Strides are in bytes. NV12: data[1] is the interleaved plane, data[2]
 * the same plus 1, chroma_step 2. Planar: chroma_step 1. Planes may come in any order: YV12 is a
 * matter of which pointer is data[1]. */
struct picture_planes {
    const uint8_t *data[3];
    size_t stride[3];
    int chroma_step;
};

/* What stands in front of a picture. */
enum { PICTURE_WITH_PARAMETER_SETS = 1, PICTURE_WITH_DELIMITER = 2 };

struct picture_writer;

/* NULL: the format cannot be written (an odd size in 4:2:0, B pictures in profile 66, 4:4:4 in a
 * profile that has none), or no memory. */
struct picture_writer *picture_writer_new(const struct picture_format *format);

void picture_writer_free(struct picture_writer *writer);

/* SPS and PPS with start codes. Valid until the next call with this writer. */
const uint8_t *picture_parameter_sets(struct picture_writer *writer, size_t *size);

/* One picture as an access unit with start codes. Pictures come in decoding order; `order` is
 * the place of this one in display order, counted from the start of the stream. The first must
 * be PICTURE_IDR, and a B picture comes right after the two references that enclose it. The
 * bytes are valid until the next call with this writer. */
const uint8_t *picture_write(struct picture_writer *writer, const struct picture_planes *planes,
                             enum picture_type type, int64_t order, int with, size_t *size);

#endif
