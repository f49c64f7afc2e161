"""Attention on a CPU over short sequences: the weights are held, and the gradients are in closed form.

Where queries and keys are few, products of matrices cost less than the columns that `flash` joins to their rows: times
stay apart here, and where norms put queries and keys at one radius there are none. Values near the origin are averaged
as they are, without a point of reference.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

from lorentz_kernels.attention import closed
from lorentz_kernels.attention.given import Given, Options, added, parse
from lorentz_kernels.precision import Curvature, widen

WEIGHTS = 64 * 64
"""Weights of a head that are held."""
LEVEL = 1 / 64
"""Mean square of a row from which on its norm leaves it at the squared length n up to 64 roundings."""
NEAR = 8.0
"""c v0^2 up to which c (m0^2 - |m|^2) >= 1 loses three bits at most."""


class Short(NamedTuple):
    """The two operators for the tensors that it was made of: (B, H, L, n), and rows' squared lengths (B, H, L, 1)."""

    q_square: Tensor
    k_square: Tensor
    v_square: Tensor
    qk_norm: bool

    @staticmethod
    def of(q: Tensor, k: Tensor, v: Tensor, c: Curvature, qk_norm: bool) -> Short | None:
        """Return the operators if they are exact for what these tensors hold, and nobody has chosen another form."""
        if isinstance(v, FakeTensor) or not (_fits(q, k, v) and torch.backends.cuda.flash_sdp_enabled()):
            return None
        with torch.no_grad():
            q_square, k_square, v_square = (closed.square(widen(x)) for x in (q, k, v))
            near = float(c) * v_square.amax().item() <= NEAR - 1
            level = not qk_norm or min(q_square.amin().item(), k_square.amin().item()) >= LEVEL * q.shape[-1]
        return Short(q_square, k_square, v_square, qk_norm) if near and level else None

    def attention(self, *arguments: Any) -> tuple[Tensor, ...]:
        """Return the points, (B, H, L, m), and what the backward wants; arguments as in `operators.SCHEMA`."""
        given, _, options = parse(arguments)
        c, slope, groups = _curvature(given, options), _slope(given, options), given.q.shape[1] // given.k.shape[1]
        q, k, v = (widen(x) for x in given[:3])
        queries, keys = _scaled(q, slope, self._rate(self.q_square, q)), _scaled(k, 1.0, self._rate(self.k_square, k))
        scores = _by_groups(queries, groups) @ keys.mT
        if not self.qk_norm:
            scores.addcmul_(_by_groups(slope * _time(self.q_square, c), groups), _time(self.k_square, c).mT, value=-1)
        bias, alive = added(given, options)
        scores = scores.view(*queries.shape[:3], -1)
        weights = (scores if bias is None else scores.add_(bias)).softmax(-1)
        grouped = _by_groups(weights, groups)
        mean, m0 = ((grouped @ x).view(*queries.shape[:3], -1) for x in (v, _time(self.v_square, c)))
        factor = (c * (m0.square() - closed.square(mean))).clamp_min_(1).rsqrt_()  # means are inside the sheet
        if alive is not None:
            factor.masked_fill_(~alive, 0.0)
        point = torch.mul(mean, factor, out=_like(given.q, mean)).to(given.q.dtype)
        return point, queries, keys, weights, mean, m0, factor

    def attention_backward(self, grad: Tensor, *arguments: Any) -> tuple[Tensor, ...]:
        r"""Return the gradients of q, k, v, scale and c as in `operators.SCHEMA_BACKWARD`; of c, if it is a tensor.

        The point :math:`y = m / \sqrt{c\,(m_0^2 - |m|^2)} = f m` is homogeneous in the mean of degree 0:

        .. math::
            dm = f\,g + c f^3 (g \cdot m)\,m, \qquad dm_0 = -c f^3 (g \cdot m)\,m_0.
        """
        given, saved, options = parse(arguments)
        queries, keys, weights, mean, m0, factor = saved[1:]
        c, slope, groups = _curvature(given, options), _slope(given, options), given.q.shape[1] // given.k.shape[1]
        q, k, v = (widen(x) for x in given[:3])
        v0, grouped, grad = _time(self.v_square, c), _by_groups(weights, groups), widen(grad)

        along = factor * closed.dot(grad, mean)
        tilt = c * factor.square() * along
        to_mean = _by_groups((factor * grad).addcmul_(mean, tilt), groups)
        to_m0 = _by_groups(-tilt * m0, groups)
        to_v0 = (to_m0.mT @ grouped).mT
        dv = torch.addcmul(grouped.mT @ to_mean, v, to_v0 / v0, out=_like(given.v, v))

        to_scores = (to_mean @ v.mT).addcmul_(to_m0, v0.mT)
        to_scores = torch._softmax_backward_data(to_scores, grouped, -1, grouped.dtype)
        of_queries = (to_scores @ keys).view(queries.shape)
        of_keys = to_scores.mT @ _by_groups(queries, groups)
        q_rate, k_rate = self._rate(self.q_square, q), self._rate(self.k_square, k)
        to_scale = to_c = to_c_of_keys = None
        if given.scale is not None or q_rate is not None:
            dot = closed.dot(of_queries, q)
            to_scale = dot if q_rate is None else dot * q_rate
        if q_rate is not None and k_rate is not None and to_scale is not None:  # dq = r (g - r^2 q (q . g) / n)
            q_along = to_scale * q_rate.square() * (slope / -q.shape[-1])
            k_along = closed.dot(of_keys, k) * k_rate.pow(3) / -k.shape[-1]
            dq, dk = _sum(of_queries, slope * q_rate, q, q_along, given.q), _sum(of_keys, k_rate, k, k_along, given.k)
            of_times: Any = 0.0, 0.0
        else:
            q0, k0 = _time(self.q_square, c), _time(self.k_square, c)
            of_q0 = (to_scores @ k0).neg_().view(q0.shape)
            of_k0 = (_by_groups(slope * q0, groups).mT @ to_scores).mT.neg()
            to_scale = None if to_scale is None else to_scale + of_q0 * q0
            of_times = slope * of_q0 / q0, of_k0 / k0
            dq, dk = _sum(of_queries, slope, q, of_times[0], given.q), _sum(of_keys, 1.0, k, of_times[1], given.k)
        if given.c is not None:
            to_c = along / (-2 * c) - of_times[0] / (2 * c * c)
            to_c_of_keys = (of_times[1] + to_v0 / v0) / (-2 * c * c)
        if to_scale is not None:
            to_scale = options.slope * to_scale
        rows = (mean.new_empty(0) if x is None else x.squeeze(-1) for x in (to_scale, to_c, to_c_of_keys))
        return *(d.to(x.dtype) for d, x in ((dq, given.q), (dk, given.k), (dv, given.v))), *rows

    def _rate(self, square: Tensor, x: Tensor) -> Tensor | None:
        """Return what a norm multiplies rows by, as `naive.at_one_radius` does, none without norms."""
        return (square / x.shape[-1] + torch.finfo(x.dtype).eps).rsqrt_() if self.qk_norm else None


def _fits(q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether these are heads of short sequences on a CPU."""
    if not q.dim() == k.dim() == v.dim() == 4 or not q.shape[0] == k.shape[0] == v.shape[0] or k.shape[1] != v.shape[1]:
        return False
    short = 0 < q.shape[2] * k.shape[2] <= WEIGHTS and q.shape[1] % k.shape[1] == 0
    narrow = all(x.is_floating_point() and x.dtype.itemsize <= 4 for x in (q, k, v))
    return short and narrow and q.device.type == "cpu" and min(q.numel(), v.numel()) > 0


def _curvature(given: Given, options: Options) -> Curvature:
    return options.curvature if given.c is None else given.c.reshape(())


def _slope(given: Given, options: Options) -> float | Tensor:
    return options.slope if given.scale is None else options.slope * given.scale[..., None]


def _time(square: Tensor, c: Curvature) -> Tensor:
    return (square + 1 / c).sqrt_()


def _scaled(x: Tensor, slope: float | Tensor, rate: Tensor | None) -> Tensor:
    """Return slope rate x, in the order (b, h, l, n)."""
    return torch.mul(x, slope if rate is None else slope * rate, out=torch.empty(x.shape, dtype=x.dtype))


def _sum(of_row: Tensor, factor: float | Tensor, x: Tensor, along: Tensor, given: Tensor) -> Tensor:
    """Return factor of_row + along x, with the dimensions in the order of what was given."""
    return torch.mul(of_row, factor, out=_like(given, x)).addcmul_(x, along)


def _by_groups(x: Tensor, groups: int) -> Tensor:
    """Join the query heads of a head of keys: (b, h, l, n) to (b, h / groups, groups * l, n)."""
    return x if groups == 1 else x.reshape(x.shape[0], -1, groups * x.shape[2], x.shape[3])


def _like(given: Tensor, x: Tensor) -> Tensor:
    """Return an empty tensor for x, with the dimensions in the order of what was given."""
    return torch.empty_like(given, dtype=x.dtype) if given.shape == x.shape else torch.empty_like(x)
