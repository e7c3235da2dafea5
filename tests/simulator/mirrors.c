/* SPDX-License-Identifier: Apache-2.0 */
/* The rest of what drivers do with HMM: mirrors of ranges, atomics on exclusive pages, eviction, RDMA. */
#include "drivers.h"

#include <errno.h>
#include <string.h>

#include "ledger.h"
#include "timing.h"

/* Every callback there is ends so; what a driver does before (unmapping from its GPU) is its own. */
static bool invalidate_mirror(struct mmu_interval_notifier *sub,
			      __maybe_unused const struct mmu_notifier_range *range, unsigned long cur_seq)
{
	return mmu_interval_set_seq(sub, cur_seq);
}

#define MIRROR_OPS(name, module) \
	static const struct mmu_interval_notifier_ops name DRIVER_SYMBOL(name, module) __attribute__((used)) = { \
		.invalidate = invalidate_mirror, \
	};

MIRROR_OPS(amdgpu_hmm_gfx_ops, amdgpu)
MIRROR_OPS(amdgpu_hmm_hsa_ops, amdgpu)
MIRROR_OPS(svm_range_mn_ops, amdgpu)
MIRROR_OPS(drm_gpusvm_notifier_ops, drm_gpusvm_helper)
MIRROR_OPS(vma_userptr_notifier_ops, xe)
MIRROR_OPS(nouveau_svm_mni_ops, nouveau)
MIRROR_OPS(uvm_hmm_notifier_ops, nvidia_uvm)
MIRROR_OPS(uvm_ats_notifier_ops, nvidia_uvm)
MIRROR_OPS(dmirror_min_ops, test_hmm)
MIRROR_OPS(dmirror_mrn_ops, test_hmm)
MIRROR_OPS(mlx5_mn_ops, mlx5_ib)

static int inserted(const struct mmu_interval_notifier *sub, unsigned long length, const struct mirror_path *path,
		    int ret)
{
	BOOK(NOTIFIER_INSERT, .field[FUNCTION] = path->insert_function, .field[DRIVER] = path->driver,
	     .field[OPS] = path->ops_name, .field[COMM] = comm_of(sub->mm), .field[ERRNO] = error_name(ret),
	     SIZE(length));
	return ret;
}

#define INSERT_FUNCTION(name, module, function) \
	DRIVER_FUNCTION(int, name, module, struct mmu_interval_notifier *sub, struct mm_struct *mm, \
			unsigned long start, unsigned long length, const struct mirror_path *path) \
	{ \
		sub->mm = mm; \
		return inserted(sub, length, path, function(sub, mm, start, length, path->ops)); \
	}

INSERT_FUNCTION(amdgpu_hmm_register, amdgpu, mmu_interval_notifier_insert)
INSERT_FUNCTION(svm_range_add_notifier_locked, amdgpu, mmu_interval_notifier_insert_locked)
INSERT_FUNCTION(drm_gpusvm_range_find_or_insert, drm_gpusvm_helper, mmu_interval_notifier_insert)
INSERT_FUNCTION(xe_userptr_setup, xe, mmu_interval_notifier_insert)
INSERT_FUNCTION(nouveau_svm_fault, nouveau, mmu_interval_notifier_insert)
INSERT_FUNCTION(uvm_hmm_va_block_find_create, nvidia_uvm, mmu_interval_notifier_insert)
INSERT_FUNCTION(dmirror_fops_open, test_hmm, mmu_interval_notifier_insert)
INSERT_FUNCTION(ib_umem_odp_get, ib_core, mmu_interval_notifier_insert)

#define REMOVE_FUNCTION(name, module) \
	DRIVER_FUNCTION(void, name, module, struct mmu_interval_notifier *sub, const struct mirror_path *path) \
	{ \
		mmu_interval_notifier_remove(sub); \
		BOOK(NOTIFIER_REMOVE, .field[DRIVER] = path->driver, .field[OPS] = path->ops_name, \
		     .field[COMM] = comm_of(sub->mm)); \
	}

REMOVE_FUNCTION(amdgpu_hmm_unregister, amdgpu)
REMOVE_FUNCTION(drm_gpusvm_notifier_remove, drm_gpusvm_helper)
REMOVE_FUNCTION(xe_userptr_remove, xe)
REMOVE_FUNCTION(nouveau_range_done, nouveau)
REMOVE_FUNCTION(uvm_hmm_va_block_destroy, nvidia_uvm)
REMOVE_FUNCTION(dmirror_fops_release, test_hmm)
REMOVE_FUNCTION(ib_umem_odp_release, ib_core)

#define PLAIN "mmu_interval_notifier_insert"
#define LOCKED "mmu_interval_notifier_insert_locked"

static const struct mirror_path mirrors[NR_MIRRORS] = {
	[AMDGPU_GFX] = { "amdgpu_hmm_gfx_ops", "amdgpu", &amdgpu_hmm_gfx_ops, PLAIN, amdgpu_hmm_register,
			 amdgpu_hmm_unregister },
	[AMDGPU_HSA] = { "amdgpu_hmm_hsa_ops", "amdgpu", &amdgpu_hmm_hsa_ops, PLAIN, amdgpu_hmm_register,
			 amdgpu_hmm_unregister },
	[AMDGPU_SVM] = { "svm_range_mn_ops", "amdgpu", &svm_range_mn_ops, LOCKED, svm_range_add_notifier_locked,
			 amdgpu_hmm_unregister },
	[GPUSVM] = { "drm_gpusvm_notifier_ops", "drm_gpusvm_helper", &drm_gpusvm_notifier_ops, PLAIN,
		     drm_gpusvm_range_find_or_insert, drm_gpusvm_notifier_remove },
	[XE_USERPTR] = { "vma_userptr_notifier_ops", "xe", &vma_userptr_notifier_ops, PLAIN, xe_userptr_setup,
			 xe_userptr_remove },
	[NOUVEAU_SVM] = { "nouveau_svm_mni_ops", "nouveau", &nouveau_svm_mni_ops, PLAIN, nouveau_svm_fault,
			  nouveau_range_done },
	[UVM_HMM] = { "uvm_hmm_notifier_ops", "nvidia_uvm", &uvm_hmm_notifier_ops, PLAIN,
		      uvm_hmm_va_block_find_create, uvm_hmm_va_block_destroy },
	[UVM_ATS] = { "uvm_ats_notifier_ops", "nvidia_uvm", &uvm_ats_notifier_ops, PLAIN,
		      uvm_hmm_va_block_find_create, uvm_hmm_va_block_destroy },
	[DMIRROR] = { "dmirror_min_ops", "test_hmm", &dmirror_min_ops, PLAIN, dmirror_fops_open,
		      dmirror_fops_release },
	[DMIRROR_SNAPSHOT] = { "dmirror_mrn_ops", "test_hmm", &dmirror_mrn_ops, PLAIN, dmirror_fops_open,
			       dmirror_fops_release },
	[MLX5_ODP] = { "mlx5_mn_ops", "mlx5_ib", &mlx5_mn_ops, PLAIN, ib_umem_odp_get, ib_umem_odp_release },
};

static void book_busy_attempts(const char *driver, const char *cause, unsigned int number)
{
	for (unsigned int i = 0; i < number; i++)
		BOOK(RANGE_FAULT_ATTEMPT, .field[DRIVER] = driver, .field[ERRNO] = "EBUSY", .field[CAUSE] = cause);
}

static void book_attempts(const char *driver, int ret)
{
	const bool unexpected = ret && ret != -EBUSY && ret != -EINTR;

	book_busy_attempts(driver, "raced", attempts.raced);
	book_busy_attempts(driver, "own_fault", attempts.own_fault);
	book_busy_attempts(driver, "lock_dropped", attempts.lock_dropped);
	if (attempts.ok || unexpected)
		BOOK(RANGE_FAULT_ATTEMPT, .field[DRIVER] = driver, .field[ERRNO] = error_name(ret), .field[CAUSE] = "");
}

static int faulted(const struct range_request *req, const char *function, const char *caller, const char *module,
		   u64 ns, int ret)
{
	const struct mirror_path *mirror = &mirrors[req->mirror];

	BOOK(RANGE_FAULT, .field[FUNCTION] = function, .field[DRIVER] = mirror->driver, .field[OPS] = mirror->ops_name,
	     .field[CALLER] = caller, .field[CALLER_DRIVER] = module, .field[INTENT] = req->intent,
	     .field[COMM] = comm_of(req->range.notifier->mm), .field[ERRNO] = error_name(ret),
	     SIZE(req->range.end - req->range.start));
	BOOK(RANGE_FAULT_TIME, .field[FUNCTION] = function, .field[DRIVER] = mirror->driver, .outer_ns = ns);
	book_attempts(mirror->driver, ret);
	return ret;
}

/* In Linux 7.3 amdgpu, test_hmm and one of drm_gpusvm's functions call it; to 7.2 all drivers do. */
#define RANGE_FAULT_FUNCTION(name, module) \
	DRIVER_FUNCTION(int, name, module, struct range_request *req) \
	{ \
		u64 before; \
		int ret; \
\
		attempts = (struct attempts){}; \
		req->range.notifier_seq = mmu_interval_read_begin(req->range.notifier); \
		before = now_ns(); \
		ret = hmm_range_fault(&req->range); \
		return faulted(req, "hmm_range_fault", #name, #module, now_ns() - before, ret); \
	}

#define UNLOCKED_RANGE_FAULT_FUNCTION(name, module) \
	DRIVER_FUNCTION(int, name, module, struct range_request *req) \
	{ \
		u64 before = now_ns(); \
		int ret; \
\
		attempts = (struct attempts){}; \
		ret = hmm_range_fault_unlocked_timeout(&req->range, req->timeout); \
		return faulted(req, "hmm_range_fault_unlocked_timeout", #name, #module, now_ns() - before, ret); \
	}

RANGE_FAULT_FUNCTION(amdgpu_hmm_range_get_pages, amdgpu)
RANGE_FAULT_FUNCTION(drm_gpusvm_check_pages, drm_gpusvm_helper)
RANGE_FAULT_FUNCTION(hmm_make_resident_cpu, nvidia_uvm)
RANGE_FAULT_FUNCTION(dmirror_range_fault, test_hmm)
RANGE_FAULT_FUNCTION(dmirror_range_snapshot, test_hmm)
UNLOCKED_RANGE_FAULT_FUNCTION(drm_gpusvm_get_pages, drm_gpusvm_helper)
UNLOCKED_RANGE_FAULT_FUNCTION(nouveau_range_fault, nouveau)
UNLOCKED_RANGE_FAULT_FUNCTION(ib_umem_odp_map_dma_and_lock, ib_core)

#define HRF "hmm_range_fault"
#define UNLOCKED "hmm_range_fault_unlocked_timeout"

static const struct range_path range_paths[] = {
	{ AMDGPU_GFX, HRF, amdgpu_hmm_range_get_pages },
	{ AMDGPU_HSA, HRF, amdgpu_hmm_range_get_pages },
	{ AMDGPU_SVM, HRF, amdgpu_hmm_range_get_pages },
	{ GPUSVM, HRF, drm_gpusvm_check_pages },
	{ GPUSVM, UNLOCKED, drm_gpusvm_get_pages },
	{ XE_USERPTR, UNLOCKED, drm_gpusvm_get_pages },
	{ NOUVEAU_SVM, UNLOCKED, nouveau_range_fault },
	{ UVM_HMM, HRF, hmm_make_resident_cpu },
	{ DMIRROR, HRF, dmirror_range_fault },
	{ DMIRROR_SNAPSHOT, HRF, dmirror_range_snapshot },
	{ MLX5_ODP, UNLOCKED, ib_umem_odp_map_dma_and_lock },
};

#define EXCLUSIVE_FUNCTION(name, module) \
	DRIVER_FUNCTION(int, name, module, struct exclusive_request *req) \
	{ \
		struct folio *folio; \
		struct page *page = make_device_exclusive(req->mm, req->addr, req->owner, &folio); \
		int ret = IS_ERR(page) ? PTR_ERR(page) : 0; \
\
		BOOK(EXCLUSIVE, .field[DRIVER] = #module, .field[CALLER] = #name, .field[COMM] = comm_of(req->mm), \
		     .field[ERRNO] = error_name(ret)); \
		return ret; \
	}

EXCLUSIVE_FUNCTION(nouveau_atomic_range_fault, nouveau)
EXCLUSIVE_FUNCTION(hmm_make_device_exclusive_range, nvidia_uvm)
EXCLUSIVE_FUNCTION(dmirror_exclusive, test_hmm)

static exclusive_path *const exclusive_paths[] = { nouveau_atomic_range_fault, hmm_make_device_exclusive_range,
						   dmirror_exclusive };

/* Device memory goes back to where there is room; who owns it, only the driver knows. */
static void move_back(const char *module, const char *caller, unsigned long npages, unsigned int declines)
{
	unsigned long nr, done = 0;
	long figures[NR_FIGURES] = {};

	memset(dst_pfns, 0, window_of(npages) * sizeof(*dst_pfns));
	for (unsigned long i = 0; i < window_of(npages); i += nr) {
		nr = pages_of(src_pfns[i]);
		if (src_pfns[i] & MIGRATE_PFN_MIGRATE && !strikes(declines, ++done))
			dst_pfns[i] = (RAM_PFN + pfn_of(src_pfns[i]) % RAM_PAGES) << MIGRATE_PFN_SHIFT | MIGRATE_PFN_VALID |
				      (src_pfns[i] & MIGRATE_PFN_COMPOUND);
	}
	work(WORK_COPY, npages << PAGE_SHIFT);
	migrate_device_pages(src_pfns, dst_pfns, npages);
	migrate_device_finalize(src_pfns, dst_pfns, npages);
	figures[DEVICE_TO_HOST] = BYTES(moves.moved[FROM_DEVICE]);
	figures[HUGE_DEVICE_TO_HOST] = BYTES(moves.huge[FROM_DEVICE]);
	BOOK(DEVICE_MOVE, .field[DRIVER] = module, .field[CALLER] = caller,
	     .field[DEVICE] = device_of(moves.source), .figures = figures);
}

#define BOOK_EVICTION(function, module, caller, pfn, npages) \
	BOOK(DEVICE_RANGE, .field[FUNCTION] = function, .field[DRIVER] = module, .field[CALLER] = caller, \
	     .field[DEVICE] = device_of(pfn), .field[COMM] = current->comm, SIZE((npages) << PAGE_SHIFT))

#define EVICT_RANGE_FUNCTION(name, module) \
	DRIVER_FUNCTION(void, name, module, unsigned long pfn, unsigned long npages, unsigned int declines) \
	{ \
		moves = (struct moves){}; \
		migrate_device_range(src_pfns, pfn, npages); \
		BOOK_EVICTION("migrate_device_range", #module, #name, pfn, npages); \
		move_back(#module, #name, npages, declines); \
	}

#define EVICT_PFNS_FUNCTION(name, module) \
	DRIVER_FUNCTION(void, name, module, unsigned long pfn, unsigned long npages, unsigned int declines) \
	{ \
		moves = (struct moves){}; \
		for (unsigned long i = 0; i < window_of(npages); i++) \
			src_pfns[i] = pfn + i; \
		migrate_device_pfns(src_pfns, npages); \
		BOOK_EVICTION("migrate_device_pfns", #module, #name, pfn, npages); \
		move_back(#module, #name, npages, declines); \
	}

EVICT_RANGE_FUNCTION(nouveau_dmem_evict_chunk, nouveau)
EVICT_RANGE_FUNCTION(dmirror_device_evict_chunk, test_hmm)
EVICT_PFNS_FUNCTION(drm_pagemap_evict_to_ram, drm_gpusvm_helper)

/* One call a page fills the array, and one for all of them moves it (uvm_hmm.c). */
DRIVER_FUNCTION(void, uvm_hmm_va_block_evict_chunks, nvidia_uvm, unsigned long pfn, unsigned long npages,
		unsigned int declines)
{
	moves = (struct moves){};
	for (unsigned long i = 0; i < npages; i++) {
		migrate_device_range(&src_pfns[i], pfn + i, 1);
		BOOK_EVICTION("migrate_device_range", "nvidia_uvm", "uvm_hmm_va_block_evict_chunks", pfn + i, 1UL);
	}
	move_back("nvidia_uvm", "uvm_hmm_va_block_evict_chunks", npages, declines);
}

static const struct {
	evict_path *evict;
	enum owner_id owner;
	bool page_by_page;
} evictions[] = {
	{ nouveau_dmem_evict_chunk, OWNER_NOUVEAU, false },
	{ uvm_hmm_va_block_evict_chunks, OWNER_UVM, true },
	{ dmirror_device_evict_chunk, OWNER_DMIRROR_1, false },
	{ drm_pagemap_evict_to_ram, OWNER_XE, false },
};

static struct device hca = { "mlx5_0" };

DRIVER_FUNCTION(bool, mlx5_odp_populate_mtt, mlx5_ib, struct hmm_dma_map *map, size_t idx,
		struct pci_p2pdma_map_state *state)
{
	bool mapped = hmm_dma_map_pfn(&hca, map, idx, state) != DMA_MAPPING_ERROR;

	BOOK(DMA_MAP, .field[RESULT] = mapped ? "mapped" : "failed", .field[COMM] = current->comm);
	return mapped;
}

DRIVER_FUNCTION(bool, ib_umem_odp_unmap_dma_pages, ib_core, struct hmm_dma_map *map, size_t idx)
{
	bool unmapped = hmm_dma_unmap_pfn(&hca, map, idx);

	BOOK(DMA_UNMAP, .field[RESULT] = unmapped ? "unmapped" : "missed", .field[COMM] = current->comm);
	return unmapped;
}
