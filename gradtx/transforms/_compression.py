# SPDX-License-Identifier: Apache-2.0
"""Companding of gradients: element by element, large values are compressed and differences of small ones spread.

Each function is odd and increasing, and `inverse=True` gives its inverse. Compress before a rule and expand after it,
so that outliers weigh less in its averages; or only compress, as soft clipping. Complex numbers keep their phase.
"""

from typing import Annotated, Any

from gradtx.core._factory import per_parameter, transformation
from gradtx.core._ranges import Limit, Positive, Range
from gradtx.core._transformation import GradientTransformationExtraArgs
from gradtx.numerics import _companding as companding

AtLeastOne = Annotated[Any, Range(low=1.0, example=10.0)]


@transformation
def mu_law_compress(mu: Positive = 127.0, *, inverse: bool = False) -> GradientTransformationExtraArgs:
    """u = sign(g) log(1 + mu |g|) / log(1 + mu), element by element: linear far below 1 / mu, logarithmic above.

    Args:
      mu: the strength of the compression; elements far below 1 / mu are only scaled.
      inverse: True for the inverse, u = sign(g) ((1 + mu)^|g| - 1) / mu.

    Reference: ITU-T 1988, Recommendation G.711, where mu is 255.
    """
    law = companding.mu_law_inverse if inverse else companding.mu_law
    return per_parameter(None, lambda g, slots, p, t: (law(g, mu), slots))


@transformation
def a_law_compress(a: AtLeastOne = 87.6, *, inverse: bool = False) -> GradientTransformationExtraArgs:
    """A-law compression, linear below 1 / a and logarithmic above, element by element:

    ```
    u = sign(g) a |g| / (1 + log a) if |g| < 1 / a else sign(g) (1 + log(a |g|)) / (1 + log a)
    ```

    Args:
      a: where the curve bends, at least 1.
      inverse: True for the inverse, which computes g from u.

    Reference: ITU-T 1988, Recommendation G.711.
    """
    law = companding.a_law_inverse if inverse else companding.a_law
    return per_parameter(None, lambda g, slots, p, t: (law(g, a), slots))


@transformation
def softsign_compress(limit: Limit = 1.0, *, inverse: bool = False) -> GradientTransformationExtraArgs:
    """u = g / (1 + |g| / limit), element by element; |u| is always below the limit.

    Args:
      limit: the bound of |u|; elements far below it pass nearly unchanged.
      inverse: True for the inverse, u = g / (1 - |g| / limit); |g| >= limit counts as the largest number below it.
    """
    law = companding.softsign_inverse if inverse else companding.softsign
    return per_parameter(None, lambda g, slots, p, t: (law(g, limit), slots))
