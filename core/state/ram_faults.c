// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/state/ram_faults.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MESSAGES 16 // read at once

struct ram_faults {
    struct ram *ram;
    ram_fault_fn *fn;
    void *opaque;
    int fd, stop;
    GThread *thread;
};

// With faults of the kernel, which KVM's are: by the device file where the user may open it, else by privilege.
static int open_faults(void)
{
    int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    int fd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK) : -1;
    if (device >= 0)
        close(device);
    return fd >= 0 ? fd : (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
}

static struct uffdio_range range_of(const struct ram_faults *faults, uint64_t offset, uint64_t length)
{
    return (struct uffdio_range){.start = (uintptr_t)faults->ram->host + offset, .len = length};
}

static bool register_ram(const struct ram_faults *faults)
{
    struct uffdio_api api = {.api = UFFD_API,
                             .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM};
    struct uffdio_register all = {.range = range_of(faults, 0, faults->ram->used), .mode = UFFDIO_REGISTER_MODE_WP};
    return ioctl(faults->fd, UFFDIO_API, &api) == 0 && ioctl(faults->fd, UFFDIO_REGISTER, &all) == 0;
}

struct ram_faults *ram_faults_new(struct ram *ram, ram_fault_fn *fn, void *opaque)
{
    struct ram_faults *faults = g_new0(struct ram_faults, 1);
    *faults = (struct ram_faults){.ram = ram, .fn = fn, .opaque = opaque, .fd = open_faults(), .stop = -1};
    if (faults->fd >= 0 && register_ram(faults))
        return faults;
    log_info("snapshot", "memory cannot be write-protected by user-space page faults: %s", g_strerror(errno));
    ram_faults_free(faults);
    return NULL;
}

static void serve(struct ram_faults *faults)
{
    struct uffd_msg messages[MESSAGES];
    ssize_t n = read(faults->fd, messages, sizeof(messages));
    for (unsigned i = 0; n > 0 && i < n / sizeof(messages[0]); i++) {
        if (messages[i].event != UFFD_EVENT_PAGEFAULT)
            continue;
        uint64_t offset = ALIGN_DOWN(messages[i].arg.pagefault.address - (uintptr_t)faults->ram->host, PAGE_SIZE);
        faults->fn(faults->opaque, offset);
        ram_faults_release(faults, offset, PAGE_SIZE);
    }
}

static gpointer fault_thread(gpointer data)
{
    struct ram_faults *faults = data;
    struct pollfd fds[] = {{.fd = faults->fd, .events = POLLIN}, {.fd = faults->stop, .events = POLLIN}};
    while (!fds[1].revents) {
        if (poll(fds, G_N_ELEMENTS(fds), -1) < 0)
            fds[0].revents = fds[1].revents = 0;
        if (fds[0].revents)
            serve(faults);
    }
    return NULL;
}

bool ram_faults_protect(struct ram_faults *faults)
{
    struct uffdio_writeprotect all = {.range = range_of(faults, 0, faults->ram->used),
                                      .mode = UFFDIO_WRITEPROTECT_MODE_WP};
    faults->stop = eventfd(0, EFD_CLOEXEC);
    if (faults->stop < 0)
        return false;
    faults->thread = g_thread_new("faults", fault_thread, faults);
    if (ioctl(faults->fd, UFFDIO_WRITEPROTECT, &all) == 0)
        return true;
    log_warning("snapshot", "memory cannot be write-protected: %s", g_strerror(errno));
    return false;
}

void ram_faults_release(struct ram_faults *faults, uint64_t ram_offset, uint64_t length)
{
    struct uffdio_writeprotect pages = {.range = range_of(faults, ram_offset, length)};
    // EAGAIN: the address space changes just now.
    while (ioctl(faults->fd, UFFDIO_WRITEPROTECT, &pages) < 0 && errno == EAGAIN)
        ;
}

void ram_faults_free(struct ram_faults *faults)
{
    if (!faults)
        return;
    struct uffdio_range all = range_of(faults, 0, faults->ram->used);
    if (faults->fd >= 0)
        ioctl(faults->fd, UFFDIO_UNREGISTER, &all); // wakes whoever waits
    if (faults->thread) {
        uint64_t one = 1;
        ssize_t n = write(faults->stop, &one, sizeof(one));
        (void)n;
        g_thread_join(faults->thread);
    }
    if (faults->stop >= 0)
        close(faults->stop);
    if (faults->fd >= 0)
        close(faults->fd);
    g_free(faults);
}
