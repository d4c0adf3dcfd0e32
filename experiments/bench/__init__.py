"""The bench: jaxrl beside its peers in one run. `make bench`, or `python -m experiments.bench NAME ...`.

`cases` says what is measured, `sides` holds one file a library, `worker` is the process of one side, and `measure`
starts the workers, lets them take turns and makes records of what they say.
"""
