"""The paper's experiments on encoders that are at hand: rows as data → merged encoders → probes → a page.

rows         what is compared, read from specs/experiments
making       a row and a pair of encoders → folders of merged encoders
comparisons  differences between rows over the tasks of a domain, with intervals and tests
page         docs/results.md
"""
