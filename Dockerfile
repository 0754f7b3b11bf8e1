# weir alone, with the packages that it needs at run time.
#
#   docker build -t weir .
#
# On tap devices, which is all that a container needs no card for; no --privileged:
#
#   docker run --rm --cap-drop=ALL --cap-add=NET_ADMIN --device=/dev/net/tun \
#     -v "$PWD/config/examples/minimal.toml:/etc/weir/weir.toml:ro" weir
#
# net_af_packet needs --cap-add=NET_RAW instead of NET_ADMIN and the device. Between containers (net_memif) no capability
# and no root is needed: --cap-drop=ALL --user 65534, with `socket` in [admin] where that user may write. A network card
# of the host needs its vfio device and memory that can be locked: --device=/dev/vfio --ulimit memlock=-1
# --cap-add=IPC_LOCK, and huge pages on the host are then advisable.
# Ask a running weir: docker exec CONTAINER weir show counters

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
      build-essential \
      libclang-dev \
      libdpdk-dev \
      pkg-config \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked

FROM debian:bookworm-slim
# The first group is linked or, as mempool-ring and the buses, loaded at run time without which nothing works. The second
# are drivers; leave out those that you do not use.
RUN apt-get update && apt-get install -y --no-install-recommends \
      librte-bus-pci23 \
      librte-bus-vdev23 \
      librte-eal23 \
      librte-ethdev23 \
      librte-mbuf23 \
      librte-mempool-ring23 \
      librte-mempool23 \
      librte-ring23 \
      \
      librte-net-af-packet23 \
      librte-net-af-xdp23 \
      librte-net-ena23 \
      librte-net-i40e23 \
      librte-net-iavf23 \
      librte-net-ice23 \
      librte-net-ixgbe23 \
      librte-net-memif23 \
      librte-net-mlx5-23 \
      librte-net-null23 \
      librte-net-pcap23 \
      librte-net-ring23 \
      librte-net-tap23 \
      librte-net-virtio23 \
      librte-net-vmxnet3-23 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/release/weir /usr/local/bin/weir
COPY config/examples/minimal.toml /etc/weir/weir.toml
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["run", "--config", "/etc/weir/weir.toml"]
