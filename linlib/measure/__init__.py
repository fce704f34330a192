"""Model x tokens -> one tidy frame: linearity profiles, norms and cosines, per-token errors."""

from linlib.measure.collect import StreamMoments, collect_moments
from linlib.measure.errors import TokenErrors, tail_statistics, token_errors, worst_tokens
from linlib.measure.norms import stream_norms
from linlib.measure.profile import linearity_profile, profile_of_moments

__all__ = [
    "StreamMoments",
    "TokenErrors",
    "collect_moments",
    "linearity_profile",
    "profile_of_moments",
    "stream_norms",
    "tail_statistics",
    "token_errors",
    "worst_tokens",
]
