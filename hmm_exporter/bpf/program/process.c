/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Whose event it is: the process that owns the memory, and whether the filter lets it through.
 * GPU faults and evictions run in kernel threads, so `current` says who works, not who for.
 */

struct process {
	u64 comm[3]; /* the name; then process id or cgroup where figures are kept by it, else 0 */
	u32 tgid;
};

INLINE void copy_comm(u64 *to, u64 *from)
{
	to[0] = from[0];
	to[1] = from[1];
	to[2] = from[2];
}

#if FILTER_TGIDS || FILTER_COMMS
INLINE int filter_passes(struct process *process)
{
	FILTER_BODY(process)
	return 0;
}
#else
#define filter_passes(process) 1
#endif

/* kworker/3:1 and kworker/u64:2-events are one worker to a reader of a dashboard. */
INLINE void cut_kthread_name(u64 *comm)
{
	char *byte = (char *)comm;
	int cut = 0;

#pragma unroll
	for (int i = 0; i < 16; i++) {
		if (byte[i] == '/' || byte[i] == ':')
			cut = 1;
		if (cut)
			byte[i] = 0;
	}
}

#if WITH_CGROUPS
/*
 * The number that a cgroup's directory has in the cgroup file system. Of an exiting task, too: its
 * css_set stays (kernel/cgroup/cgroup.c:cgroup_task_exit; cgroup_exit to 6.18).
 */
INLINE u64 cgroup_of(u64 task)
{
	u64 set = READ_64(task, task_struct_cgroups);
	u64 group = READ_64(set, css_set_dfl_cgrp);
	u64 node = READ_64(group, cgroup_kn);

	return READ_64(node, kernfs_node_id);
}
#endif

INLINE void read_process(u64 task, struct process *process)
{
	READ_COMM(process->comm, task);
#if WITH_PIDS || FILTER_TGIDS
	process->tgid = READ_32(task, task_struct_tgid);
#endif
	process->comm[2] = 0;
#if WITH_PIDS
	process->comm[2] = process->tgid;
#endif
#if WITH_CGROUPS
	process->comm[2] = cgroup_of(task);
#endif
}

INLINE void read_current(u64 task, struct process *process)
{
	read_process(task, process);
	if (READ_32(task, task_struct_flags) & PF_KTHREAD)
		cut_kthread_name(process->comm);
}

/*
 * Fills `process` with the owner of `mm`, or with `task` where there is no mm, or no owner any
 * more (mm_update_next_owner clears it at exit), or no such field (CONFIG_MEMCG=n).
 * True if the filter lets it through.
 */
INLINE int process_of(u64 mm, u64 task, struct process *process)
{
#ifdef OFFSET_mm_struct_owner
	u64 owner = READ_64(mm, mm_struct_owner);

	if (owner)
		read_process(owner, process);
	else
		read_current(task, process);
#else
	read_current(task, process);
#endif
	return filter_passes(process);
}

/* The same for events that carry no mm. */
INLINE int current_passes(u64 task)
{
#if FILTER_TGIDS || FILTER_COMMS
	struct process process = {};

	read_current(task, &process);
	return filter_passes(&process);
#else
	return 1;
#endif
}

/* A return probe on the simulator does not know the acting task: there, nothing is filtered. */
#ifdef BUILD_UPROBE
#define RETURN_PASSES(ctx) 1
#else
#define RETURN_PASSES(ctx) current_passes(get_current_task())
#endif
#define TRACEPOINT_PASSES(ctx) current_passes(CURRENT_TASK(ctx))
