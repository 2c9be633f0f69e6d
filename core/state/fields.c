// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/state/fields.h"
#include "core/base/clock.h"

#include <inttypes.h>
#include <malloc.h>
#include <string.h>

#define MAX_DEPTH 8

// Bytes of one element of a scalar type; 0: not a scalar.
static const uint8_t scalar_size[] = {
    [FIELD_TYPE_BOOL] = 1, [FIELD_TYPE_U8] = 1,  [FIELD_TYPE_U16] = 2,   [FIELD_TYPE_U32] = 4,   [FIELD_TYPE_U64] = 8,
    [FIELD_TYPE_S32] = 4,  [FIELD_TYPE_S64] = 8, [FIELD_TYPE_BYTES] = 0, [FIELD_TYPE_TIMER] = 8, [FIELD_TYPE_END] = 0,
};

// ---- Reading and writing numbers ----

void state_write_number(GByteArray *out, unsigned size, uint64_t value)
{
    uint8_t bytes[8];
    store_le(bytes, size, value);
    g_byte_array_append(out, bytes, size);
}

bool state_read(struct state_reader *reader, void *out, size_t length, GError **error)
{
    if (length > reader->length - reader->at) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "the saved state ends too early");
        return false;
    }
    memcpy(out, reader->data + reader->at, length);
    reader->at += length;
    return true;
}

uint64_t state_read_number(struct state_reader *reader, unsigned size, GError **error)
{
    uint8_t bytes[8];
    return state_read(reader, bytes, size, error) ? load_le(bytes, size) : 0;
}

// ---- Scalars in memory ----

static uint64_t get_scalar(const struct field *field, const void *object, unsigned index)
{
    const uint8_t *at = (const uint8_t *)object + field->offset + index * field->size;
    uint64_t value = 0;
    switch (field->type) {
    case FIELD_TYPE_BOOL:
        return *(const bool *)at;
    case FIELD_TYPE_TIMER:
        return ((const struct timer *)at)->deadline;
    case FIELD_TYPE_S32:
        return (int64_t) * (const int32_t *)at;
    default:
        memcpy(&value, at, scalar_size[field->type]); // hosts are little-endian or the compiler says so below
        return value;
    }
}
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "scalars are copied as they stand in memory");

static void set_scalar(const struct field *field, void *object, unsigned index, uint64_t value)
{
    uint8_t *at = (uint8_t *)object + field->offset + index * field->size;
    if (field->type == FIELD_TYPE_BOOL)
        *(bool *)at = value;
    else if (field->type != FIELD_TYPE_TIMER)
        memcpy(at, &value, scalar_size[field->type]);
    else if ((int64_t)value == INT64_MAX)
        timer_cancel((struct timer *)at);
    else
        timer_arm((struct timer *)at, value);
}

static uint64_t buffer_length(const struct field *field, const void *object)
{
    return load_le((const uint8_t *)object + field->length_offset, field->size == 8 ? 8 : 4);
}

static void *buffer_pointer(const struct field *field, const void *object)
{
    return *(void *const *)((const uint8_t *)object + field->offset);
}

// ---- Saving ----

static void save_payload(GByteArray *out, const struct field *field, const void *object)
{
    const uint8_t *at = (const uint8_t *)object + field->offset;
    if (field->type == FIELD_TYPE_BYTES) {
        g_byte_array_append(out, at, field->count);
    } else if (field->type == FIELD_TYPE_STRUCT) {
        for (unsigned i = 0; i < field->count; i++)
            state_save_fields(out, field->sub, at + i * field->size);
    } else {
        for (unsigned i = 0; i < field->count; i++)
            state_write_number(out, scalar_size[field->type], get_scalar(field, object, i));
    }
}

void state_save_fields(GByteArray *out, const struct field *fields, const void *object)
{
    for (const struct field *field = fields; field->type != FIELD_TYPE_END; field++) {
        size_t length = strlen(field->name);
        g_assert(length > 0 && length < 256);
        state_write_number(out, 1, length);
        g_byte_array_append(out, (const uint8_t *)field->name, length);
        state_write_number(out, 1, field->type);
        if (field->type == FIELD_TYPE_BUFFER) {
            uint64_t bytes = buffer_length(field, object);
            g_assert(bytes <= STATE_MAX_BUFFER);
            state_write_number(out, 4, bytes);
            state_write_number(out, 4, 1);
            if (bytes)
                g_byte_array_append(out, buffer_pointer(field, object), bytes);
            continue;
        }
        state_write_number(out, 4, field->count);
        state_write_number(out, 4, scalar_size[field->type]);
        save_payload(out, field, object);
    }
    state_write_number(out, 1, 0);
}

// ---- Loading ----

struct field_header {
    char name[256];
    unsigned type;
    uint32_t count, size;
};

static bool read_header(struct state_reader *reader, struct field_header *header, GError **error)
{
    GError *local = NULL;
    unsigned length = state_read_number(reader, 1, &local);
    if (!local)
        state_read(reader, header->name, length, &local);
    header->name[length] = 0;
    if (!local && length) {
        header->type = state_read_number(reader, 1, &local);
        header->count = local ? 0 : state_read_number(reader, 4, &local);
        header->size = local ? 0 : state_read_number(reader, 4, &local);
    }
    if (!local && length && header->type >= FIELD_TYPE_END)
        g_set_error(&local, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "field \"%s\" has an unknown type", header->name);
    if (!local)
        return true;
    g_propagate_error(error, local);
    return false;
}

static const struct field *find_field(const struct field *fields, const char *name)
{
    for (; fields->type != FIELD_TYPE_END; fields++)
        if (strcmp(fields->name, name) == 0)
            return fields;
    return NULL;
}

static bool load_buffer(struct state_reader *reader, const struct field *field, void *object, uint32_t length,
                        GError **error)
{
    if (length > STATE_MAX_BUFFER || length > reader->length - reader->at) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "field \"%s\" is longer than the file", field->name);
        return false;
    }
    // A buffer is one block of the heap; one that is large enough keeps its size (its owner may use all of it).
    void **pointer = (void **)((uint8_t *)object + field->offset);
    if (length > (*pointer ? malloc_usable_size(*pointer) : 0))
        *pointer = g_realloc(*pointer, length);
    store_le((uint8_t *)object + field->length_offset, field->size == 8 ? 8 : 4, length);
    return !length || state_read(reader, *pointer, length, error);
}

static bool load_structure(struct state_reader *reader, const struct field *fields, void *object, unsigned version,
                           unsigned depth, GError **error);

static bool load_payload(struct state_reader *reader, const struct field *field, void *object, unsigned version,
                         unsigned depth, GError **error)
{
    uint8_t *at = (uint8_t *)object + field->offset;
    if (field->type == FIELD_TYPE_BYTES)
        return state_read(reader, at, field->count, error);
    GError *local = NULL;
    for (unsigned i = 0; i < field->count && !local; i++) {
        if (field->type == FIELD_TYPE_STRUCT) {
            load_structure(reader, field->sub, at + i * field->size, version, depth + 1, &local);
            if (local)
                g_prefix_error(&local, "%s: ", field->name);
            continue;
        }
        uint64_t value = state_read_number(reader, scalar_size[field->type], &local);
        if (!local && field->type == FIELD_TYPE_BOOL && value > 1)
            g_set_error(&local, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "field \"%s\" is neither true nor false",
                        field->name);
        if (!local)
            set_scalar(field, object, i, value);
    }
    if (!local)
        return true;
    g_propagate_error(error, local);
    return false;
}

static void set_missing(const struct field *field, void *object)
{
    for (unsigned i = 0; i < field->count && scalar_size[field->type]; i++)
        set_scalar(field, object, i, field->missing);
}

static bool load_structure(struct state_reader *reader, const struct field *fields, void *object, unsigned version,
                           unsigned depth, GError **error)
{
    unsigned total = 0;
    while (fields[total].type != FIELD_TYPE_END)
        total++;
    g_autofree bool *seen = g_new0(bool, total + 1);
    if (depth > MAX_DEPTH) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "the saved state is nested too deeply");
        return false;
    }
    for (;;) {
        struct field_header header;
        if (!read_header(reader, &header, error))
            return false;
        if (!header.name[0])
            break;
        const struct field *field = find_field(fields, header.name);
        if (!field || field->type != header.type || seen[field - fields] ||
            (field->type != FIELD_TYPE_BUFFER &&
             (field->count != header.count || scalar_size[field->type] != header.size))) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "field \"%s\" %s", header.name,
                        field ? "has another shape than here, or stands there twice" : "is unknown here");
            return false;
        }
        seen[field - fields] = true;
        if (field->type == FIELD_TYPE_BUFFER ? !load_buffer(reader, field, object, header.count, error)
                                             : !load_payload(reader, field, object, version, depth, error))
            return false;
    }
    for (unsigned i = 0; i < total; i++) {
        if (seen[i])
            continue;
        if (version >= fields[i].since) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "field \"%s\" is missing", fields[i].name);
            return false;
        }
        set_missing(&fields[i], object);
    }
    return true;
}

bool state_load_fields(struct state_reader *reader, const struct field *fields, void *object, unsigned version,
                       GError **error)
{
    return load_structure(reader, fields, object, version, 0, error);
}

// ---- Printing and comparing ----

static char *scalar_text(const struct field *field, const void *object, unsigned index)
{
    uint64_t value = get_scalar(field, object, index);
    if (field->type == FIELD_TYPE_BOOL)
        return g_strdup(value ? "true" : "false");
    if (field->type == FIELD_TYPE_TIMER && (int64_t)value == INT64_MAX)
        return g_strdup("off");
    if (field->type >= FIELD_TYPE_S32)
        return g_strdup_printf("%" PRId64, (int64_t)value);
    return g_strdup_printf("0x%" PRIx64, value);
}

static char *bytes_text(const uint8_t *bytes, uint64_t length)
{
    GString *text = g_string_new(NULL);
    for (uint64_t i = 0; i < MIN(length, 32); i++)
        g_string_append_printf(text, "%02x", bytes[i]);
    if (length > 32)
        g_string_append_printf(text, "... (%" PRIu64 " bytes)", length);
    return g_string_free(text, FALSE);
}

// Everything but structures.
static char *value_text(const struct field *field, const void *object)
{
    if (field->type == FIELD_TYPE_BYTES)
        return bytes_text((const uint8_t *)object + field->offset, field->count);
    if (field->type == FIELD_TYPE_BUFFER)
        return bytes_text(buffer_pointer(field, object), buffer_length(field, object));
    GString *text = g_string_new(NULL);
    for (unsigned i = 0; i < field->count; i++) {
        g_autofree char *each = scalar_text(field, object, i);
        g_string_append_printf(text, "%s%s", i ? " " : "", each);
    }
    return g_string_free(text, FALSE);
}

void state_print_fields(GString *out, const struct field *fields, const void *object, unsigned indent)
{
    for (const struct field *field = fields; field->type != FIELD_TYPE_END; field++) {
        if (field->type != FIELD_TYPE_STRUCT) {
            g_autofree char *text = value_text(field, object);
            g_string_append_printf(out, "%*s%s = %s\n", (int)indent, "", field->name, text);
            continue;
        }
        for (unsigned i = 0; i < field->count; i++) {
            g_string_append_printf(out, "%*s%s[%u]:\n", (int)indent, "", field->name, i);
            state_print_fields(out, field->sub, (const uint8_t *)object + field->offset + i * field->size, indent + 2);
        }
    }
}

static bool same_value(const struct field *field, const void *a, const void *b)
{
    if (field->type == FIELD_TYPE_BYTES)
        return memcmp((const uint8_t *)a + field->offset, (const uint8_t *)b + field->offset, field->count) == 0;
    if (field->type == FIELD_TYPE_BUFFER) {
        uint64_t length = buffer_length(field, a);
        return length == buffer_length(field, b) &&
               (!length || memcmp(buffer_pointer(field, a), buffer_pointer(field, b), length) == 0);
    }
    for (unsigned i = 0; i < field->count; i++)
        if (get_scalar(field, a, i) != get_scalar(field, b, i))
            return false;
    return true;
}

unsigned state_diff_fields(GString *out, const struct field *fields, const void *a, const void *b, const char *prefix)
{
    unsigned differences = 0;
    for (const struct field *field = fields; field->type != FIELD_TYPE_END; field++) {
        if (field->type == FIELD_TYPE_STRUCT) {
            for (unsigned i = 0; i < field->count; i++) {
                g_autofree char *deeper = g_strdup_printf("%s%s[%u].", prefix, field->name, i);
                size_t offset = field->offset + i * field->size;
                differences += state_diff_fields(out, field->sub, (const uint8_t *)a + offset,
                                                 (const uint8_t *)b + offset, deeper);
            }
        } else if (!same_value(field, a, b)) {
            g_autofree char *first = value_text(field, a), *second = value_text(field, b);
            g_string_append_printf(out, "%s%s = %s, %s\n", prefix, field->name, first, second);
            differences++;
        }
    }
    return differences;
}
