//! Where every received packet went: `rx = forwarded + consumed + dropped`, and with several workers, for each of them,
//! `rx + taken_over = forwarded + consumed + dropped + handed_over`.

macro_rules! drop_reasons {
    ($($(#[doc = $doc:literal])+ $name:ident = $label:literal),* $(,)?) => {
        /// Why a packet was dropped. Each is a counter.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum DropReason { $($(#[doc = $doc])+ $name),* }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &'static [DropReason] = &[$(DropReason::$name),*];
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// The name in metrics and `weir show counters`.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(DropReason::$name => $label),* }
            }

            /// What it means, in one sentence.
            #[must_use]
            pub fn description(self) -> &'static str {
                match self { $(DropReason::$name => concat!($($doc),+).trim_ascii()),* }
            }
        }
    };
}

drop_reasons! {
    /// The frame is shorter than a header that it announces.
    Truncated = "truncated",
    /// A header field contradicts another one or its RFC (version, header length, total length, reserved address).
    Malformed = "malformed",
    /// The EtherType is neither ARP, IPv4 nor IPv6.
    EtherType = "ethertype",
    /// The 802.1Q tag is not the port's.
    Vlan = "vlan",
    /// The frame is not for weir's MAC address, nor broadcast, nor a multicast group that weir listens to.
    NotForUs = "not_for_us",
    /// A fragment that weir does not put together: of IPv6, neither to a VIP or SNAT address nor of a server that sees its clients' addresses, or any without `limits.fragment_memory`.
    Fragment = "fragment",
    /// A fragment that no honest sender makes, such as a first one without the whole TCP header, or one of more than 64 of its datagram.
    FragmentInvalid = "fragment_invalid",
    /// A fragment that overlaps or contradicts others of its datagram, or belongs to a datagram that was given up for that.
    FragmentOverlap = "fragment_overlap",
    /// A fragment that has come before.
    FragmentRepeat = "fragment_repeat",
    /// IPv4 header checksum.
    IpChecksum = "ip_checksum",
    /// TCP, UDP or ICMP checksum of a packet that weir itself takes in.
    L4Checksum = "l4_checksum",
    /// TTL or hop limit used up.
    TtlExpired = "ttl_expired",
    /// IP protocol or ICMP type that weir does not handle.
    Protocol = "protocol",
    /// An ICMP error about a packet of no flow.
    IcmpNoFlow = "icmp_no_flow",
    /// An ICMP error about a flow that quotes what is not on its way, or that weir has no use for before a server is connected.
    IcmpIgnored = "icmp_ignored",
    /// The destination address is neither a VIP nor one of weir's own, and the packet belongs to no flow.
    NoAddress = "no_address",
    /// The address is weir's, but no service and no flow is on that port.
    NoService = "no_service",
    /// A TCP segment without SYN that belongs to no flow.
    NoFlow = "no_flow",
    /// TCP flags that no state allows (SYN with FIN or RST, none at all).
    TcpFlags = "tcp_flags",
    /// A TCP segment that its connection does not accept (RFC 9293, 3.10.7.4).
    TcpUnacceptable = "tcp_unacceptable",
    /// The flow table is full.
    FlowTableFull = "flow_table_full",
    /// The limit of incomplete handshakes is reached.
    EmbryonicLimit = "embryonic_limit",
    /// The limit of flows that wait for a decision or a server is reached.
    WaitingLimit = "waiting_limit",
    /// The limit of flows that have a server is reached.
    SplicedLimit = "spliced_limit",
    /// No free SNAT port.
    SnatExhausted = "snat_exhausted",
    /// With `preserve_client_ip`: all servers that could have taken the flow have one of the same client address and port, or the address is weir's own.
    ClientInUse = "client_in_use",
    /// No server of the chosen pool is up.
    NoServer = "no_server",
    /// All servers that could have taken the flow have `max_connections` flows.
    MaxConnections = "max_connections",
    /// Neither a script nor the service chose a pool.
    NoPool = "no_pool",
    /// The script closed the flow.
    ScriptClosed = "script_closed",
    /// The script failed and the service closes such flows.
    ScriptError = "script_error",
    /// A connection from where PROXY headers are accepted began with something else.
    ProxyHeader = "proxy_header",
    /// No route to the next hop.
    NoRoute = "no_route",
    /// The next hop did not answer ARP or ND, or too many packets waited for it.
    NoNeighbor = "no_neighbor",
    /// The packet is larger than the MTU of the port it leaves by.
    TooBig = "too_big",
    /// Datagrams held for a script would exceed the service's buffer.
    HeldLimit = "held_limit",
    /// An ARP or ND message that is malformed or not for weir.
    Neighbor = "neighbor",
    /// The ring to the control thread is full or the control thread did not ask for it.
    Punt = "punt",
    /// The transmit queue did not take the packet.
    TxFull = "tx_full",
    /// No packet buffer for what had to be sent.
    NoBuffer = "no_buffer",
    /// The flow is another worker's, whose queue is full.
    HandOver = "hand_over",
}

/// Counters of one worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Frames received.
    pub rx: u64,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Received frames that left translated.
    pub forwarded: u64,
    /// Frames that other workers received and handed over to this one.
    pub taken_over: u64,
    /// Received frames handed over to the worker that has their flow.
    pub handed_over: u64,
    /// Received frames taken in: handshakes, payload for scripts, ARP, ND, ping, packets for control.
    pub consumed: u64,
    /// Received frames dropped, by [`DropReason`].
    pub dropped: [u64; DropReason::COUNT],
    /// Frames that weir made itself and sent.
    pub originated: u64,
    /// Frames that weir made itself, or had taken in to send them later, and could not send.
    pub originate_failed: u64,
    /// Segments of weir's own that went out more than once: SYN, SYN-ACK, replayed bytes, FIN.
    pub retransmitted: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Flows created.
    pub flows_created: u64,
    /// Flows ended.
    pub flows_ended: u64,
    /// What could not be told to another worker because its queue was full.
    pub news_lost: u64,
    /// Connection records lost because the control thread was too slow.
    pub records_lost: u64,
    /// SYNs answered by a cookie, as far as there was room in the queue of what weir sends.
    pub cookies_sent: u64,
    /// Connections that began with a cookie.
    pub cookies_accepted: u64,
    /// Segments of no flow that acknowledged no cookie, or a used one, while cookies were in use.
    pub cookies_rejected: u64,
    /// Used cookies that were forgotten for lack of room while they could still be believed.
    pub cookies_forgotten: u64,
    /// Incomplete handshakes that gave way to new ones.
    pub embryonic_evicted: u64,
    /// Flows that ended before the client's handshake was complete, those that gave way included. They have no record.
    pub handshakes_incomplete: u64,
    /// Datagrams put together of their fragments.
    pub reassembled: u64,
    /// Datagrams of which a fragment did not come in time.
    pub fragments_expired: u64,
    /// Datagrams without all their fragments that gave way to newer ones.
    pub fragments_evicted: u64,
    /// Packets that were cut into fragments to leave.
    pub fragmented: u64,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            rx: 0,
            rx_bytes: 0,
            forwarded: 0,
            taken_over: 0,
            handed_over: 0,
            consumed: 0,
            dropped: [0; DropReason::COUNT],
            originated: 0,
            originate_failed: 0,
            retransmitted: 0,
            tx_bytes: 0,
            flows_created: 0,
            flows_ended: 0,
            news_lost: 0,
            records_lost: 0,
            cookies_sent: 0,
            cookies_accepted: 0,
            cookies_rejected: 0,
            cookies_forgotten: 0,
            embryonic_evicted: 0,
            handshakes_incomplete: 0,
            reassembled: 0,
            fragments_expired: 0,
            fragments_evicted: 0,
            fragmented: 0,
        }
    }
}

impl Counters {
    /// Counts one dropped packet.
    pub fn drop(&mut self, reason: DropReason) {
        if let Some(counter) = self.dropped.get_mut(reason as usize) {
            *counter += 1;
        }
    }

    /// Count of one reason.
    #[must_use]
    pub fn dropped_for(&self, reason: DropReason) -> u64 {
        self.dropped.get(reason as usize).copied().unwrap_or(0)
    }

    /// All dropped packets.
    #[must_use]
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// `rx + taken_over = forwarded + consumed + dropped + handed_over`.
    #[must_use]
    pub fn balanced(&self) -> bool {
        let gone = self.forwarded + self.consumed + self.dropped_total() + self.handed_over;
        self.rx + self.taken_over == gone
    }

    /// Adds what another worker counted. If both were balanced, so is the sum.
    pub fn add(&mut self, other: &Counters) {
        let Counters {
            rx,
            rx_bytes,
            forwarded,
            taken_over,
            handed_over,
            consumed,
            dropped,
            originated,
            originate_failed,
            retransmitted,
            tx_bytes,
            flows_created,
            flows_ended,
            news_lost,
            records_lost,
            cookies_sent,
            cookies_accepted,
            embryonic_evicted,
            cookies_rejected,
            cookies_forgotten,
            handshakes_incomplete,
            reassembled,
            fragments_expired,
            fragments_evicted,
            fragmented,
        } = other;
        self.rx += rx;
        self.rx_bytes += rx_bytes;
        self.forwarded += forwarded;
        self.taken_over += taken_over;
        self.handed_over += handed_over;
        self.consumed += consumed;
        self.dropped.iter_mut().zip(dropped).for_each(|(sum, count)| *sum += count);
        self.originated += originated;
        self.originate_failed += originate_failed;
        self.retransmitted += retransmitted;
        self.tx_bytes += tx_bytes;
        self.flows_created += flows_created;
        self.flows_ended += flows_ended;
        self.news_lost += news_lost;
        self.records_lost += records_lost;
        self.cookies_sent += cookies_sent;
        self.cookies_accepted += cookies_accepted;
        self.embryonic_evicted += embryonic_evicted;
        self.cookies_rejected += cookies_rejected;
        self.cookies_forgotten += cookies_forgotten;
        self.handshakes_incomplete += handshakes_incomplete;
        self.reassembled += reassembled;
        self.fragments_expired += fragments_expired;
        self.fragments_evicted += fragments_evicted;
        self.fragmented += fragmented;
    }
}
