// SPDX-License-Identifier: GPL-2.0-or-later
// Hostile images, for all formats. Each input is an image: it is probed and opened as that format, described, mapped,
// read, checked, written, discarded, resized, repaired. Nothing may crash, hang, or take much memory.
//   fuzz-disks FILE...              replays inputs (make check, with sanitizers)
//   fuzz-disks --mutate SECONDS FILE...  changes the inputs at random for that long; a crashing input is kept in
//   ./fuzz-last fuzz-disks --mutate-count N FILE...  N changes of each input
// Built with -DLIBFUZZER it is a libFuzzer target.
#include "disks/check.h"
#include "disks/file.h"
#include "disks/info.h"

#include <fcntl.h>
#include <signal.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *folder, *path;

static void prepare(void)
{
    if (folder)
        return;
    log_set_level(-1);
    if (access("/dev/shm", W_OK) == 0)
        g_setenv("TMPDIR", "/dev/shm", FALSE);
    folder = g_dir_make_tmp("cloche-fuzz-XXXXXX", NULL);
    path = g_build_filename(folder, "image", NULL);
}

static void finish(void)
{
    if (!folder)
        return;
    g_unlink(path);
    g_rmdir(folder);
}

static void use_disk(struct disk *disk, bool write)
{
    static const uint64_t places[] = {0, 512, 65536, 1 << 20, 3 << 20, 0xfffff000ull, 1ull << 40};
    g_autofree uint8_t *buffer = g_malloc0(256 * KiB);
    uint64_t size = disk_size(disk), at = 0;
    struct disk_extent extent;
    for (unsigned i = 0; i < 64 && at < size && disk_extent_at(disk, at, size - at, &extent) == 0; i++)
        at += extent.length;
    for (unsigned i = 0; i <= G_N_ELEMENTS(places); i++) {
        uint64_t place = i < G_N_ELEMENTS(places) ? places[i] : ALIGN_DOWN(size / 2, 512);
        if (place >= size)
            continue;
        uint64_t length = MIN(i % 2 ? 128 * KiB : 4096, size - place);
        disk_read(disk, place, buffer, length);
        if (!write)
            continue;
        memset(buffer, 0x77, length);
        disk_write(disk, place, buffer, length);
        disk_write_zeroes(disk, place, MIN(length * 2, size - place), i % 3 ? DISK_MAY_UNMAP : 0);
        disk_discard(disk, place, MIN(length * 4, size - place));
        disk_write(disk, place, buffer, MIN(length, 1024));
    }
    if (write) {
        disk_flush(disk);
        if (size < GiB)
            disk_resize(disk, size + 70 * KiB / 512 * 512, NULL);
        if (size < GiB)
            disk_resize(disk, ALIGN_DOWN(size / 2, 512), NULL);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    prepare();
    if (size < 16)
        return 0;
    if (!g_file_set_contents(path, (const char *)data, size, NULL))
        return 0;
    struct disk_info *info = disk_info(path, NULL, NULL);
    disk_info_free(info);
    struct disk_check_result result = {0};
    disk_check(path, NULL, false, &result, NULL, NULL);
    disk_check_clear(&result);
    // The last one reads differencing images, whose parent is not there.
    static const unsigned ways[] = {DISK_OPEN_READ_ONLY, 0, DISK_OPEN_READ_ONLY | DISK_OPEN_NO_BACKING};
    for (unsigned i = 0; i < G_N_ELEMENTS(ways); i++) {
        struct disk *disk = disk_open(path, NULL, ways[i] | DISK_OPEN_THREADS, NULL);
        if (disk)
            use_disk(disk, !disk_read_only(disk));
        disk_close(disk);
    }
    disk_check(path, NULL, true, &result, NULL, NULL);
    disk_check_clear(&result);
    return 0;
}

#ifndef LIBFUZZER
static void keep_input(const uint8_t *data, size_t size)
{
    g_file_set_contents("fuzz-last", (const char *)data, size, NULL);
}

// A few changes where they matter: in the header and in whatever is not zero.
static void mutate(uint8_t *data, size_t size, GRand *random)
{
    static const uint64_t interesting[] = {0,
                                           1,
                                           0x7f,
                                           0x80,
                                           0xff,
                                           0x200,
                                           0xffff,
                                           0x10000,
                                           0x7fffffff,
                                           0x80000000,
                                           UINT32_MAX,
                                           0x7fffffffffffffff,
                                           UINT64_MAX,
                                           0x8000000000000200,
                                           0x8000000000010000};
    unsigned count = 1 + g_rand_int(random) % 4;
    for (unsigned i = 0; i < count; i++) {
        size_t at = g_rand_int(random) % (g_rand_int(random) % 2 ? MIN(size, 512) : size);
        for (unsigned tries = 0; tries < 200 && !data[at]; tries++)
            at = g_rand_int(random) % size;
        unsigned width = 1u << g_rand_int(random) % 4;
        uint64_t value = interesting[g_rand_int(random) % G_N_ELEMENTS(interesting)];
        at = ALIGN_DOWN(at, width);
        if (at + width > size)
            continue;
        switch (g_rand_int(random) % 4) {
        case 0:
            data[at] ^= 1u << g_rand_int(random) % 8;
            break;
        case 1:
            data[at] = g_rand_int(random);
            break;
        default:
            for (unsigned byte = 0; byte < width; byte++)
                data[at + byte] = value >> (g_rand_int(random) % 8 == 0 ? 8 * byte : 8 * (width - 1 - byte));
        }
    }
}

static void run_mutations(const uint8_t *data, size_t size, unsigned count, GRand *random)
{
    g_autofree uint8_t *copy = g_malloc(size);
    for (unsigned i = 0; i < count; i++) {
        memcpy(copy, data, size);
        mutate(copy, size, random);
        keep_input(copy, size);
        LLVMFuzzerTestOneInput(copy, size);
    }
    g_unlink("fuzz-last");
}

int main(int argc, char **argv)
{
    unsigned seconds = 0, count = 0;
    int first = 1;
    // A hostile image may not take much memory: address sanitizer needs its shadow, so the limit is on the heap.
    struct rlimit files = {256 << 20, 256 << 20};
    setrlimit(RLIMIT_FSIZE, &files);
    signal(SIGXFSZ, SIG_IGN);
    if (argc > 2 && strcmp(argv[1], "--mutate") == 0)
        seconds = atoi(argv[2]), first = 3;
    else if (argc > 2 && strcmp(argv[1], "--mutate-count") == 0)
        count = atoi(argv[2]), first = 3;
    GRand *random = g_rand_new_with_seed(count ? 20 : g_random_int());
    int64_t end = g_get_monotonic_time() + seconds * G_USEC_PER_SEC;
    unsigned replayed = 0;
    do
        for (int i = first; i < argc; i++) {
            g_autofree char *data = NULL;
            gsize size;
            if (!g_file_get_contents(argv[i], &data, &size, NULL)) {
                fprintf(stderr, "cannot read %s\n", argv[i]);
                return 2;
            }
            if (!seconds)
                LLVMFuzzerTestOneInput((uint8_t *)data, size);
            run_mutations((uint8_t *)data, size, seconds ? 20 : count, random);
            replayed++;
        }
    while (seconds && g_get_monotonic_time() < end);
    printf("%u inputs\n", replayed);
    finish();
    g_rand_free(random);
    return replayed ? 0 : 2;
}
#endif
