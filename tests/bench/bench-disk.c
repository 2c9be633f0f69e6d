// SPDX-License-Identifier: GPL-2.0-or-later
// Measures the disk library by its public interface, for bench-disk-ratios.
//   bench-disk FILE FORMAT read|write seq|random BLOCK DEPTH SECONDS direct|cached
//     prints operations a second, the engine, and the microseconds of processor time that an operation took
//   bench-disk FILE FORMAT allocate seq|random|stride BLOCK DEPTH COUNT direct|cached
//     the same over COUNT writes
//   bench-disk open FILE
//     prints milliseconds and KiB
#include "disks/disk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

struct bench {
    struct disk *disk;
    struct slot *slots;
    unsigned depth;
    uint64_t block, blocks, next, done, limit;
    uint64_t stride; // blocks from one request to the next
    bool random, write;
    int64_t end;
    uint64_t seed;
    bool failed;
};

struct slot {
    struct bench *bench;
    struct disk_request request;
    struct iovec iov;
    _Atomic bool free;
};

static void finished(struct disk_request *request, int result)
{
    struct slot *slot = request->opaque;
    if (result)
        slot->bench->failed = true;
    slot->free = true;
}

static uint64_t next_block(struct bench *b)
{
    if (!b->random)
        return b->next++ * b->stride % b->blocks;
    b->seed = b->seed * 6364136223846793005ull + 1442695040888963407ull;
    return (b->seed >> 24) % b->blocks;
}

static void submit(struct bench *b, struct slot *slot)
{
    slot->free = false;
    slot->request = (struct disk_request){.op = b->write ? DISK_WRITE : DISK_READ,
                                          .offset = next_block(b) * b->block,
                                          .length = b->block,
                                          .iov = &slot->iov,
                                          .iov_count = 1,
                                          .done = finished,
                                          .opaque = slot};
    disk_submit(b->disk, &slot->request);
}

// Keeps DEPTH requests in flight on this thread.
static void run(struct bench *b)
{
    unsigned in_flight = 0;
    for (unsigned i = 0; i < b->depth; i++, in_flight++)
        submit(b, &b->slots[i]);
    while (in_flight) {
        unsigned before = in_flight;
        for (unsigned i = 0; i < b->depth; i++) {
            if (!b->slots[i].free || !b->slots[i].request.opaque)
                continue;
            b->done++;
            bool more = b->limit ? b->done + in_flight - 1 < b->limit : g_get_monotonic_time() < b->end;
            if (more && !b->failed)
                submit(b, &b->slots[i]);
            else {
                b->slots[i].request.opaque = NULL;
                in_flight--;
            }
            before = 0;
        }
        if (before)
            disk_poll(b->disk, true);
        else
            disk_poll(b->disk, false);
    }
}

static int bench_open(const char *path)
{
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    int64_t start = g_get_monotonic_time();
    GError *error = NULL;
    struct disk *disk = disk_open(path, NULL, 0, &error);
    if (!disk) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    char data[4096];
    int rc = disk_read(disk, disk_size(disk) / 2 / 4096 * 4096, data, sizeof data);
    int64_t end = g_get_monotonic_time();
    getrusage(RUSAGE_SELF, &after);
    printf("%.2f %ld\n", (end - start) / 1000.0, after.ru_maxrss);
    disk_close(disk);
    return rc != 0;
}

static double microseconds(const struct rusage *usage)
{
    return (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1e6 + usage->ru_utime.tv_usec + usage->ru_stime.tv_usec;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "open") == 0)
        return bench_open(argv[2]);
    if (argc != 9) {
        fprintf(stderr, "see the head of bench-disk.c\n");
        return 2;
    }
    bool allocate = strcmp(argv[3], "allocate") == 0;
    unsigned flags = DISK_OPEN_POLLED | (strcmp(argv[8], "direct") == 0 ? DISK_OPEN_DIRECT : DISK_OPEN_INLINE);
    GError *error = NULL;
    struct disk *disk = disk_open(argv[1], argv[2], flags, &error);
    if (!disk) {
        fprintf(stderr, "%s\n", error->message);
        return 1;
    }
    struct bench b = {.disk = disk,
                      .block = atoi(argv[5]),
                      .depth = atoi(argv[6]),
                      .seed = 42,
                      .write = allocate || strcmp(argv[3], "write") == 0,
                      .random = strcmp(argv[4], "random") == 0};
    b.stride = strcmp(argv[4], "stride") == 0 ? MAX(65536 / b.block, 1) : 1;
    b.blocks = disk_size(disk) / b.block;
    b.slots = g_new0(struct slot, b.depth);
    for (unsigned i = 0; i < b.depth; i++) {
        b.slots[i].bench = &b;
        b.slots[i].iov = (struct iovec){aligned_alloc(4096, ALIGN_UP(b.block, 4096)), b.block};
        memset(b.slots[i].iov.iov_base, 0x5a + i, b.block);
    }
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    int64_t start = g_get_monotonic_time();
    b.limit = allocate ? atoi(argv[7]) : 0;
    b.end = start + (int64_t)(atof(argv[7]) * G_USEC_PER_SEC);
    run(&b);
    double seconds = (g_get_monotonic_time() - start) / 1e6; // as qemu-img bench counts: without the flush at the end
    getrusage(RUSAGE_SELF, &after);
    if (allocate && disk_flush(disk))
        b.failed = true;
    printf("%.0f %s %.3f\n", b.done / seconds, disk_engine_name(disk),
           (microseconds(&after) - microseconds(&before)) / MAX(b.done, 1));
    disk_close(disk);
    return b.failed;
}
