"""Which class of the model each category of an annotation JSON is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

from quantization.errors import UserError

SINGLE_CLASS_NAME = "item"  # what both upstreams call the one class of a model trained with --single-cls


@dataclass(frozen=True)
class Category:
    """One category of a JSON.

    Attributes:
        key: its id, in the form that ids are compared in.
        name: its name.
        supercategory: the name of what it is a kind of; empty if it has none.
    """

    key: str
    name: str
    supercategory: str = ""


def is_single_class(classes: int, class_names: Sequence[str]) -> bool:
    """Whether a model may stem from upstream's ``--single-cls``: one class, without a name of its own."""
    return classes == 1 and all(name == SINGLE_CLASS_NAME or name.isdigit() for name in class_names)


def first_moved(names: Sequence[str], others: Sequence[str]) -> int | None:
    """The first class that two lists of the same names have in different places; None: other names, or one order."""
    ours, theirs = list(map(same_name, names)), list(map(same_name, others))
    if sorted(ours) != sorted(theirs):
        return None
    return next((number for number, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]), None)


def same_name(name: str) -> str:
    """The form in which names of classes are compared."""
    return " ".join(name.casefold().split())


def class_map(
    categories: Sequence[Category],
    used: set[str],
    classes: int,
    class_names: Sequence[Sequence[str]],
    source: str,
) -> dict[str, int]:
    """Class number by category key.

    By name where the classes' names are known and every category in use has one of them, otherwise by the order of
    ids, as upstream maps COCO's 91 ids to 80 classes.

    Args:
        categories: in the order of their ids.
        used: keys of the categories that annotations have.
        classes: number of classes of the model.
        class_names: what the classes are called: by the model, by data.yaml; each may be empty.
        source: the JSON, for messages.

    Raises:
        UserError: number or names do not fit.
    """
    for names in class_names:
        by_name = _by_name(categories, used, names)
        if by_name is not None:
            return by_name
    if classes == 1 and len(categories) > 1 and all(is_single_class(1, names) for names in class_names[:1]):
        return {category.key: 0 for category in categories}
    parent = grouping_category(categories, used) if len(categories) == classes + 1 else None
    fitting = [category for category in categories if category is not parent]
    if len(fitting) != classes:
        raise UserError(
            f"{source} has {len(categories)} classes, the model has {classes}: "
            "use the data that the model was trained on"
        )
    for names in class_names:
        _refuse_other_order(fitting, names, source)
    return {category.key: number for number, category in enumerate(fitting)}


def _by_name(categories: Sequence[Category], used: set[str], class_names: Sequence[str]) -> dict[str, int] | None:
    """Class numbers by name; None where the names do not tell."""
    numbers = {same_name(name): number for number, name in enumerate(class_names)}
    names = {category.key: same_name(category.name) for category in categories}
    found = {key: numbers[name] for key, name in names.items() if name in numbers}
    if not found or len(numbers) < len(class_names) or not used <= set(found):
        return None
    if len(set(found.values())) < len(found):  # two categories of one name
        return None
    whole = len(found) == len(names) == len(numbers)
    # numbers instead of names may count from 0 on one side and from 1 on the other
    return found if whole or not all(name.isdigit() for name in numbers) else None


def grouping_category(categories: Sequence[Category], used: set[str]) -> Category | None:
    """The one category that may only group the others, as Roboflow writes it: unused, and first or their parent.

    Args:
        categories: in the order of their ids.
        used: keys of the categories that annotations have.
    """
    parents = {category.supercategory for category in categories}
    for number, category in enumerate(categories):
        if category.key not in used and (number == 0 or category.name in parents - {category.supercategory}):
            return category
    return None


def _refuse_other_order(categories: Sequence[Category], class_names: Sequence[str], source: str) -> None:
    """By order of ids no category may get the class that another one has the name of."""
    numbers = {same_name(name): number for number, name in enumerate(class_names) if not name.isdigit()}
    for number, category in enumerate(categories):
        if numbers.get(same_name(category.name), number) != number:
            raise UserError(
                f"{source} has {category.name} as category number {number + 1}, but the model or data.yaml has it as "
                f"class {numbers[same_name(category.name)]}, and other names differ: give both the same names"
            )
