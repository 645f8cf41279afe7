"""The operator classes that rates are measured for; a formula sets the class of its operator."""

from __future__ import annotations

from enum import StrEnum


class ShapeClass(StrEnum):
    """Operators that share a measured rate, and the sizes that the rate depends on.

    Rates in FLOP/s:

    product           dense products: rows, and the length of the sums (a linear's input width)
    biased_product    the same with a bias per column
    grouped           expert products, each row with its own expert: rows of all experts, and the length of the sums
    convolution       the length of the sums: input channels times kernel
    patches           the same for non-overlapping windows, as in patch embedding
    attention         fused attention of many queries: head width, and the positions attended to
    causal_attention  the same under a causal mask; FLOPs are those of all pairs
    biased_attention  the same with a bias added to every score
    single_query      one query per sequence

    Rates in bytes/s, over the bytes of one operator, or of a group of operators that belong together:

    read, write       pointwise operators: bytes read, bytes written
    broadcast         pointwise operators that write far more than they read: also by the length of the innermost axis
    movement          copies to another layout, padding, gathers
    join              a cache extended by one position
    layer_norm        one operator
    activation        GELU and SiLU
    rms_norm          the operators of one RMSNorm together
    rotary            the operators that rotate one tensor, together
    mask              the operators with which transformers builds a mask over pairs of positions, together
    gate              softmax, top K and scaling of router scores, together
    routing           sorting rows by expert: sort, count, gather, scatter, together
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
