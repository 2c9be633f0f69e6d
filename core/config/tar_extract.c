// SPDX-License-Identifier: GPL-2.0-or-later
// Reading archives. They come from anywhere: names, sizes and content are checked.
#include "core/config/tar.h"
#include "core/config/tar_format.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define MOST_FILES 10000
#define MOST_SUMS  (4 * MiB)

struct tar_reader {
    const char *path;
    int fd;
    ZSTD_DCtx *zstd;
    uint8_t *in;
    size_t in_size, in_at, in_length;
    GHashTable *sums; // name -> SHA-256 of what was unpacked
    char *expected;   // content of SHA256SUMS
    struct progress *progress;
};

static bool corrupt(struct tar_reader *reader, const char *why, GError **error)
{
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CORRUPT, "%s is no whole archive of a machine: %s", reader->path,
                why);
    return false;
}

// Exactly LENGTH uncompressed bytes.
static bool read_exact(struct tar_reader *reader, void *data, size_t length, GError **error)
{
    ZSTD_outBuffer out = {data, length, 0};
    while (out.pos < length) {
        if (reader->in_at == reader->in_length) {
            ssize_t n = read(reader->fd, reader->in, reader->in_size);
            if (n <= 0)
                return corrupt(reader, n ? g_strerror(errno) : "it ends too early", error);
            reader->in_at = 0;
            reader->in_length = n;
            if (!progress_advance(reader->progress, n, error))
                return false;
        }
        ZSTD_inBuffer in = {reader->in, reader->in_length, reader->in_at};
        size_t rc = ZSTD_decompressStream(reader->zstd, &out, &in);
        reader->in_at = in.pos;
        if (ZSTD_isError(rc))
            return corrupt(reader, ZSTD_getErrorName(rc), error);
    }
    return true;
}

// A plain path below the folder: no "..", no absolute path, nothing hidden at the top but what we write.
static bool name_is_safe(const char *name)
{
    if (!name[0] || name[0] == '/' || !g_utf8_validate(name, -1, NULL))
        return false;
    g_auto(GStrv) parts = g_strsplit(name, "/", -1);
    for (char **part = parts; *part; part++)
        if (!(*part)[0] || (*part)[0] == '.')
            return false;
    return g_strv_length(parts) <= 4;
}

static bool parse_header(struct tar_reader *reader, const union tar_header *header, uint64_t *size, GError **error)
{
    char text[13] = "";
    memcpy(text, header->checksum, 8);
    if (g_ascii_strtoull(text, NULL, 8) != tar_checksum(header) || memcmp(header->magic, "ustar", 5) != 0)
        return corrupt(reader, "a header is damaged", error);
    if (header->name[sizeof(header->name) - 1] || header->prefix[0] || header->type != '0' ||
        !name_is_safe(header->name))
        return corrupt(reader, "it holds something else than plain files", error);
    if ((uint8_t)header->size[0] == 0x80) {
        *size = 0;
        for (unsigned i = 4; i < 12; i++)
            *size = *size << 8 | (uint8_t)header->size[i];
    } else {
        memset(text, 0, sizeof(text));
        memcpy(text, header->size, 12);
        *size = g_ascii_strtoull(text, NULL, 8);
    }
    return *size <= 1ull << 50 || corrupt(reader, "a file is impossibly large", error);
}

static bool is_zero(const uint8_t *data, size_t length)
{
    return length && data[0] == 0 && memcmp(data, data + 1, length - 1) == 0;
}

static bool unpack_data(struct tar_reader *reader, int fd, uint64_t size, GChecksum *sum, GError **error)
{
    uint8_t buffer[65536];
    for (uint64_t at = 0; at < size;) {
        size_t piece = MIN(size - at, sizeof(buffer));
        if (!read_exact(reader, buffer, piece, error))
            return false;
        g_checksum_update(sum, buffer, piece);
        if (!is_zero(buffer, piece) && pwrite(fd, buffer, piece, at) != (ssize_t)piece) {
            g_set_error(error, CLOCHE_ERROR, errno == ENOSPC ? CLOCHE_ERROR_NO_SPACE : CLOCHE_ERROR_FAILED,
                        "Cannot unpack %s: %s", reader->path,
                        errno == ENOSPC ? "the host's disk is full; free some space" : g_strerror(errno));
            return false;
        }
        at += piece;
    }
    if (ftruncate(fd, size) != 0 || fdatasync(fd) != 0)
        return corrupt(reader, g_strerror(errno), error);
    uint8_t padding[TAR_BLOCK];
    return read_exact(reader, padding, ALIGN_UP(size, (uint64_t)TAR_BLOCK) - size, error);
}

static bool unpack_file(struct tar_reader *reader, const char *folder, const char *name, uint64_t size, GError **error)
{
    g_autofree char *path = g_build_filename(folder, name, NULL), *parent = g_path_get_dirname(path);
    g_mkdir_with_parents(parent, 0700);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return corrupt(reader, g_strerror(errno), error);
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    bool good = unpack_data(reader, fd, size, sum, error);
    close(fd);
    if (good)
        g_hash_table_insert(reader->sums, g_strdup(name), g_strdup(g_checksum_get_string(sum)));
    return good;
}

static bool read_sums(struct tar_reader *reader, uint64_t size, GError **error)
{
    uint8_t padding[TAR_BLOCK];
    if (size > MOST_SUMS || reader->expected)
        return corrupt(reader, "its list of checksums is impossible", error);
    reader->expected = g_malloc0(size + 1);
    return read_exact(reader, reader->expected, size, error) &&
           read_exact(reader, padding, ALIGN_UP(size, (uint64_t)TAR_BLOCK) - size, error);
}

static bool verify(struct tar_reader *reader, GError **error)
{
    if (!reader->expected)
        return corrupt(reader, "the list of checksums is missing", error);
    g_auto(GStrv) lines = g_strsplit(reader->expected, "\n", -1);
    unsigned matched = 0;
    for (char **line = lines; *line && **line; line++) {
        char *gap = strstr(*line, "  ");
        const char *found = gap ? g_hash_table_lookup(reader->sums, gap + 2) : NULL;
        if (!found || strncmp(found, *line, gap - *line) != 0 || strlen(found) != (size_t)(gap - *line))
            return corrupt(reader, "a checksum is wrong", error);
        matched++;
    }
    return matched == g_hash_table_size(reader->sums) || corrupt(reader, "a checksum is missing", error);
}

// The rest is zeroes up to the end of the file; zstd checks its own sum there.
static bool read_end(struct tar_reader *reader, GError **error)
{
    for (size_t rest = 1; rest;) {
        uint8_t buffer[TAR_BLOCK];
        ZSTD_outBuffer out = {buffer, sizeof(buffer), 0};
        if (reader->in_at == reader->in_length) {
            ssize_t n = read(reader->fd, reader->in, reader->in_size);
            if (n <= 0)
                return corrupt(reader, "it ends too early", error);
            reader->in_at = 0;
            reader->in_length = n;
        }
        ZSTD_inBuffer in = {reader->in, reader->in_length, reader->in_at};
        rest = ZSTD_decompressStream(reader->zstd, &out, &in);
        reader->in_at = in.pos;
        if (ZSTD_isError(rest) || (out.pos && !is_zero(buffer, out.pos)))
            return corrupt(reader, "its end is damaged", error);
    }
    return true;
}

static bool extract(struct tar_reader *reader, const char *folder, GError **error)
{
    for (unsigned files = 0; files < MOST_FILES; files++) {
        union tar_header header;
        uint64_t size;
        if (!read_exact(reader, &header, sizeof(header), error))
            return false;
        if (is_zero(header.bytes, sizeof(header)))
            return read_end(reader, error) && verify(reader, error);
        if (!parse_header(reader, &header, &size, error))
            return false;
        if (strcmp(header.name, TAR_SUMS) == 0 ? !read_sums(reader, size, error)
                                               : !unpack_file(reader, folder, header.name, size, error))
            return false;
    }
    return corrupt(reader, "it holds too many files", error);
}

bool tar_extract(const char *path, const char *folder, struct progress *progress, GError **error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_NOT_FOUND, "Cannot read %s: %s", path, g_strerror(errno));
        return false;
    }
    struct tar_reader reader = {
        .path = path, .fd = fd, .zstd = ZSTD_createDCtx(), .in_size = ZSTD_DStreamInSize(), .progress = progress};
    reader.in = g_malloc(reader.in_size);
    reader.sums = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free);
    ZSTD_DCtx_setParameter(reader.zstd, ZSTD_d_windowLogMax, 27); // bounds what a hostile archive can make us allocate
    if (progress)
        atomic_store(&progress->total, st.st_size);
    bool good = extract(&reader, folder, error);
    ZSTD_freeDCtx(reader.zstd);
    g_hash_table_destroy(reader.sums);
    g_free(reader.expected);
    g_free(reader.in);
    close(fd);
    return good;
}
