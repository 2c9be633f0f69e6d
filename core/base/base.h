// SPDX-License-Identifier: GPL-2.0-or-later
// What every part of Cloche may use: errors, logging, trace points, bit helpers. Stands on GLib alone.
#ifndef CLOCHE_BASE_H
#define CLOCHE_BASE_H

#include <glib.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// Errors at boundaries are GErrors of this domain (or of G_IO_ERROR / G_FILE_ERROR where GLib made them). The message is
// one plain sentence that names the thing and, after it, the cure.
#define CLOCHE_ERROR cloche_error_quark()
GQuark cloche_error_quark(void);

enum cloche_error {
    CLOCHE_ERROR_FAILED,      // the operation failed for a reason that the message gives
    CLOCHE_ERROR_INVALID,     // bad input from a person, file, socket or command line
    CLOCHE_ERROR_NOT_FOUND,   // a named thing does not exist
    CLOCHE_ERROR_EXISTS,      // a thing of that name exists already
    CLOCHE_ERROR_BUSY,        // in use by somebody else, or not legal in the present state
    CLOCHE_ERROR_UNSUPPORTED, // understood, but this build or host cannot do it
    CLOCHE_ERROR_CORRUPT,     // a file is damaged
    CLOCHE_ERROR_CANCELLED,   // a person or program cancelled the job
    CLOCHE_ERROR_NO_SPACE,    // the host's disk is full
};

// Logging goes to stderr, and to the machine's log file once log_open_file() was called. Any thread may log.
enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

void log_message(enum log_level level, const char *area, const char *format, ...) G_GNUC_PRINTF(3, 4);
// Messages above LEVEL are dropped from stderr (a log file keeps LOG_LEVEL_INFO at least). Default: warning.
void log_set_level(enum log_level level);
// Appends to PATH from now on. Fails with a GError when the file cannot be opened.
bool log_open_file(const char *path, GError **error);

#define log_error(area, ...)   log_message(LOG_LEVEL_ERROR, area, __VA_ARGS__)
#define log_warning(area, ...) log_message(LOG_LEVEL_WARNING, area, __VA_ARGS__)
#define log_info(area, ...)    log_message(LOG_LEVEL_INFO, area, __VA_ARGS__)
#define log_debug(area, ...)   log_message(LOG_LEVEL_DEBUG, area, __VA_ARGS__)

// For odd guest behaviour: says it the first time, then at every power of two with the repeat count.
#define log_guest(area, ...)                                                                                           \
    do {                                                                                                               \
        static _Atomic unsigned log_guest_count;                                                                       \
        unsigned log_guest_n = atomic_fetch_add(&log_guest_count, 1) + 1;                                              \
        if ((log_guest_n & (log_guest_n - 1)) == 0)                                                                    \
            log_guest_message(area, log_guest_n, __VA_ARGS__);                                                         \
    } while (0)
void log_guest_message(const char *area, unsigned count, const char *format, ...) G_GNUC_PRINTF(3, 4);

// Named trace points: one test of a flag when off. Names are `device_event`. Switched on by trace_enable("ide_*,pci_*").
struct trace_point {
    const char *name;
    bool enabled;
};
#define TRACE_POINT(ident)                                                                                             \
    static struct trace_point trace_point_##ident __attribute__((used)) = {#ident, false};                            \
    static __attribute__((constructor)) void trace_register_##ident(void)                                              \
    {                                                                                                                  \
        trace_register(&trace_point_##ident);                                                                          \
    }                                                                                                                  \
    _Static_assert(1, "")
#define TRACE(ident, ...)                                                                                              \
    do {                                                                                                               \
        if (G_UNLIKELY(trace_point_##ident.enabled))                                                                   \
            trace_print(&trace_point_##ident, __VA_ARGS__);                                                            \
    } while (0)
void trace_register(struct trace_point *point);
void trace_print(const struct trace_point *point, const char *format, ...) G_GNUC_PRINTF(2, 3);
// PATTERNS: comma separated globs. Returns how many points match.
unsigned trace_enable(const char *patterns);

// A function that leaves vector and x87 registers alone: the translator calls it while the guest's values are there.
#ifdef __x86_64__
#define VECTOR_FREE __attribute__((target("general-regs-only")))
#else
#define VECTOR_FREE
#endif

#define KiB 1024ull
#define MiB (1024ull * KiB)
#define GiB (1024ull * MiB)

#define PAGE_SHIFT 12
#define PAGE_SIZE  4096ull
#define PAGE_MASK  (~(PAGE_SIZE - 1))

#define BIT(n)              (1ull << (n))
#define MASK_BITS(hi, lo)   ((~0ull >> (63 - (hi))) & (~0ull << (lo)))
#define ALIGN_DOWN(x, a)    ((x) & ~((__typeof__(x))(a)-1))
#define ALIGN_UP(x, a)      ALIGN_DOWN((x) + (a)-1, a)
#define container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

static inline uint64_t extract_bits(uint64_t value, unsigned start, unsigned length)
{
    return value >> start & (~0ull >> (64 - length));
}

// Little-endian loads and stores at any alignment; sizes 1, 2, 4, 8.
uint64_t load_le(const void *p, unsigned size);
void store_le(void *p, unsigned size, uint64_t value);

#endif
