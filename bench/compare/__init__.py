"""inkstream beside what people use, on the same work in the same run: ``make bench``.

Every contestant is a real process of its own environment. Rounds take turns (A, B, C, A, B, C, …), so that a
busy neighbour meets all of them, and what is compared are differences and ratios within a round.
"""
