/* SPDX-License-Identifier: Apache-2.0 */
/* After the kernel's mm/hmm.c: device mirrors, and DMA mappings of what they found. */
#include "probed.h"

#include <errno.h>

#include "ledger.h"
#include "timing.h"

/* Drivers pass arrays of this many entries at least; a longer range is walked, not written. */
#define HMM_PFNS 64
#define DMA_MAPPING_ERROR (~(dma_addr_t)0)

/* How an attempt ended that hmm_range_fault_locked made for this thread, for the ledger. */
struct attempts { unsigned int ok, raced, own_fault, lock_dropped; };

static __thread struct attempts attempts;

/* What hmm_pte_need_fault decides from: the defaults, and what the caller asks page by page. */
static unsigned long required_flags(const struct hmm_range *range)
{
	return range->default_flags | (range->hmm_pfns[0] & range->pfn_flags_mask);
}

static void report_pfns(struct hmm_range *range, unsigned long flags)
{
	unsigned long npages = (range->end - range->start) >> PAGE_SHIFT;

	for (unsigned long i = 0; i < npages && i < HMM_PFNS; i++)
		range->hmm_pfns[i] = flags | ((range->start >> PAGE_SHIFT) + i);
}

static bool must_fault(const struct hmm_range *range, const struct page_table *table)
{
	if (table->state == ENTRY_PRESENT)
		return false;
	return table->state != ENTRY_DEVICE_PRIVATE || table->page->pgmap->owner != range->dev_private_owner;
}

/* hmm_do_fault: -EBUSY asks for another walk, or tells that the lock is gone. */
static int fault_in(struct vm_area_struct *vma, unsigned long addr, bool *locked, bool *faulted)
{
	vm_fault_t fault = handle_mm_fault(vma, addr, FAULT_FLAG_REMOTE | (locked ? FAULT_FLAG_ALLOW_RETRY : 0));
	int ret = vm_fault_to_errno(fault);

	*faulted = !ret;
	if (fault & (VM_FAULT_RETRY | VM_FAULT_COMPLETED))
		*locked = false;
	return ret ? ret : -EBUSY;
}

/* The checks of hmm_vma_walk_test, then one fault at most. */
static int walk_page_range(struct hmm_range *range, bool *locked, bool *faulted)
{
	struct vm_area_struct *vma = find_vma_containing(range->notifier->mm, range->start);
	unsigned long required = required_flags(range);

	if (range->start >= range->end)
		return -EINVAL;
	if (!vma || vma->vm_flags & (VM_IO | VM_PFNMAP)) {
		report_pfns(range, HMM_PFN_ERROR);
		return required & HMM_PFN_REQ_FAULT ? -EFAULT : 0;
	}
	if (required & HMM_PFN_REQ_WRITE && !(vma->vm_flags & VM_WRITE))
		return -EPERM;
	if (!(required & HMM_PFN_REQ_FAULT) || !must_fault(range, page_table_of(vma))) {
		report_pfns(range, HMM_PFN_VALID | (vma->vm_flags & VM_WRITE ? HMM_PFN_WRITE : 0));
		return 0;
	}
	return fault_in(vma, range->start, locked, faulted);
}

/*
 * Linux 7.3 has it below both functions; until 7.2 it was hmm_range_fault's own body. `locked` is
 * NULL for a caller that must keep the mmap_lock; else it says whether a fault has let go of it.
 */
int (hmm_range_fault_locked)(struct hmm_range *range, bool *locked, PAD3)
{
	bool faulted = false;
	int ret;

	PROBED();
	do {
		if (mmu_interval_check_retry(range->notifier, range->notifier_seq)) {
			if (faulted)
				attempts.own_fault++;
			else
				attempts.raced++;
			return -EBUSY;
		}
		ret = walk_page_range(range, locked, &faulted);
	} while (ret == -EBUSY && (!locked || *locked));
	work(WORK_WALK, range->end - range->start);
	if (ret == -EBUSY)
		attempts.lock_dropped++;
	if (!ret)
		attempts.ok++;
	return ret;
}

int (hmm_range_fault)(struct hmm_range *range, PAD2)
{
	PROBED_CALLER();
	return hmm_range_fault_locked(range, NULL);
}

/*
 * The timeout is in jiffies, 0 is for ever. Here an attempt takes one jiffy; one that had to let go
 * of the lock has got on, so the time starts anew.
 */
int (hmm_range_fault_unlocked_timeout)(struct hmm_range *range, unsigned long timeout, PAD3)
{
	PROBED_CALLER();
	unsigned long jiffies = 0;
	bool locked;
	int ret;

	do {
		if (current->fatal_signal)
			return -EINTR;
		if (timeout && jiffies++ == timeout)
			return -EBUSY;
		range->notifier_seq = mmu_interval_read_begin(range->notifier);
		locked = true;
		ret = hmm_range_fault_locked(range, &locked);
		if (!locked)
			jiffies = 0;
	} while (ret == -EBUSY);
	return ret;
}

/* Peer-to-peer memory that the two devices cannot share is the failure that RDMA meets. */
dma_addr_t (hmm_dma_map_pfn)(__maybe_unused struct device *dev, struct hmm_dma_map *map, size_t idx,
			     struct pci_p2pdma_map_state *p2pdma_state, PAD5)
{
	PROBED();
	if (map->pfn_list[idx] & HMM_PFN_P2PDMA && p2pdma_state->unsupported)
		return DMA_MAPPING_ERROR;
	map->pfn_list[idx] |= HMM_PFN_DMA_MAPPED;
	return map->state.addr + idx * map->dma_entry_size;
}

bool (hmm_dma_unmap_pfn)(__maybe_unused struct device *dev, struct hmm_dma_map *map, size_t idx, PAD4)
{
	PROBED();
	if (!(map->pfn_list[idx] & HMM_PFN_DMA_MAPPED))
		return false;
	map->pfn_list[idx] &= ~HMM_PFN_DMA_MAPPED;
	return true;
}
