"""Machines that models run on: memory, bandwidth and peak FLOPs as their makers state them, with the sheet named.

No machine reaches its peak, so whatever is computed from these is a bound. Peaks are of dense products: NVIDIA's sheets
print tensor cores' FLOPs with sparsity, twice the dense, and many lists elsewhere copy that. A sheet's "80 GB" is taken
as 80 x 10^9 bytes, the more cautious reading.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from llm_core.validation import real, whole


@dataclass(frozen=True)
class Hardware:
    """A machine in a few numbers.

    bytes_per_second: from its memory. flops_per_second: at best, dense 16-bit products (32 where `source` says so).
    memory: bytes; None where nobody asks whether something fits. fp8_flops_per_second: the same for 8-bit floats, None
    where it cannot multiply them. source: whose figures these are.
    """

    name: str
    bytes_per_second: float
    flops_per_second: float
    memory: int | None = None
    fp8_flops_per_second: float | None = None
    source: str = ""

    def __post_init__(self):
        real("bytes_per_second", self.bytes_per_second)
        real("flops_per_second", self.flops_per_second)
        if self.memory is not None:
            whole("memory", self.memory)
        if self.fp8_flops_per_second is not None:
            real("fp8_flops_per_second", self.fp8_flops_per_second)

    def peak(self, weight_bits: int = 16) -> float:
        """FLOPs a second for weights of so many bits.

        8 bits: the FP8 peak, where there is one. Fewer are unpacked and multiplied in 16 bits, as weight-only
        quantisation does. For 32 bits the 16-bit peak is a bound, if a wide one.
        """
        whole("weight_bits", weight_bits)
        fp8 = self.fp8_flops_per_second
        return fp8 if weight_bits == 8 and fp8 is not None else self.flops_per_second

    def times(self, n: int) -> Hardware:
        """n of them, as if work and memory were divided evenly and nothing had to be sent between them."""
        whole("n", n)
        if n == 1:
            return self
        fp8, memory = self.fp8_flops_per_second, self.memory
        return replace(self, name=f"{n} × {self.name}", bytes_per_second=n * self.bytes_per_second,
                       flops_per_second=n * self.flops_per_second, memory=None if memory is None else n * memory,
                       fp8_flops_per_second=None if fp8 is None else n * fp8)


GB = 10**9

HARDWARE = {
    "h200": Hardware("NVIDIA H200 SXM", 4.8e12, 989.5e12, 141 * GB, 1979e12,
                     "NVIDIA, H200 data sheet: 141 GB, 4.8 TB/s, BF16 1,979 / 2 and FP8 3,958 / 2 TFLOPS"),
    "h100": Hardware("NVIDIA H100 SXM (data sheet: 3.35 TB/s, 1,979 / 2 TFLOPS)", 3.35e12, 989.5e12, 80 * GB, 1979e12,
                     "NVIDIA, H100 data sheet: 80 GB, 3.35 TB/s, BF16 1,979 / 2 and FP8 3,958 / 2 TFLOPS"),
    "a100": Hardware("NVIDIA A100 SXM 80 GB (data sheet: 2,039 GB/s, 312 TFLOPS)", 2.039e12, 312e12, 80 * GB, None,
                     "NVIDIA, A100 data sheet: 80 GB, 2,039 GB/s, BF16 312 TFLOPS; no FP8"),
    "mi300x": Hardware("AMD Instinct MI300X", 5.3e12, 1307.4e12, 192 * GB, 2614.9e12,
                       "AMD, Instinct MI300X data sheet: 192 GB, 5.3 TB/s, BF16 1,307.4 and FP8 2,614.9 TFLOPS"),
    "l4": Hardware("NVIDIA L4", 300e9, 121e12, 24 * GB, 242.5e12,
                   "NVIDIA, L4 data sheet: 24 GB, 300 GB/s, BF16 242 / 2 and FP8 485 / 2 TFLOPS"),
    "t4": Hardware("NVIDIA T4", 320e9, 65e12, 16 * GB, None,
                   "NVIDIA, T4 product page: 16 GB, 320 GB/s (the data sheet says 300), FP16 65 TFLOPS; no FP8"),
    "rtx-4090": Hardware("NVIDIA GeForce RTX 4090", 1008e9, 165.2e12, 24 * GB, 330.3e12,
                         "NVIDIA, Ada GPU architecture white paper: 24 GB, 1,008 GB/s, FP16 165.2 and FP8 330.3 "
                         "TFLOPS (sums in FP32)"),
    "rtx-3070": Hardware("NVIDIA GeForce RTX 3070", 448e9, 40.6e12, 8 * GB, None,
                         "NVIDIA, Ampere GA102 white paper, appendix A: 8 GB, 448 GB/s, FP16 40.6 TFLOPS (sums in "
                         "FP32); no FP8"),
    "m1-max": Hardware("MacBook Pro, Apple M1 Max, 64 GB", 400e9, 10.4e12, 64 * GB, None,
                       "Apple, M1 Pro and M1 Max, press release and presentation of 18 October 2021: 64 GB, 400 GB/s, "
                       "10.4 TFLOPS in 32 bits; Apple states none for 16"),
    # Our arithmetic: 2 channels x 8 bytes x 5.6e9; 8 cores x 3e9 x 32 FLOPs (two 8-wide multiply-adds a cycle, fp32).
    "laptop": Hardware("a laptop (8 cores at 3 GHz, two channels of DDR5-5600)", 89.6e9, 768e9, 16 * GB, None,
                       "no data sheet, our arithmetic: 2 channels × 8 bytes × 5.6 GT/s; 8 cores × 3 GHz × 32 FLOPs in "
                       "32 bits; 16 GB as an example"),
}
