/* SPDX-License-Identifier: Apache-2.0 */
/* After mm/memory.c, mm/huge_memory.c and mm/rmap.c: faults, device-exclusive pages, migration entries. */
#include "probed.h"

#include <errno.h>

#include "ledger.h"
#include "timing.h"

static struct page_table *page_table_of(const struct vm_area_struct *vma)
{
	return vma->vm_private_data;
}

static struct vm_area_struct *find_vma_containing(const struct mm_struct *mm, unsigned long address)
{
	for (unsigned int i = 0; i < mm->map_count; i++)
		if (mm->mm_mt[i].vm_start <= address && address < mm->mm_mt[i].vm_end)
			return &mm->mm_mt[i];
	return NULL;
}

/* Tracepoints in the kernel, called by rmap for each mapping of a page under migration. */
void (set_migration_pte)(__maybe_unused unsigned long addr, __maybe_unused unsigned long pte,
			 __maybe_unused int order, PAD4)
{
	PROBED();
}

void (remove_migration_pte)(__maybe_unused unsigned long addr, __maybe_unused unsigned long pte,
			    __maybe_unused int order, PAD4)
{
	PROBED();
}

static const char *const order_names[] = { "0", "1", "2", "3", "4",  "5",  "6",	 "7",  "8", "9",
					   "10", "11", "12", "13", "14", "15", "16", "17", "18" };

static void trace_set_migration_pte(unsigned long addr, unsigned long pte, int order)
{
	set_migration_pte(addr, pte, order);
	BOOK(MIGRATION_PTE, .field[FUNCTION] = "set_migration_pte", .field[ORDER] = order_names[order],
	     .field[INSIDE] = inside);
}

static void trace_remove_migration_pte(unsigned long addr, unsigned long pte, int order)
{
	remove_migration_pte(addr, pte, order);
	BOOK(MIGRATION_PTE, .field[FUNCTION] = "remove_migration_pte", .field[ORDER] = order_names[order],
	     .field[INSIDE] = inside);
}

/* Of a huge folio that is mapped by one entry; in the kernel's trace/events/thp.h. */
void (set_migration_pmd)(__maybe_unused unsigned long addr, __maybe_unused unsigned long pmd, PAD3)
{
	PROBED();
}

void (remove_migration_pmd)(__maybe_unused unsigned long addr, __maybe_unused unsigned long pmd, PAD3)
{
	PROBED();
}

static void trace_set_migration_pmd(unsigned long addr, unsigned long pmd)
{
	set_migration_pmd(addr, pmd);
	BOOK(MIGRATION_PMD, .field[FUNCTION] = "set_migration_pmd", .field[INSIDE] = inside);
}

static void trace_remove_migration_pmd(unsigned long addr, unsigned long pmd)
{
	remove_migration_pmd(addr, pmd);
	BOOK(MIGRATION_PMD, .field[FUNCTION] = "remove_migration_pmd", .field[INSIDE] = inside);
}

void (restore_exclusive_pte)(struct vm_area_struct *vma, struct page *page, __maybe_unused unsigned long address,
			     pte_t *ptep, PAD5)
{
	PROBED();
	page_table_of(vma)->state = ENTRY_PRESENT;
	ptep->pte = page->pfn << PAGE_SHIFT;
}

/* Its three callers: a CPU's access (do_swap_page), fork (copy_nonpresent_pte), and a driver's own
 * next make_device_exclusive, by the fault that it takes. */
static void restore_exclusive(struct vm_area_struct *vma, unsigned long address, const char *cause)
{
	pte_t pte = {};

	restore_exclusive_pte(vma, page_table_of(vma)->page, address, &pte);
	BOOK(RESTORE, .field[COMM] = comm_of(vma->vm_mm), .field[CAUSE] = cause);
}

static void book_huge_fault(const struct vm_fault *vmf, vm_fault_t ret)
{
	static const char *const results[] = {
		[0] = "", [VM_FAULT_OOM] = "OOM", [VM_FAULT_SIGBUS] = "SIGBUS", [VM_FAULT_RETRY] = "RETRY",
	};

	BOOK(HUGE_FAULT, .field[RESULT] = results[ret], .field[COMM] = comm_of(vmf->vma->vm_mm));
}

/* mm/huge_memory.c: under the VMA lock it can only ask to be called again under the mmap_lock. */
vm_fault_t (do_huge_pmd_device_private)(struct vm_fault *vmf, PAD2)
{
	PROBED();
	if (vmf->flags & FAULT_FLAG_VMA_LOCK)
		return VM_FAULT_RETRY;
	if (!vmf->page) /* the entry has changed meanwhile */
		return 0;
	return vmf->page->pgmap->ops->migrate_to_ram(vmf);
}

static vm_fault_t fault_on_device_private(struct vm_fault *vmf, struct page_table *table)
{
	vm_fault_t ret;

	if (!table->order)
		return vmf->page->pgmap->ops->migrate_to_ram(vmf);
	ret = do_huge_pmd_device_private(vmf);
	book_huge_fault(vmf, ret);
	return ret;
}

/* Memory that is nowhere yet, or shared with a parent. */
static vm_fault_t fault_in_ram(struct vm_fault *vmf, struct page_table *table)
{
	unsigned long address = vmf->address;
	struct mmu_notifier_range range = { vmf->vma->vm_mm, address, address + PAGE_SIZE, 0, MMU_NOTIFY_CLEAR, NULL };

	work(WORK_FAULT, 0);
	if (table->drops_lock && vmf->flags & FAULT_FLAG_ALLOW_RETRY) {
		table->drops_lock = false;
		return table->major ? VM_FAULT_COMPLETED : VM_FAULT_RETRY;
	}
	if (table->breaks_cow)
		mmu_notifier_invalidate_range_start(&range);
	return 0;
}

/* Faults that are to be taken again do not count (mm/memory.c, mm_account_fault). */
static void account_fault(struct page_table *table, vm_fault_t ret)
{
	if (ret & (VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_RETRY))
		return;
	if (table->major)
		current->maj_flt++;
	else
		current->min_flt++;
}

/* mm/memory.c, with do_swap_page's two special entries. */
static vm_fault_t handle_mm_fault(struct vm_area_struct *vma, unsigned long address, unsigned int flags)
{
	struct page_table *table = page_table_of(vma);
	struct vm_fault vmf = { { .vma = vma, .address = address & PAGE_MASK, .real_address = address },
				.flags = flags, .page = table->page };
	enum entry_state state = table->state;
	vm_fault_t ret = 0;

	if (current->make_it_fail)
		return VM_FAULT_OOM;
	if (state == ENTRY_DEVICE_PRIVATE) {
		ret = fault_on_device_private(&vmf, table);
	} else if (state == ENTRY_DEVICE_EXCLUSIVE) {
		restore_exclusive(vma, address, flags & FAULT_FLAG_REMOTE ? "refault" : "cpu_access");
	} else {
		ret = fault_in_ram(&vmf, table);
	}
	account_fault(table, ret);
	/* Whatever the driver did: a second fault would find the page back in memory. */
	if (ret != VM_FAULT_RETRY)
		table->state = ENTRY_PRESENT;
	return ret;
}

/* arch/x86/mm/fault.c: a CPU touches memory; first under the VMA lock alone. */
static vm_fault_t do_user_addr_fault(struct vm_area_struct *vma, unsigned long address)
{
	vm_fault_t ret = handle_mm_fault(vma, address, FAULT_FLAG_VMA_LOCK);

	return ret == VM_FAULT_RETRY ? handle_mm_fault(vma, address, 0) : ret;
}

static int vm_fault_to_errno(vm_fault_t ret)
{
	if (ret & VM_FAULT_OOM)
		return -ENOMEM;
	return ret & VM_FAULT_SIGBUS ? -EFAULT : 0;
}

/* get_user_pages as far as make_device_exclusive needs it: what is not there is faulted in. */
static int get_user_page(struct vm_area_struct *vma, unsigned long addr)
{
	if (current->fatal_signal)
		return -EINTR;
	if (!vma || vma->vm_flags & (VM_IO | VM_PFNMAP))
		return -EFAULT;
	if (page_table_of(vma)->state == ENTRY_PRESENT)
		return 0;
	return vm_fault_to_errno(handle_mm_fault(vma, addr, FAULT_FLAG_WRITE | FAULT_FLAG_REMOTE));
}

/* mm/rmap.c */
struct page *(make_device_exclusive)(struct mm_struct *mm, unsigned long addr, void *owner, struct folio **foliop,
				     PAD5)
{
	PROBED_CALLER();
	struct vm_area_struct *vma = find_vma_containing(mm, addr);
	struct mmu_notifier_range range = { mm, addr & PAGE_MASK, (addr & PAGE_MASK) + PAGE_SIZE, 0,
					    MMU_NOTIFY_EXCLUSIVE, owner };
	int ret = get_user_page(vma, addr);

	if (ret)
		return ERR_PTR(ret);
	if (vma->vm_file || vma->vm_flags & VM_HUGETLB)
		return ERR_PTR(-EOPNOTSUPP);
	work(WORK_LOCK, 0);
	mmu_notifier_invalidate_range_start(&range);
	page_table_of(vma)->state = ENTRY_DEVICE_EXCLUSIVE;
	*foliop = (struct folio *)page_table_of(vma)->page;
	return page_table_of(vma)->page;
}
