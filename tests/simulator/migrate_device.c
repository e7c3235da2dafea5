/* SPDX-License-Identifier: Apache-2.0 */
/*
 * After the kernel's mm/migrate_device.c (7.3). Drivers have arrays for 1 GiB of pages; of a range
 * that is longer, only the first MIGRATE_ARRAY entries are ever looked at.
 */
#include "probed.h"

#include <errno.h>
#include <string.h>

#include "iomem.h"
#include "ledger.h"
#include "timing.h"

#define MIGRATE_ARRAY (1UL << 18)
#define MIGRATE_VMA_SELECT_ANY \
	(MIGRATE_VMA_SELECT_SYSTEM | MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT)
/* A migration entry costs an event of its own: a migration tells of its first few alone. */
#define TRACED_ENTRIES 4

/* What became of the pages of this thread's migration, counted where it is decided; for the ledger. */
enum direction { FROM_HOST, TO_DEVICE, FROM_DEVICE, ACROSS_DEVICES, NR_DIRECTIONS };

struct moves {
	unsigned long collected, holes, busy, no_destination, unfilled, commit_failed, zero_filled;
	unsigned long moved[NR_DIRECTIONS], huge[NR_DIRECTIONS];
	unsigned long collected_from, source, destination; /* the first page on a device; 0 is none */
};

static __thread struct moves moves;

/* What goes wrong for this thread: with each so-many-th folio, by its page frame; 0 is with none. */
static __thread struct { unsigned int pinned, uncommitted; } trouble;

static bool strikes(unsigned int every, unsigned long number)
{
	return every && number % every == 0;
}

static unsigned long window_of(unsigned long npages)
{
	return npages < MIGRATE_ARRAY ? npages : MIGRATE_ARRAY;
}

static unsigned long pfn_of(unsigned long entry)
{
	return entry >> MIGRATE_PFN_SHIFT;
}

static unsigned long pages_of(unsigned long entry)
{
	return entry & MIGRATE_PFN_COMPOUND ? HPAGE_PMD_NR : 1;
}

static bool folio_strikes(unsigned int every, unsigned long entry)
{
	return strikes(every, pfn_of(entry) / pages_of(entry));
}

static void note_device(unsigned long *first, unsigned long entry)
{
	if (!*first && is_device_pfn(pfn_of(entry)))
		*first = pfn_of(entry);
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

/* The page frame that belongs to an address, so that neighbours are neighbours. */
static unsigned long device_pfn(const struct dev_pagemap *pgmap, unsigned long addr)
{
	unsigned long pages = (pgmap->range.end + 1 - pgmap->range.start) >> PAGE_SHIFT;

	return (pgmap->range.start >> PAGE_SHIFT) + (addr >> PAGE_SHIFT) % pages;
}

static unsigned long ram_pfn(unsigned long addr)
{
	return RAM_PFN + (addr >> PAGE_SHIFT) % RAM_PAGES;
}

static unsigned long isolated_entry(unsigned long pfn)
{
	return pfn << MIGRATE_PFN_SHIFT | MIGRATE_PFN_VALID | MIGRATE_PFN_MIGRATE | MIGRATE_PFN_WRITE;
}

/* Holes are collected whatever the flags are; pages of devices, only those of the caller's owner. */
static unsigned long entry_for(const struct migrate_vma *args, const struct page_table *table, enum place place,
			       unsigned long addr)
{
	switch (place) {
	case NOTHING:
		return MIGRATE_PFN_MIGRATE;
	case IN_RAM:
		return args->flags & MIGRATE_VMA_SELECT_SYSTEM ? isolated_entry(ram_pfn(addr)) : 0;
	case ON_DEVICE:
		if (!table->pgmap || !table->pgmap->nr_range || table->pgmap->owner != args->pgmap_owner ||
		    !(args->flags & MIGRATE_VMA_SELECT_DEVICE_PRIVATE))
			return 0;
		return isolated_entry(device_pfn(table->pgmap, addr));
	default:
		return 0;
	}
}

/* One entry, of which `left` could follow. A huge folio is one with 511 zeros behind it, or is split. */
static unsigned long collect_entry(struct migrate_vma *args, const struct page_table *table,
				   const struct page_run *run, unsigned long i, unsigned long left)
{
	unsigned long addr = args->start + (i << PAGE_SHIFT);
	bool huge = run->huge && args->flags & MIGRATE_VMA_SELECT_COMPOUND && !(addr % HPAGE_PMD_SIZE) &&
		    left >= HPAGE_PMD_NR;
	unsigned long entry = entry_for(args, table, run->place, addr), nr = huge ? HPAGE_PMD_NR : 1;

	if (!entry)
		return nr;
	args->src[i] = entry | (huge ? MIGRATE_PFN_COMPOUND : 0);
	args->cpages++;
	if (entry & MIGRATE_PFN_VALID) {
		moves.collected += nr;
		note_device(&moves.collected_from, entry);
	} else {
		moves.holes += nr;
	}
	return nr;
}

static void collect_entries(struct migrate_vma *args, const struct page_table *table)
{
	unsigned long window = window_of(args->npages), i = 0;

	for (unsigned int n = 0; table->runs && i < window; n = (n + 1) % table->runs) {
		const struct page_run *run = &table->run[n];
		unsigned long end = i + run->pages < window ? i + run->pages : window;

		while (i < end)
			i += collect_entry(args, table, run, i, end - i);
	}
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

typedef void trace_pte(unsigned long addr, unsigned long pte, int order);
typedef void trace_pmd(unsigned long addr, unsigned long pmd);

/* Huge folios are mapped by one entry of the level above. Either of the two functions may be missing. */
static void trace_entries(const unsigned long *src, unsigned long npages, unsigned long start, trace_pte *pte,
			  trace_pmd *pmd)
{
	unsigned int traced = 0;

	for (unsigned long i = 0; i < window_of(npages) && traced < TRACED_ENTRIES; i += pages_of(src[i])) {
		unsigned long addr = start + (i << PAGE_SHIFT);

		if (!(src[i] & MIGRATE_PFN_VALID))
			continue;
		traced++;
		if (src[i] & MIGRATE_PFN_COMPOUND && pmd)
			pmd(addr, pfn_of(src[i]));
		else if (!(src[i] & MIGRATE_PFN_COMPOUND) && pte)
			pte(addr, pfn_of(src[i]), 0);
	}
}

/* Takes the pages from everybody else, but for those that somebody holds: they go back to where they were. */
unsigned long (migrate_device_unmap)(unsigned long *src_pfns, unsigned long npages,
				     __maybe_unused struct page *fault_page, PAD4)
{
	PROBED_CALLER();
	unsigned long unmapped = 0, nr;

	for (unsigned long i = 0; i < window_of(npages); i += nr) {
		nr = pages_of(src_pfns[i]);
		if (src_pfns[i] & MIGRATE_PFN_VALID && folio_strikes(trouble.pinned, src_pfns[i])) {
			src_pfns[i] = 0;
			moves.busy += nr;
		} else if (src_pfns[i] & MIGRATE_PFN_MIGRATE) {
			note_device(&moves.source, src_pfns[i]);
			unmapped++;
		}
	}
	return unmapped;
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
	if (!args->cpages)
		return 0;
	/* The collecting walk has replaced this mapping of small pages already, rmap does the others. */
	trace_entries(args->src, args->npages, args->start,
		      page_table_of(args->vma)->forked ? trace_set_migration_pte : NULL, trace_set_migration_pmd);
	args->cpages = migrate_device_unmap(args->src, args->npages, args->fault_page);
	return 0;
}

/* What __migrate_device_pages does something about; `migrate` is NULL where there is no address. */
struct commit {
	unsigned long *src, *dst;
	struct migrate_vma *migrate;
	bool notified;
};

static unsigned long address_of(const struct commit *commit, unsigned long i)
{
	return commit->migrate ? commit->migrate->start + (i << PAGE_SHIFT) : 0;
}

/* Announced once, from the first hole to be filled on. */
static void announce_fill(struct commit *commit, unsigned long i)
{
	struct migrate_vma *migrate = commit->migrate;
	struct mmu_notifier_range range = { migrate->vma->vm_mm, address_of(commit, i), migrate->end, 0,
					    MMU_NOTIFY_MIGRATE, migrate->pgmap_owner };

	if (!commit->notified)
		mmu_notifier_invalidate_range_start(&range);
	commit->notified = true;
}

/* Fails where memory gets scarce or somebody else has filled it. */
static void migrate_vma_insert_page(struct commit *commit, unsigned long i, unsigned long nr)
{
	unsigned long addr = address_of(commit, i);

	if (strikes(trouble.uncommitted, (addr >> PAGE_SHIFT) / nr)) {
		commit->src[i] &= ~MIGRATE_PFN_MIGRATE;
		moves.commit_failed += nr;
		return;
	}
	moves.zero_filled += nr;
	touch_region(addr, nr << PAGE_SHIFT, false, is_device_pfn(pfn_of(commit->dst[i])));
}

/* A huge hole for which there are single pages only is filled by them. */
static unsigned long fill_hole(struct commit *commit, unsigned long i)
{
	unsigned long nr = pages_of(commit->src[i]);

	announce_fill(commit, i);
	if (commit->dst[i] & MIGRATE_PFN_COMPOUND || nr == 1) {
		migrate_vma_insert_page(commit, i, nr);
		return nr;
	}
	commit->src[i] &= ~MIGRATE_PFN_COMPOUND;
	for (unsigned long j = i; j < i + nr; j++) {
		commit->src[j] |= MIGRATE_PFN_MIGRATE;
		migrate_vma_insert_page(commit, j, 1);
	}
	return nr;
}

static void folio_migrate_mapping(struct commit *commit, unsigned long i)
{
	unsigned long from = commit->src[i], to = commit->dst[i], nr = pages_of(from);
	bool from_device = is_device_pfn(pfn_of(from)), to_device = is_device_pfn(pfn_of(to));
	enum direction direction = from_device << 1 | to_device;

	if (folio_strikes(trouble.uncommitted, from)) {
		commit->src[i] &= ~MIGRATE_PFN_MIGRATE;
		moves.commit_failed += nr;
		return;
	}
	moves.moved[direction] += nr;
	if (nr > 1)
		moves.huge[direction] += nr;
	if (commit->migrate)
		touch_region(address_of(commit, i), nr << PAGE_SHIFT, from_device, to_device);
}

/* A huge folio for which there are single pages only: each of its pages gets an entry. */
static void migrate_vma_split_unmapped_folio(struct commit *commit, unsigned long i)
{
	unsigned long first = commit->src[i] & ~MIGRATE_PFN_COMPOUND;

	for (unsigned long j = 0; j < HPAGE_PMD_NR; j++)
		commit->src[i + j] = first + (j << MIGRATE_PFN_SHIFT);
}

static unsigned long commit_folio(struct commit *commit, unsigned long i)
{
	unsigned long nr = pages_of(commit->src[i]);

	if (nr == 1 || commit->dst[i] & MIGRATE_PFN_COMPOUND) {
		folio_migrate_mapping(commit, i);
	} else if (!commit->migrate) { /* without an address there is no page table to split */
		commit->src[i] &= ~(MIGRATE_PFN_MIGRATE | MIGRATE_PFN_COMPOUND);
		moves.commit_failed += nr;
	} else {
		migrate_vma_split_unmapped_folio(commit, i);
		for (unsigned long j = i; j < i + nr; j++)
			folio_migrate_mapping(commit, j);
	}
	return nr;
}

/* No destination: the entry goes back to where it was. */
static unsigned long decline(struct commit *commit, unsigned long i)
{
	unsigned long nr = pages_of(commit->src[i]);

	commit->src[i] &= ~MIGRATE_PFN_MIGRATE;
	if (commit->src[i] & MIGRATE_PFN_VALID)
		moves.no_destination += nr;
	else
		moves.unfilled += nr;
	return nr;
}

static void __migrate_device_pages(unsigned long *src, unsigned long *dst, unsigned long npages,
				   struct migrate_vma *migrate)
{
	struct commit commit = { src, dst, migrate, false };

	touched.used = 0;
	for (unsigned long i = 0; i < window_of(npages);) {
		if (dst[i] & MIGRATE_PFN_VALID)
			note_device(&moves.destination, dst[i]);
		if (!(src[i] & MIGRATE_PFN_MIGRATE))
			i += pages_of(src[i]);
		else if (!(dst[i] & MIGRATE_PFN_VALID))
			i += decline(&commit, i);
		else if (src[i] & MIGRATE_PFN_VALID)
			i += commit_folio(&commit, i);
		else
			i += fill_hole(&commit, i);
	}
}

void (migrate_vma_pages)(struct migrate_vma *migrate, PAD2)
{
	PROBED_CALLER();
	work(WORK_COMMIT, migrate->end - migrate->start);
	__migrate_device_pages(migrate->src, migrate->dst, migrate->npages, migrate);
}

/* Entries go back in place of every mapping, whether the page has moved or not. */
void (migrate_vma_finalize)(struct migrate_vma *migrate, PAD2)
{
	PROBED_CALLER();

	work(WORK_REMAP, migrate->end - migrate->start);
	trace_entries(migrate->src, migrate->npages, migrate->start, trace_remove_migration_pte,
		      trace_remove_migration_pmd);
	if (page_table_of(migrate->vma)->forked)
		trace_entries(migrate->src, migrate->npages, migrate->start, trace_remove_migration_pte, NULL);
}

/* The memory of a device has no VMA at hand: this stands for the struct pages of the part that is
 * given back, of which some are in use (ON_DEVICE), and for the one address where each is mapped. */
static __thread struct page_table device_chunk;
#define MAPPED_AT 0x7f0000000000UL

/* migrate_device_pfn_lock: 0 for a page that nobody uses, or that lies behind the device's memory. */
static unsigned long lock_pfn(unsigned long *src_pfns, const struct page_run *run, unsigned long left)
{
	unsigned long pfn = *src_pfns;
	bool huge = run->huge && !(pfn % HPAGE_PMD_NR) && left >= HPAGE_PMD_NR;
	unsigned long nr = huge ? HPAGE_PMD_NR : 1;

	memset(src_pfns, 0, sizeof(*src_pfns) * nr);
	if (run->place == ON_DEVICE && pfn << PAGE_SHIFT <= device_chunk.pgmap->range.end)
		*src_pfns = isolated_entry(pfn) | (huge ? MIGRATE_PFN_COMPOUND : 0);
	return nr;
}

/* src_pfns holds bare page frame numbers on entry. */
static void isolate_chunk(unsigned long *src_pfns, unsigned long npages)
{
	unsigned long window = window_of(npages), i = 0;

	for (unsigned int n = 0; i < window; n = (n + 1) % device_chunk.runs) {
		const struct page_run *run = &device_chunk.run[n];
		unsigned long end = i + run->pages < window ? i + run->pages : window;

		while (i < end)
			i += lock_pfn(&src_pfns[i], run, end - i);
	}
	trace_entries(src_pfns, npages, MAPPED_AT, trace_set_migration_pte, trace_set_migration_pmd);
	migrate_device_unmap(src_pfns, npages, NULL);
	work(WORK_COLLECT, npages << PAGE_SHIFT);
}

int (migrate_device_range)(unsigned long *src_pfns, unsigned long start, unsigned long npages, PAD4)
{
	PROBED_CALLER();
	for (unsigned long i = 0; i < window_of(npages); i++)
		src_pfns[i] = start + i;
	isolate_chunk(src_pfns, npages);
	return 0;
}

int (migrate_device_pfns)(unsigned long *src_pfns, unsigned long npages, PAD3)
{
	PROBED_CALLER();
	isolate_chunk(src_pfns, npages);
	return 0;
}

void (migrate_device_pages)(unsigned long *src_pfns, unsigned long *dst_pfns, unsigned long npages, PAD4)
{
	PROBED_CALLER();
	work(WORK_COMMIT, npages << PAGE_SHIFT);
	__migrate_device_pages(src_pfns, dst_pfns, npages, NULL);
}

void (migrate_device_finalize)(unsigned long *src_pfns, __maybe_unused unsigned long *dst_pfns,
			       unsigned long npages, PAD4)
{
	PROBED_CALLER();
	work(WORK_REMAP, npages << PAGE_SHIFT);
	trace_entries(src_pfns, npages, MAPPED_AT, trace_remove_migration_pte, trace_remove_migration_pmd);
}
