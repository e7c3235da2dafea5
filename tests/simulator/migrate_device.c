/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After the kernel's mm/migrate_device.c. A VMA's page table says how many entries there are to
 * isolate; they stand at the front of the range, so that only the first MIGRATE_WINDOW entries of
 * src and dst are ever used, however long the range is.
 */
#include "probed.h"

#include <errno.h>
#include <string.h>

#include "ledger.h"
#include "timing.h"

#define MIGRATE_WINDOW 2048UL
#define MIGRATE_VMA_SELECT_ANY \
	(MIGRATE_VMA_SELECT_SYSTEM | MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT)

static unsigned long window_of(unsigned long npages)
{
	return npages < MIGRATE_WINDOW ? npages : MIGRATE_WINDOW;
}

static bool is_device_private_page(const struct page *page)
{
	return page->pgmap && page->pgmap->type == MEMORY_DEVICE_PRIVATE;
}

static bool vma_is_migratable(const struct vm_area_struct *vma)
{
	return vma && !(vma->vm_flags & (VM_HUGETLB | VM_SPECIAL)) && !(vma->vm_file && vma->vm_file->dax);
}

/* migrate_vma_setup's checks, its only source of -EINVAL. `nr_pages` is from before the alignment. */
static bool is_valid(const struct migrate_vma *args, long nr_pages)
{
	const struct vm_area_struct *vma = args->vma;

	return vma_is_migratable(vma) && nr_pages > 0 && args->start >= vma->vm_start &&
	       args->start < vma->vm_end && args->end > vma->vm_start && args->end <= vma->vm_end &&
	       args->src && args->dst && (!args->fault_page || is_device_private_page(args->fault_page));
}

static unsigned long isolated_entry(const struct page_table *table, unsigned long pfn)
{
	return pfn << MIGRATE_PFN_SHIFT | MIGRATE_PFN_VALID | MIGRATE_PFN_MIGRATE | MIGRATE_PFN_WRITE |
	       (table->order ? MIGRATE_PFN_COMPOUND : 0);
}

/* Pages that the flags select, and behind them holes, which are collected whatever the flags are. */
static void collect_entries(struct migrate_vma *args, const struct page_table *table)
{
	unsigned int present = args->flags & MIGRATE_VMA_SELECT_ANY ? table->present : 0;
	unsigned long step = 1UL << table->order, window = window_of(args->npages);
	unsigned long first_pfn = table->page->pfn;

	for (unsigned long i = 0; i < window && args->cpages < present; i += step, args->cpages++)
		args->src[i] = isolated_entry(table, first_pfn + i);
	for (unsigned long i = present * step; i < window && args->cpages < present + table->holes;
	     i += step, args->cpages++)
		args->src[i] = MIGRATE_PFN_MIGRATE;
}

static void migrate_vma_collect(struct migrate_vma *args)
{
	struct mmu_notifier_range range = { args->vma->vm_mm, args->start, args->end, 0, MMU_NOTIFY_MIGRATE,
					    args->pgmap_owner };

	mmu_notifier_invalidate_range_start(&range);
	args->npages = (args->end - args->start) >> PAGE_SHIFT;
	collect_entries(args, page_table_of(args->vma));
	args->end = args->start + (args->npages << PAGE_SHIFT);
}

static int order_of(unsigned long entry)
{
	return entry & MIGRATE_PFN_COMPOUND ? HPAGE_PMD_ORDER : 0;
}

typedef void trace_pte(unsigned long addr, unsigned long pte, int order);

static void trace_entries(const unsigned long *src, unsigned long npages, unsigned long start, trace_pte *trace)
{
	for (unsigned long i = 0; i < window_of(npages); i++)
		if (src[i] & MIGRATE_PFN_VALID)
			trace(start + (i << PAGE_SHIFT), src[i] >> MIGRATE_PFN_SHIFT, order_of(src[i]));
}

int (migrate_vma_setup)(struct migrate_vma *args, PAD2)
{
	PROBED_CALLER();
	long nr_pages = (args->end - args->start) >> PAGE_SHIFT;

	args->start &= PAGE_MASK;
	args->end &= PAGE_MASK;
	if (!is_valid(args, nr_pages))
		return -EINVAL;
	memset(args->src, 0, sizeof(*args->src) * window_of((args->end - args->start) >> PAGE_SHIFT));
	args->cpages = args->npages = 0;
	migrate_vma_collect(args);
	work(WORK_COLLECT, args->end - args->start);
	/* migrate_vma_unmap: the collecting walk has replaced this mapping already, rmap does the others. */
	if (args->cpages && page_table_of(args->vma)->forked)
		trace_entries(args->src, args->npages, args->start, trace_set_migration_pte);
	return 0;
}

/* __migrate_device_pages announces once that it fills holes from the first of them on. */
static void fill_hole(struct migrate_vma *migrate, unsigned long addr, bool *notified)
{
	struct mmu_notifier_range range = { migrate->vma->vm_mm, addr, migrate->end, 0, MMU_NOTIFY_MIGRATE,
					    migrate->pgmap_owner };

	if (!*notified)
		mmu_notifier_invalidate_range_start(&range);
	*notified = true;
}

void (migrate_vma_pages)(struct migrate_vma *migrate, PAD2)
{
	PROBED_CALLER();
	bool notified = false;

	work(WORK_COMMIT, migrate->end - migrate->start);
	for (unsigned long i = 0; i < window_of(migrate->npages); i++) {
		if (!(migrate->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (!(migrate->dst[i] & MIGRATE_PFN_VALID))
			migrate->src[i] &= ~MIGRATE_PFN_MIGRATE;
		else if (!(migrate->src[i] & MIGRATE_PFN_VALID))
			fill_hole(migrate, migrate->start + (i << PAGE_SHIFT), &notified);
	}
}

/* Entries go back in place of every mapping, whether the page has moved or not. */
void (migrate_vma_finalize)(struct migrate_vma *migrate, PAD2)
{
	PROBED_CALLER();

	work(WORK_REMAP, migrate->end - migrate->start);
	trace_entries(migrate->src, migrate->npages, migrate->start, trace_remove_migration_pte);
	if (page_table_of(migrate->vma)->forked)
		trace_entries(migrate->src, migrate->npages, migrate->start, trace_remove_migration_pte);
}

/* The memory of a device has no VMA at hand: this stands for the struct pages of the part that is
 * given back, and for the one address where each of them is mapped. */
static __thread struct page_table device_chunk;
#define MAPPED_AT 0x7f0000000000UL

static void isolate_chunk(unsigned long *src_pfns, unsigned long npages, unsigned long pfn)
{
	unsigned long step = 1UL << device_chunk.order, window = window_of(npages);

	memset(src_pfns, 0, sizeof(*src_pfns) * window);
	for (unsigned long i = 0, resident = 0; i < window && resident < device_chunk.present; i += step, resident++)
		src_pfns[i] = isolated_entry(&device_chunk, pfn + i);
	trace_entries(src_pfns, npages, MAPPED_AT, trace_set_migration_pte);
	work(WORK_COLLECT, npages << PAGE_SHIFT);
}

int (migrate_device_range)(unsigned long *src_pfns, unsigned long start, unsigned long npages, PAD4)
{
	PROBED_CALLER();
	isolate_chunk(src_pfns, npages, start);
	return 0;
}

/* src_pfns holds bare page frame numbers on entry. */
int (migrate_device_pfns)(unsigned long *src_pfns, unsigned long npages, PAD3)
{
	PROBED_CALLER();
	isolate_chunk(src_pfns, npages, src_pfns[0]);
	return 0;
}

void (migrate_device_pages)(unsigned long *src_pfns, unsigned long *dst_pfns, unsigned long npages, PAD4)
{
	PROBED_CALLER();
	work(WORK_COMMIT, npages << PAGE_SHIFT);
	for (unsigned long i = 0; i < window_of(npages); i++)
		if (!(dst_pfns[i] & MIGRATE_PFN_VALID))
			src_pfns[i] &= ~MIGRATE_PFN_MIGRATE;
}

void (migrate_device_finalize)(unsigned long *src_pfns, __maybe_unused unsigned long *dst_pfns,
			       unsigned long npages, PAD4)
{
	PROBED_CALLER();
	work(WORK_REMAP, npages << PAGE_SHIFT);
	trace_entries(src_pfns, npages, MAPPED_AT, trace_remove_migration_pte);
}
