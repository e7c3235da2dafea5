/* SPDX-License-Identifier: Apache-2.0 */
/* After the kernel's mm/mmu_notifier.c: interval notifiers, and the invalidations they get. */
#include "probed.h"

#include <errno.h>

#include "ledger.h"
#include "timing.h"

/* Whom an event on `mm` is booked to: the owner of the memory, else the task that acts. */
static const char *comm_of(const struct mm_struct *mm)
{
	return mm && mm->owner ? mm->owner->comm : current->comm;
}

static const char *const event_names[] = {
	[MMU_NOTIFY_UNMAP] = "unmap",
	[MMU_NOTIFY_CLEAR] = "clear",
	[MMU_NOTIFY_PROTECTION_VMA] = "protection_vma",
	[MMU_NOTIFY_PROTECTION_PAGE] = "protection_page",
	[MMU_NOTIFY_SOFT_DIRTY] = "soft_dirty",
	[MMU_NOTIFY_RELEASE] = "release",
	[MMU_NOTIFY_MIGRATE] = "migrate",
	[MMU_NOTIFY_EXCLUSIVE] = "exclusive",
};

static bool overlaps(const struct mmu_interval_notifier *sub, const struct mmu_notifier_range *range)
{
	return sub->interval_tree.start < range->end && range->start <= sub->interval_tree.last;
}

int (__mmu_notifier_invalidate_range_start)(struct mmu_notifier_range *range, PAD2)
{
	struct mmu_notifier_subscriptions *subscriptions = range->mm->notifier_subscriptions;

	PROBED();
	subscriptions->invalidate_seq++;
	for (struct mmu_interval_notifier *sub = subscriptions->itree; sub; sub = sub->deferred_item.next)
		if (overlaps(sub, range))
			sub->ops->invalidate(sub, range, subscriptions->invalidate_seq);
	return 0;
}

/* An inline in the kernel, too: the probed function runs only where somebody listens. */
static void mmu_notifier_invalidate_range_start(struct mmu_notifier_range *range)
{
	struct mmu_notifier_subscriptions *subscriptions = range->mm->notifier_subscriptions;

	if (!subscriptions || !subscriptions->has_itree)
		return;
	__mmu_notifier_invalidate_range_start(range);
	BOOK(INVALIDATION, .field[EVENT] = event_names[range->event], .field[INSIDE] = inside,
	     .field[COMM] = comm_of(range->mm), SIZE(range->end - range->start));
}

/* What a driver's invalidate callback has to do at least. */
static bool mmu_interval_set_seq(struct mmu_interval_notifier *sub, unsigned long cur_seq)
{
	sub->invalidate_seq = cur_seq;
	return true;
}

/* A race is an invalidation that comes right behind the reader: what it read is old at once. */
static unsigned long mmu_interval_read_begin(struct mmu_interval_notifier *sub)
{
	struct mmu_notifier_subscriptions *subscriptions = sub->mm->notifier_subscriptions;
	unsigned long seq = sub->invalidate_seq;

	if (subscriptions->races) {
		subscriptions->races--;
		mmu_interval_set_seq(sub, ++subscriptions->invalidate_seq);
	}
	return seq;
}

static bool mmu_interval_check_retry(const struct mmu_interval_notifier *sub, unsigned long seq)
{
	return sub->invalidate_seq != seq;
}

static void link_notifier(struct mmu_interval_notifier *sub)
{
	struct mmu_interval_notifier **list = &sub->mm->notifier_subscriptions->itree;

	sub->deferred_item.next = *list;
	sub->deferred_item.pprev = list;
	if (*list)
		(*list)->deferred_item.pprev = &sub->deferred_item.next;
	*list = sub;
}

static int __mmu_interval_notifier_insert(struct mmu_interval_notifier *sub, struct mm_struct *mm,
					  unsigned long start, unsigned long length,
					  const struct mmu_interval_notifier_ops *ops)
{
	/* mmu_notifier_register comes first for an mm that has no notifier yet: it allocates and
	 * takes all locks of the mm. Here these two can fail at any time. */
	if (current->make_it_fail)
		return -ENOMEM;
	if (current->fatal_signal)
		return -EINTR;
	work(WORK_LOCK, 0);
	sub->mm = mm;
	sub->ops = ops;
	sub->interval_tree.start = start;
	if (!length || __builtin_add_overflow(start, length - 1, &sub->interval_tree.last))
		return -EOVERFLOW;
	if (mm->mm_users <= 0)
		return -EINVAL;
	sub->invalidate_seq = mm->notifier_subscriptions->invalidate_seq;
	link_notifier(sub);
	return 0;
}

int (mmu_interval_notifier_insert)(struct mmu_interval_notifier *sub, struct mm_struct *mm, unsigned long start,
				   unsigned long length, const struct mmu_interval_notifier_ops *ops, SIXTH)
{
	PROBED();
	return __mmu_interval_notifier_insert(sub, mm, start, length, ops);
}

int (mmu_interval_notifier_insert_locked)(struct mmu_interval_notifier *sub, struct mm_struct *mm,
					  unsigned long start, unsigned long length,
					  const struct mmu_interval_notifier_ops *ops, SIXTH)
{
	PROBED();
	return __mmu_interval_notifier_insert(sub, mm, start, length, ops);
}

void (mmu_interval_notifier_remove)(struct mmu_interval_notifier *sub, PAD2)
{
	PROBED();
	*sub->deferred_item.pprev = sub->deferred_item.next;
	if (sub->deferred_item.next)
		sub->deferred_item.next->deferred_item.pprev = sub->deferred_item.pprev;
}
