"""The classes of operators that rates are measured for; a formula says the class of its operator where it is built."""

from __future__ import annotations

from enum import StrEnum


class ShapeClass(StrEnum):
    """Operators that a device treats alike, with what their rate is over.

    In FLOP/s:

    product           dense products: rows, and the length of their sums (a linear's input width)
    biased_product    the same with a bias for every column
    grouped           products of rows that each have an expert: rows of all experts, and the length of their sums
    convolution       the length of their sums: channels in times kernel
    patches           the same where windows do not overlap, as pixels become patches
    attention         fused attention of many queries: head width, and the positions looked at
    causal_attention  the same, each query looking back only; FLOPs are those of all pairs
    biased_attention  the same with a bias added to every score
    single_query      one query a sequence

    In bytes/s, over the bytes of one operator, or of all operators where a few belong together:

    read, write       pointwise operators: what they read, what they write
    broadcast         pointwise operators that write far more than they read: also by the length of the innermost axis
    movement          copies with another layout, padding, gathers
    join              a cache made longer by one position
    layer_norm        one operator
    activation        GELU and SiLU
    rms_norm          the operators of one RMSNorm together
    rotary            the operators that rotate one tensor, together
    mask              a mask over pairs of positions as transformers builds it, together
    gate              softmax, top K and scaling of the scores of a router, together
    routing           rows sorted by expert: sort, count, gather, scatter, together
    """

    PRODUCT = "product"
    BIASED_PRODUCT = "biased_product"
    GROUPED = "grouped"
    CONVOLUTION = "convolution"
    PATCHES = "patches"
    ATTENTION = "attention"
    CAUSAL_ATTENTION = "causal_attention"
    BIASED_ATTENTION = "biased_attention"
    SINGLE_QUERY = "single_query"
    READ = "read"
    WRITE = "write"
    BROADCAST = "broadcast"
    MOVEMENT = "movement"
    JOIN = "join"
    LAYER_NORM = "layer_norm"
    ACTIVATION = "activation"
    RMS_NORM = "rms_norm"
    ROTARY = "rotary"
    MASK = "mask"
    GATE = "gate"
    ROUTING = "routing"
