// SPDX-License-Identifier: GPL-2.0-or-later
// Writing archives.
#include "core/config/tar.h"
#include "core/config/tar_format.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define CHUNK 131072

struct tar_writer {
    char *path;
    int fd;
    ZSTD_CCtx *zstd;
    uint8_t *out;
    size_t out_size;
    GString *sums;
    bool finished;
};

static bool fail(GError **error, const char *path)
{
    g_set_error(error, CLOCHE_ERROR, errno == ENOSPC ? CLOCHE_ERROR_NO_SPACE : CLOCHE_ERROR_FAILED,
                "Cannot write %s: %s", path,
                errno == ENOSPC ? "the host's disk is full; free some space" : g_strerror(errno));
    return false;
}

struct tar_writer *tar_writer_new(const char *path, GError **error)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) {
        if (errno == EEXIST)
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_EXISTS, "%s exists already; choose another name", path);
        else
            fail(error, path);
        return NULL;
    }
    struct tar_writer *writer = g_new0(struct tar_writer, 1);
    writer->path = g_strdup(path);
    writer->fd = fd;
    writer->zstd = ZSTD_createCCtx();
    ZSTD_CCtx_setParameter(writer->zstd, ZSTD_c_compressionLevel, 3);
    ZSTD_CCtx_setParameter(writer->zstd, ZSTD_c_checksumFlag, 1);
    writer->out_size = ZSTD_CStreamOutSize();
    writer->out = g_malloc(writer->out_size);
    writer->sums = g_string_new(NULL);
    return writer;
}

static bool compress(struct tar_writer *writer, const void *data, size_t length, ZSTD_EndDirective end, GError **error)
{
    ZSTD_inBuffer in = {data, length, 0};
    size_t left;
    do {
        ZSTD_outBuffer out = {writer->out, writer->out_size, 0};
        left = ZSTD_compressStream2(writer->zstd, &out, &in, end);
        if (ZSTD_isError(left)) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot compress %s: %s", writer->path,
                        ZSTD_getErrorName(left));
            return false;
        }
        for (size_t done = 0; done < out.pos;) {
            ssize_t n = write(writer->fd, writer->out + done, out.pos - done);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return fail(error, writer->path);
            done += n;
        }
    } while (end == ZSTD_e_end ? left != 0 : in.pos < in.size);
    return true;
}

static void put_size(char *field, uint64_t size)
{
    if (size < 1ull << 33) {
        snprintf(field, 12, "%011llo", (unsigned long long)size);
        return;
    }
    memset(field, 0, 12);
    field[0] = (char)0x80;
    for (unsigned i = 0; i < 8; i++)
        field[11 - i] = (char)(size >> 8 * i);
}

static bool put_header(struct tar_writer *writer, const char *name, uint64_t size, GError **error)
{
    union tar_header header = {0};
    if (strlen(name) >= sizeof(header.name)) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_INVALID, "The file name %s is too long for an archive", name);
        return false;
    }
    strcpy(header.name, name);
    strcpy(header.mode, "0000600");
    strcpy(header.uid, "0000000");
    strcpy(header.gid, "0000000");
    put_size(header.size, size);
    snprintf(header.mtime, sizeof(header.mtime), "%011llo", (unsigned long long)(g_get_real_time() / G_USEC_PER_SEC));
    header.type = '0';
    memcpy(header.magic, "ustar", 6);
    memcpy(header.version, "00", 2);
    snprintf(header.checksum, sizeof(header.checksum), "%06o", tar_checksum(&header));
    header.checksum[7] = ' ';
    return compress(writer, &header, sizeof(header), ZSTD_e_continue, error);
}

static bool put_padding(struct tar_writer *writer, uint64_t size, GError **error)
{
    static const char zeroes[TAR_BLOCK];
    size_t padding = ALIGN_UP(size, (uint64_t)TAR_BLOCK) - size;
    return !padding || compress(writer, zeroes, padding, ZSTD_e_continue, error);
}

static void note_sum(struct tar_writer *writer, const char *name, GChecksum *sum)
{
    g_string_append_printf(writer->sums, "%s  %s\n", g_checksum_get_string(sum), name);
}

bool tar_writer_add_file(struct tar_writer *writer, const char *name, const char *path, struct progress *progress,
                         GError **error)
{
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0) {
        g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot read %s: %s", path, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        return false;
    }
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_autofree uint8_t *buffer = g_malloc(CHUNK);
    uint64_t left = st.st_size;
    bool good = put_header(writer, name, left, error);
    while (good && left) {
        ssize_t n = read(fd, buffer, MIN(left, CHUNK));
        if (n <= 0) {
            g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_FAILED, "Cannot read %s: %s", path,
                        n ? g_strerror(errno) : "it became shorter");
            good = false;
            break;
        }
        g_checksum_update(sum, buffer, n);
        good = compress(writer, buffer, n, ZSTD_e_continue, error) && progress_advance(progress, n, error);
        left -= n;
    }
    close(fd);
    good = good && put_padding(writer, st.st_size, error);
    if (good)
        note_sum(writer, name, sum);
    return good;
}

static bool put_data(struct tar_writer *writer, const char *name, const void *data, size_t length, GError **error)
{
    return put_header(writer, name, length, error) && compress(writer, data, length, ZSTD_e_continue, error) &&
           put_padding(writer, length, error);
}

bool tar_writer_add_data(struct tar_writer *writer, const char *name, const void *data, size_t length, GError **error)
{
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    g_checksum_update(sum, data, length);
    if (!put_data(writer, name, data, length, error))
        return false;
    note_sum(writer, name, sum);
    return true;
}

bool tar_writer_finish(struct tar_writer *writer, GError **error)
{
    static const char end[2 * TAR_BLOCK];
    if (!put_data(writer, TAR_SUMS, writer->sums->str, writer->sums->len, error) ||
        !compress(writer, end, sizeof(end), ZSTD_e_end, error))
        return false;
    if (fsync(writer->fd) != 0)
        return fail(error, writer->path);
    writer->finished = true;
    return true;
}

void tar_writer_free(struct tar_writer *writer)
{
    if (!writer)
        return;
    close(writer->fd);
    if (!writer->finished)
        unlink(writer->path);
    ZSTD_freeCCtx(writer->zstd);
    g_string_free(writer->sums, TRUE);
    g_free(writer->out);
    g_free(writer->path);
    g_free(writer);
}
