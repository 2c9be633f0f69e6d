// SPDX-License-Identifier: GPL-2.0-or-later
// The descriptor: a small text that says what the disk is made of.
#include "disks/vmdk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_EXTENTS = 1024 };

// The value of "KEY=value" or "KEY="value""; NULL where it is not there. Free with g_free().
static char *value_of(const char *text, const char *key)
{
    g_auto(GStrv) lines = g_strsplit(text, "\n", 4096);
    size_t length = strlen(key);
    for (char **line = lines; *line; line++) {
        char *start = g_strstrip(*line);
        if (g_ascii_strncasecmp(start, key, length) != 0)
            continue;
        start = g_strchug(start + length);
        if (*start != '=')
            continue;
        start = g_strchug(start + 1);
        if (*start == '"') {
            char *end = strchr(++start, '"');
            return end ? g_strndup(start, end - start) : NULL;
        }
        return g_strdup(start);
    }
    return NULL;
}

static bool parse_cid(const char *text, const char *key, uint32_t missing, uint32_t *cid)
{
    g_autofree char *value = value_of(text, key);
    char *end = NULL;
    *cid = value ? strtoul(value, &end, 16) : missing;
    return !value || (end != value && !*end);
}

bool vmdk_descriptor_parse(struct vmdk *v, GError **error)
{
    g_autofree char *variant = value_of(v->descriptor, "createType");
    v->parent = value_of(v->descriptor, "parentFileNameHint");
    if (!variant || strlen(variant) >= sizeof v->variant || !parse_cid(v->descriptor, "CID", 0, &v->cid) ||
        !parse_cid(v->descriptor, "parentCID", UINT32_MAX, &v->parent_cid)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "%s cannot be opened: its VMDK descriptor is not valid",
                    v->disk->path);
        return false;
    }
    strcpy(v->variant, variant);
    g_snprintf(v->generation, sizeof v->generation, "%08x", v->cid);
    return true;
}

static bool bad_line(struct vmdk *v, const char *line, const char *why, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_UNSUPPORTED, "%s cannot be opened: %s (“%.100s”)", v->disk->path, why,
                line);
    return false;
}

static bool parse_kind(const char *word, enum vmdk_extent_kind *kind)
{
    static const struct {
        const char *word;
        enum vmdk_extent_kind kind;
    } kinds[] = {{"FLAT", VMDK_FLAT}, {"VMFS", VMDK_FLAT}, {"SPARSE", VMDK_SPARSE}, {"ZERO", VMDK_ZERO}};
    for (unsigned i = 0; i < G_N_ELEMENTS(kinds); i++)
        if (strcmp(kinds[i].word, word) == 0) {
            *kind = kinds[i].kind;
            return true;
        }
    return false;
}

// ACCESS SECTORS KIND ["FILE" [OFFSET]]. Extent files lie beside the descriptor: an image may not name any other file.
static bool parse_extent(struct vmdk *v, const char *text, struct vmdk_line *line, GError **error)
{
    char access[16], kind[16], name[512] = "";
    unsigned long long sectors = 0, offset = 0;
    int words = sscanf(text, "%15s %llu %15s \"%511[^\"]\" %llu", access, &sectors, kind, name, &offset);
    if (words < 3 || !parse_kind(kind, &line->kind))
        return bad_line(v, text, "it has a kind of extent that is not known here", error);
    if (line->kind != VMDK_ZERO && (words < 4 || strchr(name, '/') || strcmp(name, "..") == 0))
        return bad_line(v, text, "an extent is not a file in the same folder", error);
    if (strcmp(access, "RW") != 0 && strcmp(access, "RDONLY") != 0)
        return bad_line(v, text, "an extent may not be accessed", error);
    if (sectors == 0 || sectors > INT64_MAX / 1024 || offset > INT64_MAX / 1024)
        return bad_line(v, text, "an extent has a size that is not valid", error);
    line->sectors = sectors;
    line->offset = offset;
    line->file = g_strdup(name);
    return true;
}

static void clear_line(gpointer data)
{
    g_free(((struct vmdk_line *)data)->file);
}

static bool is_extent_line(const char *line)
{
    return g_str_has_prefix(line, "RW ") || g_str_has_prefix(line, "RDONLY ") || g_str_has_prefix(line, "NOACCESS ");
}

GArray *vmdk_descriptor_extents(struct vmdk *v, GError **error)
{
    g_auto(GStrv) lines = g_strsplit(v->descriptor, "\n", 4096);
    GArray *extents = g_array_new(FALSE, TRUE, sizeof(struct vmdk_line));
    g_array_set_clear_func(extents, clear_line);
    for (char **line = lines; *line; line++) {
        struct vmdk_line extent = {0};
        char *text = g_strstrip(*line);
        if (!is_extent_line(text))
            continue;
        if (extents->len >= MOST_EXTENTS || !parse_extent(v, text, &extent, error)) {
            if (extents->len >= MOST_EXTENTS)
                bad_line(v, text, "it has more than a thousand extents", error);
            g_array_free(extents, TRUE);
            return NULL;
        }
        g_array_append_val(extents, extent);
    }
    if (extents->len)
        return extents;
    g_array_free(extents, TRUE);
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "%s cannot be opened: its VMDK descriptor names no extent",
                v->disk->path);
    return NULL;
}

char *vmdk_descriptor_make(uint32_t cid, const char *variant, const char *extent_line, uint64_t size)
{
    return g_strdup_printf("# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=ffffffff\ncreateType=\"%s\"\n\n"
                           "# Extent description\n%s\n\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"4\"\n"
                           "ddb.geometry.cylinders = \"%u\"\nddb.geometry.heads = \"16\"\n"
                           "ddb.geometry.sectors = \"63\"\nddb.adapterType = \"ide\"\n",
                           cid, variant, extent_line, (unsigned)MIN(size / (16 * 63 * 512), 16383));
}

static uint64_t number_of(const char *text, const char *key, uint64_t missing)
{
    g_autofree char *value = value_of(text, key);
    uint64_t number = value ? g_ascii_strtoull(value, NULL, 10) : 0;
    return number ? number : missing;
}

char *vmdk_descriptor_resized(const struct vmdk *v, uint64_t size)
{
    uint64_t heads = number_of(v->descriptor, "ddb.geometry.heads", 16);
    uint64_t sectors = number_of(v->descriptor, "ddb.geometry.sectors", 63);
    uint64_t cylinders = MIN(size / (heads * sectors * VMDK_SECTOR), heads == 16 ? 16383 : 65535);
    g_auto(GStrv) lines = g_strsplit(v->descriptor, "\n", 4096);
    for (char **line = lines; *line; line++) {
        char *now = NULL;
        const char *rest = is_extent_line(*line) ? strchr(*line, ' ') + 1 : NULL;
        if (rest) // access, sectors, what it is
            now = g_strdup_printf("%.*s%" G_GUINT64_FORMAT "%s", (int)(rest - *line), *line, size / 512,
                                  rest + strcspn(rest, " "));
        else if (g_str_has_prefix(*line, "ddb.geometry.cylinders"))
            now = g_strdup_printf("ddb.geometry.cylinders = \"%" G_GUINT64_FORMAT "\"", cylinders);
        if (!now)
            continue;
        g_free(*line);
        *line = now;
    }
    return g_strjoinv("\n", lines);
}

int vmdk_change_cid(struct vmdk *v)
{
    char *at = strstr(v->descriptor, "CID=");
    while (at && at != v->descriptor && at[-1] != '\n')
        at = strstr(at + 1, "CID=");
    unsigned digits = at ? strspn(at + 4, "0123456789abcdefABCDEF") : 0; // others write no leading zeroes
    if (digits >= 1 && digits <= 8) {
        char text[9];
        uint32_t cid = g_random_int() >> (32 - 4 * digits);
        cid = cid == v->cid || cid == UINT32_MAX ? v->cid ^ 1 : cid;
        g_snprintf(text, sizeof text, "%0*x", digits, cid);
        memcpy(at + 4, text, digits);
        // The sector or two that the digits lie in.
        uint64_t from = ALIGN_DOWN((uint64_t)(at - v->descriptor), 512);
        uint64_t to = ALIGN_UP(at - v->descriptor + 4 + digits, 512);
        to = MIN(to, strlen(v->descriptor));
        int rc = file_write(v->disk->file, v->descriptor_offset + from, v->descriptor + from, to - from);
        if (!rc)
            rc = file_sync(v->disk->file);
        if (rc)
            return rc;
        v->cid = cid;
        g_snprintf(v->generation, sizeof v->generation, "%s", text);
    }
    v->marked = true;
    return 0;
}
