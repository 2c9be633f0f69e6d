// SPDX-License-Identifier: GPL-2.0-or-later
// Drives the field tables of core/base/fields.h: one table saves, loads, prints and compares a structure.
//
// In a file a field is: length of its name (1 byte), name, type (1), number of elements (4), bytes of one element (4),
// payload. All numbers are little-endian. A structure's payload is its fields one after the other, ended by a zero
// byte.
#ifndef CLOCHE_STATE_FIELDS_H
#define CLOCHE_STATE_FIELDS_H

#include "core/base/fields.h"

#define STATE_MAX_BUFFER (64 * MiB)

// Bytes that are read, with bounds.
struct state_reader {
    const uint8_t *data;
    size_t length, at;
};
bool state_read(struct state_reader *reader, void *out, size_t length, GError **error);
uint64_t state_read_number(struct state_reader *reader, unsigned size, GError **error); // check *ERROR
void state_write_number(GByteArray *out, unsigned size, uint64_t value);

// Appends every field of OBJECT.
void state_save_fields(GByteArray *out, const struct field *fields, const void *object);
// Reads the fields that stand at READER into OBJECT. VERSION: of the class in the file; a field that came later takes
// its table's value. The error names the field. OBJECT may be half-loaded then.
bool state_load_fields(struct state_reader *reader, const struct field *fields, void *object, unsigned version,
                       GError **error);
// "name = value" lines, INDENT spaces in front.
void state_print_fields(GString *out, const struct field *fields, const void *object, unsigned indent);
// The fields in which A and B differ, printed like above ("name = 1, 2"). Returns how many there are.
unsigned state_diff_fields(GString *out, const struct field *fields, const void *a, const void *b, const char *prefix);

#endif
