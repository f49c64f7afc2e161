"""Every operation of the Lorentz model as a pure function; import it as `import lorentz.functional as LF`.

Points and tangent vectors are (..., n) tensors, the space part; `c` is a float or a tensor of shape (), (1,) or
(..., 1), and the curvature is -c. Points and vectors keep the dtype of the input; times, products, distances and norms
come in float32 or better. Nothing branches on data: all of it traces, differentiates, vectorises.
"""

from lorentz._attention import attention
from lorentz._chart import from_ambient, from_klein, from_poincare, time, to_ambient, to_klein, to_poincare
from lorentz._cone import exterior_angle, half_aperture
from lorentz._distance import dist, dist0, inner, pairwise_dist, pairwise_inner, pairwise_sqdist, sqdist
from lorentz._graph import segment_centroid, segment_softmax
from lorentz._isometry import boost, isometry_inverse, rotate
from lorentz._layers import linear, merge_heads, split_heads
from lorentz._mean import centroid
from lorentz._sampling import wrapped_normal
from lorentz._tangent import egrad2rgrad, expmap, expmap0, geodesic, logmap, logmap0, norm, transp, transp0

__all__ = [
    "attention",
    "boost",
    "centroid",
    "dist",
    "dist0",
    "egrad2rgrad",
    "expmap",
    "expmap0",
    "exterior_angle",
    "from_ambient",
    "from_klein",
    "from_poincare",
    "geodesic",
    "half_aperture",
    "inner",
    "isometry_inverse",
    "linear",
    "logmap",
    "logmap0",
    "merge_heads",
    "norm",
    "pairwise_dist",
    "pairwise_inner",
    "pairwise_sqdist",
    "rotate",
    "segment_centroid",
    "segment_softmax",
    "split_heads",
    "sqdist",
    "time",
    "to_ambient",
    "to_klein",
    "to_poincare",
    "transp",
    "transp0",
    "wrapped_normal",
]
