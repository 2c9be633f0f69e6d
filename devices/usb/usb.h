// SPDX-License-Identifier: GPL-2.0-or-later
// Between a USB host controller and the devices in its ports (USB 2.0, chapter 9). Everything under the machine lock.
#ifndef CLOCHE_USB_H
#define CLOCHE_USB_H

#include "core/machine/machine.h"

#define USB_CONTROL_MAX 1024 // bytes of one control transfer

struct usb_host; // the controller's; see struct usb_host_ops
struct usb_device;

// What a device does.
struct usb_device_ops {
    // A control request with SETUP's eight bytes. DATA holds what the host sends, or takes up to LENGTH bytes of the
    // answer. Returns the bytes of the answer, or -1: stall.
    int (*control)(struct usb_device *usb, const uint8_t setup[8], uint8_t *data, unsigned length);
    // The next packet of interrupt endpoint 1 IN, up to LENGTH bytes; 0: none now.
    unsigned (*interrupt_in)(struct usb_device *usb, uint8_t *data, unsigned length);
    void (*polled)(struct usb_device *usb, bool polled); // the guest began to ask, or no longer does
};

struct usb_host_ops {
    // Finds a free port. False: none is left.
    bool (*attach)(struct usb_host *host, struct usb_device *usb);
    void (*detach)(struct usb_host *host, struct usb_device *usb);
    void (*ready)(struct usb_host *host, struct usb_device *usb); // interrupt_in() would give something now
};

struct usb_host {
    const struct usb_host_ops *ops;
};

struct usb_device {
    const struct usb_device_ops *ops;
    struct usb_host *host; // NULL: not plugged in
    unsigned port;         // the host's
};

// The machine's USB controller, or NULL and an error that says how to get one.
struct usb_host *usb_host_find(struct machine *machine, const char *for_whom, GError **error);

#endif
