// SPDX-License-Identifier: GPL-2.0-or-later
// Says on standard error when the main loop was busy for too long at a stretch: a window that does not answer. Off
// unless CLOCHE_WATCHDOG is set, to the limit in milliseconds; the tests set it. At the limit the stack is printed,
// also when it was the host that was busy.
#ifndef CLOCHE_DESKTOP_WATCHDOG_H
#define CLOCHE_DESKTOP_WATCHDOG_H

// Before the main loop runs.
void watchdog_start(void);

#endif
