"""Machines: what one rank of a node has, and how ranks are connected."""

from dataclasses import dataclass, replace

from blt.configuration import check, check_range, check_rate

GB, TFLOPS, MICROSECOND = 1e9, 1e12, 1e-6
NVLINK_LATENCY, PCIE_LATENCY, NETWORK_LATENCY = 3.4 * MICROSECOND, 5.7 * MICROSECOND, 9.6 * MICROSECOND
"""Of one hop of a ring, as NCCL's own tuning assumes (`hwLat` in its src/graph/tuning.cc, protocol Simple)."""


@dataclass(frozen=True, kw_only=True)
class MachineConfig:
    """A machine of equal nodes, each of equal ranks; a rank is one GPU, or one process on a CPU."""

    memory: float
    """Bytes of memory of a rank."""
    usable_memory: float = 0.9
    """Share of it that training may fill; the rest is for the driver, communication buffers and fragmentation."""
    float32_flops: float
    """Peak FLOPs per second of a rank in float32."""
    bfloat16_flops: float | None = None
    """Peak in bfloat16 with sums in float32, dense; None: not built in."""
    utilisation: float = 0.4
    """Share of the peak that forward and backward passes reach. An assumption to be replaced by your own figure."""
    memory_bandwidth: float
    """Bytes per second between a rank and its memory."""
    ranks_per_node: int = 1
    """Ranks of a node."""
    bandwidth_inside: float
    """Bytes per second that a rank sends to the others of its node, one way."""
    bandwidth_between: float
    """Bytes per second that a rank sends to other nodes, one way."""
    latency_inside: float = NVLINK_LATENCY
    """Seconds of one hop within a node."""
    latency_between: float = NETWORK_LATENCY
    """Seconds of one hop between nodes."""
    watts: float
    """Power of a rank, its share of the node included."""
    source: str = "given by hand"
    """Where the figures come from."""

    def __post_init__(self) -> None:
        positive = ("memory", "float32_flops", "memory_bandwidth", "bandwidth_inside", "bandwidth_between", "watts")
        for name in positive:
            check_rate(name, getattr(self, name))
        if self.bfloat16_flops is not None:
            check_rate("bfloat16_flops", self.bfloat16_flops)
        for name in ("utilisation", "usable_memory"):
            check(0 < getattr(self, name) <= 1, f"{name}: {getattr(self, name)}; a share, above 0 and at most 1")
        for name in ("latency_inside", "latency_between"):
            check_range(name, getattr(self, name), 0, 1)
        check_range("ranks_per_node", self.ranks_per_node, 1, 2**10)

    def flops(self, *, bfloat16: bool) -> float:
        """Return the peak in one precision; float32's where bfloat16 is not built in."""
        return self.bfloat16_flops if bfloat16 and self.bfloat16_flops is not None else self.float32_flops


_H100_SXM = MachineConfig(
    memory=80 * GB,
    float32_flops=67 * TFLOPS,
    bfloat16_flops=989 * TFLOPS,
    memory_bandwidth=3350 * GB,
    ranks_per_node=8,
    bandwidth_inside=450 * GB,
    bandwidth_between=50 * GB,
    watts=10_200 / 8,
    source="NVIDIA H100 datasheet (SXM, without sparsity); DGX H100 datasheet (8 × 400 Gb/s, 10.2 kW at most)",
)
MACHINES = {
    "h100-sxm": _H100_SXM,
    "h200-sxm": replace(
        _H100_SXM,
        memory=141 * GB,
        memory_bandwidth=4800 * GB,
        source="NVIDIA H200 datasheet (SXM, without sparsity); DGX H200 datasheet (8 × 400 Gb/s, 10.2 kW at most)",
    ),
    "b200-sxm": MachineConfig(
        memory=180 * GB,
        float32_flops=80 * TFLOPS,
        bfloat16_flops=2250 * TFLOPS,
        memory_bandwidth=8000 * GB,
        ranks_per_node=8,
        bandwidth_inside=900 * GB,
        bandwidth_between=50 * GB,
        watts=14_300 / 8,
        source="NVIDIA DGX B200 user guide (1,440 GB, 8 × 400 Gb/s, 14.3 kW at most) and HGX B200 datasheet",
    ),
    "a100-sxm": MachineConfig(
        memory=80 * GB,
        float32_flops=19.5 * TFLOPS,
        bfloat16_flops=312 * TFLOPS,
        memory_bandwidth=2039 * GB,
        ranks_per_node=8,
        bandwidth_inside=300 * GB,
        bandwidth_between=25 * GB,
        watts=6_500 / 8,
        source="NVIDIA A100 80GB datasheet (SXM, without sparsity); DGX A100 datasheet (8 × 200 Gb/s, 6.5 kW at most)",
    ),
    "rtx-4090": MachineConfig(
        memory=24 * GB,
        float32_flops=82.6 * TFLOPS,
        bfloat16_flops=165.2 * TFLOPS,
        utilisation=0.3,
        memory_bandwidth=1008 * GB,
        ranks_per_node=4,
        bandwidth_inside=32 * GB,
        bandwidth_between=1.25 * GB / 4,
        latency_inside=PCIE_LATENCY,
        watts=450.0,
        source="NVIDIA Ada architecture whitepaper (sums in float32, without sparsity; 450 W of the card alone); "
        "PCIe 4.0 × 16 between the cards of a host, 10 Gb/s Ethernet between hosts of four",
    ),
}
"""Published figures by name. The utilisation is assumed: 46 to 51% are published for plain Transformers on H100 nodes
(fms-fsdp, nanochat) and 29% on an RTX 4090 (nanoGPT), and patches vary in length."""


def machine(name: str) -> MachineConfig:
    """Return the machine of that name.

    Raises:
        ConfigurationError: no such machine.
    """
    known = ", ".join(MACHINES)
    check(name in MACHINES, f"machine {name!r} is none of {known}; give one of these, or a TOML file of your own")
    return MACHINES[name]
