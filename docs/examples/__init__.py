"""The code that the pages of docs/ show, so that tests run what a reader reads."""
