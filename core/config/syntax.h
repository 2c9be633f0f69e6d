// SPDX-License-Identifier: GPL-2.0-or-later
// Syntax checks of option values: true when TEXT is well-formed. An empty text is checked by the caller.
#ifndef CLOCHE_SYNTAX_H
#define CLOCHE_SYNTAX_H

#include "core/base/base.h"

bool syntax_machine_name(const char *text);
bool syntax_uuid(const char *text);
bool syntax_boot_order(const char *text);
bool syntax_vnc(const char *text);
bool syntax_net_backend(const char *text);
bool syntax_mac(const char *text);
bool syntax_forward(const char *text);
bool syntax_serial(const char *text);
bool syntax_device(const char *text);

#endif
