// SPDX-License-Identifier: GPL-2.0-or-later
#include "core/config/host.h"
#include "core/base/file.h"

#include <errno.h>
#include <inttypes.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/kvm.h>
#include <linux/userfaultfd.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const verdict_names[] = {"good", "limited", "missing"};

const char *host_verdict_name(enum host_verdict verdict)
{
    return verdict_names[verdict];
}

static enum host_verdict G_GNUC_PRINTF(3, 4) found(char **text, enum host_verdict verdict, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    *text = g_strdup_vprintf(format, args);
    va_end(args);
    return verdict;
}

static uint64_t meminfo(const char *key)
{
    g_autofree char *text = NULL;
    if (!g_file_get_contents("/proc/meminfo", &text, NULL, NULL))
        return 0;
    const char *at = strstr(text, key);
    return at ? g_ascii_strtoull(at + strlen(key), NULL, 10) * KiB : 0;
}

static unsigned usable_cpus(void)
{
    cpu_set_t set;
    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

struct host_defaults host_defaults(void)
{
    uint64_t total = meminfo("MemTotal:");
    return (struct host_defaults){.memory = ALIGN_DOWN(total / 2, 64 * MiB), .cpus = MIN(usable_cpus(), 16)};
}

static enum host_verdict probe_cpu(const char *folder, char **text)
{
    g_autofree char *info = NULL;
    g_file_get_contents("/proc/cpuinfo", &info, NULL, NULL);
    const char *model = info ? strstr(info, "model name") : NULL;
    const char *value = model ? strchr(model, ':') : NULL;
    g_autofree char *name = value ? g_strndup(value + 2, strcspn(value + 2, "\n")) : g_strdup("unknown processor");
#ifdef __x86_64__
    bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma");
    return found(text, v3 ? HOST_GOOD : HOST_LIMITED, "%s, %u processors usable%s", name, usable_cpus(),
                 v3 ? "" : "; it is older than x86-64-v3, so choose processor model x86-64-v2 for speed");
#else
    return found(text, HOST_LIMITED, "%s: no x86-64, so only the engine \"interpret\" runs here", name);
#endif
}

// Whether the device opens and a virtual machine can be made. Whether it is fast is measured by the engine itself.
static enum host_verdict probe_kvm(const char *folder, char **text)
{
    int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    if (kvm < 0 && errno == ENOENT)
        return found(
            text, HOST_MISSING,
            "/dev/kvm does not exist: virtualization is off in the firmware or out of reach (cloud VM, container); "
            "the engine \"translate\" is used");
    if (kvm < 0)
        return found(text, HOST_MISSING,
                     "/dev/kvm cannot be opened (%s): add yourself to the group kvm and log in again",
                     g_strerror(errno));
    int version = ioctl(kvm, KVM_GET_API_VERSION, 0), vm = ioctl(kvm, KVM_CREATE_VM, 0);
    int code = errno;
    if (vm >= 0)
        close(vm);
    close(kvm);
    if (version != KVM_API_VERSION || vm < 0)
        return found(text, HOST_MISSING, "/dev/kvm opens but makes no machine (%s); the engine \"translate\" is used",
                     g_strerror(code));
    return found(text, HOST_GOOD, "/dev/kvm works (API %d)", version);
}

static enum host_verdict probe_memory(const char *folder, char **text)
{
    uint64_t total = meminfo("MemTotal:"), available = meminfo("MemAvailable:");
    g_autofree char *whole = g_format_size_full(total, G_FORMAT_SIZE_IEC_UNITS);
    g_autofree char *free_now = g_format_size_full(available, G_FORMAT_SIZE_IEC_UNITS);
    return found(text, available > GiB ? HOST_GOOD : HOST_LIMITED, "%s, %s available%s", whole, free_now,
                 available > GiB ? "" : "; close programs before starting large machines");
}

static enum host_verdict probe_limits(const char *folder, char **text)
{
    struct rlimit address, files;
    getrlimit(RLIMIT_AS, &address);
    getrlimit(RLIMIT_NOFILE, &files);
    if (address.rlim_cur != RLIM_INFINITY)
        return found(text, HOST_LIMITED,
                     "address space is limited to %" PRIu64 " MiB: raise it with ulimit -v unlimited",
                     (uint64_t)(address.rlim_cur / MiB));
    if (files.rlim_cur < 1024)
        return found(text, HOST_LIMITED, "only %u open files: raise it with ulimit -n 1024", (unsigned)files.rlim_cur);
    return found(text, HOST_GOOD, "address space unlimited, %u open files", (unsigned)files.rlim_cur);
}

// The translator writes its code through one mapping of a memory object and runs it through another.
static enum host_verdict probe_code_memory(const char *folder, char **text)
{
    int fd = memfd_create("cloche-probe", MFD_CLOEXEC);
    void *map = fd >= 0 && ftruncate(fd, PAGE_SIZE) == 0
                    ? mmap(NULL, PAGE_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED, fd, 0)
                    : MAP_FAILED;
    int code = errno;
    if (map != MAP_FAILED)
        munmap(map, PAGE_SIZE);
    if (fd >= 0)
        close(fd);
    if (map == MAP_FAILED)
        return found(
            text, HOST_MISSING,
            "the host forbids executable shared memory (%s): the engine \"translate\" cannot run; use \"interpret\"",
            g_strerror(code));
    return found(text, HOST_GOOD, "executable shared memory is allowed");
}

static enum host_verdict probe_page_faults(const char *folder, char **text)
{
    int fd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
    if (fd < 0)
        return found(text, HOST_LIMITED,
                     "user-space page faults are not permitted (%s): restored machines read their memory ahead",
                     g_strerror(errno));
    close(fd);
    return found(text, HOST_GOOD, "user-space page faults are permitted");
}

static enum host_verdict probe_uring(const char *folder, char **text)
{
    struct io_uring_params parameters = {0};
    int fd = syscall(SYS_io_uring_setup, 4, &parameters);
    if (fd < 0)
        return found(text, HOST_LIMITED, "io_uring is not permitted (%s): disks use a thread pool", g_strerror(errno));
    close(fd);
    return found(text, HOST_GOOD, "io_uring works");
}

static enum host_verdict probe_tap(const char *folder, char **text)
{
    int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return found(
            text, HOST_LIMITED,
            "/dev/net/tun cannot be opened (%s): TAP networks need an administrator; NAT and teams work without",
            g_strerror(errno));
    close(fd);
    return found(text, HOST_GOOD, "TAP interfaces can be opened if an administrator made one for you");
}

static enum host_verdict probe_space(const char *folder, char **text)
{
    struct statvfs st;
    if (!folder)
        folder = g_get_home_dir();
    if (statvfs(folder, &st) != 0)
        return found(text, HOST_MISSING, "%s cannot be examined: %s", folder, g_strerror(errno));
    uint64_t available = (uint64_t)st.f_bavail * st.f_frsize;
    g_autofree char *size = g_format_size_full(available, G_FORMAT_SIZE_IEC_UNITS);
    return found(text, available > 10 * GiB ? HOST_GOOD : HOST_LIMITED, "%s free in %s%s", size, folder,
                 available > 10 * GiB ? "" : "; a system's disk and its snapshots need more");
}

static enum host_verdict probe_firmware(const char *folder, char **text)
{
    static const char *const files[] = {"/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios.bin",
                                        "/usr/share/qemu/bios-256k.bin"};
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++)
        if (access(files[i], R_OK) == 0)
            return found(text, HOST_GOOD, "SeaBIOS is %s", files[i]);
    return found(text, HOST_MISSING, "SeaBIOS is not installed: install the package seabios");
}

static const struct {
    const char *name, *title;
    enum host_verdict (*probe)(const char *folder, char **text);
} probes[] = {
    {"processor", "Processor", probe_cpu},
    {"kvm", "Hardware Virtualization (KVM)", probe_kvm},
    {"code-memory", "Translator's Code Memory", probe_code_memory},
    {"memory", "Memory", probe_memory},
    {"limits", "Limits of This Session", probe_limits},
    {"page-faults", "User-Space Page Faults", probe_page_faults},
    {"io-uring", "Asynchronous Disk Access", probe_uring},
    {"tap", "TAP Networks", probe_tap},
    {"space", "Disk Space", probe_space},
    {"firmware", "Firmware", probe_firmware},
};

static void finding_free(gpointer data)
{
    struct host_finding *finding = data;
    g_free(finding->text);
    g_free(finding);
}

GPtrArray *host_probe(const char *library_folder)
{
    GPtrArray *findings = g_ptr_array_new_with_free_func(finding_free);
    for (unsigned i = 0; i < G_N_ELEMENTS(probes); i++) {
        struct host_finding *finding = g_new0(struct host_finding, 1);
        finding->name = probes[i].name;
        finding->title = probes[i].title;
        finding->verdict = probes[i].probe(library_folder, &finding->text);
        g_ptr_array_add(findings, finding);
    }
    return findings;
}
