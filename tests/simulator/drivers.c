/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How drivers move memory: amdgpu (kfd_migrate.c), xe (drm_pagemap.c), nouveau (nouveau_dmem.c),
 * nvidia-uvm (uvm_hmm.c), test_hmm.
 */
#include "drivers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "ledger.h"
#include "timing.h"

/* A driver has one migration in hand in a thread, so one pair of arrays serves all. */
static __thread unsigned long *src_pfns, *dst_pfns;

/* Behind each array is nothing, so that who reads too far is found out. */
static void allocate_arrays(void)
{
	size_t size = MIGRATE_ARRAY * sizeof(*src_pfns);
	char *arrays = mmap(NULL, 2 * (size + PAGE_SIZE), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (arrays == MAP_FAILED || mprotect(arrays + size, PAGE_SIZE, PROT_NONE) ||
	    mprotect(arrays + 2 * size + PAGE_SIZE, PAGE_SIZE, PROT_NONE)) {
		perror("hmm-simulator: no memory for the arrays");
		exit(1);
	}
	src_pfns = (unsigned long *)arrays;
	dst_pfns = (unsigned long *)(arrays + size + PAGE_SIZE);
}

static void free_arrays(void)
{
	munmap(src_pfns, 2 * (MIGRATE_ARRAY * sizeof(*src_pfns) + PAGE_SIZE));
}

/* Half a device, or half the RAM, away from the page's own frame: no page moves onto itself. */
static unsigned long destination_entry(const struct migrate_request *req, unsigned long addr)
{
	const struct dev_pagemap *to = req->destination;
	unsigned long far = to ? (to->range.end + 1 - to->range.start) / 2 : RAM_PAGES / 2 * PAGE_SIZE;
	unsigned long pfn = to ? device_pfn(to, addr + far) : ram_pfn(addr + far);

	return pfn << MIGRATE_PFN_SHIFT | MIGRATE_PFN_VALID;
}

static bool has_destination(const struct migrate_request *req, unsigned long entry, unsigned long number)
{
	if (!(entry & MIGRATE_PFN_VALID) && req->ignores_holes)
		return false;
	return number > req->undersized && !(req->room && number > req->room) && !strikes(req->declines, number);
}

static void allocate_destinations(const struct migrate_request *req, const struct migrate_vma *args)
{
	unsigned long window = window_of(args->npages), done = 0, nr;

	memset(args->dst, 0, window * sizeof(*args->dst));
	for (unsigned long i = 0; i < window && done < args->cpages; i += nr) {
		unsigned long entry = args->src[i], addr = args->start + (i << PAGE_SHIFT);

		nr = pages_of(entry);
		if (!(entry & MIGRATE_PFN_MIGRATE) || !has_destination(req, entry, ++done))
			continue;
		if (nr > 1 && strikes(req->splits, done))
			for (unsigned long j = 0; j < nr; j++)
				args->dst[i + j] = destination_entry(req, addr + (j << PAGE_SHIFT));
		else
			args->dst[i] = destination_entry(req, addr) | (entry & (MIGRATE_PFN_COMPOUND | MIGRATE_PFN_WRITE));
	}
}

static void move(const struct migrate_request *req, struct migrate_vma *args)
{
	allocate_destinations(req, args);
	if (!req->copies_late)
		work(WORK_COPY, args->end - args->start);
	migrate_vma_pages(args);
	if (req->copies_late)
		work(WORK_COPY, args->end - args->start);
}

#define BYTES(pages) ((long)(pages) << PAGE_SHIFT)

/* What became of every page that was asked for; returns the bytes moved. Where pages never ran, nothing got a
 * destination. */
static long add_up(long *figures, unsigned long npages, bool committed)
{
	unsigned long moved = 0, huge = 0, unmoved, known;

	if (!committed) {
		moves.no_destination = moves.collected - moves.busy;
		moves.unfilled = moves.holes;
	}
	for (int i = 0; i < NR_DIRECTIONS; i++) {
		figures[HOST_TO_HOST + i] = BYTES(moves.moved[i]);
		figures[HUGE_HOST_TO_HOST + i] = BYTES(moves.huge[i]);
		moved += moves.moved[i];
		huge += moves.huge[i];
	}
	unmoved = moves.busy + moves.no_destination + moves.commit_failed;
	known = moved + moves.zero_filled + unmoved + moves.unfilled;
	if (known != moves.collected + moves.holes) {
		fprintf(stderr, "hmm-simulator: %lu pages collected, %lu accounted for\n",
			moves.collected + moves.holes, known);
		abort();
	}
	figures[COLLECTED] = BYTES(moves.collected);
	figures[HOLES] = BYTES(moves.holes);
	figures[NOT_SELECTED] = BYTES(window_of(npages) - moves.collected - moves.holes);
	figures[BUSY] = BYTES(moves.busy);
	figures[NO_DESTINATION] = BYTES(moves.no_destination);
	figures[UNFILLED] = BYTES(moves.unfilled);
	figures[COMMIT_FAILED] = BYTES(moves.commit_failed);
	figures[ZERO_FILLED] = BYTES(moves.zero_filled);
	figures[NOT_READ] = BYTES(npages - window_of(npages));
	figures[ABORTED] = committed && !moved && !moves.zero_filled;
	figures[PARTIAL] = unmoved + moves.unfilled > 0;
	figures[HUGE] = huge > 0;
	return BYTES(moved);
}

static int finish(struct migrate_request *req, const char *caller, const char *module, const char *outcome, int ret)
{
	const bool refused = ret == -EINVAL, committed = !strcmp(outcome, "completed");
	long bytes = refused ? 0 : (req->end & PAGE_MASK) - (req->start & PAGE_MASK);
	long figures[NR_FIGURES] = {}, moved = refused ? 0 : add_up(figures, bytes >> PAGE_SHIFT, committed);
	struct event event = {
		.kind = MIGRATION, .field[CLASS] = req->class, .field[TRIGGER] = req->trigger,
		.field[CURRENT] = req->current, .field[OWNER] = req->owner->name, .field[DRIVER] = module,
		.field[CALLER] = caller, .field[COMM] = req->comm, .field[OUTCOME] = outcome,
		.field[ERRNO] = refused ? "EINVAL" : "", .sized = !refused, .size = bytes,
		.field[COLLECTED_FROM] = device_of(moves.collected_from), .field[SOURCE] = device_of(moves.source),
		.field[DESTINATION] = device_of(moves.destination), .figures = figures,
	};

	req->outcome = outcome;
	book(&event);
	if (committed)
		BOOK(MIGRATION_MOVE, .field[CLASS] = req->class, .field[OWNER] = req->owner->name, SIZE(moved));
	return ret;
}

/* For the residency of regions: a CPU fault returns them, everything else can send them away. */
static void follow(const struct migrate_request *req, u64 earliest)
{
	if (req->trigger && !strcmp(req->trigger, "cpu_fault"))
		regions_returned(req->owner->name, device_of(moves.source), req->comm, earliest, now_ns());
	else
		regions_arrived(earliest, now_ns());
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
	bool commit;
	int ret;

	moves = (struct moves){};
	ret = migrate_vma_setup(&args);
	collected = now_ns();
	if (ret)
		return finish(req, caller, module, "failed", ret);
	if (!args.cpages && !req->finalize_empty)
		return finish(req, caller, module, "empty", 0);
	work(WORK_ALLOCATE, req->end - req->start);
	if (req->abandon && args.cpages)
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
	if (commit)
		follow(req, before);
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
	[OWNER_NONE] = { "none", NVIDIA_UVM, NULL, 0, 0 }, /* uvm_migrate_pageable.c passes NULL */
	[OWNER_UVM] = { "g_uvm_global", NVIDIA_UVM, &g_uvm_global, 2, REGION_UVM_1 },
	[OWNER_DMIRROR_0] = { "dmirror_devices[0]", TEST_HMM, &dmirror_devices[0], 1, REGION_DMIRROR_0 },
	[OWNER_DMIRROR_1] = { "dmirror_devices[1]", TEST_HMM, &dmirror_devices[1], 1, REGION_DMIRROR_1 },
	[OWNER_AMDGPU_0] = { "heap:amdgpu:0", AMDGPU, NULL, 1, REGION_AMDGPU_0 },
	[OWNER_AMDGPU_1] = { "heap:amdgpu:1", AMDGPU, NULL, 1, REGION_AMDGPU_1 },
	[OWNER_XE] = { "heap:xe:0", XE, NULL, 1, REGION_XE },
	[OWNER_NOUVEAU] = { "heap:nouveau:0", NOUVEAU, NULL, 1, REGION_NOUVEAU },
};

/* memremap_pages: the struct pages of each region; the last is no region's, for pages that only claim to be some. */
static struct dev_pagemap pgmaps[NR_REGIONS + 1];

#define KERNEL_HEAP ((void *)0x200000) /* below the program's first symbol */
#define HEAP_OBJECT 8192

static void map_pages(const struct device_owner *owner)
{
	struct dev_pagemap pgmap = { .type = MEMORY_DEVICE_PRIVATE, .owner = owner->pointer,
				     .ops = &drivers[owner->driver].pagemap_ops };

	pgmaps[NR_REGIONS] = owner->regions ? pgmaps[NR_REGIONS] : pgmap;
	for (unsigned int i = 0; i < owner->regions; i++) {
		enum region_id region = owner->region + i;

		pgmaps[region] = pgmap;
		pgmaps[region].nr_range = 1;
		pgmaps[region].range.start = regions[region].start;
		pgmaps[region].range.end = regions[region].end;
	}
}

/* The `number`th of the owner's regions; an owner without any has pages that lie nowhere. */
static struct dev_pagemap *pgmap_of(enum owner_id id, unsigned int number)
{
	return &pgmaps[owners[id].regions ? owners[id].region + number % owners[id].regions : NR_REGIONS];
}

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
		map_pages(&owners[i]);
	}
}
