// SPDX-License-Identifier: GPL-2.0-or-later
// How far a long piece of work has come, and the wish to stop it. Shared by the worker and whoever watches.
#ifndef CLOCHE_PROGRESS_H
#define CLOCHE_PROGRESS_H

#include "core/base/base.h"

// Any thread. DONE and TOTAL in the work's own unit (bytes, mostly); TOTAL 0: not known yet.
struct progress {
    _Atomic uint64_t done, total;
    atomic_bool cancelled;
};

// True: go on. False with CLOCHE_ERROR_CANCELLED when somebody cancelled. PROGRESS may be NULL.
static inline bool progress_advance(struct progress *progress, uint64_t amount, GError **error)
{
    if (!progress)
        return true;
    atomic_fetch_add(&progress->done, amount);
    if (!atomic_load(&progress->cancelled))
        return true;
    g_set_error(error, CLOCHE_ERROR, CLOCHE_ERROR_CANCELLED, "Cancelled");
    return false;
}

#endif
