/*
 * What bindgen sees: the DPDK headers that weir uses, and the functions and numbers of shim.c.
 */
#ifndef WEIR_SHIM_H
#define WEIR_SHIM_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_eth_ring.h>
#include <rte_ethdev.h>
#include <rte_ether.h>
#include <rte_launch.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>
#include <rte_ring.h>
#include <rte_version.h>

/*
 * Where the fields of struct rte_mbuf are. Releases of DPDK differ in the anonymous unions around them, and with
 * that in the path bindgen gives them; the C compiler knows the offset in each. The widths are checked in shim.c.
 */
enum {
	/* RTE_ETH_RSS_L3_SRC_ONLY is too large for bindgen: its bit instead. */
	WEIR_RSS_L3_SRC_ONLY_BIT = 63,
	WEIR_MBUF_BUF_ADDR = offsetof(struct rte_mbuf, buf_addr),
	WEIR_MBUF_DATA_OFF = offsetof(struct rte_mbuf, data_off),
	WEIR_MBUF_NB_SEGS = offsetof(struct rte_mbuf, nb_segs),
	WEIR_MBUF_PKT_LEN = offsetof(struct rte_mbuf, pkt_len),
	WEIR_MBUF_DATA_LEN = offsetof(struct rte_mbuf, data_len),
	WEIR_MBUF_BUF_LEN = offsetof(struct rte_mbuf, buf_len),
};

/* rte_errno of the calling thread. */
int weir_errno(void);
/* EAL's number of the calling thread, or UINT32_MAX for a thread that EAL does not know. */
uint32_t weir_lcore_id(void);
/* A reset mbuf of one segment, or NULL when the pool is empty. */
struct rte_mbuf *weir_mbuf_alloc(struct rte_mempool *pool);
/* Gives all segments of a packet back to their pools. */
void weir_mbuf_free(struct rte_mbuf *packet);
/* Appends a segment to a packet; 0, or a negative errno when there would be too many. */
int weir_mbuf_chain(struct rte_mbuf *head, struct rte_mbuf *tail);
/* Takes every mbuf out of a ring and frees it; how many there were. */
uint32_t weir_ring_drain(struct rte_ring *ring);
/* State of the link without waiting: 0, or a negative errno. `speed` is in Mbit/s, or 0 when the device has none. */
int weir_link(uint16_t port, uint8_t *up, uint32_t *speed);

#endif
