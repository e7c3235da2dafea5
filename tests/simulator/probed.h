/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The functions that probes attach to. Each has the kernel's parameters, then padding up to five,
 * and the acting task as the sixth: a uprobe has no `current` of the simulated kernel, so it finds
 * it in the sixth argument register (r9 on x86-64). A macro of the function's own name hides that:
 * the drivers' code reads as the kernel's does, and a definition puts its name in parentheses.
 */
#ifndef SIMULATOR_PROBED_H
#define SIMULATOR_PROBED_H

#include "kernel.h"

/* The task that this thread plays; see play(). */
static __thread struct task_struct *current;

/* The compiler may learn nothing about these, so it loads every register at every call. */
#define __probed __attribute__((noipa, noinline, noclone, used))

#define SIXTH struct task_struct *current_task
#define PAD5 __maybe_unused unsigned long pad5, SIXTH
#define PAD4 __maybe_unused unsigned long pad4, PAD5
#define PAD3 __maybe_unused unsigned long pad3, PAD4
#define PAD2 __maybe_unused unsigned long pad2, PAD3

/*
 * Which HMM function this thread is inside of, innermost; "" when in none. It is for the ledger
 * alone: no probe looks at it.
 */
static __thread const char *inside = "";

static inline void leave_function(const char **outer)
{
	inside = *outer;
}

/* First statement of a probed function: keeps the sixth argument alive. */
#define PROBED() __asm__ volatile("" : : "r"(current_task) : "memory")
/* The same for one that calls other probed functions. */
#define PROBED_CALLER() \
	PROBED(); \
	__maybe_unused __attribute__((cleanup(leave_function))) const char *outer = inside; \
	inside = __func__

__probed int migrate_vma_setup(struct migrate_vma *args, PAD2);
__probed void migrate_vma_pages(struct migrate_vma *migrate, PAD2);
__probed void migrate_vma_finalize(struct migrate_vma *migrate, PAD2);
__probed unsigned long migrate_device_unmap(unsigned long *src_pfns, unsigned long npages, struct page *fault_page,
					    PAD4);
__probed int migrate_device_range(unsigned long *src_pfns, unsigned long start, unsigned long npages, PAD4);
__probed int migrate_device_pfns(unsigned long *src_pfns, unsigned long npages, PAD3);
__probed void migrate_device_pages(unsigned long *src_pfns, unsigned long *dst_pfns, unsigned long npages, PAD4);
__probed void migrate_device_finalize(unsigned long *src_pfns, unsigned long *dst_pfns, unsigned long npages, PAD4);
__probed int hmm_range_fault(struct hmm_range *range, PAD2);
__probed int hmm_range_fault_unlocked_timeout(struct hmm_range *range, unsigned long timeout, PAD3);
__probed int hmm_range_fault_locked(struct hmm_range *range, bool *locked, PAD3);
__probed dma_addr_t hmm_dma_map_pfn(struct device *dev, struct hmm_dma_map *map, size_t idx,
				    struct pci_p2pdma_map_state *p2pdma_state, PAD5);
__probed bool hmm_dma_unmap_pfn(struct device *dev, struct hmm_dma_map *map, size_t idx, PAD4);
__probed struct page *make_device_exclusive(struct mm_struct *mm, unsigned long addr, void *owner,
					    struct folio **foliop, PAD5);
__probed void restore_exclusive_pte(struct vm_area_struct *vma, struct page *page, unsigned long address,
				    pte_t *ptep, PAD5);
__probed vm_fault_t do_huge_pmd_device_private(struct vm_fault *vmf, PAD2);
__probed int mmu_interval_notifier_insert(struct mmu_interval_notifier *sub, struct mm_struct *mm,
					  unsigned long start, unsigned long length,
					  const struct mmu_interval_notifier_ops *ops, SIXTH);
__probed int mmu_interval_notifier_insert_locked(struct mmu_interval_notifier *sub, struct mm_struct *mm,
						 unsigned long start, unsigned long length,
						 const struct mmu_interval_notifier_ops *ops, SIXTH);
__probed void mmu_interval_notifier_remove(struct mmu_interval_notifier *sub, PAD2);
__probed int __mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range, PAD2);
/* Tracepoints in the kernel (include/trace/events/migrate.h, thp.h); functions here. */
__probed void set_migration_pte(unsigned long addr, unsigned long pte, int order, PAD4);
__probed void remove_migration_pte(unsigned long addr, unsigned long pte, int order, PAD4);
__probed void set_migration_pmd(unsigned long addr, unsigned long pmd, PAD3);
__probed void remove_migration_pmd(unsigned long addr, unsigned long pmd, PAD3);

/* A macro does not expand inside of itself, so each of these calls the function. */
#define migrate_vma_setup(args) migrate_vma_setup(args, 0, 0, 0, 0, current)
#define migrate_vma_pages(migrate) migrate_vma_pages(migrate, 0, 0, 0, 0, current)
#define migrate_vma_finalize(migrate) migrate_vma_finalize(migrate, 0, 0, 0, 0, current)
#define migrate_device_unmap(src, npages, fault_page) \
	migrate_device_unmap(src, npages, fault_page, 0, 0, current)
#define migrate_device_range(src, start, npages) migrate_device_range(src, start, npages, 0, 0, current)
#define migrate_device_pfns(src, npages) migrate_device_pfns(src, npages, 0, 0, 0, current)
#define migrate_device_pages(src, dst, npages) migrate_device_pages(src, dst, npages, 0, 0, current)
#define migrate_device_finalize(src, dst, npages) migrate_device_finalize(src, dst, npages, 0, 0, current)
#define hmm_range_fault(range) hmm_range_fault(range, 0, 0, 0, 0, current)
#define hmm_range_fault_unlocked_timeout(range, timeout) \
	hmm_range_fault_unlocked_timeout(range, timeout, 0, 0, 0, current)
#define hmm_range_fault_locked(range, locked) hmm_range_fault_locked(range, locked, 0, 0, 0, current)
#define hmm_dma_map_pfn(dev, map, idx, state) hmm_dma_map_pfn(dev, map, idx, state, 0, current)
#define hmm_dma_unmap_pfn(dev, map, idx) hmm_dma_unmap_pfn(dev, map, idx, 0, 0, current)
#define make_device_exclusive(mm, addr, owner, foliop) make_device_exclusive(mm, addr, owner, foliop, 0, current)
#define restore_exclusive_pte(vma, page, address, ptep) restore_exclusive_pte(vma, page, address, ptep, 0, current)
#define do_huge_pmd_device_private(vmf) do_huge_pmd_device_private(vmf, 0, 0, 0, 0, current)
#define mmu_interval_notifier_insert(sub, mm, start, length, ops) \
	mmu_interval_notifier_insert(sub, mm, start, length, ops, current)
#define mmu_interval_notifier_insert_locked(sub, mm, start, length, ops) \
	mmu_interval_notifier_insert_locked(sub, mm, start, length, ops, current)
#define mmu_interval_notifier_remove(sub) mmu_interval_notifier_remove(sub, 0, 0, 0, 0, current)
#define __mmu_notifier_invalidate_range_start(range) __mmu_notifier_invalidate_range_start(range, 0, 0, 0, 0, current)
#define set_migration_pte(addr, pte, order) set_migration_pte(addr, pte, order, 0, 0, current)
#define remove_migration_pte(addr, pte, order) remove_migration_pte(addr, pte, order, 0, 0, current)
#define set_migration_pmd(addr, pmd) set_migration_pmd(addr, pmd, 0, 0, 0, current)
#define remove_migration_pmd(addr, pmd) remove_migration_pmd(addr, pmd, 0, 0, 0, current)

#endif
