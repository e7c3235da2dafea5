/* SPDX-License-Identifier: GPL-2.0-only */
/* hmm_dma_map_pfn and hmm_dma_unmap_pfn, once a page: RDMA's on-demand paging. */

#define DMA_MAPPING_ERROR (~0ULL) /* include/linux/dma-mapping.h */

#ifdef TARGET_hmm_dma_map_pfn
LEAVE(hmm_dma_map_pfn)
{
	if (!RETURN_PASSES(ctx))
		return 0;
	count_event(EVENT_dma_map);
	if (RESULT(ctx, hmm_dma_map_pfn) == DMA_MAPPING_ERROR)
		count_event(EVENT_dma_map_failure);
	return 0;
}
#endif

#ifdef TARGET_hmm_dma_unmap_pfn
LEAVE(hmm_dma_unmap_pfn)
{
	if (!RETURN_PASSES(ctx))
		return 0;
	count_event(EVENT_dma_unmap);
	if (!(u8)RESULT(ctx, hmm_dma_unmap_pfn)) /* a bool: only its byte is defined */
		count_event(EVENT_dma_unmap_miss);
	return 0;
}
#endif
