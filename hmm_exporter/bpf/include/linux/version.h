/* SPDX-License-Identifier: GPL-2.0-only */
/* Asked for by bcc's helpers. The programs depend on BTF, never on a version number. */
#define KERNEL_VERSION(major, minor, patch) (((major) << 16) + ((minor) << 8) + (patch))
#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)
