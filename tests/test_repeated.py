"""No recipe says what another says."""

from experiments.repeated import LIMIT, lines, recipes, repeated, share


def test_what_counts_as_repeated():
    one = lines("import x\na\n\n  b\n# a comment\nc\nd")
    assert one == ["a", "b", "c", "d"]
    found = repeated({"one": one, "other": ["x", "b", "c", "y"], "third": ["z"]}, run=2)
    assert found == {"one": [1, 2], "other": [1, 2], "third": []}
    assert repeated({"alone": ["a", "b", "a", "b"]}, run=2) == {"alone": []}


def test_recipes_share_few_runs_of_six_lines():
    files = recipes()
    shares = {name: share(files[name], numbers) for name, numbers in repeated(files).items()}
    assert {name: of for name, of in shares.items() if of >= LIMIT} == {}
