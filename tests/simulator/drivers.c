/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How drivers move memory: amdgpu (kfd_migrate.c), xe (drm_pagemap.c), nouveau (nouveau_dmem.c),
 * nvidia-uvm (uvm_hmm.c), test_hmm.
 */
#include "drivers.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "ledger.h"
#include "timing.h"

/* Where device memory starts, as a page frame number; request_free_mem_region takes from the top. */
#define DEVICE_PFN 0xfce0000UL

/* A driver has one migration in hand in a thread, so one pair of arrays serves all. */
static __thread unsigned long src_pfns[MIGRATE_WINDOW], dst_pfns[MIGRATE_WINDOW];

static void allocate_destinations(const struct migrate_vma *args, unsigned int undersized)
{
	unsigned long done = 0;

	for (unsigned long i = 0; i < window_of(args->npages) && done < args->cpages; i++) {
		args->dst[i] = 0;
		if (!(args->src[i] & MIGRATE_PFN_MIGRATE))
			continue;
		if (++done > undersized)
			args->dst[i] = (DEVICE_PFN + i) << MIGRATE_PFN_SHIFT | MIGRATE_PFN_VALID |
				       (args->src[i] & MIGRATE_PFN_COMPOUND);
	}
}

static void move(const struct migrate_request *req, struct migrate_vma *args)
{
	allocate_destinations(args, req->undersized);
	if (!req->copies_late)
		work(WORK_COPY, args->end - args->start);
	migrate_vma_pages(args);
	if (req->copies_late)
		work(WORK_COPY, args->end - args->start);
}

static int finish(struct migrate_request *req, const char *caller, const char *module, const char *outcome, int ret)
{
	const bool refused = ret == -EINVAL;

	req->outcome = outcome;
	BOOK(MIGRATION, .field[CLASS] = req->class, .field[TRIGGER] = req->trigger, .field[CURRENT] = req->current,
	     .field[OWNER] = req->owner->name, .field[DRIVER] = module, .field[CALLER] = caller,
	     .field[COMM] = req->comm, .field[OUTCOME] = outcome, .field[ERRNO] = refused ? "EINVAL" : "",
	     .sized = !refused, .size = refused ? 0 : (req->end & PAGE_MASK) - (req->start & PAGE_MASK));
	return ret;
}

/* The body of each driver's function below; inlined, so that it is they who call HMM. */
static __attribute__((always_inline)) inline int migrate(struct migrate_request *req, const char *caller,
							 const char *module)
{
	struct migrate_vma args = {
		.vma = req->vma,
		.start = req->start,
		.end = req->end,
		.src = req->no_src ? NULL : src_pfns,
		.dst = req->no_dst ? NULL : dst_pfns,
		.pgmap_owner = req->owner->pointer,
		.flags = req->flags,
		.fault_page = req->fault_page,
	};
	u64 before = now_ns(), collected, finalizing;
	int ret = migrate_vma_setup(&args);
	bool commit;

	collected = now_ns();
	if (ret)
		return finish(req, caller, module, "failed", ret);
	if (!args.cpages && !req->finalize_empty)
		return finish(req, caller, module, "empty", 0);
	work(WORK_ALLOCATE, req->end - req->start);
	if (req->abandon)
		return finish(req, caller, module, "abandoned", -EINTR);
	commit = args.cpages ? !req->skip_pages : req->pages_when_empty;
	if (commit)
		move(req, &args);
	finalizing = now_ns();
	migrate_vma_finalize(&args);
	if (!args.cpages)
		return finish(req, caller, module, "empty_finalized", 0);
	BOOK(MIGRATION_TIME, .field[CLASS] = req->class, .field[OWNER] = req->owner->name, .field[DRIVER] = module,
	     .inner_ns = finalizing - collected, .outer_ns = now_ns() - before);
	return finish(req, caller, module, commit ? "completed" : "completed_without_pages", commit ? 0 : -ENOMEM);
}

#define MIGRATE_FUNCTION(name, module) \
	DRIVER_FUNCTION(int, name, module, struct migrate_request *req) \
	{ \
		return migrate(req, #name, #module); \
	}

MIGRATE_FUNCTION(svm_migrate_vma_to_vram, amdgpu)
MIGRATE_FUNCTION(svm_migrate_vma_to_ram, amdgpu)
MIGRATE_FUNCTION(drm_pagemap_migrate_to_devmem, drm_gpusvm_helper)
MIGRATE_FUNCTION(__drm_pagemap_migrate_to_ram, drm_gpusvm_helper)
MIGRATE_FUNCTION(nouveau_dmem_migrate_chunk, nouveau)
MIGRATE_FUNCTION(nouveau_dmem_migrate_vma_to_ram, nouveau)
MIGRATE_FUNCTION(uvm_hmm_va_block_migrate_locked, nvidia_uvm)
MIGRATE_FUNCTION(uvm_hmm_va_block_cpu_fault, nvidia_uvm)
MIGRATE_FUNCTION(dmirror_migrate_to_device, test_hmm)
MIGRATE_FUNCTION(dmirror_migrate_to_system, test_hmm)

/* xe's own frame stands above the helper's only on the way to the device; a CPU fault enters the helper at once. */
DRIVER_FUNCTION(int, xe_svm_alloc_vram, xe, struct migrate_request *req)
{
	return drm_pagemap_migrate_to_devmem(req);
}

static vm_fault_t fault_result(int ret)
{
	if (!ret)
		return 0;
	return ret == -ENOMEM ? VM_FAULT_OOM : VM_FAULT_SIGBUS;
}

/* dev_pagemap_ops.migrate_to_ram: the page knows what its driver has in mind. */
#define MIGRATE_TO_RAM(name, module, function) \
	DRIVER_FUNCTION(vm_fault_t, name, module, struct vm_fault *vmf) \
	{ \
		struct migrate_request *req = vmf->page->zone_device_data; \
\
		return fault_result(req->give_up ? req->give_up : function(req)); \
	}

MIGRATE_TO_RAM(svm_migrate_to_ram, amdgpu, svm_migrate_vma_to_ram)
MIGRATE_TO_RAM(drm_pagemap_migrate_to_ram, drm_gpusvm_helper, __drm_pagemap_migrate_to_ram)
MIGRATE_TO_RAM(nouveau_dmem_migrate_to_ram, nouveau, nouveau_dmem_migrate_vma_to_ram)
MIGRATE_TO_RAM(devmem_fault_entry, nvidia_uvm, uvm_hmm_va_block_cpu_fault)
MIGRATE_TO_RAM(dmirror_devmem_fault, test_hmm, dmirror_migrate_to_system)

/* The habits are those of the drivers in Linux 7.3 and nvidia-uvm 595: flags, who finalizes empties, when they copy. */
static const struct driver drivers[NR_DRIVERS] = {
	[AMDGPU] = {
		"amdgpu", svm_migrate_vma_to_vram, svm_migrate_vma_to_ram, { .migrate_to_ram = svm_migrate_to_ram },
		MIGRATE_VMA_SELECT_SYSTEM, MIGRATE_VMA_SELECT_DEVICE_PRIVATE, MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.copies_late = true,
	},
	[XE] = {
		"drm_gpusvm_helper", xe_svm_alloc_vram, __drm_pagemap_migrate_to_ram,
		{ .migrate_to_ram = drm_pagemap_migrate_to_ram },
		MIGRATE_VMA_SELECT_ANY | MIGRATE_VMA_SELECT_COMPOUND,
		MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT | MIGRATE_VMA_SELECT_COMPOUND,
		MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_DEVICE_COHERENT | MIGRATE_VMA_SELECT_COMPOUND,
	},
	[NOUVEAU] = {
		"nouveau", nouveau_dmem_migrate_chunk, nouveau_dmem_migrate_vma_to_ram,
		{ .migrate_to_ram = nouveau_dmem_migrate_to_ram },
		MIGRATE_VMA_SELECT_SYSTEM | MIGRATE_VMA_SELECT_COMPOUND,
		MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_COMPOUND,
		MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_COMPOUND,
		.copies_late = true,
	},
	[NVIDIA_UVM] = {
		"nvidia_uvm", uvm_hmm_va_block_migrate_locked, uvm_hmm_va_block_migrate_locked,
		{ .migrate_to_ram = devmem_fault_entry },
		MIGRATE_VMA_SELECT_SYSTEM | MIGRATE_VMA_SELECT_DEVICE_PRIVATE, MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		MIGRATE_VMA_SELECT_DEVICE_PRIVATE, .finalizes_empty = true,
	},
	[TEST_HMM] = {
		"test_hmm", dmirror_migrate_to_device, dmirror_migrate_to_system,
		{ .migrate_to_ram = dmirror_devmem_fault },
		MIGRATE_VMA_SELECT_SYSTEM | MIGRATE_VMA_SELECT_COMPOUND,
		MIGRATE_VMA_SELECT_DEVICE_PRIVATE | MIGRATE_VMA_SELECT_COMPOUND, MIGRATE_VMA_SELECT_DEVICE_PRIVATE,
		.finalizes_empty = true,
	},
};

/* What static owners point to. test_hmm has one struct for each of its devices. */
static struct { long state[32]; } g_uvm_global DRIVER_SYMBOL(g_uvm_global, nvidia_uvm) __attribute__((used));
static struct { long state[43]; } dmirror_devices[2] DRIVER_SYMBOL(dmirror_devices, test_hmm) __attribute__((used));

static struct device_owner owners[NR_OWNERS] = {
	[OWNER_NONE] = { "none", NVIDIA_UVM, NULL, {} }, /* uvm_migrate_pageable.c passes NULL */
	[OWNER_UVM] = { "g_uvm_global", NVIDIA_UVM, &g_uvm_global, {} },
	[OWNER_DMIRROR_0] = { "dmirror_devices[0]", TEST_HMM, &dmirror_devices[0], {} },
	[OWNER_DMIRROR_1] = { "dmirror_devices[1]", TEST_HMM, &dmirror_devices[1], {} },
	[OWNER_AMDGPU_0] = { "heap:amdgpu:0", AMDGPU, NULL, {} },
	[OWNER_AMDGPU_1] = { "heap:amdgpu:1", AMDGPU, NULL, {} },
	[OWNER_XE] = { "heap:xe:0", XE, NULL, {} },
	[OWNER_NOUVEAU] = { "heap:nouveau:0", NOUVEAU, NULL, {} },
};

#define KERNEL_HEAP ((void *)0x200000) /* below the program's first symbol */
#define HEAP_OBJECT 8192

/* Before any thread starts: heap owners get their addresses, pagemaps their owners. */
static void probe_drivers(void)
{
	char *heap = mmap(KERNEL_HEAP, NR_OWNERS * HEAP_OBJECT, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	if (heap == MAP_FAILED) {
		perror("hmm-simulator: no memory below the program");
		exit(1);
	}
	for (int i = 0; i < NR_OWNERS; i++) {
		if (i >= OWNER_AMDGPU_0)
			owners[i].pointer = heap + i * HEAP_OBJECT + 64;
		owners[i].pgmap = (struct dev_pagemap){ .type = MEMORY_DEVICE_PRIVATE, .owner = owners[i].pointer,
							.ops = &drivers[owners[i].driver].pagemap_ops };
	}
}
