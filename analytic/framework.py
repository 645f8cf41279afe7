"""The cost that a release of transformers or torch adds to that of the architecture: one profile per release line.

Architecture is the same in every release: FLOPs of products, convolutions and attention, parameter counts, the KV cache and
tokens. Glue depends on the release: casts, masks, copies, launches, pointwise arithmetic, operand bytes, parameters stored
in another dtype, and the operators that torch's own counter has formulas for. The layers state both; where releases differ,
or may differ, they read the profile.

To describe a new release, add one instance here: `replace` the changed traits of the previous one, and list the releases
that pass the exact suite. `nox -s drift -- transformers==X.Y.Z` reports the traits that a release needs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib import metadata
from typing import Any, Final, Literal, get_args

GlueDtype = Literal["model", "float32"]
"""The dtype of a step: that of the model, or always float32."""
CacheArgument = Literal["past_key_values", "cache"]

NOT_COST: Final = ("version", "releases", "cache_argument")
"""Profile fields without an effect on cost."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TransformersProfile:
    """The glue of one line of transformers releases.

    version               release line, such as 5.24
    releases              releases verified with the exact suite
    cache_argument        keyword argument of `forward` for the KV cache
    router_weight_dtype   of the router's parameters; the router computes in float32 and casts weights of another dtype
    norm_dtype            of RMSNorm, with a cast before and after it
    rotary_dtype          of the rotary angles; cos and sin are cast to the model's dtype
    softmax_dtype         of the softmax in transformers' own (eager) attention
    expert_sum_dtype      of the weighted sum of the routed experts' outputs
    resize_dtype          of the interpolation of position tables to another map size
    builds_sliding_mask   the decoder builds a sliding-window mask that no full-attention layer uses
    resizes_every_table   SAM interpolates relative position tables even if they have the right length
    """

    version: str
    releases: tuple[str, ...]
    cache_argument: CacheArgument
    router_weight_dtype: GlueDtype
    norm_dtype: GlueDtype
    rotary_dtype: GlueDtype
    softmax_dtype: GlueDtype
    expert_sum_dtype: GlueDtype
    resize_dtype: GlueDtype
    builds_sliding_mask: bool
    resizes_every_table: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchProfile:
    """The glue of one line of torch releases.

    version                release line, such as 2.13
    releases               releases verified with the exact suite, without build suffixes (`+cpu`)
    math_attention_dtype   of SDPA decomposed into its products, as on the meta device
    cpu_statistics_dtype   of the mean and deviation that layer norm writes on a CPU; on other devices they are float32
    counts_grouped_mm      FlopCounterMode has a formula for `_grouped_mm`
    counts_cpu_attention   FlopCounterMode has a formula for SDPA's CPU kernel
    """

    version: str
    releases: tuple[str, ...]
    math_attention_dtype: GlueDtype
    cpu_statistics_dtype: GlueDtype
    counts_grouped_mm: bool
    counts_cpu_attention: bool


TRANSFORMERS_5_20: Final = TransformersProfile(
    version="5.20",
    releases=("5.20.2",),
    cache_argument="past_key_values",
    router_weight_dtype="model",
    norm_dtype="float32",
    rotary_dtype="float32",
    softmax_dtype="float32",
    expert_sum_dtype="float32",
    resize_dtype="float32",
    builds_sliding_mask=True,
    resizes_every_table=True,
)
TRANSFORMERS_5_21: Final = replace(TRANSFORMERS_5_20, version="5.21", releases=("5.21.1",))
TRANSFORMERS_5_22: Final = replace(TRANSFORMERS_5_21, version="5.22", releases=("5.22.2",))
TRANSFORMERS_5_23: Final = replace(TRANSFORMERS_5_22, version="5.23", releases=("5.23.0",))
TRANSFORMERS_5_24: Final = replace(
    TRANSFORMERS_5_23, version="5.24", releases=("5.24.0",), cache_argument="cache", router_weight_dtype="float32"
)
TRANSFORMERS: Final = (TRANSFORMERS_5_20, TRANSFORMERS_5_21, TRANSFORMERS_5_22, TRANSFORMERS_5_23, TRANSFORMERS_5_24)
"""Every known line, oldest first."""

TORCH_2_11: Final = TorchProfile(
    version="2.11",
    releases=("2.11.0",),
    math_attention_dtype="float32",
    cpu_statistics_dtype="model",
    counts_grouped_mm=False,
    counts_cpu_attention=False,
)
TORCH_2_12: Final = replace(TORCH_2_11, version="2.12", releases=("2.12.1",))
TORCH_2_13: Final = replace(TORCH_2_12, version="2.13", releases=("2.13.0",))
TORCH_2_14: Final = replace(TORCH_2_13, version="2.14", releases=("2.14.1",))
TORCH_2_15: Final = replace(TORCH_2_14, version="2.15", releases=("2.15.0",))
TORCH: Final = (TORCH_2_11, TORCH_2_12, TORCH_2_13, TORCH_2_14, TORCH_2_15)
"""Every known line, oldest first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrameworkProfile:
    """The glue of transformers and torch together."""

    transformers: TransformersProfile
    torch: TorchProfile

    def __str__(self) -> str:
        return f"transformers {self.transformers.version}, torch {self.torch.version}"

    def traits(self) -> dict[str, Any]:
        """Every trait that affects cost, by name."""
        return {
            field.name: getattr(profile, field.name)
            for profile in (self.transformers, self.torch)
            for field in fields(profile)
            if field.name not in NOT_COST
        }

    def with_trait(self, name: str, value: Any) -> FrameworkProfile:
        """A copy with one trait changed. Raises ValueError for an unknown trait."""
        for side in ("transformers", "torch"):
            profile = getattr(self, side)
            if name in {field.name for field in fields(profile)} - set(NOT_COST):
                return replace(self, **{side: replace(profile, **{name: value})})
        raise ValueError(f"trait: got {name!r}, accepted: {', '.join(self.traits())}")

    def alternatives(self) -> tuple[tuple[str, Any], ...]:
        """Every (trait, value) that changes one trait of this profile."""
        domains = {True: (False,), False: (True,)} | {
            own: tuple(other for other in get_args(GlueDtype) if other != own) for own in get_args(GlueDtype)
        }
        return tuple((name, other) for name, value in self.traits().items() for other in domains[value])


@dataclass(frozen=True, kw_only=True, slots=True)
class Framework:
    """Releases of transformers and torch, and the profile that describes them, or the nearest one.

    transformers, torch   releases without build suffixes: 5.24.0, 2.13.0
    """

    transformers: str
    torch: str
    profile: FrameworkProfile

    @classmethod
    def of(cls, transformers: str, torch: str) -> Framework:
        """Two releases, each with the profile of its line, else of the newest known line before it, else of the oldest.

        Raises ValueError for a malformed version.
        """
        profile = FrameworkProfile(
            transformers=_nearest("transformers", transformers, TRANSFORMERS), torch=_nearest("torch", torch, TORCH)
        )
        return cls(transformers=_public(transformers), torch=_public(torch), profile=profile)

    @property
    def verified(self) -> bool:
        """Whether both releases are verified with the exact suite."""
        return not self.unverified

    @property
    def unverified(self) -> tuple[str, ...]:
        """Libraries whose release is not verified with the exact suite."""
        pairs = (("transformers", self.profile.transformers), ("torch", self.profile.torch))
        return tuple(name for name, profile in pairs if getattr(self, name) not in profile.releases)

    def notice(self) -> str | None:
        """The unverified releases as a sentence without a full stop; None if all are verified."""
        return notice_of(self.as_json())

    def incomparable(self, other: Framework) -> str | None:
        """Why the glue of the two cannot be compared: `transformers 5.23.0 against 5.24.0`; None if it can.

        Verified releases whose profiles have the same traits can be compared; an unverified release only with itself.
        """
        pairs = (
            ("transformers", self.transformers, other.transformers, self.profile.transformers, other.profile.transformers),
            ("torch", self.torch, other.torch, self.profile.torch, other.profile.torch),
        )
        found = []
        for name, mine, its, old, new in pairs:
            known = mine in old.releases and its in new.releases
            if mine != its and not (known and _cost(old) == _cost(new)):
                found.append(f"{name} {mine} against {its}")
        return "; ".join(found) or None

    def as_json(self) -> dict[str, Any]:
        """The framework as recorded (schemas/record.v5.schema.json)."""
        return {
            "transformers": self.transformers,
            "torch": self.torch,
            "profile": {"transformers": self.profile.transformers.version, "torch": self.profile.torch.version},
            "unverified": list(self.unverified),
        }


NEWEST: Final = Framework(
    transformers=TRANSFORMERS[-1].releases[-1],
    torch=TORCH[-1].releases[-1],
    profile=FrameworkProfile(transformers=TRANSFORMERS[-1], torch=TORCH[-1]),
)
"""The newest verified releases."""


@cache
def installed() -> Framework:
    """The installed releases; the newest verified release of a library that is not installed."""
    found = {}
    for name in ("transformers", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = getattr(NEWEST, name)
    return Framework.of(**found)


def notice_of(recorded: Mapping[str, Any]) -> str | None:
    """The unverified releases in the output of `Framework.as_json`, as a sentence without a full stop; None if none."""
    parts = [
        f"{name} {recorded[name]} is not verified (nearest profile {recorded['profile'][name]})"
        for name in recorded["unverified"]
    ]
    return " and ".join(parts) or None


def _cost(profile: TransformersProfile | TorchProfile) -> dict[str, Any]:
    return {field.name: getattr(profile, field.name) for field in fields(profile) if field.name not in NOT_COST}


def _nearest(library: str, release: str, known: tuple[Any, ...]) -> Any:
    line = _line(library, release)
    before = [profile for profile in known if _line(library, profile.version) <= line]
    return before[-1] if before else known[0]


def _line(library: str, release: str) -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release)
    if found is None:
        raise ValueError(f"{library}: got version {release!r}, accepted: a release such as 5.24.0")
    return int(found[1]), int(found[2])


def _public(release: str) -> str:
    return release.partition("+")[0]
