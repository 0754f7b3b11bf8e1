/*
 * DPDK functions that exist only as inline functions, macros or thread-local variables, as functions that Rust can
 * call. rx and tx bursts are not here: src/burst.rs does them without a call more than C would make.
 */
#include "shim.h"

#define FIELD_WIDTH(field) sizeof(((struct rte_mbuf *)0)->field)
_Static_assert(FIELD_WIDTH(buf_addr) == sizeof(void *), "src/mbuf.rs reads a pointer");
_Static_assert(FIELD_WIDTH(data_off) == 2, "src/mbuf.rs reads 16 bits");
_Static_assert(FIELD_WIDTH(nb_segs) == 2, "src/mbuf.rs reads 16 bits");
_Static_assert(FIELD_WIDTH(pkt_len) == 4, "src/mbuf.rs reads 32 bits");
_Static_assert(FIELD_WIDTH(data_len) == 2, "src/mbuf.rs reads 16 bits");
_Static_assert(FIELD_WIDTH(buf_len) == 2, "src/mbuf.rs reads 16 bits");
_Static_assert(RTE_ETH_RSS_L3_SRC_ONLY == RTE_BIT64(WEIR_RSS_L3_SRC_ONLY_BIT), "dpdk/src/rss.rs sets this bit");

int weir_errno(void)
{
	return rte_errno;
}

uint32_t weir_lcore_id(void)
{
	return rte_lcore_id();
}

struct rte_mbuf *weir_mbuf_alloc(struct rte_mempool *pool)
{
	return rte_pktmbuf_alloc(pool);
}

void weir_mbuf_free(struct rte_mbuf *packet)
{
	rte_pktmbuf_free(packet);
}

int weir_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail)
{
	return rte_pktmbuf_chain(head, tail);
}

uint32_t weir_ring_drain(struct rte_ring *ring)
{
	uint32_t count = 0;
	void *packet;

	while (rte_ring_dequeue(ring, &packet) == 0) {
		rte_pktmbuf_free(packet);
		count++;
	}
	return count;
}

int weir_link(uint16_t port, uint8_t *up, uint32_t *speed)
{
	struct rte_eth_link link = { 0 };
	int result = rte_eth_link_get_nowait(port, &link);

	*up = link.link_status == RTE_ETH_LINK_UP;
	*speed = link.link_speed == RTE_ETH_SPEED_NUM_UNKNOWN ? 0 : link.link_speed;
	return result;
}
