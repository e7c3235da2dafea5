/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel's types as far as HMM needs them: its names, and the layouts of Linux 6.12 to 7.3.
 * What the probes do not read is padding, sized so that the fields stand where they might in a
 * real kernel: never at offset 0, some behind anonymous members, the owner of an mm deep inside.
 */
#ifndef SIMULATOR_KERNEL_H
#define SIMULATOR_KERNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef uint32_t u32;
typedef uint64_t u64;
typedef u64 dma_addr_t;
typedef unsigned int vm_fault_t;
typedef struct { unsigned long pte; } pte_t;

#define PAGE_SHIFT 12
#define PAGE_SIZE (1UL << PAGE_SHIFT)
#define PAGE_MASK (~(PAGE_SIZE - 1))
#define HPAGE_PMD_ORDER 9
#define HPAGE_PMD_NR (1UL << HPAGE_PMD_ORDER)
#define HPAGE_PMD_SIZE (PAGE_SIZE << HPAGE_PMD_ORDER)

#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))
#define __maybe_unused __attribute__((unused))

/* include/linux/err.h: the last page of the address space stands for errors. */
#define MAX_ERRNO 4095
#define ERR_PTR(error) ((void *)(long)(error))
#define PTR_ERR(pointer) ((int)(long)(pointer))
#define IS_ERR(pointer) ((unsigned long)(pointer) >= (unsigned long)-MAX_ERRNO)

#define PF_KTHREAD 0x00200000 /* include/linux/sched.h */

/* include/linux/mm.h */
#define VM_WRITE 0x00000002UL
#define VM_PFNMAP 0x00000400UL
#define VM_IO 0x00004000UL
#define VM_DONTEXPAND 0x00040000UL
#define VM_HUGETLB 0x00400000UL
#define VM_MIXEDMAP 0x10000000UL
#define VM_SPECIAL (VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP)

enum vm_fault_reason { /* include/linux/mm_types.h */
	VM_FAULT_OOM = 0x000001,
	VM_FAULT_SIGBUS = 0x000002,
	VM_FAULT_RETRY = 0x000400,
	VM_FAULT_COMPLETED = 0x004000,
};

enum fault_flag {
	FAULT_FLAG_WRITE = 1 << 0,
	FAULT_FLAG_ALLOW_RETRY = 1 << 2,
	FAULT_FLAG_REMOTE = 1 << 7,
	FAULT_FLAG_VMA_LOCK = 1 << 12,
};

enum migrate_vma_direction { /* include/linux/migrate.h */
	MIGRATE_VMA_SELECT_SYSTEM = 1 << 0,
	MIGRATE_VMA_SELECT_DEVICE_PRIVATE = 1 << 1,
	MIGRATE_VMA_SELECT_DEVICE_COHERENT = 1 << 2,
	MIGRATE_VMA_SELECT_COMPOUND = 1 << 3,
};

#define MIGRATE_PFN_VALID (1UL << 0)
#define MIGRATE_PFN_MIGRATE (1UL << 1)
#define MIGRATE_PFN_WRITE (1UL << 3)
#define MIGRATE_PFN_COMPOUND (1UL << 4)
#define MIGRATE_PFN_SHIFT 6

enum mmu_notifier_event { /* include/linux/mmu_notifier.h */
	MMU_NOTIFY_UNMAP = 0,
	MMU_NOTIFY_CLEAR,
	MMU_NOTIFY_PROTECTION_VMA,
	MMU_NOTIFY_PROTECTION_PAGE,
	MMU_NOTIFY_SOFT_DIRTY,
	MMU_NOTIFY_RELEASE,
	MMU_NOTIFY_MIGRATE,
	MMU_NOTIFY_EXCLUSIVE,
};

enum hmm_pfn_flags { /* include/linux/hmm.h, 64 bits wide */
	HMM_PFN_VALID = 1UL << 63,
	HMM_PFN_WRITE = 1UL << 62,
	HMM_PFN_ERROR = 1UL << 61,
	HMM_PFN_DMA_MAPPED = 1UL << 60,
	HMM_PFN_P2PDMA = 1UL << 59,
	HMM_PFN_REQ_FAULT = HMM_PFN_VALID,
	HMM_PFN_REQ_WRITE = HMM_PFN_WRITE,
};

enum memory_type { MEMORY_DEVICE_PRIVATE = 1, MEMORY_DEVICE_COHERENT };

struct mm_struct;
struct vm_area_struct;
struct vm_fault;
struct mmu_interval_notifier;

struct task_struct {
	struct { unsigned long flags, syscall_work; u32 status, cpu; } thread_info;
	unsigned int __state, saved_state;
	void *stack;
	int usage;
	unsigned int flags;
	char sched[2216];
	struct mm_struct *mm, *active_mm;
	int exit_state, exit_code, exit_signal, pdeath_signal;
	char personality[48];
	pid_t pid, tgid;
	unsigned long stack_canary;
	char relations[256];
	unsigned long nvcsw, nivcsw;
	u64 start_time, start_boottime;
	unsigned long min_flt, maj_flt;
	char cred[120];
	char comm[16];
	struct css_set *cgroups;
	bool fatal_signal; /* for fatal_signal_pending() */
	int make_it_fail;  /* CONFIG_FAULT_INJECTION: this task gets no memory */
};

struct kernfs_node {
	int count, active;
	struct kernfs_node *parent;
	const char *name;
	char children[64];
	u64 id; /* the inode of its folder */
};

struct cgroup {
	char self[216];
	unsigned long flags;
	int level, max_depth;
	struct kernfs_node *kn;
};

struct css_set {
	void *subsys[14];
	int refcount;
	struct css_set *dom_cset;
	struct cgroup *dfl_cgrp; /* in the hierarchy of version 2 */
};

struct mmu_notifier_subscriptions {
	struct mmu_interval_notifier *itree; /* a list here, a tree in the kernel */
	bool has_itree;
	unsigned long invalidate_seq;
	unsigned int races; /* so many of the next readers get invalidated before they are done */
};

struct mm_struct {
	struct {
		struct { int mm_count; } __attribute__((aligned(64)));
		struct vm_area_struct *mm_mt; /* sorted; a maple tree in the kernel */
		unsigned int map_count;
		char layout[40];
		void *pgd;
		int mm_users;
		char locks[820];
		struct task_struct *owner; /* CONFIG_MEMCG; NULL once the last owner has exited */
		void *user_ns, *exe_file;
		struct mmu_notifier_subscriptions *notifier_subscriptions;
	};
	unsigned long cpu_bitmap[1];
};

struct file { bool dax; };

/* What a fault finds below one VMA: one state for all of it is enough here. */
enum entry_state { ENTRY_PRESENT, ENTRY_NONE, ENTRY_DEVICE_PRIVATE, ENTRY_DEVICE_EXCLUSIVE };

/* What a migration finds, page by page. */
enum place { SWAPPED_OUT, NOTHING, IN_RAM, ON_DEVICE };

struct page_run {
	enum place place;
	unsigned int pages;
	bool huge; /* of 2 MiB, as far as the addresses allow it */
};

#define PAGE_RUNS 5

struct page_table {
	enum entry_state state;
	struct page *page;   /* that the entries point to, where it matters */
	unsigned int order;  /* of the folio that a fault is about: 0 or HPAGE_PMD_ORDER */
	bool forked;	     /* each page is mapped a second time, by a child */
	bool breaks_cow;     /* a fault takes away a page that is mapped, which notifiers hear of */
	bool major;	     /* a fault has to read from somewhere */
	bool drops_lock;     /* and lets go of the mmap_lock meanwhile, where its caller allows it */
	const struct dev_pagemap *pgmap; /* of what is ON_DEVICE */
	unsigned int runs;   /* 0: all is swapped out */
	struct page_run run[PAGE_RUNS]; /* one behind the other, again and again */
};

struct vm_area_struct {
	union {
		struct { unsigned long vm_start, vm_end; };
		void *vm_freeptr;
	};
	struct mm_struct *vm_mm;
	unsigned long vm_page_prot;
	unsigned long vm_flags;
	char locks[88];
	void *anon_vma, *vm_ops;
	unsigned long vm_pgoff;
	struct file *vm_file;
	void *vm_private_data; /* the struct page_table */
};

struct dev_pagemap_ops {
	void (*folio_free)(struct page *page);
	vm_fault_t (*migrate_to_ram)(struct vm_fault *vmf);
};

struct dev_pagemap {
	char altmap[96];
	enum memory_type type;
	unsigned int flags;
	unsigned long vmemmap_shift;
	const struct dev_pagemap_ops *ops;
	void *owner;
	int nr_range;
	struct { u64 start, end; } range;
};

struct page {
	unsigned long flags;
	struct dev_pagemap *pgmap;
	unsigned long pfn;
	void *zone_device_data;
	unsigned long lru_and_refcount[4];
};

struct folio { struct page page; };

struct vm_fault {
	const struct {
		struct vm_area_struct *vma;
		unsigned int gfp_mask;
		unsigned long pgoff, address, real_address;
	};
	enum fault_flag flags;
	void *pmd, *pud;
	pte_t orig_pte;
	struct page *cow_page, *page;
	pte_t *pte;
};

struct migrate_vma {
	struct vm_area_struct *vma;
	unsigned long *dst, *src;
	unsigned long cpages, npages;
	unsigned long start, end;
	void *pgmap_owner;
	unsigned long flags; /* enum migrate_vma_direction */
	struct page *fault_page;
};

struct hmm_range {
	struct mmu_interval_notifier *notifier;
	unsigned long notifier_seq;
	unsigned long start, end;
	unsigned long *hmm_pfns;
	unsigned long default_flags, pfn_flags_mask;
	void *dev_private_owner;
};

struct mmu_notifier_range {
	struct mm_struct *mm;
	unsigned long start, end;
	unsigned int flags;
	enum mmu_notifier_event event;
	void *owner;
};

struct mmu_interval_notifier_ops {
	bool (*invalidate)(struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range,
			   unsigned long cur_seq);
};

struct rb_node { unsigned long __rb_parent_color; struct rb_node *rb_right, *rb_left; };
struct interval_tree_node { struct rb_node rb; unsigned long start, last, __subtree_last; };

struct mmu_interval_notifier {
	struct interval_tree_node interval_tree;
	const struct mmu_interval_notifier_ops *ops;
	struct mm_struct *mm;
	struct { struct mmu_interval_notifier *next, **pprev; } deferred_item; /* links the list */
	unsigned long invalidate_seq;
};

struct device { const char *init_name; };
struct dma_iova_state { dma_addr_t addr; u64 size; };
struct pci_p2pdma_map_state { void *mem; bool unsupported; };

struct hmm_dma_map {
	struct dma_iova_state state;
	unsigned long *pfn_list;
	dma_addr_t *dma_list;
	size_t dma_entry_size;
};

_Static_assert(sizeof(struct migrate_vma) == 80 && offsetof(struct migrate_vma, fault_page) == 72, "migrate_vma");
_Static_assert(sizeof(struct hmm_range) == 64 && offsetof(struct hmm_range, default_flags) == 40, "hmm_range");
_Static_assert(sizeof(struct mmu_notifier_range) == 40 && offsetof(struct mmu_notifier_range, event) == 28,
	       "mmu_notifier_range");
_Static_assert(sizeof(struct mmu_interval_notifier) == 88 && offsetof(struct mmu_interval_notifier, ops) == 48 &&
	       offsetof(struct mmu_interval_notifier, mm) == 56, "mmu_interval_notifier");
_Static_assert(sizeof(struct dev_pagemap) == 152 && offsetof(struct dev_pagemap, owner) == 120, "dev_pagemap");
_Static_assert(offsetof(struct hmm_dma_map, pfn_list) == 16, "hmm_dma_map");
_Static_assert(offsetof(struct vm_area_struct, vm_mm) == 16 && offsetof(struct vm_fault, vma) == 0, "vm_fault");
_Static_assert(offsetof(struct task_struct, flags) == 44, "task_struct");

#endif
