"""No recipe says what another says."""

from experiments.repeated import LIMIT, lines, repeated, shares


def test_what_counts_as_repeated():
    one = lines("import x\na\n\n  b\n# a comment\nc\nd")
    assert one == ["a", "b", "c", "d"]
    found = repeated({"one": one, "other": ["x", "b", "c", "y"], "third": ["z"]}, run=2)
    assert found == {"one": [1, 2], "other": [1, 2], "third": []}
    assert repeated({"alone": ["a", "b", "a", "b"]}, run=2) == {"alone": []}


def test_recipes_share_few_runs_of_six_lines():
    assert {name: share for name, share in shares().items() if share >= LIMIT} == {}
