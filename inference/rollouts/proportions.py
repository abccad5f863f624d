"""Whether a share of bad requests is larger in the challenger than in the champion, by more than a margin. Valid at every look.

Universal inference (Wasserman, Ramdas, Balakrishnan, 2020): what both arms did, under a mixture of all pairs of rates, over what it is at
most under any pair that the claim admits. It needs four counts, so the order of requests does not matter, late ones may come late, and
arms of unequal size are as good as equal ones. It assumes that a rate stays as it is within one step of a rollout.
"""

from math import log
from typing import Final

from inference.rollouts.wealth import Wealth, log_beta, log_mean

# The mixture's prior: bad requests are rare. At 0.1 no bad one among a thousand costs half a nat, where a flat one would cost seven.
_A: Final = 0.1
_B: Final = 0.9
_HALVINGS: Final = 48


def compare(bad: int, n: int, bad_challenger: int, n_challenger: int, margin: float) -> Wealth:
    """The champion's counts, the challenger's, and by how much its rate may be higher, in (-1, 1)."""
    if not n_challenger:
        return Wealth()
    here = _mixture(bad, n) + _mixture(bad_challenger, n_challenger)
    # Who bets for the challenger bets half on both arms being the same: one rate has less to be guessed of than two.
    alike = log_mean((here, _mixture(bad + bad_challenger, n + n_challenger)))
    best = _likelihood(bad, n) + _likelihood(bad_challenger, n_challenger)
    edge = _at_the_margin(bad, n, bad_challenger, n_challenger, margin)
    worse = n > 0 and bad_challenger / n_challenger > bad / n + margin
    # A claim that the counts fit may be as likely as anything; one that they do not fit is likeliest where it ends.
    return Wealth(here - edge, alike - best) if worse else Wealth(here - best, alike - edge)


def _at_the_margin(bad: int, n: int, bad_challenger: int, n_challenger: int, margin: float) -> float:
    """The largest log-likelihood of a pair of rates that differ by exactly the margin. It is concave, so its slope has one zero."""
    good, good_challenger = n - bad, n_challenger - bad_challenger
    low, high = max(0.0, -margin), min(1.0, 1.0 - margin)
    for _ in range(_HALVINGS):
        rate = (low + high) / 2
        other = rate + margin
        slope = (
            bad / _off(rate) - good / _off(1 - rate) + bad_challenger / _off(other) - good_challenger / _off(1 - other)
        )
        low, high = (rate, high) if slope > 0 else (low, rate)
    rate = (low + high) / 2
    return _log_bernoulli(bad, n, rate) + _log_bernoulli(bad_challenger, n_challenger, rate + margin)


def _off(rate: float) -> float:
    """Away from where a rate of exactly nothing is divided by."""
    return max(rate, 1e-12)


def _mixture(bad: int, n: int) -> float:
    return log_beta(bad + _A, n - bad + _B) - log_beta(_A, _B)


def _likelihood(bad: int, n: int) -> float:
    """The largest there is."""
    return _log_bernoulli(bad, n, bad / n) if n else 0.0


def _log_bernoulli(bad: int, n: int, rate: float) -> float:
    return (bad * log(_off(rate)) if bad else 0.0) + ((n - bad) * log(_off(1 - rate)) if n > bad else 0.0)
