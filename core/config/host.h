// SPDX-License-Identifier: GPL-2.0-or-later
// What this host offers, found by trying: the rows of `clochectl doctor` and of the desktop's welcome page.
#ifndef CLOCHE_HOST_H
#define CLOCHE_HOST_H

#include "core/base/base.h"

enum host_verdict { HOST_GOOD, HOST_LIMITED, HOST_MISSING };
const char *host_verdict_name(enum host_verdict verdict); // "good", "limited", "missing"

struct host_finding {
    const char *name;  // "kvm", "memory", "page-faults", ...
    const char *title; // "Hardware virtualization (KVM)"
    enum host_verdict verdict;
    char *text; // what was found and, if it is not good, the cure
};

// Runs every probe (some milliseconds in all). LIBRARY_FOLDER: where disk space is looked at; may be NULL. Free with
// g_ptr_array_unref(): struct host_finding *.
GPtrArray *host_probe(const char *library_folder);

struct host_defaults {
    uint64_t memory; // bytes that a new machine may have at most without starving the host
    unsigned cpus;   // processors that this process may use
};
struct host_defaults host_defaults(void);

#endif
