"""Max-min fair shares: nobody can get more without taking it from somebody who has less for its weight.

Bertsekas and Gallager, "Data Networks", 6.5.2, with weights: the level rises for all alike, and whoever has what it wants drops out.
"""

from collections.abc import Mapping
from typing import TypeVar

K = TypeVar("K")


def shares(amount: float, wants: Mapping[K, tuple[float, float]]) -> dict[K, float]:
    """`wants`: weight (above 0) and demand of each; a demand may be infinite. The sum is `amount`, or all demands if they are less."""
    found = dict.fromkeys(wants, 0.0)
    left = amount
    weight = sum(one for one, _ in wants.values())
    for key, (own, demand) in sorted(wants.items(), key=lambda item: item[1][1] / item[1][0]):
        found[key] = max(0.0, min(demand, left * own / weight)) if weight > 0 else 0.0
        left -= found[key]
        weight -= own
    return found
