"""UnsupportedForm: how a rule says that it does not cover a form of its op."""


class UnsupportedForm(Exception):
    """A form of an op that its rule does not cover; the text says which.

    All that enters the op is then pinned, as for an op without a rule, and the text stands in the report. No other
    exception of a rule is caught.
    """
