"""Columns that are one matrix: most models want their features side by side, and most clients send numbers of one type."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
class Stacked(Mapping[str, "NDArray[Any]"]):
    """`matrix` is (rows, columns), its columns in the order of `names`. A column by its name is a view.

    `given`: the rows as they came, before they were of the matrix's type, where somebody has them.
    """

    __slots__ = ("given", "matrix", "names")

    def __init__(
        self, names: tuple[str, ...], matrix: "NDArray[Any]", given: Sequence[Sequence[float]] | None = None
    ) -> None:
        self.names = names
        self.matrix = matrix
        self.given = given

    def __getitem__(self, name: str) -> "NDArray[Any]":
        try:
            column: NDArray[Any] = self.matrix[:, self.names.index(name)]
        except ValueError:
            raise KeyError(name) from None
        return column

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
