// SPDX-License-Identifier: GPL-2.0-or-later
// What every network card has: its properties, its nic, its address filter.
#ifndef CLOCHE_CARD_H
#define CLOCHE_CARD_H

#include "core/machine/nic.h"

#define IPXE_ROM(name) "/usr/lib/ipxe/qemu/pxe-" name ".rom"

// A card's instance holds one; CARD_PROPERTIES go into its property table.
struct card {
    struct nic *nic;
    char *backend, *mac, *forwards, *settings;
    bool no_rom;
};

#define CARD_PROPERTIES(struct_, member_)                                                                              \
    {"backend", PROPERTY_STRING, offsetof(struct_, member_.backend), "user",                                           \
     .help = "user, team:NAME, tap:NAME or none"},                                                                     \
        {"mac", PROPERTY_STRING, offsetof(struct_, member_.mac), .help = "address of the card"},                       \
        {"forwards", PROPERTY_STRING, offsetof(struct_, member_.forwards),                                             \
         .help = "port forwards, separated by spaces: tcp:127.0.0.1:2222-22"},                                         \
        {"settings", PROPERTY_STRING, offsetof(struct_, member_.settings),                                             \
         .help = "of cable and network: rate=10M,delay=5,loss=1,link=off,capture=FILE,tftp=FOLDER"},                   \
    {                                                                                                                  \
        "no-rom", PROPERTY_BOOL, offsetof(struct_, member_.no_rom), .help = "without the option ROM for network boot"  \
    }

// Opens the card's network. The client is set when the card is ready.
static inline bool card_open(struct card *card, struct device *device, GError **error)
{
    card->nic = nic_new(device->machine, device->id, card->backend, card->mac, card->forwards, card->settings, error);
    return card->nic != NULL;
}

static inline void card_close(struct card *card)
{
    nic_free(card->nic);
    card->nic = NULL;
}

// CRC-32 of an address as multicast hash filters use it: most significant bit first (IEEE 802.3).
uint32_t card_hash(const uint8_t *mac);
// The frame check sequence of a frame, as cards store it behind the data.
uint32_t card_fcs(const uint8_t *frame, size_t length);

#endif
