"""The linearity engine: pure tensor maths, no models, no data.

`linearity_score` and `fit_linear_map` take two clouds of states at once; `BlockMoments` streams
them, and gives null values, held-out scores and the maps themselves from the same single pass.
"""

from linlib.linearity.few import FewTokens
from linlib.linearity.maps import LinearMap, fit_linear_map, linearity_score
from linlib.linearity.moments import BlockMoments

__all__ = ["BlockMoments", "FewTokens", "LinearMap", "fit_linear_map", "linearity_score"]
