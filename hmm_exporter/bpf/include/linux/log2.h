/* SPDX-License-Identifier: GPL-2.0-only */
/* bcc's stack-trace table rounds its size with it. */
#define roundup_pow_of_two(n) (1UL << (64 - __builtin_clzll((n) - 1)))
