"""
Tests of reading one table, key by key.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from relaytunnel.config.tables import Table


def digits(text: str) -> str:
    """
    Accept digits.
    """
    if not text.isdigit():
        raise ValueError(f"{text!r}: expected digits")
    return text


class TableTests(SynchronousTestCase):
    """
    A value that is not accepted leaves a line, and has a stand-in.
    """

    def setUp(self) -> None:
        self.faults: list[str] = []

    def table(self, **values: object) -> Table:
        """
        Make a table; underlines in keys are hyphens.
        """
        return Table(
            {key.replace("_", "-"): value for key, value in values.items()},
            "f: [t]",
            self.faults,
        )

    def test_flag(self) -> None:
        """
        A boolean is true or false, and nothing else stands for it.
        """
        table = self.table(yes=True, no=False, one=1, word="true", none=[])
        self.assertIs(table.flag("yes"), True)
        self.assertIs(table.flag("no", True), False)
        self.assertIs(table.flag("missing"), False)
        self.assertIs(table.flag("missing", True), True)
        self.assertEqual(self.faults, [])
        for key in ("one", "word", "none"):
            self.assertIs(table.flag(key, True), True)
        self.assertEqual(
            self.faults,
            [
                "f: [t] one: expected a boolean, given a whole number",
                "f: [t] word: expected a boolean, given a string",
                "f: [t] none: expected a boolean, given a list",
            ],
        )

    def test_whole(self) -> None:
        """
        A whole number is one; a boolean, a fraction and a word are none.
        """
        table = self.table(three=3, less=-3, yes=True, half=0.5, same=3.0, word="3")
        self.assertEqual((table.whole("three", 7), table.whole("less", 7)), (3, -3))
        self.assertEqual(table.whole("missing", 7), 7)
        self.assertEqual(self.faults, [])
        for key in ("yes", "half", "same", "word"):
            self.assertEqual(table.whole(key, 7), 7)
        self.assertEqual(
            self.faults,
            [
                "f: [t] yes: expected a whole number, given a boolean",
                "f: [t] half: expected a whole number, given a number",
                "f: [t] same: expected a whole number, given a number",
                "f: [t] word: expected a whole number, given a string",
            ],
        )

    def pairs(self, value: object) -> tuple[tuple[str, str], ...]:
        return self.table(users=value).pairs("users", str.lower, digits)

    def test_pairs(self) -> None:
        """
        A table of strings is read in its order, both sides of each pair.
        """
        self.assertEqual(self.pairs({"B": "1", "a": "2"}), (("b", "1"), ("a", "2")))
        self.assertEqual(self.pairs({}), ())
        self.assertEqual(self.table().pairs("users", str, str), ())
        self.assertEqual(self.faults, [])

    def test_faulty_pairs(self) -> None:
        """
        A faulty pair has a line with its name; the others are read.
        """
        self.assertEqual(self.pairs({"a": "x", "b": 1, "c": {}, "d": "4"}), (("d", "4"),))
        self.assertEqual(
            self.faults,
            [
                "f: [t] users: 'a': 'x': expected digits",
                "f: [t] users: 'b': expected a string, given a whole number",
                "f: [t] users: 'c': expected a string, given a table",
            ],
        )

    def test_no_pairs(self) -> None:
        """
        What is no table has none.
        """
        for value in ("a", ["a"], 1):
            self.assertEqual(self.pairs(value), ())
        self.assertEqual(len(self.faults), 3)
        self.assertEqual(self.faults[0], "f: [t] users: expected a table, given a string")

    def items(self, value: object) -> tuple[str, ...]:
        def read(item: str | Table) -> str:
            if isinstance(item, str):
                return digits(item)
            item.only("number")
            return item.text("number", digits, "0", must=True)

        return self.table(some_items=value).items("some-items", read, ("default",))

    def test_items(self) -> None:
        """
        A list may have strings and tables, side by side.
        """
        self.assertEqual(self.items(["1", {"number": "2"}, "3"]), ("1", "2", "3"))
        self.assertEqual(self.items([]), ())
        self.assertEqual(self.table().items("x", str, ("default",)), ("default",))
        self.assertEqual(self.faults, [])

    def test_faulty_items(self) -> None:
        """
        A faulty one has a line, in which a table is known by its number; the
        others are read.
        """
        self.assertEqual(self.items(["x", {"numbr": "2"}, 3, {"number": "y"}, "5"])[-1], "5")
        self.assertEqual(
            self.faults,
            [
                "f: [t] some-items: 'x': expected digits",
                "f: [t] some-items number 2: numbr: unknown key; did you mean 'number'?",
                "f: [t] some-items number 2: number: missing",
                "f: [t] some-items: expected a list of strings or tables,"
                " given a whole number in it",
                "f: [t] some-items number 4: number: 'y': expected digits",
            ],
        )

    def test_no_items(self) -> None:
        """
        What is no list, or has nothing that could be read, has the default.
        """
        for value in ("1", {"number": "1"}, ["x"], [1]):
            self.assertEqual(self.items(value), ("default",))
        self.assertEqual(len(self.faults), 4)
