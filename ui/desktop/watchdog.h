// SPDX-License-Identifier: GPL-2.0-or-later
// Says on standard error when the main loop was busy for too long at a stretch: a window that does not answer. Off
// unless CLOCHE_WATCHDOG is set, to the limit in milliseconds; the tests set it.
#ifndef CLOCHE_DESKTOP_WATCHDOG_H
#define CLOCHE_DESKTOP_WATCHDOG_H

// Before the main loop runs.
void watchdog_start(void);

#endif
