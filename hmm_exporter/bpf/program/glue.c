/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Three builds of one source: how a program gets its arguments and reads the kernel.
 *
 *   BUILD_FENTRY  fentry and fexit. Arguments are typed by the kernel's BTF, so the verifier lets
 *                 us load through them directly: cheaper than the helper, and allowed under
 *                 lockdown=confidentiality, where the helper is not. A load through NULL gives 0.
 *                 What they point to is not typed: only with PAGES is the helper used for that.
 *   BUILD_KPROBE  kprobe and kretprobe. Every read goes through bpf_probe_read_kernel.
 *   BUILD_UPROBE  the same, on the simulator's memory; the acting task is its sixth argument.
 *
 * A failed read gives 0 in all three. Nothing about HMM belongs here.
 */

#define INLINE static inline __attribute__((always_inline))
/* From here on the compiler knows nothing of the variable's value. */
#define FORGET(variable) asm volatile("" : "+r"(variable))

/*
 * Helpers are called by number under names of our own: bcc rewrites the names that it knows, and
 * for each call of bpf_probe_read_* it indexes all of /proc/kallsyms again (bcc 0.26 to 0.37).
 */
static u64 (*ktime_get_ns)(void) = (void *)5;
static u32 (*get_smp_processor_id)(void) = (void *)8;
static u64 (*get_current_pid_tgid)(void) = (void *)14;
static long (*loop)(u32 times, void *callback, void *context, u64 flags) = (void *)181;
#ifdef BUILD_UPROBE
static long (*probe_read)(void *to, u32 size, const void *from) = (void *)112; /* _user */
#else
static long (*probe_read)(void *to, u32 size, const void *from) = (void *)113; /* _kernel */
#ifdef BUILD_FENTRY
static u64 (*get_current_task)(void) = (void *)158; /* _btf: typed, so that it can be loaded through */
#else
static u64 (*get_current_task)(void) = (void *)35;
#endif
#endif

/* A program, and before anything else that it ran: what watching costs is known by that (hmm_exporter/governor). */
#define PROGRAM(when, function, context) \
INLINE int on_##when##_##function(context *ctx); \
int when##_##function(context *ctx) \
{ \
	count_run(PROBE_##function); \
	return on_##when##_##function(ctx); \
} \
INLINE int on_##when##_##function(context *ctx)

/* ENTER(function) and LEAVE(function) begin a program; TRACEPOINT(name) a raw tracepoint's. */
#ifdef BUILD_FENTRY
#define ENTER(function) PROGRAM(enter, function, u64)
#define LEAVE(function) PROGRAM(leave, function, u64)
#define ARGUMENT_1(ctx) (ctx[0])
#define ARGUMENT_2(ctx) (ctx[1])
#define ARGUMENT_3(ctx) (ctx[2])
#define ARGUMENT_5(ctx) (ctx[4])
/* fexit's context: the arguments, then the result. Their number differs between releases. */
#define RESULT(ctx, function) (ctx[PARAMETERS_##function])
/* fexit still has the argument, typed; a return probe has only what the entry kept. */
#define KEPT_1(ctx, kept) ARGUMENT_1(ctx)
#define CURRENT_TASK(ctx) get_current_task()
#else
#define ENTER(function) PROGRAM(enter, function, struct pt_regs)
#define LEAVE(function) PROGRAM(leave, function, struct pt_regs)
#define ARGUMENT_1(ctx) PT_REGS_PARM1(ctx)
#define ARGUMENT_2(ctx) PT_REGS_PARM2(ctx)
#define ARGUMENT_3(ctx) PT_REGS_PARM3(ctx)
#define ARGUMENT_5(ctx) PT_REGS_PARM5(ctx)
#define RESULT(ctx, function) PT_REGS_RC(ctx)
#define KEPT_1(ctx, kept) (kept)
#ifdef BUILD_UPROBE
#define CURRENT_TASK(ctx) PT_REGS_PARM6(ctx) /* at entry only */
#else
#define CURRENT_TASK(ctx) get_current_task()
#endif
#endif

/* `current` once more, in a return probe. */
#ifdef BUILD_UPROBE
#define KEPT_TASK(kept) (kept)
#else
#define KEPT_TASK(kept) get_current_task()
#endif

#ifdef BUILD_UPROBE
#define TRACEPOINT(name) PROGRAM(enter, name, struct pt_regs)
#define TRACEPOINT_3(ctx) PT_REGS_PARM3(ctx)
#define STACK_OF (1 << 8) /* BPF_F_USER_STACK */
#else
#define TRACEPOINT(name) PROGRAM(enter, name, u64)
#define TRACEPOINT_3(ctx) (ctx[2])
#define STACK_OF 0
#endif

/*
 * READ_64(pointer, struct_field): one field. SNAPSHOT(name, struct, pointer) and then
 * FIELD_64(name, struct_field): several fields of one struct, read at once where a read is a call.
 */
#ifdef BUILD_FENTRY
#define READ_64(pointer, field) (*(volatile u64 *)((pointer) + OFFSET_##field))
#define READ_32(pointer, field) (*(volatile u32 *)((pointer) + OFFSET_##field))
#define READ_COMM(to, pointer) do { \
	(to)[0] = *(volatile u64 *)((pointer) + OFFSET_task_struct_comm); \
	(to)[1] = *(volatile u64 *)((pointer) + OFFSET_task_struct_comm + 8); \
} while (0)
#define SNAPSHOT(name, type, pointer) u64 name = (pointer)
#define FIELD_64(name, field) READ_64(name, field)
#define FIELD_32(name, field) READ_32(name, field)
#else
INLINE u64 read_64(u64 address)
{
	u64 value = 0;

	if (probe_read(&value, sizeof(value), (void *)address))
		return 0;
	return value;
}

INLINE u32 read_32(u64 address)
{
	u32 value = 0;

	if (probe_read(&value, sizeof(value), (void *)address))
		return 0;
	return value;
}

INLINE void read_comm(u64 *to, u64 address)
{
	if (probe_read(to, 16, (void *)address))
		to[0] = to[1] = 0;
}

#define READ_64(pointer, field) read_64((pointer) + OFFSET_##field)
#define READ_32(pointer, field) read_32((pointer) + OFFSET_##field)
#define READ_COMM(to, pointer) read_comm(to, (pointer) + OFFSET_task_struct_comm)
#define SNAPSHOT(name, type, pointer) \
	u64 name[(SIZE_##type + 7) / 8] = {}; \
	probe_read(name, SIZE_##type, (void *)(pointer)) /* on a failure all stays 0 */
#define FIELD_64(name, field) (*(u64 *)((char *)name + OFFSET_##field))
#define FIELD_32(name, field) (*(u32 *)((char *)name + OFFSET_##field))
#endif

/* Atomic: rows are shared by CPUs. The old value must not be used (BPF before v3 has no fetch). */
INLINE void add(u64 *counter, u64 amount)
{
	__sync_fetch_and_add(counter, amount);
}
