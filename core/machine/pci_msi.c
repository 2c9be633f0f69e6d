// SPDX-License-Identifier: GPL-2.0-or-later
// Message signalled interrupts: MSI and MSI-X (PCI Local Bus 3.0, 6.8).
#include "core/cpu/lapic.h"
#include "core/machine/pci.h"

#include <string.h>

#define CAP_MSI       0x05
#define CAP_MSIX      0x11
#define MSI_ENABLE    0x0001
#define MSIX_ENABLE   0x8000
#define MSIX_MASK_ALL 0x4000
#define MSIX_PENDING  0x800 // offset of the pending bits in the BAR
#define MSIX_BAR_SIZE 0x1000
#define MSIX_VECTORS  (MSIX_PENDING / 16)

static void send(struct pci_device *pci, uint64_t address, uint32_t data)
{
    struct machine *machine = pci->device.machine;
    // A message goes out as a memory write of the function: without bus mastering there is none.
    if (!pci_bus_master(pci))
        return;
    if ((address & ~0xfffffull) == 0xfee00000 && machine->cpus)
        lapic_send_msi(machine->cpus, address, data);
    else
        address_space_store(machine->memory, address & ~3ull, data, 4);
}

// ---- MSI ----
// Layout with 64-bit address and per-vector masks: control +2, address +4, data +12, mask +16, pending +20.
bool pci_add_msi(struct pci_device *pci, unsigned vectors)
{
    if (!vectors || vectors > 32 || (vectors & (vectors - 1)))
        return false;
    uint8_t at = pci->msi_cap = pci_add_capability(pci, CAP_MSI, 24);
    store_le(pci->config + at + 2, 2, 0x180 | __builtin_ctz(vectors) << 1);
    store_le(pci->write_mask + at + 2, 2, 0x0071);
    store_le(pci->write_mask + at + 4, 8, ~3ull);
    store_le(pci->write_mask + at + 12, 2, 0xffff);
    store_le(pci->write_mask + at + 16, 4, ~0u >> (32 - vectors));
    return true;
}

bool pci_msi_enabled(const struct pci_device *pci)
{
    return pci->msi_cap && (pci->config[pci->msi_cap + 2] & MSI_ENABLE);
}

static void send_msi(struct pci_device *pci, unsigned vector)
{
    const uint8_t *cap = pci->config + pci->msi_cap;
    uint32_t data = load_le(cap + 12, 2);
    unsigned allocated = 1u << MIN(extract_bits(cap[2], 4, 3), 5);
    data = (data & ~(allocated - 1)) | (vector & (allocated - 1));
    send(pci, load_le(cap + 4, 8), data);
}

void pci_notify_msi(struct pci_device *pci, unsigned vector)
{
    if (!pci_msi_enabled(pci) || vector >= 32)
        return;
    uint8_t *cap = pci->config + pci->msi_cap;
    if (load_le(cap + 16, 4) >> vector & 1)
        store_le(cap + 20, 4, load_le(cap + 20, 4) | BIT(vector));
    else
        send_msi(pci, vector);
}

static void send_unmasked_msi(struct pci_device *pci)
{
    uint8_t *cap = pci->config + pci->msi_cap;
    uint32_t ready = load_le(cap + 20, 4) & ~load_le(cap + 16, 4);
    store_le(cap + 20, 4, load_le(cap + 20, 4) & ~ready);
    for (; ready; ready &= ready - 1)
        send_msi(pci, __builtin_ctz(ready));
}

// ---- MSI-X ----
// The table is written by vCPUs and read by I/O threads: LOCK.
struct pci_msix {
    GMutex lock;
    struct region region;
    unsigned vectors;
};

static uint8_t *entry(const struct pci_device *pci, unsigned vector)
{
    return pci->msix_state + 16 * vector;
}

static bool masked(const struct pci_device *pci, unsigned vector)
{
    return (load_le(pci->config + pci->msix_cap + 2, 2) & MSIX_MASK_ALL) || (entry(pci, vector)[12] & 1);
}

// Sends what waits and is no longer masked.
static void send_unmasked_msix(struct pci_device *pci)
{
    for (unsigned vector = 0; vector < pci->msix->vectors; vector++) {
        uint8_t *pending = pci->msix_state + MSIX_PENDING + vector / 8, bit = BIT(vector % 8);
        g_mutex_lock(&pci->msix->lock);
        bool ready = (*pending & bit) && !masked(pci, vector) && pci_msix_enabled(pci);
        uint64_t address = load_le(entry(pci, vector), 8);
        uint32_t data = load_le(entry(pci, vector) + 8, 4);
        if (ready)
            *pending &= ~bit;
        g_mutex_unlock(&pci->msix->lock);
        if (ready)
            send(pci, address, data);
    }
}

static uint64_t msix_read(void *opaque, uint64_t offset, unsigned size)
{
    struct pci_device *pci = opaque;
    g_mutex_lock(&pci->msix->lock);
    uint64_t value = load_le(pci->msix_state + offset, size);
    g_mutex_unlock(&pci->msix->lock);
    return value;
}

static void msix_write(void *opaque, uint64_t offset, uint64_t value, unsigned size)
{
    struct pci_device *pci = opaque;
    if (offset + size > 16 * pci->msix->vectors)
        return; // pending bits and the rest are read-only
    g_mutex_lock(&pci->msix->lock);
    store_le(pci->msix_state + offset, size, value);
    g_mutex_unlock(&pci->msix->lock);
    if ((offset & 15) + size > 12)
        send_unmasked_msix(pci);
}

static const struct io_ops msix_ops = {msix_read, msix_write, 4, 8};

bool pci_add_msix(struct pci_device *pci, unsigned bar, unsigned vectors)
{
    if (!vectors || vectors > MSIX_VECTORS)
        return false;
    struct pci_msix *msix = pci->msix = g_new0(struct pci_msix, 1);
    g_mutex_init(&msix->lock);
    msix->vectors = vectors;
    pci->msix_state_size = MSIX_BAR_SIZE;
    pci->msix_state = g_malloc0(pci->msix_state_size);
    region_init_io(&msix->region, "msi-x", &msix_ops, pci, MSIX_BAR_SIZE);
    pci_set_bar(pci, bar, &msix->region, false, false, false);
    uint8_t at = pci->msix_cap = pci_add_capability(pci, CAP_MSIX, 12);
    store_le(pci->config + at + 2, 2, vectors - 1);
    store_le(pci->config + at + 4, 4, bar);
    store_le(pci->config + at + 8, 4, MSIX_PENDING | bar);
    store_le(pci->write_mask + at + 2, 2, MSIX_ENABLE | MSIX_MASK_ALL);
    pci_msi_reset(pci);
    return true;
}

void pci_msix_free(struct pci_device *pci)
{
    if (!pci->msix)
        return;
    g_mutex_clear(&pci->msix->lock);
    g_clear_pointer(&pci->msix, g_free);
    g_clear_pointer(&pci->msix_state, g_free);
}

bool pci_msix_enabled(const struct pci_device *pci)
{
    return pci->msix_cap && (load_le(pci->config + pci->msix_cap + 2, 2) & MSIX_ENABLE);
}

void pci_notify_msix(struct pci_device *pci, unsigned vector)
{
    if (!pci_msix_enabled(pci) || vector >= pci->msix->vectors)
        return;
    g_mutex_lock(&pci->msix->lock);
    bool hold = masked(pci, vector);
    if (hold)
        pci->msix_state[MSIX_PENDING + vector / 8] |= BIT(vector % 8);
    uint64_t address = load_le(entry(pci, vector), 8);
    uint32_t data = load_le(entry(pci, vector) + 8, 4);
    g_mutex_unlock(&pci->msix->lock);
    if (!hold)
        send(pci, address, data);
}

// ---- Called by the bus ----
void pci_msi_config_written(struct pci_device *pci, unsigned offset, unsigned size)
{
    unsigned end = offset + size;
    if (pci->msi_cap && offset < pci->msi_cap + 24u && end > pci->msi_cap && pci_msi_enabled(pci))
        send_unmasked_msi(pci);
    if (pci->msix_cap && offset < pci->msix_cap + 12u && end > pci->msix_cap)
        send_unmasked_msix(pci);
}

void pci_msi_reset(struct pci_device *pci)
{
    if (pci->msi_cap)
        for (unsigned i = 2; i < 24; i++)
            pci->config[pci->msi_cap + i] &= ~pci->write_mask[pci->msi_cap + i];
    if (pci->msi_cap)
        store_le(pci->config + pci->msi_cap + 20, 4, 0);
    if (!pci->msix_cap)
        return;
    pci->config[pci->msix_cap + 3] &= ~((MSIX_ENABLE | MSIX_MASK_ALL) >> 8);
    memset(pci->msix_state, 0, pci->msix_state_size);
    for (unsigned vector = 0; vector < pci->msix->vectors; vector++)
        entry(pci, vector)[12] = 1;
}

void pci_msi_loaded(struct pci_device *pci)
{
    if (!pci->msix || pci->msix_state_size == MSIX_BAR_SIZE)
        return;
    // A state file of another size must not let the guest reach past the buffer.
    pci->msix_state = g_realloc(pci->msix_state, MSIX_BAR_SIZE);
    if (pci->msix_state_size < MSIX_BAR_SIZE)
        memset(pci->msix_state + pci->msix_state_size, 0, MSIX_BAR_SIZE - pci->msix_state_size);
    pci->msix_state_size = MSIX_BAR_SIZE;
}
