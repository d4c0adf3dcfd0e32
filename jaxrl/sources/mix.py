"""Several sources in one batch."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxrl.core import BadInput, Batch, PyTree, Recipe, Source, each_key, fold, unknown

# Fields that say how a source sees its samples, and what they are for a source that says nothing.
BOOKKEEPING = {"weight": 1, "index": 0}


def mix(into: str, stand_in: Source | None = None, **named: Source) -> Source:
    """Batches joined from named sources along the leading axis; new transitions go to the one called `into`.

    `mix(into="online", online=uniform(10**6, 128), offline=dataset(data, 128))` draws half of each batch from either:
    each source's own batch size is its share, and the order is that of the names. While a source is empty its share
    is drawn from `into`. What an update learned is handed to each source for its own share (`note`).

    A batch holds the fields that all sources share, `weight` and `index` where any has them (1 and 0 for the others),
    and `source` int32 [B], the number of the source that each sample came from.

    Args:
        stand_in: what draws from the state of `into` for a source that is empty; None is that source itself.

    Raises:
        BadInput: `into` names none of the sources; at trace time, a shared field whose shapes or dtypes differ.
    """
    if into not in named:
        raise unknown("source of mix to add into", into, named)
    order = list(named)
    sizes: dict[str, int] = {}  # of each share; static, and known as soon as `sample` has been traced

    def init(example):
        return {name: source.init(example) for name, source in named.items()}

    def add(s, transitions, ctx):
        return {**s, into: named[into].add(s[into], transitions, ctx)}

    def sample(s, parts, key):
        draw = {name: (lambda key, name=name: named[name].sample(s[name], parts, key)) for name in order}
        kinds = {name: jax.eval_shape(draw[name], key) for name in order}
        sizes.update({name: _size(kind) for name, kind in kinds.items()})
        dress = _dresser(kinds)
        experienced = lambda key: (stand_in or named[into]).sample(s[into], parts, key)

        def for_empty(key, size):
            """`size` samples from `into`, in as many draws as that takes."""
            each = _size(jax.eval_shape(experienced, key))
            batches = jax.vmap(experienced)(each_key(key, -(-size // each)))
            return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:size], batches)

        def share(i, name):
            key_share, size = fold(key, i), sizes[name]
            own = lambda: dress(draw[name](key_share))
            if name == into:
                return {**own(), "source": jnp.full(size, i)}
            some = named[name].size(s[name]) > 0
            batch = jax.lax.cond(some, own, lambda: dress(for_empty(key_share, size)))
            return {**batch, "source": jnp.full(size, jnp.where(some, i, order.index(into)))}

        shares = [share(i, name) for i, name in enumerate(order)]
        return jax.tree.map(lambda *xs: jnp.concatenate(xs), *shares)

    def note(s, batch, metrics):
        total, start, noted = _size(batch), 0, {}
        for i, name in enumerate(order):
            cut = lambda x, start=start, stop=start + sizes[name]: x[start:stop]
            start += sizes[name]
            own = jax.tree.map(cut, batch)
            found = {key: cut(m) if jnp.shape(m)[:1] == (total,) else m for key, m in metrics.items()}
            learn = named[name].note
            if learn is None:
                noted[name] = s[name]
            elif name == into:
                noted[name] = learn(s[name], own, found)
            else:
                # What stood in for an empty source is not its own, so nothing is learned about it.
                was_own = own["source"][0] == i
                noted[name] = jax.lax.cond(was_own, learn, lambda held, *_: held, s[name], own, found)
        return noted

    def size(s):
        return sum(source.size(s[name]) for name, source in named.items())

    noting, whole = any(source.note for source in named.values()), named[into].everything
    everything = None if whole is None else lambda s: whole(s[into])  # what was experienced, as it is `into` that is
    return Source(init, add, sample, size, note if noting else None, everything)


def thinned(source: Source, batch: int) -> Source:
    """A source whose batches are cut to `batch` samples, evenly spread: its share of a `mix`."""

    def sample(s, parts, key):
        whole = source.sample(s, parts, key)
        kept = np.linspace(0, _size(whole) - 1, batch).round().astype(int)
        return jax.tree.map(lambda x: x[kept], whole)

    return replace(source, sample=sample)


def beside(recipe: Recipe, of: int, **named: Source) -> Recipe:
    """The recipe with more sources beside its own, which is called 'online' in the mix and goes on to be added to.

    Its events go on to see what they saw: the run, as if there were its own source alone.

    Args:
        of: samples of a batch that are the recipe's own source's; of 0, that source is drawn from only while another is
            empty.
    """
    events = tuple(event._replace(fn=_through(event.fn)) for event in recipe.events)
    source = mix("online", None if of else recipe.source, online=thinned(recipe.source, of), **named)
    return replace(recipe, source=source, events=events)


def _through(fn: Callable) -> Callable:
    """An event on a run whose source is the one called 'online' in it."""

    def inner(run, ctx):
        after, metrics = fn(run._replace(source=run.source["online"]), ctx)
        return after._replace(source={**run.source, "online": after.source}), metrics

    return inner


def _size(batch: PyTree) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _dresser(kinds: dict[str, Batch]) -> Callable[[Batch], Batch]:
    """A function that gives a batch of any of these sources the fields that they can all have."""
    shared = [name for name in next(iter(kinds.values())) if all(name in kind for kind in kinds.values())]
    filled = {name: kind[name] for kind in kinds.values() for name in BOOKKEEPING if name in kind}
    if not shared:
        raise BadInput(f"mixed sources {', '.join(kinds)} share no field: there is nothing to learn from all of them.")
    for field in shared:
        each = {
            name: jax.tree.map(lambda x: (x.shape[1:], jnp.dtype(x.dtype).name), kind[field])
            for name, kind in kinds.items()
        }
        (first, known), *others = each.items()
        for name, kind in others:
            if kind != known:
                raise BadInput(
                    f"field '{field}' of a mix is {kind} in '{name}' but {known} in '{first}': make them agree."
                )

    def dress(batch):
        size = _size(batch)
        fill = {name: jnp.full((size, *like.shape[1:]), BOOKKEEPING[name], like.dtype) for name, like in filled.items()}
        return {**fill, **{name: batch[name] for name in {**fill, **dict.fromkeys(shared)} if name in batch}}

    return dress
