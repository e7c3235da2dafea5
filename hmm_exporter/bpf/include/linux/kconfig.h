/* SPDX-License-Identifier: GPL-2.0-only */
/* bcc takes this folder for a kernel's headers when this file is here. */
#define CONFIG_BPF_SYSCALL 1
