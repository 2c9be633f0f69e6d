// SPDX-License-Identifier: GPL-2.0-or-later
// The RAM of a machine as a sparse, page-aligned file: byte N of the file is ram offset N, zero pages are holes.
#ifndef CLOCHE_RAM_IMAGE_H
#define CLOCHE_RAM_IMAGE_H

#include "core/base/progress.h"
#include "core/memory/memory.h"

struct ram_image;

// Prepares an image in FD (empty, writable), which it takes over, also on failure. Any thread. One image per RAM at a
// time.
struct ram_image *ram_image_new(struct ram *ram, int fd, GError **error);
// The guest writes past the trackers of RAM and REPORT tells them what it wrote, afterwards: its writes are caught by
// page faults, or where the host forbids that, memory is copied ahead of the moment (ram_image_copy_ahead()).
void ram_image_set_report(struct ram_image *image, void (*report)(void *opaque), void *opaque);
// Before the moment, while the guest runs. Does nothing where each page can be copied before it changes. Else copies
// all memory, and again what changed meanwhile, until little is left. Any thread. PROGRESS counts bytes.
bool ram_image_copy_ahead(struct ram_image *image, struct progress *progress, GError **error);
// The moment that the image is of, while no vCPU runs and no device writes: from now on each page is copied before it
// changes, however long it takes; or what is not copied yet is copied now.
void ram_image_begin(struct ram_image *image);
// How, for the log: "write tracking", "page faults", "the dirty log", "standing still".
const char *ram_image_method(const struct ram_image *image);
// Copies what was not copied yet, and syncs. Any thread, the guest runs on. PROGRESS counts bytes. False: the image is
// incomplete; tracking has ended either way.
bool ram_image_finish(struct ram_image *image, struct progress *progress, GError **error);
void ram_image_free(struct ram_image *image);
uint64_t ram_image_length(const struct ram_image *image);  // bytes of the file
uint64_t ram_image_written(const struct ram_image *image); // of them not holes
uint64_t ram_image_early(const struct ram_image *image);   // pages copied because the guest was about to write

// The whole image at once, for a machine that stands still.
bool ram_image_write(struct ram *ram, int fd, struct progress *progress, GError **error);
// Shows the image's content as RAM, by a private mapping: pages come on demand. FRESH: the machine has not run yet;
// else caches of the old content are told. No vCPU runs. The file must have exactly the length of RAM in use.
bool ram_image_load(struct ram *ram, int fd, bool fresh, GError **error);

#endif
