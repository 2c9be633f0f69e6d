// SPDX-License-Identifier: GPL-2.0-or-later
#include "ui/cli/disk-commands.h"

#include "disks/check.h"
#include "disks/info.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- Options of new images ----
static bool set_option(struct disk_create_options *o, const char *key, const char *value, GError **error)
{
    uint64_t number;
    bool on = strcmp(value, "on") == 0;
    if (strcmp(key, "compression") == 0 && (strcmp(value, "zlib") == 0 || strcmp(value, "zstd") == 0))
        o->compression = strcmp(value, "zstd") == 0 ? DISK_COMPRESS_ZSTD : DISK_COMPRESS_ZLIB;
    else if (strcmp(key, "extended_l2") == 0 && (on || strcmp(value, "off") == 0))
        o->extended_l2 = on;
    else if (strcmp(key, "lazy_refcounts") == 0 && (on || strcmp(value, "off") == 0))
        o->lazy_refcounts = on;
    else if (strcmp(key, "cluster_size") == 0 && parse_size(value, &number, NULL) && number <= G_MAXUINT)
        o->cluster_size = number;
    else if (strcmp(key, "version") == 0 && *value)
        o->version = atoi(value);
    else if (strcmp(key, "refcount_bits") == 0 && *value)
        o->refcount_bits = atoi(value);
    else {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "“%s=%s” is not an option of a disk image: see cloche-disk(1) for the list", key, value);
        return false;
    }
    return true;
}

static bool parse_options(const char *list, struct disk_create_options *o, GError **error)
{
    g_auto(GStrv) pairs = g_strsplit(list ? list : "", ",", -1);
    for (char **pair = pairs; *pair; pair++) {
        char *equals = strchr(*pair, '=');
        if (equals)
            *equals = 0;
        if (!set_option(o, *pair, equals ? equals + 1 : "on", error))
            return false;
    }
    return true;
}

static bool creation(struct disk_arguments *a, struct disk_create_options *o, GError **error)
{
    *o = (struct disk_create_options){.format = a->format ? a->format : "qcow2",
                                      .backing = a->backing,
                                      .backing_format = a->backing_format,
                                      .preallocate = a->preallocate,
                                      .force = a->force};
    return parse_options(a->options, o, error);
}

// ---- resize ----
static bool new_size(const char *text, uint64_t old, uint64_t *size, GError **error)
{
    bool relative = *text == '+' || *text == '-';
    if (!parse_size(text + relative, size, error))
        return false;
    if (*text == '-' && *size > old) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The disk cannot shrink by more than it has");
        return false;
    }
    if (relative)
        *size = *text == '+' ? old + *size : old - *size;
    return true;
}

static int run_resize(struct disk_arguments *a, GError **error)
{
    struct disk *disk = disk_open(a->names[0], a->format, 0, error);
    uint64_t size, old = disk ? disk_size(disk) : 0;
    bool ok = disk && new_size(a->names[1], old, &size, error);
    if (ok && size < old && !a->shrink) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "%s would get smaller and lose its end: shrink the guest's partitions first, then use --shrink",
                    a->names[0]);
        ok = false;
    }
    ok = ok && disk_resize(disk, size, error);
    disk_close(disk);
    return ok ? EXIT_DONE : EXIT_FAILED;
}

// ---- info ----
static void json_text(JsonBuilder *b, const char *name, const char *value)
{
    if (!value)
        return;
    json_builder_set_member_name(b, name);
    json_builder_add_string_value(b, value);
}

static void json_number(JsonBuilder *b, const char *name, uint64_t value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_int_value(b, value);
}

static void json_flag(JsonBuilder *b, const char *name, bool value)
{
    json_builder_set_member_name(b, name);
    json_builder_add_boolean_value(b, value);
}

static void json_snapshots(JsonBuilder *b, const struct disk_info *info)
{
    json_builder_set_member_name(b, "snapshots");
    json_builder_begin_array(b);
    for (unsigned i = 0; i < info->snapshot_count; i++) {
        const struct disk_snapshot *s = &info->snapshots[i];
        json_builder_begin_object(b);
        json_text(b, "id", s->id);
        json_text(b, "name", s->name);
        json_number(b, "date-sec", s->seconds);
        json_number(b, "virtual-size", s->disk_size);
        json_number(b, "vm-state-size", s->vm_state_size);
        json_builder_end_object(b);
    }
    json_builder_end_array(b);
}

static void json_info(JsonBuilder *b, const struct disk_info *info)
{
    json_builder_begin_object(b);
    json_text(b, "filename", info->path);
    json_text(b, "format", info->format);
    json_text(b, "variant", info->variant);
    json_number(b, "virtual-size", info->size);
    json_number(b, "file-size", info->file_size);
    json_number(b, "actual-size", info->allocated);
    if (info->cluster_size)
        json_number(b, "cluster-size", info->cluster_size);
    if (info->version) {
        json_number(b, "version", info->version);
        json_number(b, "refcount-bits", info->refcount_bits);
        json_flag(b, "lazy-refcounts", info->lazy_refcounts);
        json_flag(b, "extended-l2", info->extended_l2);
        json_flag(b, "dirty-flag", info->dirty);
        json_flag(b, "corrupt", info->corrupt);
    }
    json_text(b, "compression", info->compression);
    json_text(b, "read-only-reason", info->read_only_reason);
    json_text(b, "backing-filename", info->backing);
    json_text(b, "backing-filename-format", info->backing_format);
    json_text(b, "full-backing-filename", info->backing_path);
    json_text(b, "backing-problem", info->backing_problem);
    if (info->snapshot_count)
        json_snapshots(b, info);
    json_builder_end_object(b);
}

static void print_line(const char *name, const char *value)
{
    if (value)
        printf("%-12s %s\n", name, value);
}

static void print_snapshots(const struct disk_info *info)
{
    for (unsigned i = 0; i < info->snapshot_count; i++) {
        const struct disk_snapshot *s = &info->snapshots[i];
        g_autoptr(GDateTime) date = g_date_time_new_from_unix_local(s->seconds);
        g_autofree char *when = date ? g_date_time_format(date, "%F %T") : NULL, *size = format_size(s->disk_size);
        printf("  %-4s %-24s %s  %s%s\n", s->id, s->name, when ? when : "-", size,
               s->vm_state_size ? "  with memory" : "");
    }
}

static void print_info(const struct disk_info *info)
{
    g_autofree char *size = format_size(info->size), *on_disk = format_size(info->allocated);
    g_autofree char *both = g_strdup_printf("%s (%" G_GUINT64_FORMAT " bytes)", size, info->size);
    g_autofree char *format =
        info->variant ? g_strdup_printf("%s, %s", info->format, info->variant) : g_strdup(info->format);
    g_autofree char *cluster = info->cluster_size ? format_size(info->cluster_size) : NULL;
    print_line("File:", info->path);
    print_line("Format:", format);
    print_line("Size:", both);
    print_line("On the host:", on_disk);
    print_line("Clusters:", cluster);
    if (info->version) {
        g_autofree char *details = g_strdup_printf(
            "version %u, %u-bit refcounts, %s%s%s", info->version, info->refcount_bits, info->compression,
            info->extended_l2 ? ", subclusters" : "", info->lazy_refcounts ? ", lazy refcounts" : "");
        print_line("Details:", details);
    }
    if (info->dirty)
        print_line("State:", "was not closed properly; opening it for writing repairs it");
    if (info->corrupt)
        print_line("State:", "is marked as damaged; repair it with cloche-disk check --repair");
    print_line("Read-only:", info->read_only_reason);
    print_line("Base:", info->backing_path ? info->backing_path : info->backing);
    print_line("Base format:", info->backing_format);
    print_line("Problem:", info->backing_problem);
    if (info->snapshot_count) {
        printf("Snapshots:\n");
        print_snapshots(info);
    }
}

static int run_info(struct disk_arguments *a, GError **error)
{
    g_autofree char *path = g_strdup(a->names[0]), *format = g_strdup(a->format);
    JsonBuilder *builder = json_builder_new();
    if (a->chain)
        json_builder_begin_array(builder);
    for (unsigned depth = 0; path && depth < 1000; depth++) {
        struct disk_info *info = disk_info(path, format, error);
        if (!info) {
            g_object_unref(builder);
            return EXIT_FAILED;
        }
        if (a->json)
            json_info(builder, info);
        else {
            if (depth)
                printf("\n");
            print_info(info);
        }
        g_free(path);
        g_free(format);
        path = a->chain && !info->backing_problem ? g_strdup(info->backing_path) : NULL;
        format = g_strdup(info->backing_format);
        disk_info_free(info);
    }
    if (a->chain)
        json_builder_end_array(builder);
    if (a->json)
        print_json(builder);
    else
        g_object_unref(builder);
    return EXIT_DONE;
}

// The internal snapshots of an image; what is in one is reached with --snapshot of convert.
static int run_snapshot(struct disk_arguments *a, GError **error)
{
    struct disk_info *info = disk_info(a->names[0], a->format, error);
    if (!info)
        return EXIT_FAILED;
    if (a->json) {
        JsonBuilder *builder = json_builder_new();
        json_builder_begin_object(builder);
        json_snapshots(builder, info);
        json_builder_end_object(builder);
        print_json(builder);
    } else if (info->snapshot_count)
        print_snapshots(info);
    else if (!a->quiet)
        printf("%s has no internal snapshots.\n", a->names[0]);
    disk_info_free(info);
    return EXIT_DONE;
}

// ---- map ----
static void print_extent(struct disk_arguments *a, JsonBuilder *b, const struct disk_extent *e)
{
    if (!a->json) {
        if (e->data)
            printf("%#14" G_GINT64_MODIFIER "x %#14" G_GINT64_MODIFIER "x %s\n", e->offset, e->length,
                   e->path ? e->path : "(compressed)");
        return;
    }
    json_builder_begin_object(b);
    json_number(b, "start", e->offset);
    json_number(b, "length", e->length);
    json_number(b, "depth", e->depth);
    json_flag(b, "present", e->present);
    json_flag(b, "zero", e->zero);
    json_flag(b, "data", e->data);
    json_flag(b, "compressed", e->compressed);
    json_text(b, "filename", e->path);
    if (e->path)
        json_number(b, "offset", e->file_offset);
    json_builder_end_object(b);
}

static bool continues(const struct disk_extent *a, const struct disk_extent *b)
{
    return a->data == b->data && a->compressed == b->compressed && a->present == b->present && a->depth == b->depth &&
           a->path == b->path && (!a->path || a->file_offset + a->length == b->file_offset);
}

static int map_disk(struct disk_arguments *a, struct disk *disk, JsonBuilder *b)
{
    struct disk_extent run = {0}, next;
    uint64_t size = disk_size(disk);
    int rc = 0;
    for (uint64_t at = 0; at < size && !rc; at += next.length) {
        rc = disk_extent_at(disk, at, size - at, &next);
        if (rc)
            break;
        if (run.length && continues(&run, &next)) {
            run.length += next.length;
            continue;
        }
        if (run.length)
            print_extent(a, b, &run);
        run = next;
    }
    if (!rc && run.length)
        print_extent(a, b, &run);
    return rc;
}

static int run_map(struct disk_arguments *a, GError **error)
{
    struct disk *disk = disk_open(a->names[0], a->format, DISK_OPEN_READ_ONLY, error);
    if (!disk)
        return EXIT_FAILED;
    JsonBuilder *builder = json_builder_new();
    json_builder_begin_array(builder);
    if (!a->json)
        printf("%14s %14s %s\n", "Offset", "Length", "File");
    int rc = map_disk(a, disk, builder);
    json_builder_end_array(builder);
    if (rc)
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot read %s: %s", a->names[0], g_strerror(-rc));
    if (a->json && !rc)
        print_json(builder);
    else
        g_object_unref(builder);
    disk_close(disk);
    return rc ? EXIT_FAILED : EXIT_DONE;
}

// ---- Long work ----
struct work {
    struct disk_arguments *a;
    struct disk_check_result check;
    struct disk_convert_options convert;
    bool same;
    uint64_t where;
    int64_t freed;
};

static bool work_create(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_create(w->a->names[0], &w->convert.target, error);
}

static int run_create(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    struct disk_create_options *o = &w.convert.target;
    if (!creation(a, o, error) || (a->count > 1 && !parse_size(a->names[1], &o->size, error)))
        return EXIT_FAILED;
    if (a->count < 2 && !a->backing) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "Give a size for %s, for example 30G", a->names[0]);
        return EXIT_FAILED;
    }
    // As a job, although it cannot be cancelled: whoever interrupts it gets an image or none, but never half of one.
    return run_with_progress(a, "Creating", work_create, &w, error) ? EXIT_DONE : EXIT_FAILED;
}

static bool work_check(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_check(w->a->names[0], w->a->format, w->a->repair, &w->check, job, error);
}

static void json_check(const struct disk_check_result *r)
{
    JsonBuilder *b = json_builder_new();
    json_builder_begin_object(b);
    json_number(b, "corruptions", r->corruptions);
    json_number(b, "corruptions-fixed", r->corruptions_fixed);
    json_number(b, "leaks", r->leaks);
    json_number(b, "leaks-fixed", r->leaks_fixed);
    json_number(b, "total-clusters", r->clusters_total);
    json_number(b, "allocated-clusters", r->clusters_used);
    json_number(b, "compressed-clusters", r->clusters_compressed);
    json_builder_set_member_name(b, "messages");
    json_builder_begin_array(b);
    for (unsigned i = 0; r->messages && i < r->messages->len; i++)
        json_builder_add_string_value(b, r->messages->pdata[i]);
    json_builder_end_array(b);
    json_builder_end_object(b);
    print_json(b);
}

static void print_check(const struct disk_check_result *r)
{
    for (unsigned i = 0; r->messages && i < r->messages->len; i++)
        printf("%s\n", (char *)r->messages->pdata[i]);
    if (!r->corruptions && !r->leaks)
        printf("No errors were found.\n");
    if (r->corruptions)
        printf("%" G_GUINT64_FORMAT " errors were found, %" G_GUINT64_FORMAT " repaired.\n", r->corruptions,
               r->corruptions_fixed);
    if (r->leaks)
        printf("%" G_GUINT64_FORMAT " leaked clusters were found, %" G_GUINT64_FORMAT
               " given back. Leaks waste space; no data is affected.\n",
               r->leaks, r->leaks_fixed);
}

static int run_check(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    bool ok = run_with_progress(a, "Checking", work_check, &w, error);
    struct disk_check_result *r = &w.check;
    if (ok && a->json)
        json_check(r);
    else if (ok && (!a->quiet || r->corruptions || r->leaks))
        print_check(r);
    int rc = !ok                                     ? EXIT_FAILED
             : r->corruptions > r->corruptions_fixed ? EXIT_NO
             : r->leaks > r->leaks_fixed             ? EXIT_LEAKS
                                                     : EXIT_DONE;
    disk_check_clear(r);
    return rc;
}

static bool work_convert(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_convert(w->a->names[0], w->a->names[1], &w->convert, job, error);
}

static int run_convert(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    if (!creation(a, &w.convert.target, error))
        return EXIT_FAILED;
    w.convert.target.backing = NULL;
    w.convert.source_format = a->source_format;
    w.convert.source_snapshot = a->snapshot;
    w.convert.compress = a->compress;
    return run_with_progress(a, "Converting", work_convert, &w, error) ? EXIT_DONE : EXIT_FAILED;
}

static bool work_compare(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_compare(w->a->names[0], w->a->format, w->a->names[1], w->a->second_format, &w->same, &w->where, job,
                        error);
}

static int run_compare(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    if (!run_with_progress(a, "Comparing", work_compare, &w, error))
        return EXIT_FAILED;
    if (a->json) {
        JsonBuilder *b = json_builder_new();
        json_builder_begin_object(b);
        json_flag(b, "identical", w.same);
        if (!w.same)
            json_number(b, "first-difference", w.where);
        json_builder_end_object(b);
        print_json(b);
    } else if (w.same && !a->quiet)
        printf("The disks are identical.\n");
    else if (!w.same)
        printf("The disks differ from byte %" G_GUINT64_FORMAT " on.\n", w.where);
    return w.same ? EXIT_DONE : EXIT_NO;
}

static bool work_compact(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_compact(w->a->names[0], w->a->format, &w->freed, job, error);
}

static int run_compact(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    if (!run_with_progress(a, "Compacting", work_compact, &w, error))
        return EXIT_FAILED;
    if (a->json) {
        JsonBuilder *b = json_builder_new();
        json_builder_begin_object(b);
        json_builder_set_member_name(b, "freed");
        json_builder_add_int_value(b, w.freed);
        json_builder_end_object(b);
        print_json(b);
    } else if (!a->quiet) {
        g_autofree char *freed = format_size(MAX(w.freed, 0));
        printf("%s were given back to the host.\n", freed);
    }
    return EXIT_DONE;
}

static bool work_commit(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_commit(w->a->names[0], w->a->keep, job, error);
}

static int run_commit(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    return run_with_progress(a, "Committing", work_commit, &w, error) ? EXIT_DONE : EXIT_FAILED;
}

static bool work_merge(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_merge_down(w->a->names[0], w->a->count > 1 ? w->a->names[1] : NULL, job, error);
}

static int run_merge(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    return run_with_progress(a, "Merging", work_merge, &w, error) ? EXIT_DONE : EXIT_FAILED;
}

static bool work_rebase(struct job *job, void *opaque, GError **error)
{
    struct work *w = opaque;
    return disk_rebase(w->a->names[0], w->a->backing, w->a->backing_format, w->a->unsafe, job, error);
}

// Without --unsafe "-b ''" means no base at all; with it a base must be named.
static int run_rebase(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    if (!a->backing) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID,
                    "Name the new base with --backing, or use cloche-disk flatten for none");
        return EXIT_FAILED;
    }
    return run_with_progress(a, "Rebasing", work_rebase, &w, error) ? EXIT_DONE : EXIT_FAILED;
}

static int run_flatten(struct disk_arguments *a, GError **error)
{
    struct work w = {.a = a};
    return run_with_progress(a, "Flattening", work_rebase, &w, error) ? EXIT_DONE : EXIT_FAILED;
}

const struct disk_command disk_commands[] = {
    {"create", "FILE [SIZE]", "Make a new image or overlay", 1, 2,
     "format backing backing-format options preallocate force json", run_create, false},
    {"info", "FILE", "Show what an image is", 1, 1, "format chain json", run_info, true},
    {"check", "FILE", "Look for damage, and repair it", 1, 1, "format repair json", run_check, true},
    {"convert", "SOURCE TARGET", "Copy into a new image of another format", 2, 2,
     "format source-format options snapshot compress preallocate force json", run_convert, false},
    {"compare", "FILE FILE", "Tell whether two images show the same", 2, 2, "format second-format json", run_compare,
     true},
    {"resize", "FILE [+|-]SIZE", "Change the size of the disk", 2, 2, "format shrink json", run_resize, false},
    {"compact", "FILE", "Give unused space back to the host", 1, 1, "format json", run_compact, true},
    {"map", "FILE", "Show where the data lies", 1, 1, "format json", run_map, true},
    {"snapshot", "FILE", "List the internal snapshots of a qcow2 image", 1, 1, "format json", run_snapshot, true},
    {"rebase", "FILE", "Give an overlay another base", 1, 1, "backing backing-format unsafe json", run_rebase, false},
    {"flatten", "FILE", "Make an overlay stand alone", 1, 1, "json", run_flatten, false},
    {"commit", "FILE", "Write an overlay into its base", 1, 1, "keep json", run_commit, false},
    {"merge", "FILE [OVERLAY]", "Merge an overlay down and delete it; OVERLAY stands on it", 1, 2, "json", run_merge,
     false},
    {NULL},
};
