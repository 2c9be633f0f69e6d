// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/base/base.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

G_DEFINE_QUARK(cloche-error-quark, cloche_error)

// ---- Logging ----
static struct {
    GMutex lock;
    _Atomic int level;
    FILE *file;
} logging = {.level = LOG_LEVEL_WARNING};

static const char *const level_names[] = {"error", "warning", "info", "debug"};

static void log_write(enum log_level level, const char *area, const char *text)
{
    g_mutex_lock(&logging.lock);
    if ((int)level <= logging.level)
        fprintf(stderr, "cloche: %s: %s: %s\n", area, level_names[level], text);
    if (logging.file && (level <= LOG_LEVEL_INFO || (int)level <= logging.level)) {
        g_autoptr(GDateTime) now = g_date_time_new_now_local();
        g_autofree char *stamp = g_date_time_format(now, "%F %T.%f");
        fprintf(logging.file, "%s %s: %s: %s\n", stamp, area, level_names[level], text);
        fflush(logging.file);
    }
    g_mutex_unlock(&logging.lock);
}

void log_message(enum log_level level, const char *area, const char *format, ...)
{
    if ((int)level > logging.level && (level > LOG_LEVEL_INFO || !logging.file))
        return;
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    log_write(level, area, text);
}

void log_guest_message(const char *area, unsigned count, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    g_autofree char *counted = count > 1 ? g_strdup_printf("%s (%u times)", text, count) : NULL;
    log_write(LOG_LEVEL_INFO, area, counted ? counted : text);
}

void log_set_level(enum log_level level)
{
    logging.level = level;
}

bool log_open_file(const char *path, GError **error)
{
    FILE *file = fopen(path, "ae");
    if (!file) {
        int e = errno;
        g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(e), "Cannot open the log file %s: %s", path,
                    g_strerror(e));
        return false;
    }
    g_mutex_lock(&logging.lock);
    if (logging.file)
        fclose(logging.file);
    logging.file = file;
    g_mutex_unlock(&logging.lock);
    return true;
}

// ---- Trace points: registered by constructors, before any thread exists ----
static GPtrArray *trace_points;

void trace_register(struct trace_point *point)
{
    if (!trace_points)
        trace_points = g_ptr_array_new();
    g_ptr_array_add(trace_points, point);
}

void trace_print(const struct trace_point *point, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    g_autofree char *text = g_strdup_vprintf(format, args);
    va_end(args);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    fprintf(stderr, "%ld.%06ld %s %s\n", (long)now.tv_sec, now.tv_nsec / 1000, point->name, text);
}

unsigned trace_enable(const char *patterns)
{
    unsigned count = 0;
    g_auto(GStrv) list = g_strsplit(patterns, ",", -1);
    for (unsigned i = 0; trace_points && i < trace_points->len; i++) {
        struct trace_point *point = trace_points->pdata[i];
        for (char **pattern = list; *pattern; pattern++)
            if (g_pattern_match_simple(*pattern, point->name)) {
                point->enabled = true;
                count++;
                break;
            }
    }
    return count;
}

// ---- Little-endian access ----
uint64_t load_le(const void *p, unsigned size)
{
    const uint8_t *bytes = p;
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

void store_le(void *p, unsigned size, uint64_t value)
{
    uint8_t *bytes = p;
    for (unsigned i = 0; i < size; i++)
        bytes[i] = value >> 8 * i;
}
