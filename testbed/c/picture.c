#include "picture.h"

#include <stdlib.h>
#include <string.h>

/* The samples of a picture, planar, padded to whole macroblocks. */
struct frame {
    uint8_t *plane[3];
    int64_t order;
};

struct picture_writer {
    struct picture_format format;
    int columns, rows;    /* of macroblocks */
    int chroma;           /* side of a macroblock's chroma block: 8 or 16 */
    struct frame frames[3];
    int current;          /* the frame that is being written */
    int newest, older;    /* references, by decoding order; -1: none */
    int64_t idr_order;    /* display order of the last IDR picture */
    unsigned frame_num, idr_pic_id;
    uint8_t *raw;         /* a NAL unit before escaping */
    size_t bytes;         /* whole bytes in raw */
    unsigned bits, free;  /* the byte being filled, and its free bits */
    uint8_t *out;
    size_t size;
};

/* Bits. */

static void put(struct picture_writer *w, int count, uint32_t value)
{
    while (count-- > 0) {
        w->bits = w->bits << 1 | (value >> count & 1);
        if (--w->free == 0) {
            w->raw[w->bytes++] = (uint8_t)w->bits;
            w->bits = 0;
            w->free = 8;
        }
    }
}

static void put_ue(struct picture_writer *w, uint32_t value)
{
    int length = 32 - __builtin_clz(value + 1);
    put(w, length - 1, 0);
    put(w, length, value + 1);
}

static void put_zero_to_byte(struct picture_writer *w)
{
    put(w, w->free & 7, 0);
}

static void begin(struct picture_writer *w, int nal_ref_idc, int nal_unit_type)
{
    w->bytes = 0;
    w->bits = 0;
    w->free = 8;
    put(w, 8, (uint32_t)(nal_ref_idc << 5 | nal_unit_type));
}

/* Closes the NAL unit and appends it to the output, with start code and emulation prevention. */
static void end(struct picture_writer *w)
{
    put(w, 1, 1);
    put_zero_to_byte(w);
    static const uint8_t start_code[4] = {0, 0, 0, 1};
    memcpy(w->out + w->size, start_code, 4);
    w->size += 4;
    int zeros = 0;
    for (size_t i = 0; i < w->bytes; i++) {
        uint8_t byte = w->raw[i];
        if (zeros == 2 && byte <= 3) {
            w->out[w->size++] = 3;
            zeros = 0;
        }
        w->out[w->size++] = byte;
        zeros = byte == 0 ? zeros + 1 : 0;
    }
}

/* Parameter sets. */

/* The lowest level whose picture size fits; bit rates are of no interest here. */
static int level_for(int macroblocks)
{
    static const int table[][2] = {{99, 10},    {396, 20},   {792, 21},   {1620, 30},
                                   {3600, 31},  {5120, 32},  {8192, 40},  {8704, 42},
                                   {22080, 50}, {36864, 52}, {139264, 62}};
    for (size_t i = 0; i < sizeof table / sizeof *table; i++)
        if (macroblocks <= table[i][0])
            return table[i][1];
    return 62;
}

static void vui(struct picture_writer *w)
{
    const struct picture_format *f = &w->format;
    put(w, 1, 1); /* aspect ratio: square */
    put(w, 8, 1);
    put(w, 1, 0); /* overscan_info_present_flag */
    put(w, 1, f->colour_described || f->full_range_told);
    if (f->colour_described || f->full_range_told) {
        put(w, 3, 5); /* video_format: unspecified */
        put(w, 1, (uint32_t)f->full_range);
        put(w, 1, (uint32_t)f->colour_described);
        if (f->colour_described) {
            put(w, 8, (uint32_t)f->primaries);
            put(w, 8, (uint32_t)f->transfer);
            put(w, 8, (uint32_t)f->matrix);
        }
    }
    put(w, 1, 0); /* chroma_loc_info_present_flag */
    put(w, 1, f->fps_num > 0);
    if (f->fps_num > 0) {
        put(w, 32, (uint32_t)f->fps_den); /* a tick is a field, half a picture */
        put(w, 32, (uint32_t)f->fps_num * 2);
        put(w, 1, 0); /* fixed_frame_rate_flag */
    }
    put(w, 1, 0); /* nal_hrd_parameters_present_flag */
    put(w, 1, 0); /* vcl_hrd_parameters_present_flag */
    put(w, 1, 0); /* pic_struct_present_flag */
    put(w, 1, 1); /* bitstream_restriction_flag */
    put(w, 1, 1);
    put_ue(w, 0); /* max_bytes_per_pic_denom: no limit */
    put_ue(w, 0); /* max_bits_per_mb_denom: no limit */
    put_ue(w, 16);
    put_ue(w, 16);
    put_ue(w, f->b_frames > 0); /* max_num_reorder_frames: the anchor that comes early */
    put_ue(w, f->b_frames > 0 ? 2 : 1); /* max_dec_frame_buffering */
}

static void sequence_parameter_set(struct picture_writer *w)
{
    const struct picture_format *f = &w->format;
    begin(w, 3, 7);
    put(w, 8, (uint32_t)f->profile_idc);
    put(w, 8, f->profile_idc == 66 ? 0xc0 : 0); /* baseline is constrained baseline */
    put(w, 8, (uint32_t)f->level_idc);
    put_ue(w, 0); /* seq_parameter_set_id */
    if (f->profile_idc >= 100) {
        put_ue(w, f->chroma_444 ? 3 : 1);
        if (f->chroma_444)
            put(w, 1, 0); /* separate_colour_plane_flag */
        put_ue(w, 0);     /* 8 bits of luma */
        put_ue(w, 0);     /* and of chroma */
        put(w, 1, 0);     /* qpprime_y_zero_transform_bypass_flag */
        put(w, 1, 0);     /* seq_scaling_matrix_present_flag */
    }
    put_ue(w, 12); /* frame_num has 16 bits */
    put_ue(w, 0);  /* pic_order_cnt_type */
    put_ue(w, 12); /* pic_order_cnt_lsb has 16 bits */
    put_ue(w, f->b_frames > 0 ? 2 : 1); /* max_num_ref_frames */
    put(w, 1, 0);  /* gaps_in_frame_num_value_allowed_flag */
    put_ue(w, (uint32_t)w->columns - 1);
    put_ue(w, (uint32_t)w->rows - 1);
    put(w, 1, 1); /* frame_mbs_only_flag */
    put(w, 1, 1); /* direct_8x8_inference_flag */
    int right = w->columns * 16 - f->width, bottom = w->rows * 16 - f->height;
    int unit = f->chroma_444 ? 1 : 2;
    put(w, 1, right > 0 || bottom > 0);
    if (right > 0 || bottom > 0) {
        put_ue(w, 0);
        put_ue(w, (uint32_t)(right / unit));
        put_ue(w, 0);
        put_ue(w, (uint32_t)(bottom / unit));
    }
    put(w, 1, 1);
    vui(w);
    end(w);
}

static void picture_parameter_set(struct picture_writer *w)
{
    begin(w, 3, 8);
    put_ue(w, 0);  /* pic_parameter_set_id */
    put_ue(w, 0);  /* seq_parameter_set_id */
    put(w, 1, 0);  /* CAVLC */
    put(w, 1, 0);  /* bottom_field_pic_order_in_frame_present_flag */
    put_ue(w, 0);  /* num_slice_groups_minus1 */
    put_ue(w, 0);  /* one reference in list 0 */
    put_ue(w, 0);  /* and in list 1 */
    put(w, 1, 0);  /* weighted_pred_flag */
    put(w, 2, 0);  /* weighted_bipred_idc */
    put_ue(w, 0);  /* pic_init_qp_minus26 */
    put_ue(w, 0);  /* pic_init_qs_minus26 */
    put_ue(w, 0);  /* chroma_qp_index_offset */
    put(w, 1, 1);  /* deblocking_filter_control_present_flag */
    put(w, 1, 0);  /* constrained_intra_pred_flag */
    put(w, 1, 0);  /* redundant_pic_cnt_present_flag */
    end(w);
}

/* Samples. */

static void copy_plane(uint8_t *to, int to_width, int to_height, const uint8_t *from,
                       size_t stride, int step, int width, int height)
{
    for (int y = 0; y < to_height; y++, to += to_width) {
        const uint8_t *row = from + (size_t)(y < height ? y : height - 1) * stride;
        if (step == 1)
            memcpy(to, row, (size_t)width);
        else
            for (int x = 0; x < width; x++)
                to[x] = row[x * step];
        memset(to + width, to[width - 1], (size_t)(to_width - width));
    }
}

static void take(struct picture_writer *w, struct frame *frame, const struct picture_planes *in)
{
    const struct picture_format *f = &w->format;
    for (int i = 0; i < 3; i++) {
        int side = i == 0 ? 16 : w->chroma;
        int width = f->width * side / 16, height = f->height * side / 16;
        copy_plane(frame->plane[i], w->columns * side, w->rows * side, in->data[i], in->stride[i],
                   i == 0 ? 1 : in->chroma_step, width, height);
    }
}

static int same_block(const struct picture_writer *w, const struct frame *a, const struct frame *b,
                      int column, int row)
{
    for (int i = 0; i < 3; i++) {
        size_t side = i == 0 ? 16 : (size_t)w->chroma;
        size_t stride = (size_t)w->columns * side;
        size_t at = (size_t)row * side * stride + (size_t)column * side;
        for (size_t y = 0; y < side; y++, at += stride)
            if (memcmp(a->plane[i] + at, b->plane[i] + at, side) != 0)
                return 0;
    }
    return 1;
}

static void put_samples(struct picture_writer *w, const struct frame *frame, int column, int row)
{
    put_zero_to_byte(w);
    for (int i = 0; i < 3; i++) {
        size_t side = i == 0 ? 16 : (size_t)w->chroma;
        size_t stride = (size_t)w->columns * side;
        const uint8_t *at = frame->plane[i] + (size_t)row * side * stride + (size_t)column * side;
        for (size_t y = 0; y < side; y++, at += stride) {
            memcpy(w->raw + w->bytes, at, side);
            w->bytes += side;
        }
    }
}

/* Slices. */

static void slice_header(struct picture_writer *w, enum picture_type type, int64_t order)
{
    put_ue(w, 0); /* first_mb_in_slice */
    put_ue(w, type == PICTURE_P ? 5 : type == PICTURE_B ? 6 : 7); /* all slices of the picture */
    put_ue(w, 0); /* pic_parameter_set_id */
    put(w, 16, w->frame_num & 0xffff);
    if (type == PICTURE_IDR)
        put_ue(w, w->idr_pic_id);
    put(w, 16, (uint32_t)((order - w->idr_order) * 2) & 0xffff);
    if (type == PICTURE_B)
        put(w, 1, 1); /* direct_spatial_mv_pred_flag */
    if (type == PICTURE_P || type == PICTURE_B) {
        put(w, 1, 0); /* num_ref_idx_active_override_flag */
        put(w, 1, 0); /* ref_pic_list_modification_flag_l0 */
    }
    if (type == PICTURE_B)
        put(w, 1, 0); /* ref_pic_list_modification_flag_l1 */
    if (type == PICTURE_IDR)
        put(w, 2, 0); /* no_output_of_prior_pics_flag, long_term_reference_flag */
    else if (type != PICTURE_B)
        put(w, 1, 0); /* adaptive_ref_pic_marking_mode_flag */
    put_ue(w, 0);     /* slice_qp_delta, signed */
    put_ue(w, 1);     /* disable_deblocking_filter_idc */
}

/* All motion vectors are zero, so every predicted one is zero too: in a P slice, a skipped
 * macroblock is a copy. In a B slice it would be a mean; there a copy is told in 6 bits. */
static void slice_data(struct picture_writer *w, enum picture_type type, const struct frame *frame,
                       const struct frame *reference)
{
    uint32_t skipped = 0;
    for (int row = 0; row < w->rows; row++)
        for (int column = 0; column < w->columns; column++) {
            int same = reference && same_block(w, frame, reference, column, row);
            if (same && type == PICTURE_P) {
                skipped++;
                continue;
            }
            if (reference)
                put_ue(w, skipped); /* mb_skip_run */
            skipped = 0;
            if (same) {
                put_ue(w, 1); /* B_L0_16x16 */
                put_ue(w, 0); /* mvd_l0, horizontal */
                put_ue(w, 0); /* mvd_l0, vertical */
                put_ue(w, 0); /* coded_block_pattern: nothing */
                continue;
            }
            put_ue(w, type == PICTURE_P ? 30 : type == PICTURE_B ? 48 : 25); /* I_PCM */
            put_samples(w, frame, column, row);
        }
    if (skipped > 0)
        put_ue(w, skipped);
}

/* The first of list 0: for a P slice the newest reference, for a B slice the nearest before it. */
static const struct frame *reference_of(const struct picture_writer *w, enum picture_type type,
                                        int64_t order)
{
    if (type == PICTURE_P)
        return &w->frames[w->newest];
    if (type != PICTURE_B)
        return NULL;
    const struct frame *newest = &w->frames[w->newest], *older = &w->frames[w->older];
    return newest->order < order ? newest : older;
}

const uint8_t *picture_write(struct picture_writer *w, const struct picture_planes *planes,
                             enum picture_type type, int64_t order, int with, size_t *size)
{
    w->size = 0;
    /* Without two references there is no B picture, and without one no P picture. */
    if (type == PICTURE_B && w->older < 0)
        type = PICTURE_P;
    if (type == PICTURE_P && w->newest < 0)
        type = PICTURE_IDR;
    if (with & PICTURE_WITH_DELIMITER) {
        begin(w, 0, 9);
        put(w, 3, 7); /* primary_pic_type: any */
        end(w);
    }
    if (with & PICTURE_WITH_PARAMETER_SETS) {
        sequence_parameter_set(w);
        picture_parameter_set(w);
    }
    if (type == PICTURE_IDR) {
        w->frame_num = 0;
        w->idr_pic_id ^= 1;
        w->idr_order = order;
        w->newest = w->older = -1;
    }
    struct frame *frame = &w->frames[w->current];
    take(w, frame, planes);
    frame->order = order;
    begin(w, type == PICTURE_B ? 0 : type == PICTURE_IDR ? 3 : 2, type == PICTURE_IDR ? 5 : 1);
    slice_header(w, type, order);
    slice_data(w, type, frame, reference_of(w, type, order));
    end(w);
    if (type != PICTURE_B) {
        w->frame_num++;
        w->older = w->format.b_frames > 0 ? w->newest : -1;
        w->newest = w->current;
        for (w->current = 0; w->current == w->newest || w->current == w->older;)
            w->current++;
    }
    *size = w->size;
    return w->out;
}

const uint8_t *picture_parameter_sets(struct picture_writer *w, size_t *size)
{
    w->size = 0;
    sequence_parameter_set(w);
    picture_parameter_set(w);
    *size = w->size;
    return w->out;
}

struct picture_writer *picture_writer_new(const struct picture_format *format)
{
    int odd = format->width % 2 != 0 || format->height % 2 != 0;
    if (format->width <= 0 || format->height <= 0 || (odd && !format->chroma_444))
        return NULL;
    struct picture_writer *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    struct picture_format *f = &w->format;
    *f = *format;
    if (f->profile_idc == 0)
        f->profile_idc = f->chroma_444 ? 244 : f->b_frames > 0 ? 77 : 66;
    if ((f->chroma_444 && f->profile_idc != 244) || (f->b_frames > 0 && f->profile_idc == 66)) {
        free(w);
        return NULL;
    }
    w->columns = (f->width + 15) / 16;
    w->rows = (f->height + 15) / 16;
    w->chroma = f->chroma_444 ? 16 : 8;
    if (f->level_idc == 0)
        f->level_idc = level_for(w->columns * w->rows);
    w->newest = w->older = -1;
    size_t macroblocks = (size_t)w->columns * (size_t)w->rows;
    size_t block[3] = {256, (size_t)(w->chroma * w->chroma), (size_t)(w->chroma * w->chroma)};
    /* A macroblock is at most its samples and 4 bytes; escaping adds one byte in two at most. */
    size_t raw = macroblocks * (256 + 2 * block[1] + 4) + 256;
    w->raw = malloc(raw);
    w->out = malloc(raw + raw / 2 + 1024);
    int complete = w->raw && w->out;
    for (int i = 0; i < 9; i++) {
        w->frames[i / 3].plane[i % 3] = malloc(macroblocks * block[i % 3]);
        complete = complete && w->frames[i / 3].plane[i % 3];
    }
    if (complete)
        return w;
    picture_writer_free(w);
    return NULL;
}

void picture_writer_free(struct picture_writer *w)
{
    if (!w)
        return;
    for (int i = 0; i < 9; i++)
        free(w->frames[i / 3].plane[i % 3]);
    free(w->raw);
    free(w->out);
    free(w);
}
