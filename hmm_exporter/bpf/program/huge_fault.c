/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * do_huge_pmd_device_private: the CPU touches a huge page that is on the device. It runs twice a
 * fault: first under the VMA lock, where it can only ask to be tried again (VM_FAULT_RETRY).
 */

/* VM_FAULT_ERROR without the fallbacks of other paths, include/linux/mm_types.h. */
#define FAULT_ERRORS (VM_FAULT_OOM | VM_FAULT_SIGBUS | VM_FAULT_SIGSEGV | VM_FAULT_HWPOISON | \
		      VM_FAULT_HWPOISON_LARGE | VM_FAULT_FALLBACK)

ENTER(do_huge_pmd_device_private)
{
	u64 vma = READ_64(ARGUMENT_1(ctx), vm_fault_vma);
	struct process process = {};

	if (!process_of(READ_64(vma, vm_area_struct_vm_mm), CURRENT_TASK(ctx), &process))
		return 0;
	struct thread *thread = thread_enter(PROBE_do_huge_pmd_device_private);

	if (!thread)
		return 0;
	copy_comm(thread->huge_fault_comm, process.comm);
	return 0;
}

INLINE void huge_fault_done(void *ctx, struct thread *thread, u32 result)
{
	count_event(EVENT_huge_fault);
	struct process_counters *who = process_row_of(ctx, thread->huge_fault_comm);

	if (who)
		add(&who->huge_faults, 1);
	if (result & FAULT_ERRORS)
		failed(ctx, FAILURE_huge_fault, 0, result & FAULT_ERRORS);
}

LEAVE(do_huge_pmd_device_private)
{
	struct thread *thread = thread_leave(PROBE_do_huge_pmd_device_private);

	if (!thread)
		return 0;
	u32 result = (u32)RESULT(ctx, do_huge_pmd_device_private);

	if (result & VM_FAULT_RETRY)
		count_event(EVENT_huge_fault_retry);
	else
		huge_fault_done(ctx, thread, result);
	thread_done(thread);
	return 0;
}
