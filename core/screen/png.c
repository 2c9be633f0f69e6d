// SPDX-License-Identifier: GPL-2.0-or-later
// Screenshots: a surface as an RGB picture in a file.
#include "core/screen/surface.h"

#include <errno.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

// One row of PIXELS as packed R, G, B.
static void row_to_rgb(const struct pixels *pixels, uint32_t y, uint8_t *rgb)
{
    const uint32_t *row = (const uint32_t *)(pixels->data + (size_t)y * pixels->stride);
    for (uint32_t x = 0; x < pixels->width; x++) {
        rgb[3 * x] = row[x] >> 16;
        rgb[3 * x + 1] = row[x] >> 8;
        rgb[3 * x + 2] = row[x];
    }
}

// Blends the cursor, whose hot spot is at CURSOR_X, CURSOR_Y, over row Y.
static void blend_cursor(const struct cursor *cursor, int cursor_x, int cursor_y, int y, int width, uint8_t *rgb)
{
    int row = y - (cursor_y - (int)cursor->hot_y), left = cursor_x - (int)cursor->hot_x;
    if (row < 0 || row >= (int)cursor->height)
        return;
    const uint32_t *argb = cursor->argb + (size_t)row * cursor->width;
    for (int i = 0; i < (int)cursor->width; i++) {
        int x = left + i;
        if (x < 0 || x >= width)
            continue;
        unsigned rest = 255 - (argb[i] >> 24);
        for (int c = 0; c < 3; c++)
            rgb[3 * x + c] = MIN(255, (argb[i] >> (16 - 8 * c) & 255) + (rgb[3 * x + c] * rest + 127) / 255);
    }
}

static void quiet_warning(png_structp png, png_const_charp message)
{
}

struct shot {
    struct pixels *pixels;
    struct cursor *cursor; // or NULL
    int cursor_x, cursor_y;
    uint8_t *row;
};

static void encode_row(const struct shot *shot, uint32_t y)
{
    row_to_rgb(shot->pixels, y, shot->row);
    if (shot->cursor)
        blend_cursor(shot->cursor, shot->cursor_x, shot->cursor_y, y, shot->pixels->width, shot->row);
}

static bool encode_ppm(const struct shot *shot, FILE *file)
{
    const struct pixels *pixels = shot->pixels;
    bool good = fprintf(file, "P6 %u %u 255\n", pixels->width, pixels->height) > 0;
    for (uint32_t y = 0; good && y < pixels->height; y++) {
        encode_row(shot, y);
        good = fwrite(shot->row, 3, pixels->width, file) == pixels->width;
    }
    return good;
}

static bool encode_png(const struct shot *shot, FILE *file)
{
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, quiet_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (!info || setjmp(png_jmpbuf(png))) {
        png_destroy_write_struct(&png, &info);
        return false;
    }
    const struct pixels *pixels = shot->pixels;
    png_init_io(png, file);
    png_set_compression_level(png, 3);
    png_set_IHDR(png, info, pixels->width, pixels->height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (uint32_t y = 0; y < pixels->height; y++) {
        encode_row(shot, y);
        png_write_row(png, shot->row);
    }
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    return true;
}

bool surface_write_picture(struct surface *surface, const char *path, enum picture_format format, bool with_cursor,
                           GError **error)
{
    static bool (*const encoders[])(const struct shot *,
                                    FILE *) = {[PICTURE_PNG] = encode_png, [PICTURE_PPM] = encode_ppm};
    g_autofree char *temporary = g_strdup_printf("%s.tmp%d", path, getpid());
    FILE *file = fopen(temporary, "wxe");
    if (!file) {
        g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(errno), "Cannot write the screenshot %s: %s", path,
                    g_strerror(errno));
        return false;
    }
    surface_refresh(surface);
    struct shot shot = {.pixels = surface_pixels(surface)};
    struct cursor *cursor = surface_cursor(surface, &shot.cursor_x, &shot.cursor_y);
    shot.cursor = with_cursor ? cursor : NULL;
    shot.row = g_malloc((size_t)shot.pixels->width * 3);
    bool good = encoders[format](&shot, file);
    int e = errno;
    if (fclose(file) != 0) {
        good = false;
        e = errno;
    }
    if (good && rename(temporary, path) != 0) {
        good = false;
        e = errno;
    }
    if (!good) {
        unlink(temporary);
        g_set_error(error, G_FILE_ERROR, g_file_error_from_errno(e), "Cannot write the screenshot %s: %s", path,
                    g_strerror(e));
    }
    g_free(shot.row);
    pixels_unref(shot.pixels);
    cursor_unref(cursor);
    return good;
}

bool surface_write_png(struct surface *surface, const char *path, bool with_cursor, GError **error)
{
    return surface_write_picture(surface, path, PICTURE_PNG, with_cursor, error);
}
