"""Where passages are in an artefact, for engines that know them by their ids."""

from typing import final

import numpy as np

from retrieval.index.ports import Ids, Mask, Slots


@final
class SlotsOf:
    """Ids in the order of slots, whatever that is."""

    def __init__(self, ids: Ids) -> None:
        self._order = None if bool((np.diff(ids) > 0).all()) else np.argsort(ids)
        self._sorted = ids if self._order is None else ids[self._order]

    @property
    def nbytes(self) -> int:
        return 0 if self._order is None else 2 * self._order.nbytes

    def known(self, ids: Ids) -> Mask:
        """Which of them are there."""
        if not len(self._sorted):
            return np.zeros(len(ids), np.bool_)
        known: Mask = self._sorted[self._at(ids)] == ids
        return known

    def __call__(self, ids: Ids) -> Slots:
        """Of those that are there, in the order given."""
        known = ids[self.known(ids)]
        at = self._at(known)
        return at if self._order is None else self._order[at]

    def _at(self, ids: Ids) -> Slots:
        return np.minimum(np.searchsorted(self._sorted, ids), len(self._sorted) - 1)
