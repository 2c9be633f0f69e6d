// SPDX-License-Identifier: GPL-2.0-or-later
// Saved state by named, typed fields: one table per structure saves, loads, prints and compares it (core/state drives
// the tables). A field that came later carries the version since which it exists and the value older files imply.
#ifndef CLOCHE_FIELDS_H
#define CLOCHE_FIELDS_H

#include "core/base/base.h"

enum field_type {
    FIELD_TYPE_BOOL,
    FIELD_TYPE_U8,
    FIELD_TYPE_U16,
    FIELD_TYPE_U32,
    FIELD_TYPE_U64,
    FIELD_TYPE_S32,
    FIELD_TYPE_S64,
    FIELD_TYPE_BYTES,   // COUNT raw bytes inside the structure
    FIELD_TYPE_BUFFER,  // a pointer to bytes; their number is read from the uint32_t or uint64_t at length_offset
    FIELD_TYPE_STRUCT,  // COUNT structures of SIZE bytes, each described by SUB
    FIELD_TYPE_TIMER,   // struct timer: its deadline in guest nanoseconds, or "off"
    FIELD_TYPE_END,
};

struct field {
    const char *name;
    enum field_type type;
    size_t offset;
    size_t size;          // of one element
    unsigned count;       // elements (1 for a scalar)
    unsigned since;       // class version that introduced it (0: always there)
    uint64_t missing;     // value where the file is older than SINCE
    const struct field *sub;
    size_t length_offset; // FIELD_TYPE_BUFFER
};

#define FIELD_SCALAR(type_, struct_, member_, since_, missing_)                                                        \
    {.name = #member_, .type = type_, .offset = offsetof(struct_, member_), .size = sizeof(((struct_ *)0)->member_),  \
     .count = 1, .since = since_, .missing = missing_}
#define FIELD_BOOL(s, m)  FIELD_SCALAR(FIELD_TYPE_BOOL, s, m, 0, 0)
#define FIELD_U8(s, m)    FIELD_SCALAR(FIELD_TYPE_U8, s, m, 0, 0)
#define FIELD_U16(s, m)   FIELD_SCALAR(FIELD_TYPE_U16, s, m, 0, 0)
#define FIELD_U32(s, m)   FIELD_SCALAR(FIELD_TYPE_U32, s, m, 0, 0)
#define FIELD_U64(s, m)   FIELD_SCALAR(FIELD_TYPE_U64, s, m, 0, 0)
#define FIELD_S32(s, m)   FIELD_SCALAR(FIELD_TYPE_S32, s, m, 0, 0)
#define FIELD_S64(s, m)   FIELD_SCALAR(FIELD_TYPE_S64, s, m, 0, 0)
#define FIELD_TIMER(s, m) FIELD_SCALAR(FIELD_TYPE_TIMER, s, m, 0, 0)
// An array of scalars; TYPE_ is BOOL, U8, U16, U32, U64, S32 or S64.
#define FIELD_ARRAY(type_, struct_, member_)                                                                           \
    {.name = #member_, .type = FIELD_TYPE_##type_, .offset = offsetof(struct_, member_),                              \
     .size = sizeof(((struct_ *)0)->member_[0]), .count = G_N_ELEMENTS(((struct_ *)0)->member_)}
#define FIELD_BYTES(struct_, member_)                                                                                  \
    {.name = #member_, .type = FIELD_TYPE_BYTES, .offset = offsetof(struct_, member_), .size = 1,                     \
     .count = sizeof(((struct_ *)0)->member_)}
#define FIELD_BUFFER(struct_, member_, length_member_)                                                                 \
    {.name = #member_, .type = FIELD_TYPE_BUFFER, .offset = offsetof(struct_, member_),                               \
     .size = sizeof(((struct_ *)0)->length_member_), .count = 1,                                                      \
     .length_offset = offsetof(struct_, length_member_)}
#define FIELD_STRUCT(struct_, member_, sub_)                                                                           \
    {.name = #member_, .type = FIELD_TYPE_STRUCT, .offset = offsetof(struct_, member_),                               \
     .size = sizeof(((struct_ *)0)->member_), .count = 1, .sub = sub_}
#define FIELD_STRUCT_ARRAY(struct_, member_, sub_)                                                                     \
    {.name = #member_, .type = FIELD_TYPE_STRUCT, .offset = offsetof(struct_, member_),                               \
     .size = sizeof(((struct_ *)0)->member_[0]), .count = G_N_ELEMENTS(((struct_ *)0)->member_), .sub = sub_}
#define FIELD_END {.type = FIELD_TYPE_END}

#endif
