/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drivers as HMM sees them: who calls which function, from which module. Their functions and
 * objects carry the module in their symbol, `svm_range_mn_ops$amdgpu`, of which the Makefile makes
 * kallsyms' "svm_range_mn_ops\t[amdgpu]".
 */
#ifndef SIMULATOR_DRIVERS_H
#define SIMULATOR_DRIVERS_H

#include "iomem.h"
#include "probed.h"

#define DRIVER_SYMBOL(name, module) __asm__(#name "$" #module)
#define DRIVER_FUNCTION(type, name, module, ...) \
	__probed static type name(__VA_ARGS__) DRIVER_SYMBOL(name, module); \
	static type name(__VA_ARGS__)

enum driver_id { AMDGPU, XE, NOUVEAU, NVIDIA_UVM, TEST_HMM, NR_DRIVERS };

struct migrate_request;

struct driver {
	const char *module; /* of its calls: xe's go through drm_gpusvm_helper */
	int (*to_device)(struct migrate_request *req);
	int (*to_ram)(struct migrate_request *req);
	struct dev_pagemap_ops pagemap_ops;
	/* Its habits, by which run mode lives; exact mode tries what no driver would. */
	unsigned long device_flags, ram_flags, fault_flags;
	bool finalizes_empty;
	bool copies_late; /* between pages and finalize, not between setup and pages */
};

/* A pgmap_owner, and the regions that it has its pages in: 0, 1 or 2. Heap owners lie below every symbol, as the kernel's heap lies below its image. */
struct device_owner {
	const char *name; /* "g_uvm_global", "heap:amdgpu:0", "none" */
	enum driver_id driver;
	void *pointer;
	unsigned int regions;
	enum region_id region; /* the first */
};

enum owner_id {
	OWNER_NONE,
	OWNER_UVM,
	OWNER_DMIRROR_0,
	OWNER_DMIRROR_1,
	OWNER_AMDGPU_0,
	OWNER_AMDGPU_1,
	OWNER_XE,
	OWNER_NOUVEAU,
	NR_OWNERS,
};

/* One migration: what the driver asks for, how it goes on, and what the ledger is told. */
struct migrate_request {
	const struct device_owner *owner;
	struct vm_area_struct *vma;
	unsigned long start, end, flags;
	struct page *fault_page;
	bool no_src, no_dst;

	int give_up;		/* the error with which the driver stops before setup */
	bool abandon;		/* never finalizes */
	bool skip_pages;	/* gives up after setup, but finalizes */
	bool finalize_empty;	/* finalizes although nothing was collected ... */
	bool pages_when_empty;	/* ... and even calls pages */
	bool copies_late;
	/* Where to; NULL is to RAM. Then what the driver finds no destination for: */
	const struct dev_pagemap *destination;
	unsigned int undersized;   /* the first so many entries: the device is full */
	unsigned int room;	   /* all but the first so many; 0 is room enough */
	unsigned int declines;	   /* each so-many-th */
	unsigned int splits;	   /* of each so-many-th huge folio it makes 512 pages */
	bool ignores_holes;	   /* what is nowhere need not be moved */

	const char *class, *trigger, *current, *comm;
	const char *outcome; /* what became of it */
};

/* One driver's mirror of a range: its notifier ops, and who calls HMM with it. */
struct mirror_path {
	const char *ops_name, *driver; /* the ops' symbol and module */
	const struct mmu_interval_notifier_ops *ops;
	const char *insert_function;
	int (*insert)(struct mmu_interval_notifier *sub, struct mm_struct *mm, unsigned long start,
		      unsigned long length, const struct mirror_path *path);
	void (*remove)(struct mmu_interval_notifier *sub, const struct mirror_path *path);
};

enum mirror_id {
	AMDGPU_GFX,
	AMDGPU_HSA,
	AMDGPU_SVM,
	GPUSVM,
	XE_USERPTR,
	NOUVEAU_SVM,
	UVM_HMM,
	UVM_ATS,
	DMIRROR,
	DMIRROR_SNAPSHOT,
	MLX5_ODP,
	NR_MIRRORS,
};

struct range_request {
	struct hmm_range range;
	unsigned long timeout;
	enum mirror_id mirror;
	const char *intent;
};

/* A driver's function that calls hmm_range_fault, and the mirrors it does that for. */
struct range_path {
	enum mirror_id mirror;
	const char *function;
	int (*fault)(struct range_request *req);
};

struct exclusive_request {
	struct mm_struct *mm;
	unsigned long addr;
	void *owner;
};

typedef int exclusive_path(struct exclusive_request *req);
/* Gives back `npages` of device memory from `pfn` on, but for each so-many-th folio, which finds no room. */
typedef void evict_path(unsigned long pfn, unsigned long npages, unsigned int declines);

#endif
