"""A property that is asked for often and found out once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class once(Generic[T]):
    """A property that is found out at the first question and then kept: many rows ask the same of one instant."""

    def __init__(self, ask: Callable[[Any], T]) -> None:
        self._ask, self._name, self.__doc__ = ask, ask.__name__, ask.__doc__

    @overload
    def __get__(self, s: None, owner: type[object]) -> Self: ...
    @overload
    def __get__(self, s: object, owner: type[object]) -> T: ...
    def __get__(self, s: object | None, owner: type[object]) -> Self | T:
        if s is None:
            return self
        value = self._ask(s)
        setattr(s, self._name, value)  # from now on found before this descriptor is asked
        return value
