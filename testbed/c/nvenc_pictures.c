/* The pictures of a session: which becomes what, and in which order they are coded. */
#include "nvenc_core.h"

#include "log.h"

#include <stdlib.h>
#include <string.h>

static struct picture_planes planes_of(const struct input *input, uint8_t *memory)
{
    size_t pitch = input->pitch, size = pitch * (size_t)input->height;
    uint8_t *second = memory + size;
    uint8_t *third = second + pitch / 2 * (size_t)((input->height + 1) / 2);
    switch (input->format) {
    case NV12:
        return (struct picture_planes){{memory, second, second + 1}, {pitch, pitch, pitch}, 2};
    case YUV444:
        return (struct picture_planes){{memory, second, second + size}, {pitch, pitch, pitch}, 1};
    case YV12:
        return (struct picture_planes){{memory, third, second}, {pitch, pitch / 2, pitch / 2}, 1};
    default:
        return (struct picture_planes){{memory, second, third}, {pitch, pitch / 2, pitch / 2}, 1};
    }
}

/* How many bytes the planes take, and the one in the middle of the picture. */
static size_t bytes_of(const struct input *input)
{
    return input->pitch * (size_t)input->height * (input->format == YUV444 ? 6 : 3) / 2;
}

static size_t middle_of(const struct input *input)
{
    return input->pitch * (size_t)(input->height / 2) + (size_t)(input->width / 2);
}

/* Wrong outputs, by changing what goes in. `copy` is a picture of ours. */
static void spoil_samples(const char *kind, const struct session *session,
                          const struct input *input, uint8_t *copy, struct picture_planes *planes)
{
    if (strcmp(kind, "sample") == 0) {
        copy[middle_of(input)] ^= 1;
    } else if (strcmp(kind, "black") == 0) {
        memset(copy, 128, bytes_of(input));
        memset(copy, 16, input->pitch * (size_t)input->height);
    } else if (strcmp(kind, "stale") == 0) {
        if (session->previous_size == bytes_of(input))
            memcpy(copy, session->previous, session->previous_size);
    } else if (strcmp(kind, "shifted") == 0) {
        memmove(copy, copy + input->pitch, input->pitch * (size_t)(input->height - 1));
    } else if (strcmp(kind, "swapped") == 0) {
        const uint8_t *first = planes->data[1];
        planes->data[1] = planes->data[2];
        planes->data[2] = first;
    }
}

/* And by changing what comes out. */
static void spoil_bytes(const char *kind, struct output *output)
{
    if (strcmp(kind, "garbage") == 0) {
        uint32_t state = 1;
        for (size_t i = 5; i < output->size; i++)
            output->bytes[i] = (uint8_t)((state = state * 1664525 + 1013904223) >> 24);
    } else if (strcmp(kind, "truncated") == 0) {
        output->size /= 2;
    } else if (strcmp(kind, "empty") == 0) {
        output->size = 0;
    } else if (strcmp(kind, "timestamp") == 0) {
        output->pts += 1000;
    }
}

static void remember(struct session *session, const struct input *input, const uint8_t *memory)
{
    char action[32];
    spec_text("fault_action", action, sizeof action);
    if (strcmp(action, "stale") != 0)
        return;
    size_t size = bytes_of(input);
    uint8_t *kept = realloc(session->previous, size);
    if (!kept)
        return;
    memcpy(kept, memory, size);
    session->previous = kept;
    session->previous_size = size;
}

static int keep(struct output *output, const uint8_t *bytes, size_t size)
{
    if (size > output->capacity) {
        uint8_t *larger = realloc(output->bytes, size);
        if (!larger)
            return 0;
        output->bytes = larger;
        output->capacity = size;
    }
    memcpy(output->bytes, bytes, size);
    output->size = size;
    return 1;
}

/* Codes one picture into the buffer that was handed in first, whoever came with it. */
static void code(struct session *session, const struct submitted *picture, enum picture_type type)
{
    const struct config *config = &session->config;
    struct input *input = picture->input;
    struct output *output = session->free_outputs[0];
    session->free_count--;
    memmove(session->free_outputs, session->free_outputs + 1,
            (size_t)session->free_count * sizeof *session->free_outputs);

    int first = session->coded == 0, with = config->delimiters ? PICTURE_WITH_DELIMITER : 0;
    int headers = config->in_band_headers && (first || config->repeat_headers);
    if ((type == PICTURE_IDR && headers) || picture->flags & OUTPUT_SPSPPS)
        with |= PICTURE_WITH_PARAMETER_SETS;

    const char *wrong = fault_in_output((long)picture->order);
    struct picture_planes planes = planes_of(input, input->memory);
    uint8_t *copy = wrong ? malloc(bytes_of(input)) : NULL;
    if (copy) {
        memcpy(copy, input->memory, bytes_of(input));
        planes = planes_of(input, copy);
        spoil_samples(wrong, session, input, copy, &planes);
    }
    size_t size;
    const uint8_t *bytes =
        picture_write(session->writer, &planes, type, picture->order, with, &size);
    remember(session, input, input->memory);
    free(copy);
    if (!keep(output, bytes, size))
        violation("no memory for a picture of %zu bytes", size);
    output->pts = picture->pts;
    output->duration = picture->duration;
    output->frame_index = picture->frame_index;
    output->type = type;
    if (wrong)
        spoil_bytes(wrong, output);
    output->state = READY;
    input->pending--;
    session->coded++;
    session->bytes += (int64_t)output->size;
}

/* The last of the group becomes the reference of those before it. */
static void code_group(struct session *session)
{
    int count = session->group_count;
    session->group_count = 0;
    if (count == 0)
        return;
    code(session, &session->group[count - 1], PICTURE_P);
    for (int i = 0; i < count - 1; i++)
        code(session, &session->group[i], PICTURE_B);
}

/* What the next picture in display order becomes. */
static void decide(struct session *session, const struct submitted *picture)
{
    const struct config *config = &session->config;
    int idr = session->coded + session->group_count == 0 || picture->flags & FORCE_IDR ||
              session->since_idr >= config->idr_period;
    int intra = idr || picture->flags & FORCE_INTRA ||
                session->since_intra >= config->gop_length || config->frame_interval_p == 0;
    if (picture->flags & (FORCE_IDR | FORCE_INTRA))
        log_event("forced", "\"frame\":%lld,\"pts\":%lld,\"idr\":%s", (long long)picture->order,
                  (long long)picture->pts, picture->flags & FORCE_IDR ? "true" : "false");
    if (idr)
        session->since_idr = 0;
    if (intra)
        session->since_intra = 0;
    session->since_idr++;
    session->since_intra++;
    if (intra) {
        code_group(session);
        code(session, picture, idr ? PICTURE_IDR : PICTURE_I);
        return;
    }
    session->group[session->group_count++] = *picture;
    if (session->group_count == config->frame_interval_p)
        code_group(session);
}

static void decide_first(struct session *session)
{
    struct submitted picture = session->waiting[0];
    session->waiting_count--;
    memmove(session->waiting, session->waiting + 1,
            (size_t)session->waiting_count * sizeof *session->waiting);
    decide(session, &picture);
}

enum status pictures_submit(struct session *session, struct input *input, struct output *output,
                            const struct submitted *picture)
{
    if (session->free_count == QUEUE)
        return misuse(session, INVALID_CALL, "EncodePicture: %d pictures wait for others",
                      session->free_count);
    int64_t before = session->coded;
    struct submitted *last = &session->waiting[session->waiting_count++];
    *last = *picture;
    last->input = input;
    last->order = session->submitted++;
    input->pending++;
    output->state = PENDING;
    session->free_outputs[session->free_count++] = output;
    while (session->waiting_count > session->config.lookahead)
        decide_first(session);
    return session->coded > before ? OK : NEED_MORE_INPUT;
}

void pictures_flush(struct session *session)
{
    while (session->waiting_count > 0)
        decide_first(session);
    code_group(session);
}
