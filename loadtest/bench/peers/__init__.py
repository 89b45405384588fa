"""Penstock beside its peers: the same predictions through each, in one run on one machine.

`work` is what is asked and how answers are checked, `fronts` how each peer is started (`servers/` holds the few lines
that a peer needs for the model, `environments` installs each into its own environment), `measure` the figures,
`report` the page. Run by `python -m loadtest.bench.peers` (`make bench`).
"""
