/* SPDX-License-Identifier: GPL-2.0-only */
/* The registers as a kprobe or uprobe sees them. */
#pragma once
#if defined(__x86_64__) || defined(__TARGET_ARCH_x86) || defined(bcc_x86)
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8;
	unsigned long ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#else
struct pt_regs {
	unsigned long regs[31], sp, pc, pstate;
};
#endif
