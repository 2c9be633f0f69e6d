// SPDX-License-Identifier: GPL-2.0-or-later
// Recorded results. Little-endian words; per vector a hash of the input, how it ended, the changed words of the state
// and of memory. Inputs are not in the file: the generator makes the same ones from the seed on every host.
#include "tests/conformance/conformance.h"

#include <errno.h>

static const char magic[8] = "CLVEC01";

struct recording {
    FILE *file;
};

static bool put(FILE *file, uint64_t value, unsigned size)
{
    uint8_t bytes[8];
    store_le(bytes, 8, value);
    return fwrite(bytes, size, 1, file) == 1;
}

static bool get(FILE *file, uint64_t *value, unsigned size)
{
    uint8_t bytes[8] = {0};
    if (fread(bytes, size, 1, file) != 1)
        return false;
    *value = load_le(bytes, 8);
    return true;
}

static uint32_t hash(uint32_t h, const void *data, size_t size)
{
    const uint8_t *p = data;
    for (size_t k = 0; k < size; k++)
        h = (h ^ p[k]) * 0x01000193u;
    return h;
}

static uint32_t input_hash(const struct vector *v)
{
    uint32_t h = hash(0x811c9dc5u, v->bytes, v->length);
    h = hash(h, &v->in, sizeof(v->in));
    for (unsigned k = 0; k < 2; k++)
        h = hash(h, v->window[k].bytes, v->window[k].size);
    return h;
}

static struct recording *open_file(const char *path, const char *mode, GError **error)
{
    FILE *file = fopen(path, mode);
    if (!file) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "Cannot open the recording \"%s\": %s.", path,
                    g_strerror(errno));
        return NULL;
    }
    struct recording *r = g_new0(struct recording, 1);
    r->file = file;
    return r;
}

struct recording *recording_create(const char *path, const struct recording_header *header, GError **error)
{
    struct recording *r = open_file(path, "wb", error);
    if (r && fwrite(magic, sizeof(magic), 1, r->file) == 1 && put(r->file, header->seed, 8) &&
        put(r->file, header->per_form, 8) && put(r->file, header->forms, 8))
        return r;
    if (r)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot write the recording \"%s\".", path);
    return NULL;
}

struct recording *recording_open(const char *path, struct recording_header *header, GError **error)
{
    struct recording *r = open_file(path, "rb", error);
    char found[sizeof(magic)];
    if (!r)
        return NULL;
    if (fread(found, sizeof(found), 1, r->file) == 1 && memcmp(found, magic, sizeof(magic)) == 0 &&
        get(r->file, &header->seed, 8) && get(r->file, &header->per_form, 8) && get(r->file, &header->forms, 8))
        return r;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "\"%s\" is no recording of vectors.", path);
    recording_close(r);
    return NULL;
}

static bool put_changes(FILE *file, const uint8_t *before, const uint8_t *after, unsigned words)
{
    unsigned count = 0;
    for (unsigned k = 0; k < words; k++)
        count += memcmp(before + 8 * k, after + 8 * k, 8) != 0;
    if (!put(file, count, 2))
        return false;
    for (unsigned k = 0; k < words; k++)
        if (memcmp(before + 8 * k, after + 8 * k, 8) != 0 &&
            !(put(file, k, 2) && put(file, load_le(after + 8 * k, 8), 8)))
            return false;
    return true;
}

static bool get_changes(FILE *file, uint8_t *data, unsigned words)
{
    uint64_t count, at, value;
    if (!get(file, &count, 2))
        return false;
    while (count--) {
        if (!get(file, &at, 2) || !get(file, &value, 8) || at >= words)
            return false;
        store_le(data + 8 * at, 8, value);
    }
    return true;
}

bool recording_write(struct recording *r, const struct vector *v, const struct outcome *out, const uint8_t *before,
                     const uint8_t *after)
{
    return put(r->file, input_hash(v), 4) && put(r->file, (uint64_t)(out->exception + 1), 1) &&
           put(r->file, out->error_code, 4) && put(r->file, out->cr2, 8) &&
           put_changes(r->file, (const uint8_t *)&v->in, (const uint8_t *)&out->state, sizeof(v->in) / 8) &&
           put_changes(r->file, before, after, DATA_ALL / 8);
}

bool recording_read(struct recording *r, const struct vector *v, struct outcome *out, uint8_t *data)
{
    uint64_t h, exception, error;
    if (!get(r->file, &h, 4) || h != input_hash(v) || !get(r->file, &exception, 1) || !get(r->file, &error, 4) ||
        !get(r->file, &out->cr2, 8))
        return false;
    out->exception = (int)exception - 1;
    out->error_code = (uint32_t)error;
    out->state = v->in;
    return get_changes(r->file, (uint8_t *)&out->state, sizeof(out->state) / 8) &&
           get_changes(r->file, data, DATA_ALL / 8);
}

bool recording_close(struct recording *r)
{
    bool good = fclose(r->file) == 0;
    g_free(r);
    return good;
}
